/**
 * Readers of objects meet hostile bytes: a short run of test/corpus/fuzz.ts, with known inputs and
 * with new ones.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { needsCorpus } from '../../../corpus/corpus.ts'
import { check, Inputs, seedObjects } from '../../../corpus/hostile.ts'
import { xdpObject } from '../../../helpers/xdp-object.ts'

const FIXED_SEED = 20261124
const EACH_MS = 3500

function run(objects: { name: string; bytes: Buffer }[], seed: number): number {
  const inputs = new Inputs(objects, seed)
  const untilMs = Date.now() + EACH_MS
  let number = 0
  for (; Date.now() < untilMs; number++) {
    const input = inputs.get(number)
    const finding = check(number, input.seed, input.bytes)
    assert.ok(finding === undefined, `--seed ${seed} --case ${number} (${input.seed.name}): ${finding?.what}`)
  }
  return number
}

test('hostile changes of the smallest object give a result or a FormatError', t => {
  t.diagnostic(`${run([{ name: 'smallest', bytes: xdpObject() }], FIXED_SEED)} inputs`)
})

for (const seed of [FIXED_SEED, Date.now() % 2 ** 31])
  test(`hostile changes of the corpus give a result or a FormatError (seed ${seed})`, needsCorpus(), t => {
    t.diagnostic(`${run(seedObjects(), seed)} inputs`)
  })
