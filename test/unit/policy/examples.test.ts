import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { guardNeeds } from '../../../src/policy/guard-needs.ts'
import { lintPolicy } from '../../../src/policy/lint.ts'
import { parsePolicy } from '../../../src/policy/parse.ts'
import { policyFromJSON, policyToJSON } from '../../../src/policy/policy.ts'
import { assessRisk } from '../../../src/policy/risk.ts'
import { VOCABULARY } from './sample-kernel.ts'

const ROOT = join(__dirname, '..', '..', '..')
const EXAMPLES = join(ROOT, 'examples', 'policies')

/** Level and need of the guard of every example; a new example must be added. */
const EXPECTED: Readonly<Record<string, { level: string; needsGuard: boolean }>> = {
  'libbpf-xdp.yaml': { level: 'medium', needsGuard: false },
  'packet-counter.yaml': { level: 'medium', needsGuard: false },
  'socket-filter.yaml': { level: 'low', needsGuard: false },
  'tracing.yaml': { level: 'critical', needsGuard: true },
  'two-maps.yaml': { level: 'low', needsGuard: true },
}

describe('examples/policies', () => {
  test('every example is expected, and every expected one is there', () => {
    const policies = readdirSync(EXAMPLES).filter(name => name.endsWith('.yaml'))
    assert.deepEqual(policies.sort(), Object.keys(EXPECTED))
  })

  for (const [file, { level, needsGuard }] of Object.entries(EXPECTED)) {
    test(`${file} parses, has no warning, and is rated ${level}`, () => {
      const policy = parsePolicy(readFileSync(join(EXAMPLES, file), 'utf8'), {
        source: file,
        vocabulary: VOCABULARY,
      })
      assert.equal(`${policy.name}.yaml`, file)
      assert.deepEqual(
        lintPolicy(policy, VOCABULARY).filter(finding => finding.severity === 'warning'),
        [],
      )
      assert.equal(assessRisk(policy, VOCABULARY).level, level)
      assert.equal(guardNeeds(policy).length > 0, needsGuard)
      assert.deepEqual(policyFromJSON(policyToJSON(policy)), policy)
    })
  }

  test('libbpf-xdp.yaml has what the probes of libbpf need', () => {
    const text = readFileSync(join(EXAMPLES, 'libbpf-xdp.yaml'), 'utf8')
    const policy = parsePolicy(text, { source: 'libbpf-xdp.yaml', vocabulary: VOCABULARY })
    assert.deepEqual(
      lintPolicy(policy, VOCABULARY).map(({ rule }) => rule),
      ['no-subjects'],
    )
  })
})

test('gen-policy-docs.ts --check finds docs/policy.md and docs/policy.schema.json up to date', () => {
  const run = spawnSync(process.execPath, ['--import', 'tsx', 'scripts/gen-policy-docs.ts', '--check'], {
    cwd: ROOT,
  })
  assert.equal(run.status, 0, run.stderr.toString())
})

test('modules other than parse, schema and document load neither zod nor yaml, and no picomatch', () => {
  const script = `
    for (const name of ['policy', 'risk', 'lint', 'attenuate', 'guard-needs', 'mask-text', 'vocabulary', 'decide', 'verdict-text'])
      require('./src/policy/' + name + '.ts')
    const heavy = Object.keys(require.cache).filter(path => /node_modules.(zod|yaml|picomatch)./.test(path))
    process.exit(heavy.length)`
  const run = spawnSync(process.execPath, ['--require', 'tsx/cjs', '-e', script], { cwd: ROOT })
  assert.equal(run.status, 0, run.stderr.toString())
})
