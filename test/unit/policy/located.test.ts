/** A policy that was kept is the same as one that was just parsed, positions included. */
import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { FormatError } from '../../../src/errors.ts'
import { lintPolicy } from '../../../src/policy/lint.ts'
import { locatedPolicyFromJSON, locatedPolicyToJSON } from '../../../src/policy/located.ts'
import { parseLocatedPolicy } from '../../../src/policy/parse.ts'
import { VOCABULARY } from './sample-kernel.ts'

const EXAMPLES = join(__dirname, '../../../examples/policies')

test('locatedPolicyFromJSON() gives back what locatedPolicyToJSON() took, through JSON text', () => {
  let findings = 0
  for (const name of readdirSync(EXAMPLES).filter(one => one.endsWith('.yaml'))) {
    const text = readFileSync(join(EXAMPLES, name), 'utf8')
    const parsed = parseLocatedPolicy(text, { source: name, vocabulary: VOCABULARY })
    const kept = locatedPolicyFromJSON(JSON.parse(JSON.stringify(locatedPolicyToJSON(parsed))))
    assert.deepEqual(kept.policy, parsed.policy)
    assert.deepEqual(kept.positions, parsed.positions)
    const found = lintPolicy(parsed.policy, VOCABULARY)
    assert.deepEqual(lintPolicy(kept.policy, VOCABULARY), found)
    for (const { path } of found) {
      assert.deepEqual(kept.locate(path), parsed.locate(path), path)
      findings++
    }
    assert.deepEqual(kept.locate('spec.nothing.here[7]'), parsed.locate('spec'))
    assert.deepEqual(kept.locate('nothing'), parsed.locate(''))
  }
  assert.ok(findings > 0)
})

test('locatedPolicyFromJSON() refuses what has no positions, and what has no policy', () => {
  for (const value of [undefined, null, 7, {}, { policy: {} }, { policy: {}, positions: [] }])
    assert.throws(() => locatedPolicyFromJSON(value), FormatError)
})
