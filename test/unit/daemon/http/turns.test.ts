/** Many requests of one user at one time: they hold up their own user, and nobody else. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import type { Call } from '../../../../src/daemon/service.ts'
import { eventually } from '../../../helpers/eventually.ts'
import { fakeService } from './fake-service.ts'
import { type Lab, lab } from './lab.ts'

/** Handlers that do not answer before they are let: who is in them, in the order in which they came. */
class Gate {
  readonly inside: { uid: number; route: string; answer: () => void }[] = []
  readonly handlers = {
    listLoans: this.#handler('listLoans', { loans: [] }),
    revoke: this.#handler('revoke', { loans: [], complete: true }),
  }

  #handler(route: string, body: object) {
    return ({ asker }: { asker: { uid: number } }) =>
      new Promise<never>(resolve => {
        const one = {
          uid: asker.uid,
          route,
          answer: () => {
            this.inside.splice(this.inside.indexOf(one), 1)
            resolve({ status: 200, body } as never)
          },
        }
        this.inside.push(one)
      })
  }

  of(uid: number, route = 'listLoans') {
    return this.inside.filter(one => one.uid === uid && one.route === route)
  }
}

/** The answers' statuses, in the order in which they were asked for. */
function asks(it: Lab, uid: number, count: number, path = '/v1/loans'): Promise<number>[] {
  it.uid = uid
  const how = path === '/v1/revoke' ? { body: { what: { all: true } } } : {}
  return Array.from({ length: count }, async () => (await it.ask(path, how)).status)
}

async function within(gate: Gate) {
  const service = fakeService(gate.handlers as never)
  return await lab({ service, checkAnswers: false, connections: { perUid: 32, inAll: 64 } })
}

test('of a user who floods one read at a time is answered, while others come in at once', async () => {
  const gate = new Gate()
  await using it = await within(gate)
  const flood = asks(it, 1000, 16)
  await eventually(() => it.server.connections === 16 && gate.of(1000).length > 0, 'it floods')
  const other = asks(it, 1001, 1)
  await eventually(() => gate.of(1001).length === 1, 'another comes in')
  assert.equal(gate.of(1000).length, 1)
  const root = asks(it, 0, 5)
  await eventually(() => gate.of(0).length === 5, 'root comes in, however often')
  const revocations = asks(it, 1000, 6, '/v1/revoke')
  await eventually(() => gate.of(1000, 'revoke').length === 4, 'what acts does not wait for what reads')
  assert.equal(gate.of(1000).length, 1)
  // Each is answered when those before it were.
  const all = Promise.all([...flood, ...other, ...root, ...revocations])
  let most = 0
  await eventually(() => {
    most = Math.max(most, gate.of(1000).length)
    gate.inside[0]?.answer()
    return gate.inside.length === 0 && it.server.connections === 0
  }, 'all are answered')
  assert.equal(most, 1)
  assert.deepEqual(
    (await all).filter(status => status !== 200),
    [],
  )
})

test('a question that waits takes its turn before it is looked at, and gives it up while it waits', async () => {
  const gate = new Gate()
  const answers: (() => void)[] = []
  const showRequest = ({ waits }: Call, { query }: { query: { wait?: number } }) =>
    new Promise<never>(resolve => {
      if (query.wait !== undefined) waits?.()
      answers.push(() => resolve({ status: 200, body: {} } as never))
    })
  const service = fakeService({ ...gate.handlers, showRequest } as never)
  await using it = await lab({ service, checkAnswers: false, connections: { perUid: 32, inAll: 64 } })
  const first = asks(it, 1000, 1)
  await eventually(() => gate.of(1000).length === 1, 'one reads')
  const waiting = asks(it, 1000, 2, '/v1/requests/request-1?wait=60')
  await eventually(() => it.server.connections === 3, 'two would wait')
  await turn()
  assert.equal(answers.length, 0, 'it is not their turn')
  gate.of(1000)[0]!.answer()
  await eventually(() => answers.length === 2, 'both wait now')
  const next = asks(it, 1000, 1)
  await eventually(() => gate.of(1000).length === 1, 'and another one reads')
  gate.of(1000)[0]!.answer()
  for (const answer of answers.splice(0)) answer()
  assert.deepEqual(await Promise.all([...first, ...waiting, ...next]), [200, 200, 200, 200])
  // The same without waiting holds its turn until it is answered.
  const shown = asks(it, 1000, 2, '/v1/requests/request-1')
  await eventually(() => answers.length === 1, 'one is looked at')
  await turn()
  assert.equal(answers.length, 1)
  answers.shift()!()
  await eventually(() => answers.length === 1, 'then the other')
  answers.shift()!()
  assert.deepEqual(await Promise.all(shown), [200, 200])
})

test('a client that goes while it waits for its turn leaves it to the next', async () => {
  const gate = new Gate()
  await using it = await within(gate)
  const first = asks(it, 1000, 1)
  await eventually(() => gate.of(1000).length === 1, 'one is inside')
  const gone = it.connect()
  gone.write('GET /v1/loans HTTP/1.1\r\nHost: a\r\n\r\n')
  await eventually(() => it.server.connections === 2, 'another waits')
  const third = asks(it, 1000, 1)
  await eventually(() => it.server.connections === 3, 'a third waits')
  gone.destroy()
  await eventually(() => it.server.connections === 2, 'the second has gone')
  gate.of(1000)[0]!.answer()
  assert.deepEqual(await Promise.all(first), [200])
  await eventually(() => gate.of(1000).length === 1, 'the third is inside')
  gate.of(1000)[0]!.answer()
  assert.deepEqual(await Promise.all(third), [200])
  assert.equal(gate.inside.length, 0, 'for who has gone nothing is done')
})

test('between two turns of a user who floods another who has come has its own', async () => {
  const order: number[] = []
  let answerFirst: () => void = () => {}
  const first = new Promise<void>(resolve => {
    answerFirst = resolve
  })
  const listLoans = async ({ asker }: { asker: { uid: number } }) => {
    order.push(asker.uid)
    if (order.length === 1) await first
    return { status: 200, body: { loans: [] } }
  }
  const service = fakeService({ listLoans } as never)
  await using it = await lab({ service, checkAnswers: false, connections: { perUid: 32, inAll: 64 } })
  it.uid = 1001
  const other = it.connect()
  await eventually(() => it.server.connections === 1, 'the other is connected')
  const flood = asks(it, 1000, 16)
  await eventually(() => it.server.connections === 17 && order.length === 1, 'one is inside, others wait')
  // Those that wait have been read by then: the flood's next one comes only when it was answered.
  await turn()
  other.write('GET /v1/loans HTTP/1.1\r\nHost: a\r\n\r\n')
  answerFirst()
  assert.ok((await Promise.all(flood)).every(status => status === 200))
  await eventually(() => order.length === 17, 'all are answered')
  other.destroy()
  // The one that was inside, and at most the two whose turn had come before the event loop looked.
  assert.ok(order.indexOf(1001) <= 3, order.join(' '))
})
