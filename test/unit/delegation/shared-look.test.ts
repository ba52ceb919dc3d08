import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SharedLook } from '../../../src/delegation/shared-look.ts'

/** Looks at `there`, and takes until it is let go. */
function looking() {
  const state = { there: 'nobody', begun: 0, go: [] as (() => void)[] }
  const look = new SharedLook(async () => {
    state.begun++
    const seen = state.there
    await new Promise<void>(resolve => state.go.push(resolve))
    return seen
  })
  return { state, look }
}

async function turn(): Promise<void> {
  await new Promise(resolve => setImmediate(resolve))
}

test('SharedLook shares one look among all who ask before it begins', async () => {
  const { state, look } = looking()
  const answers = [look.take(), look.take(), look.take()]
  await turn()
  state.go.shift()!()
  assert.deepEqual(await Promise.all(answers), ['nobody', 'nobody', 'nobody'])
  assert.equal(state.begun, 1)
})

test('SharedLook answers no question with a look that began before it', async () => {
  const { state, look } = looking()
  const before = look.take()
  await turn()
  state.there = 'somebody'
  const after = [look.take(), look.take()]
  await turn()
  assert.equal(state.begun, 1, 'no second look while the first goes on')
  state.go.shift()!()
  assert.equal(await before, 'nobody')
  await turn()
  state.go.shift()!()
  assert.deepEqual(await Promise.all(after), ['somebody', 'somebody'])
  assert.equal(state.begun, 2)
})

test('SharedLook tells a failure to those who waited for it, and looks anew for the next', async () => {
  let fails = true
  const look = new SharedLook(async () => {
    if (fails) throw new Error('cannot look')
    return 'seen'
  })
  const both = await Promise.allSettled([look.take(), look.take()])
  assert.deepEqual(
    both.map(({ status }) => status),
    ['rejected', 'rejected'],
  )
  fails = false
  assert.equal(await look.take(), 'seen')
})
