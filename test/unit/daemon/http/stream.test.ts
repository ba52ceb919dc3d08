/** Streams of events: what clients get, and what becomes of slow ones. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { eventually } from '../../../helpers/eventually.ts'
import { EVENT, fakeService } from './fake-service.ts'
import { lab, statusOf } from './lab.ts'

const STREAM = { accept: 'text/event-stream' }
const ASK = 'GET /v1/events HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n'
const TIMES = { heartbeatMs: 60_000, slowMs: 60_000 }

/** Until its signal is aborted. */
const forever = (signal: AbortSignal): Promise<void> =>
  new Promise(resolve => signal.addEventListener('abort', () => resolve(), { once: true }))

test('a client that takes event streams gets events with their numbers, then why there are no more', async () => {
  const service = fakeService(
    {},
    {
      async *events() {
        yield EVENT
        yield { ...EVENT, seq: 42 }
      },
    },
  )
  await using it = await lab({ service, streamTimes: TIMES })
  const { status, headers, text } = await it.ask('/v1/events?uid=1000', { headers: STREAM })
  assert.equal(status, 200)
  assert.equal(headers['content-type'], 'text/event-stream; charset=utf-8')
  assert.equal(headers['cache-control'], 'no-store')
  const events = text.split('\n\n')
  assert.equal(events[0], ':')
  assert.equal(events[1], `id: 41\ndata: ${JSON.stringify(EVENT)}`)
  assert.match(events[2]!, /^id: 42\n/)
  assert.equal(events[3], 'event: end\ndata: {"why":"ended"}')
  assert.equal((await it.ask('/v1/events')).headers['content-type'], 'application/json')
})

test('Last-Event-ID says where to go on, unless the address does; it is validated as that is', async () => {
  const service = fakeService()
  await using it = await lab({ service, streamTimes: TIMES })
  const after = (): unknown => (service.asked.at(-1)!.request as { query: { after?: number } }).query.after
  const get = (path: string, id: string) => it.ask(path, { headers: { ...STREAM, 'last-event-id': id } })
  assert.equal((await get('/v1/events', '41')).status, 200)
  assert.equal(after(), 41)
  assert.equal((await get('/v1/events?after=7', '41')).status, 200)
  assert.equal(after(), 7)
  assert.equal((await get('/v1/events', 'x')).status, 400)
  assert.equal((await get('/v1/loans', '3')).status, 200)
})

test('a failure in a stream is told by its last event, and a defect without its words', async () => {
  const service = fakeService(
    {},
    {
      // biome-ignore lint/correctness/useYield: it fails before the first
      async *events() {
        throw new TypeError('password')
      },
    },
  )
  await using it = await lab({ service, streamTimes: TIMES })
  const { text } = await it.ask('/v1/events', { headers: STREAM })
  assert.match(text, /\n\nevent: end\ndata: \{"why":"failed","problem":\{.*"code":"BPFTOKEN_INTERNAL"/)
  assert.doesNotMatch(text, /password/)
  assert.ok(it.entries.some(({ fields }) => String(fields['BPFTOKEN_ERROR']).includes('password')))
})

test('a client that reads nothing is cut, with a last event that says so; one that reads gets all', async () => {
  let taken = 0
  let isLeft = false
  const big = { ...EVENT, name: 'n'.repeat(50_000) }
  const service = fakeService(
    {},
    {
      async *events() {
        isLeft = false
        try {
          for (taken = 0; taken < 200; taken++) yield big
        } finally {
          isLeft = true
        }
      },
    },
  )
  await using it = await lab({ service, streamTimes: { heartbeatMs: 60_000, slowMs: 300 } })
  const slow = it.connect()
  slow.write(ASK)
  slow.pause()
  const cut = (): boolean => it.entries.some(({ fields }) => fields['BPFTOKEN_END'] === 'slow')
  await eventually(cut, 'it is cut')
  assert.ok(taken < 50, `${taken} events were taken for a client that reads none`)
  slow.destroy()

  const { text } = await it.ask('/v1/events', { headers: STREAM })
  assert.equal(text.match(/^id: /gm)!.length, 200)
  assert.match(text, /\{"why":"ended"\}\n\n$/)

  // The last event is there for one that reads again in time.
  await using patient = await lab({ service, streamTimes: { heartbeatMs: 60_000, slowMs: 2000 } })
  isLeft = false
  const late = patient.connect()
  let got = ''
  late.setEncoding('utf8').on('data', part => {
    got += part
  })
  late.pause()
  late.write(ASK)
  await eventually(() => taken > 0 && isLeft, 'the daemon takes no more')
  late.resume()
  await eventually(() => got.endsWith('0\r\n\r\n'), 'the stream ends')
  assert.match(got, /\{"why":"slow"\}\n\n/)
  late.destroy()
})

test('while a stream has nothing to say it shows that the daemon is there', async () => {
  const service = fakeService(
    {},
    {
      async *events({ signal }) {
        yield EVENT
        await forever(signal)
      },
    },
  )
  await using it = await lab({ service, streamTimes: { heartbeatMs: 20, slowMs: 60_000 } })
  const text = await it.raw(ASK, so => (so.match(/^:$/gm)?.length ?? 0) >= 4)
  assert.equal(statusOf(text), 200)
  await eventually(() => it.server.connections === 0, 'it is closed')
})

test('when the daemon stops, streams end and say so, what waits is told, and what acts is finished', async () => {
  let finish = (): void => {}
  const service = fakeService(
    {
      revoke: () =>
        new Promise(resolve => {
          finish = () => resolve({ status: 200, body: { dryRun: false, loans: [], complete: true } })
        }),
    },
    {
      async *listLoans({ signal }) {
        yield { loans: [] }
        await forever(signal)
      },
    },
  )
  await using it = await lab({ service, streamTimes: TIMES })
  const stream = it.ask('/v1/loans', { headers: STREAM })
  const revoke = it.ask('/v1/revoke', { body: { what: { all: true } } })
  await eventually(() => service.asked.length === 2, 'both are asked')
  const stopped = it.server.stop(60_000)
  assert.match((await stream).text, /id: 1\ndata: \{"loans":\[\]\}\n\nevent: end\ndata: \{"why":"stopping"\}/)
  await assert.rejects(it.ask('/v1/status'), { code: 'ENOENT' })
  finish()
  assert.equal((await revoke).status, 200)
  await stopped
})
