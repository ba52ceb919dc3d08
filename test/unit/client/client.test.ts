/** The client against what a daemon may do, and what is no daemon at all. */
import assert from 'node:assert/strict'
import { readdirSync } from 'node:fs'
import type { ServerResponse } from 'node:http'
import { test } from 'node:test'
import { ROUTES, type RouteName } from '../../../src/api/routes.ts'
import { Client } from '../../../src/client/client.ts'
import { KEYED, PATHS } from '../../../src/client/paths.ts'
import type { BpftokenError } from '../../../src/errors.ts'
import { FakeDaemon, sayJson, sayProblem } from '../../helpers/fake-daemon.ts'

const LEND = {
  policy: { name: 'dev' },
  recipient: { pidfd: 7 },
  place: { path: '/sys/fs/bpf' },
} as const

/** With this code, and words that match. */
const coded = (code: string, words: RegExp) => (error: unknown) => {
  assert.equal((error as BpftokenError).code, code, String(error))
  assert.match((error as Error).message, words)
  return true
}

test('the table of paths is that of the routes, and each route has a method', () => {
  using client = new Client({ socket: '/none' })
  for (const [name, route] of Object.entries(ROUTES)) {
    assert.equal(PATHS[name as RouteName], `${route.method} ${route.path}`)
    assert.equal(Object.hasOwn(KEYED, name), 'idempotent' in route, name)
    assert.equal(typeof client[name as RouteName], 'function')
  }
  assert.deepEqual(Object.keys(PATHS).sort(), Object.keys(ROUTES).sort())
})

test('parameters, query and body go where they belong, whatever they hold', async () => {
  await using daemon = await FakeDaemon.http((_, to) => sayJson(to, 200, { ok: true }))
  using client = new Client(daemon)
  await client.showLoan({ params: { id: 'loan-7' } })
  await client.showPolicy({ params: { name: '../loans?x=1#y' } })
  await client.listLoans({ query: { limit: 5, unit: 'a b&c=d', state: undefined } })
  await client.renew({ params: { id: 'loan-7' }, body: { lifetimeSec: 60 } })
  await client.reload()
  assert.deepEqual(
    daemon.heard.map(({ line, body }) => [line, body]),
    [
      ['GET /v1/loans/loan-7', undefined],
      ['GET /v1/policies/..%2Floans%3Fx%3D1%23y', undefined],
      ['GET /v1/loans?limit=5&unit=a+b%26c%3Dd', undefined],
      ['POST /v1/loans/loan-7/renew', { lifetimeSec: 60 }],
      ['POST /v1/reload', undefined],
    ],
  )
})

test('connections are kept for what can be asked twice, and for nothing else', async () => {
  await using daemon = await FakeDaemon.http((_, to) => sayJson(to, 200, {}))
  using client = new Client(daemon)
  for (let i = 0; i < 3; i++) await client.status()
  assert.equal(daemon.connections, 1)
  await client.reload()
  assert.equal(daemon.connections, 2)
})

test('a loan is asked for twice with one key where the connection breaks, and is one', async () => {
  const broken = new Set<unknown>()
  await using daemon = await FakeDaemon.http(({ headers }, to) => {
    const key = headers['idempotency-key']
    if (broken.has(key)) return sayJson(to, 201, { loan: {} })
    broken.add(key)
    to.destroy()
  })
  using client = new Client(daemon)
  await client.lend({ body: LEND })
  await client.lend({ body: LEND })
  const keys = daemon.heard.map(({ headers }) => headers['idempotency-key'])
  assert.equal(keys.length, 4)
  assert.deepEqual([keys[0], keys[2]], [keys[1], keys[3]])
  assert.notEqual(keys[0], keys[2])
  await client.lend({ body: LEND }, { idempotencyKey: 'mine' })
  assert.equal(daemon.heard.at(-1)!.headers['idempotency-key'], 'mine')
})

test('what cannot be repeated is not: that it is not known is said', async () => {
  await using daemon = await FakeDaemon.http((_, to) => void to.destroy())
  using client = new Client(daemon)
  const lost = coded('BPFTOKEN_UNREACHABLE', /went away .* is not known/)
  await assert.rejects(client.revoke({ body: { what: { loan: 'loan-1' } } }), lost)
  assert.equal(daemon.heard.length, 1)
  await assert.rejects(client.lend({ body: LEND }), lost)
  assert.equal(daemon.heard.length, 3)
})

