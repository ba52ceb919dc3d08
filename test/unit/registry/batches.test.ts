/** Group commit. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Batches } from '../../../src/registry/batches.ts'

test('one batch at a time, in order; what comes meanwhile is the next one', async () => {
  const written: number[][] = []
  let writing = 0
  const batches = new Batches<number>(async batch => {
    assert.equal(writing++, 0)
    await new Promise(resolve => setImmediate(resolve))
    written.push(batch.map(({ item }) => item))
    writing--
  })
  const first = batches.push(1)
  await Promise.resolve()
  await Promise.resolve()
  await Promise.all([first, batches.push(2), batches.push(3), batches.push(4)])
  assert.deepEqual(written, [[1], [2, 3, 4]])
})

test('whoever pushes right when the last batch is done is not forgotten', async () => {
  for (let turns = 0; turns < 12; turns++) {
    const batches = new Batches<number>(async () => {})
    const first = batches.push(1)
    for (let i = 0; i < turns; i++) await Promise.resolve()
    await batches.push(2)
    await first
  }
})

test('a failed batch fails all of it and no other; one alone can be refused', async () => {
  const batches = new Batches<number>(async batch => {
    for (const { item, refuse } of batch) if (item === 2) refuse(new Error('not two'))
    if (batch.some(({ item }) => item === 9)) throw new Error('disk')
  })
  const outcome = async (items: number[]): Promise<string[]> =>
    (await Promise.allSettled(items.map(item => batches.push(item)))).map(result =>
      result.status === 'rejected' ? result.reason.message : 'done',
    )
  assert.deepEqual(await outcome([1, 2, 3]), ['done', 'not two', 'done'])
  assert.deepEqual(await outcome([1, 2, 9]), ['disk', 'not two', 'disk'])
  assert.deepEqual(await outcome([1]), ['done'])
})

test('what runs alone runs between batches, and idle() waits for all', async () => {
  let writing = false
  const order: string[] = []
  const batches = new Batches<string>(async batch => {
    writing = true
    await new Promise(resolve => setImmediate(resolve))
    writing = false
    order.push(...batch.map(({ item }) => item))
  })
  const pushed = batches.push('a')
  await new Promise(resolve => setImmediate(resolve))
  const alone = batches.alone(async () => {
    assert.equal(writing, false)
    await new Promise(resolve => setImmediate(resolve))
    assert.equal(writing, false)
    order.push('alone')
    return 5
  })
  void batches.push('b')
  await batches.idle()
  assert.deepEqual(order, ['a', 'alone', 'b'])
  assert.equal(await alone, 5)
  await pushed
  await assert.rejects(
    batches.alone(async () => {
      throw new Error('alone')
    }),
    /alone/,
  )
  await batches.push('c')
})

test('writingMs grows while one write takes, and is 0 when nothing is written, also after a failure', async () => {
  let settle!: { done(): void; fail(): void }
  const batches = new Batches<number>(
    () =>
      new Promise((resolve, reject) => {
        settle = { done: resolve, fail: () => reject(new Error('refused')) }
      }),
  )
  assert.equal(batches.writingMs, 0)
  const hung = batches.push(1)
  await new Promise(resolve => setTimeout(resolve, 20))
  const before = batches.writingMs
  assert.ok(before > 0)
  await new Promise(resolve => setTimeout(resolve, 20))
  assert.ok(batches.writingMs > before)
  settle.fail()
  await assert.rejects(hung)
  await batches.idle()
  assert.equal(batches.writingMs, 0)
  // Each write for itself: many that are done are no one that hangs.
  const first = batches.push(2)
  await new Promise(resolve => setTimeout(resolve, 40))
  const long = batches.writingMs
  const second = batches.push(3)
  settle.done()
  await first
  assert.ok(batches.writingMs < long)
  settle.done()
  await second
})
