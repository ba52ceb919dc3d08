/**
 * The guard on paper (src/model/guard) against the guard that runs: random stories of fixed seeds, of
 * which each step has the same verdict, errno and events on both sides. `make guard-stories` plays more.
 *
 *   node --import tsx scripts/vm/vm.ts --kernel 7 --tests test/vm/guard-model.test.ts
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { skip } from './guarded.ts'
import { agree } from './story/agree.ts'
import { guard, withGuard } from './under-guard.ts'

const STORIES = Number(process.env['BPFTOKEN_TEST_STORIES'] ?? 6)
const SEED = Number(process.env['BPFTOKEN_TEST_SEED'] ?? 1)

withGuard()

test('random stories come to the same in the model, with the same events and counts', {
  skip,
}, async t => {
  const { steps, differences, counts } = await agree(guard, STORIES, SEED)
  t.diagnostic(
    `guard stories: ${STORIES} stories, ${steps} steps, ${differences.length} differences, SEED=${SEED}`,
  )
  assert.deepEqual(differences, [])
  const told = [...counts.keys()].filter(what => what.startsWith('told '))
  for (const verdict of ['allowed', 'refused', 'would-refuse'])
    assert.ok(
      told.some(what => what.endsWith(` ${verdict}`)),
      `something is ${verdict}`,
    )
  for (const what of ['token', 'map', 'prog'])
    assert.ok((counts.get(`${what} ok`) ?? 0) > 0, `${what} that is made`)
})
