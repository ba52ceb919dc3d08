/** That the tests which somebody or something names can be run. */
import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { BY_DEFAULT, pathOf, tierOf } from '../../../scripts/tiers.ts'
import { ROOT } from '../../../scripts/tree.ts'

/** Run by test/containers.ts, with a table of its own. */
const OF_ANOTHER_RUNNER = ['containers']

test('each file of tests is of a tier', () => {
  const files = readdirSync(join(ROOT, 'test'), { recursive: true, encoding: 'utf8' })
    .filter(name => name.endsWith('.test.ts'))
    .filter(name => !OF_ANOTHER_RUNNER.includes(name.split('/')[0]!))
  assert.ok(files.length > 300)
  assert.deepEqual(
    files.filter(file => tierOf(join(ROOT, 'test', file)) === undefined),
    [],
  )
  assert.equal(tierOf(join(ROOT, 'test/containers/podman.test.ts')), undefined)
})

test('what the Makefile has scripts/test.ts run is of a tier, and so is what runs by default', () => {
  const makefile = readFileSync(join(ROOT, 'Makefile'), 'utf8').replaceAll('\\\n', ' ')
  const named = [...makefile.matchAll(/scripts\/test\.ts ([a-z][\w/.-]*)/g)].map(match => match[1]!)
  assert.ok(named.includes('test/page/page.test.ts') && named.includes('unit'))
  const isKnown = (name: string): boolean => name === 'vm-all' || tierOf(pathOf(name)) !== undefined
  assert.deepEqual(
    [...named, ...BY_DEFAULT].filter(name => !isKnown(name)),
    [],
  )
})