test('an answer that ends early is none', async () => {
  await using daemon = await FakeDaemon.http((_, to) => {
    to.writeHead(200, { 'content-type': 'application/json', 'content-length': 100 })
    to.write('{"loans":[', () => to.destroy())
  })
  using client = new Client(daemon)
  await assert.rejects(client.listLoans(), coded('BPFTOKEN_UNREACHABLE', /went away/))
  assert.equal(daemon.heard.length, 2)
})

test('nobody listens: exit 5, and nothing of it is left', async () => {
  const before = readdirSync('/proc/self/fd').length
  await using daemon = await FakeDaemon.http((_, to) => sayJson(to, 200, {}))
  {
    using client = new Client(daemon)
    assert.equal(await client.isReachable(), true)
    await client.status()
  }
  await daemon.stop()
  using client = new Client(daemon)
  assert.equal(await client.isReachable(), false)
  const nobody = coded('BPFTOKEN_UNREACHABLE', /^No daemon answers at /)
  await assert.rejects(client.status(), nobody)
  await assert.rejects(client.status(), { exitStatus: 5 })
  await assert.rejects(async () => {
    const { signal } = new AbortController()
    for await (const _ of client.follow('events', {}, { signal })) assert.fail()
  }, nobody)
  assert.equal(readdirSync('/proc/self/fd').length, before)
})

test('an answer beyond the bound is refused while it comes, with or without an end', async () => {
  let sent = 0
  const endless = (to: ServerResponse): void => {
    const more = (): void => {
      sent += 65536
      if (!to.destroyed) to.write('x'.repeat(65536), () => setImmediate(more))
    }
    more()
  }
  await using daemon = await FakeDaemon.http(({ line }, to) => {
    to.writeHead(line.includes('loan') ? 200 : 500, { 'content-type': 'application/json' })
    endless(to)
  })
  using client = new Client({ socket: daemon.socket, maxAnswerBytes: 2 ** 20 })
  const long = coded('BPFTOKEN_FORMAT', /more than 1048576 bytes/)
  await assert.rejects(client.listLoans(), long)
  await assert.rejects(client.status(), long)
  assert.ok(sent < 2 ** 24, `${sent} bytes were read`)
})

test('what is no daemon of ours', async () => {
  for (const [bytes, code, words] of [
    ['SSH-2.0-OpenSSH_9.9\r\n', 'BPFTOKEN_FORMAT', /speaks none/],
    ['\0\x01\x02\xff', 'BPFTOKEN_FORMAT', /speaks none/],
    ['HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello', 'BPFTOKEN_FORMAT', /no JSON document/],
    ['HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nnull', 'BPFTOKEN_FORMAT', /no JSON document/],
    ['HTTP/1.1 204 No Content\r\n\r\n', 'BPFTOKEN_FORMAT', /no JSON document/],
    ['HTTP/1.1 302 Found\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n', 'BPFTOKEN_INTERNAL', /302/],
    ['HTTP/1.1 502 Bad\r\ncontent-length: 4\r\n\r\noops', 'BPFTOKEN_INTERNAL', /502: oops/],
    [`HTTP/1.1 200 OK\r\nx: ${'y'.repeat(70_000)}\r\n\r\n`, 'BPFTOKEN_FORMAT', /speaks none/],
    ['', 'BPFTOKEN_UNREACHABLE', /went away/],
  ] as const) {
    const daemon = await FakeDaemon.raw(socket => void socket.once('data', () => socket.end(bytes, 'latin1')))
    const client = new Client(daemon)
    try {
      await assert.rejects(client.status(), coded(code, words), JSON.stringify(bytes.slice(0, 40)))
    } finally {
      client.close()
      await daemon[Symbol.asyncDispose]()
    }
  }
})

test('who is silent is waited for until then; who aborts waits no longer', async () => {
  await using daemon = await FakeDaemon.http(() => {})
  using client = new Client(daemon)
  await assert.rejects(
    client.status({}, { timeoutMs: 50 }),
    coded('BPFTOKEN_TIMEOUT', /did not answer in time/),
  )
  const abort = new AbortController()
  const asked = client.status({}, { signal: abort.signal })
  const reason = new Error('enough')
  setImmediate(() => abort.abort(reason))
  await assert.rejects(asked, reason)
  await assert.rejects(client.status({}, { signal: abort.signal }), reason)
})

