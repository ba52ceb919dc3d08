/** Turns of several names: in order, each name on its own, and given up by signal. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import { Turns } from '../../../src/sys/turns.ts'

const never = new AbortController().signal

test('so many of one name have their turn, and the next when one of them ends', async () => {
  const turns = new Turns(2)
  const order: string[] = []
  const take = async (name: string): Promise<Disposable> => {
    const taken = await turns.take('a', never)
    order.push(name)
    return taken!
  }
  const first = await take('first')
  const second = await take('second')
  const third = take('third')
  const fourth = take('fourth')
  await turn()
  assert.deepEqual(order, ['first', 'second'])
  second[Symbol.dispose]()
  const held = await third
  await turn()
  assert.deepEqual(order, ['first', 'second', 'third'])
  first[Symbol.dispose]()
  ;(await fourth)[Symbol.dispose]()
  held[Symbol.dispose]()
  assert.deepEqual(order, ['first', 'second', 'third', 'fourth'])
})

test('another name waits for nobody', async () => {
  const turns = new Turns(1)
  using _ = await turns.take('a', never)
  using other = await turns.take('b', never)
  assert.ok(other)
})

test('who comes before the event loop has looked at others waits, though nobody has the turn', async () => {
  const turns = new Turns(1)
  const first = await turns.take('a', never)
  first![Symbol.dispose]()
  const order: string[] = []
  const ask = async (name: string): Promise<void> => {
    using _ = await turns.take(name, never)
    order.push(name)
  }
  await Promise.all([ask('a'), ask('a'), ask('b')])
  assert.deepEqual(order, ['b', 'a', 'a'])
})

test('who gives up has no turn, and takes none from those behind', async () => {
  const turns = new Turns(1)
  const first = await turns.take('a', never)
  const given = new AbortController()
  const second = turns.take('a', given.signal)
  const third = turns.take('a', never)
  given.abort()
  assert.equal(await second, undefined)
  assert.equal(await turns.take('a', AbortSignal.abort()), undefined)
  first![Symbol.dispose]()
  const last = await third
  assert.ok(last)
  last[Symbol.dispose]()
  // All have ended: it begins anew.
  await turn()
  using again = await turns.take('a', AbortSignal.abort())
  assert.ok(again)
})
