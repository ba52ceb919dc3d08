/** What a mutation does to a decision: the tests of mutations depend on it. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Judge, type Mutation, type Rule } from '../../../src/model/judge.ts'

const rule = (name: string, errno: Rule['errno']): Rule => ({
  name,
  needs: name,
  source: 'none',
  errno: errno!,
})
const [FIRST, SECOND, THIRD] = [rule('first', 'EINVAL'), rule('second', 'EPERM'), rule('third', 'EBADF')]

/** What comes of rules that are asked one after the other. */
function outcome(passed: readonly boolean[], mutation?: Mutation): string {
  const judge = new Judge(mutation)
  for (const [i, one] of [FIRST, SECOND, THIRD].entries()) if (judge.fails(one, passed[i]!, '')) break
  return judge.decision().errno ?? 'ok'
}

const SWAP: Mutation = { kind: 'swap', first: 'first', second: 'second' }

for (const [passed, plain, swapped] of [
  [[true, true, true], 'ok', 'ok'],
  [[false, false, true], 'EINVAL', 'EPERM'],
  [[false, true, false], 'EINVAL', 'EINVAL'],
  [[true, false, false], 'EPERM', 'EPERM'],
  [[true, true, false], 'EBADF', 'EBADF'],
] as const)
  test(`rules that pass ${passed.join()}: ${plain}, and ${swapped} where the first two change places`, () => {
    assert.equal(outcome(passed), plain)
    assert.equal(outcome(passed, SWAP), swapped)
  })

test('a rule that is the last one fails by itself, whatever should have come after it', () => {
  const judge = new Judge(SWAP)
  assert.equal(judge.fails(FIRST, false, ''), false)
  assert.equal(judge.decision().errno, 'EINVAL')
})

test('a rule turned round, one that always passes, and one with another errno', () => {
  assert.equal(outcome([true, true, true], { kind: 'invert', rule: 'second' }), 'EPERM')
  assert.equal(outcome([true, false, true], { kind: 'pass', rule: 'second' }), 'ok')
  assert.equal(outcome([true, false, true], { kind: 'errno', rule: 'second' }), 'EMUTANT')
})