test('a problem is the error that it names', async () => {
  await using daemon = await FakeDaemon.http((_, to) =>
    sayProblem(to, 403, {
      code: 'BPFTOKEN_DENIED',
      detail: 'Not yours',
      reason: 'subject-refused',
      context: { uid: 1000 },
      trace: [{ policy: 'dev' }],
    }),
  )
  using client = new Client(daemon)
  await assert.rejects(client.status(), {
    ...{ name: 'DeniedError', message: 'Not yours', reason: 'subject-refused', exitStatus: 3 },
    ...{ context: { uid: 1000 }, trace: [{ policy: 'dev' }] },
  })
})

/** Takes that many events, and ends the stream. */
async function take(client: Client, count: number, query = {}): Promise<number[]> {
  const abort = new AbortController()
  const seen: number[] = []
  for await (const { seq } of client.follow('events', { query }, { signal: abort.signal })) {
    seen.push(seq)
    if (seen.length === count) abort.abort()
  }
  return seen
}

const event = (seq: number): string => `id: ${seq}\ndata: {"seq":${seq}}\n\n`

test('a stream goes on from where it was, over a broken connection and a daemon that ends it', async () => {
  await using daemon = await FakeDaemon.http(({ line }, to) => {
    const after = Number(new URL(line.split(' ')[1]!, 'http://x').searchParams.get('after'))
    to.writeHead(200, { 'content-type': 'text/event-stream' })
    // The last event is cut short: it is told when it is there in whole.
    const two = `:\n\n${event(after + 1)}${event(after + 2)}`
    // The daemon says that it stops; or the last event is cut short, and is told when it is whole.
    if (after >= 4) to.end(`${two}event: end\ndata: {"why":"stopping"}\n\n`)
    else to.write(`${two}data: {"seq":`, () => to.destroy())
  })
  using client = new Client(daemon)
  assert.deepEqual(await take(client, 7, { delegation: 3 }), [1, 2, 3, 4, 5, 6, 7])
  assert.deepEqual(
    daemon.heard.map(({ line }) => line),
    ['', '&after=2', '&after=4', '&after=6'].map(after => `GET /v1/events?delegation=3${after}`),
  )
  assert.equal(daemon.heard[0]!.headers.accept, 'text/event-stream')
})

test('a stream finds a daemon that was started anew, and gives up on one that was not', async () => {
  let seq = 0
  await using daemon = await FakeDaemon.http((_, to) => {
    to.writeHead(200, { 'content-type': 'text/event-stream' })
    to.write(event(++seq))
  })
  using client = new Client({ socket: daemon.socket, patienceMs: 300 })
  const { signal } = new AbortController()
  const stream = client.follow('events', {}, { signal })
  assert.equal((await stream.next()).value!.seq, 1)
  await daemon.stop()
  const next = stream.next()
  await new Promise(resolve => setTimeout(resolve, 60))
  await daemon.listen()
  assert.equal((await next).value!.seq, 2)
  await daemon.stop()
  await assert.rejects(stream.next(), coded('BPFTOKEN_UNREACHABLE', /daemon/))
})

test('what a stream cannot be is an error, at once', async () => {
  for (const [type, text, code, words] of [
    ['application/json', '{"events":[]}', 'BPFTOKEN_FORMAT', /no stream/],
    ['text/event-stream', 'data: nonsense\n\n', 'BPFTOKEN_FORMAT', /no JSON/],
    ['text/event-stream', 'data: \xff\n\n', 'BPFTOKEN_FORMAT', /UTF-8/],
    ['text/event-stream', `data: ${'x'.repeat(5000)}`, 'BPFTOKEN_FORMAT', /more than 4096/],
    ['text/event-stream', 'data: x\n'.repeat(1000), 'BPFTOKEN_FORMAT', /more than 4096/],
    [
      ...[
        'text/event-stream',
        'event: end\ndata: {"why":"failed","problem":{"code":"BPFTOKEN_DENIED","detail":"gone"}}\n\n',
      ],
      ...['BPFTOKEN_DENIED', /gone/],
    ],
  ] as [string, string, string, RegExp][]) {
    const daemon = await FakeDaemon.http((_, to) => {
      to.writeHead(200, { 'content-type': type })
      to.end(text, 'latin1')
    })
    const client = new Client({ socket: daemon.socket, maxAnswerBytes: 4096 })
    try {
      await assert.rejects(take(client, 1), coded(code, words), text.slice(0, 40))
      assert.equal(daemon.heard.length, 1)
    } finally {
      client.close()
      await daemon[Symbol.asyncDispose]()
    }
  }
})
