/**
 * Clients that are slow, many, endless or ambiguous, by bytes as they write them; each with a twin.
 */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { test } from 'node:test'
import { eventually } from '../../../helpers/eventually.ts'
import { fakeService, LOAN } from './fake-service.ts'
import { lab, statusOf } from './lab.ts'

const GET = 'GET /v1/status HTTP/1.1\r\nHost: a\r\n'
const POST = 'POST /v1/revoke HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n'
const BODY = '{"what":{"all":true}}'
const LENGTH = `Content-Length: ${BODY.length}\r\n`
const CLOSE = 'Connection: close\r\n'
const CHUNKED = 'Transfer-Encoding: chunked\r\n'
const TWIN_POST = `${POST}${CLOSE}${LENGTH}\r\n${BODY}`
const TWIN_GET = `${GET}${CLOSE}\r\n`

const chunk = (text: string): string => `${text.length.toString(16)}\r\n${text}\r\n`

/** What is refused, with which status (0: the connection is closed), and its twin that is taken. */
const REFUSED: readonly [name: string, bad: string, status: number, good: string][] = [
  ['two lengths of a body', `${POST}${LENGTH}${CHUNKED}\r\n${BODY}`, 400, TWIN_POST],
  [
    'the same, the other way',
    `${POST}${CHUNKED}${LENGTH}\r\n0\r\n\r\n`,
    400,
    `${POST}${CLOSE}${CHUNKED}\r\n${chunk(BODY)}0\r\n\r\n`,
  ],
  ['a length that stands twice', `${POST}${LENGTH}${LENGTH}\r\n${BODY}`, 400, TWIN_POST],
  ['a length with a sign', `${POST}Content-Length: +2\r\n\r\n{}`, 400, TWIN_POST],
  ['a length beyond 2^64', `${POST}Content-Length: 18446744073709551617\r\n\r\n{}`, 400, TWIN_POST],
  [
    'another coding before chunked',
    `${POST}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n`,
    501,
    `${POST}${CLOSE}Transfer-Encoding: Chunked\r\n\r\n${chunk(BODY)}0\r\n\r\n`,
  ],
  ['a coding that is none', `${POST}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n`, 501, TWIN_POST],
  [
    'a chunk that ends in LF',
    `${POST}${CHUNKED}\r\n15\n${BODY}\n0\n\n`,
    400,
    `${POST}${CLOSE}${CHUNKED}\r\n${chunk(BODY)}0\r\n\r\n`,
  ],
  [
    'a chunk longer than it says',
    `${POST}${CHUNKED}\r\n2\r\n${BODY}\r\n0\r\n\r\n`,
    400,
    `${POST}${CLOSE}${CHUNKED}\r\n${chunk(BODY.slice(0, 5))}${chunk(BODY.slice(5))}0\r\n\r\n`,
  ],
  ['lines that end in LF', 'GET /v1/status HTTP/1.1\nHost: a\n\n', 400, TWIN_GET],
  ['a header that ends in LF', `GET /v1/status HTTP/1.1\r\nHost: a\nX: b\r\n\r\n`, 400, TWIN_GET],
  ['a blank before the colon', 'GET /v1/status HTTP/1.1\r\nHost : a\r\n\r\n', 400, TWIN_GET],
  ['a folded header', `${GET}X: b\r\n c\r\n\r\n`, 400, `${GET}${CLOSE}X: b c\r\n\r\n`],
  ['a zero byte in a header', `${GET}X: b\0c\r\n\r\n`, 400, `${GET}${CLOSE}X: bc\r\n\r\n`],
  ['two hosts', `${GET}Host: b\r\n\r\n`, 400, TWIN_GET],
  ['no host', 'GET /v1/status HTTP/1.1\r\n\r\n', 400, `GET /v1/status HTTP/1.0\r\n\r\n`],
  ['a whole address', `GET http://a/v1/status HTTP/1.1\r\nHost: a\r\n\r\n`, 400, TWIN_GET],
  ['a fragment', `GET /v1/status#a HTTP/1.1\r\nHost: a\r\n\r\n`, 400, TWIN_GET],
  ['HTTP/2.0', 'GET /v1/status HTTP/2.0\r\nHost: a\r\n\r\n', 505, TWIN_GET],
  ['HTTP/0.9', 'GET /v1/status\r\n\r\n', 505, TWIN_GET],
  ['the preface of HTTP/2', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 400, TWIN_GET],
  ['TLS', '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03', 400, TWIN_GET],
  ['a change of protocol', `${GET}Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n`, 400, TWIN_GET],
  [
    'a change to HTTP/2',
    `${GET}Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n`,
    400,
    TWIN_GET,
  ],
  ['a tunnel', 'CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n', 0, TWIN_GET],
  [
    'more bytes of headers than 8 KiB',
    `${GET}X: ${'a'.repeat(8200)}\r\n\r\n`,
    431,
    `${GET}${CLOSE}X: ${'a'.repeat(7000)}\r\n\r\n`,
  ],
  [
    'more headers than 64',
    `${GET}${'X: b\r\n'.repeat(64)}\r\n`,
    431,
    `${GET}${CLOSE}${'X: b\r\n'.repeat(62)}\r\n`,
  ],
  ['a long address', `GET /v1/loans?unit=${'a'.repeat(2048)} HTTP/1.1\r\nHost: a\r\n\r\n`, 414, TWIN_GET],
  ['a body that says it is long', `${POST}Content-Length: 307201\r\n\r\n`, 413, TWIN_POST],
  [
    'an endless body',
    `${POST}${CHUNKED}\r\n${chunk(' '.repeat(65_536)).repeat(6)}`,
    413,
    `${POST}${CLOSE}${CHUNKED}\r\n${chunk(' '.repeat(65_536)).repeat(4)}${chunk(BODY)}0\r\n\r\n`,
  ],
  [
    'endless words behind a chunk length',
    `${POST}${CHUNKED}\r\n1;${'a'.repeat(20_000)}\r\n`,
    400,
    `${POST}${CLOSE}${CHUNKED}\r\n15;a=b\r\n${BODY}\r\n0\r\n\r\n`,
  ],
  ['an expectation that is none', `${POST}${LENGTH}Expect: the-worst\r\n\r\n${BODY}`, 417, TWIN_POST],
  [
    'a long body that asks first',
    `${POST}Content-Length: 400000\r\nExpect: 100-continue\r\n\r\n`,
    413,
    TWIN_POST,
  ],
]

for (const [name, bad, status, good] of REFUSED)
  test(`${name}: ${status === 0 ? 'the connection is closed' : status}, and its twin is answered`, async () => {
    const service = fakeService()
    await using it = await lab({ service })
    const answer = await it.raw(bad)
    assert.equal(statusOf(answer), status, answer)
    assert.equal(answer.match(/HTTP\/1\.1 \d/g)?.length ?? 0, status === 0 ? 0 : 1, 'one answer')
    assert.deepEqual(service.asked, [], 'the service was asked')
    assert.equal(statusOf(await it.raw(good)), 200)
    assert.equal(service.asked.length, 1)
  })

test('100-continue is said before the body comes, and not to a body that is refused', async () => {
  await using it = await lab()
  const socket = it.connect()
  let text = ''
  socket.setEncoding('utf8').on('data', part => {
    text += part
    if (text === 'HTTP/1.1 100 Continue\r\n\r\n') socket.write(BODY)
  })
  socket.write(`${POST}${CLOSE}${LENGTH}Expect: 100-continue\r\n\r\n`)
  await once(socket, 'close')
  assert.match(text, /^HTTP\/1\.1 100 Continue\r\n\r\nHTTP\/1\.1 200 OK\r\n/)
  const plain = `${POST.replace('application/json', 'text/plain')}${LENGTH}Expect: 100-continue\r\n\r\n`
  assert.equal(statusOf(await it.raw(plain)), 415)
})

const SOON = { headersMs: 300, requestMs: 600, idleMs: 900, answerMs: 60_000 }

test('headers that come byte by byte are cut by 408, also on a connection that was answered', async () => {
  await using it = await lab({ deadlines: { ...SOON, requestMs: 60_000, idleMs: 60_000, answerMs: 60_000 } })
  for (const first of ['', `${GET}\r\n`]) {
    const socket = it.connect()
    socket.on('error', () => {})
    let text = ''
    socket.setEncoding('utf8').on('data', part => {
      text += part
    })
    socket.write(first)
    if (first !== '') await eventually(() => text.endsWith('}'), 'the first is answered')
    text = ''
    socket.write(GET)
    const drip = setInterval(() => socket.write('X: b\r\n'), 50)
    await once(socket, 'close')
    clearInterval(drip)
    assert.equal(statusOf(text), 408, text)
  }
  assert.equal(statusOf(await it.raw(TWIN_GET)), 200)
})

test('a body that comes byte by byte is cut by 408, and a slow one that comes in time is not', async () => {
  const service = fakeService()
  await using it = await lab({
    service,
    deadlines: { headersMs: 300, requestMs: 1500, idleMs: 60_000, answerMs: 60_000 },
  })
  const socket = it.connect()
  socket.on('error', () => {})
  let text = ''
  socket.setEncoding('utf8').on('data', part => {
    text += part
  })
  socket.write(`${POST}Content-Length: 1000\r\n\r\n`)
  const drip = setInterval(() => socket.write(' '), 50)
  await once(socket, 'close')
  clearInterval(drip)
  assert.equal(statusOf(text), 408, text)
  assert.deepEqual(service.asked, [])
  const slow = it.connect()
  slow.write(`${POST}${CLOSE}${LENGTH}\r\n${BODY.slice(0, 4)}`)
  setTimeout(() => slow.write(BODY.slice(4)), 100)
  const [answer] = await once(slow.setEncoding('utf8'), 'data')
  assert.equal(statusOf(answer), 200)
})

test('a connection that says nothing is closed, at first soon, between requests later', async () => {
  await using it = await lab({
    deadlines: { headersMs: 200, requestMs: 60_000, idleMs: 60_000, answerMs: 60_000 },
  })
  const [silent, kept] = [it.connect(), it.connect()]
  kept.write(`${GET}\r\n`)
  await once(kept, 'data')
  await once(silent, 'close')
  kept.write(TWIN_GET)
  const [again] = await once(kept.setEncoding('utf8'), 'data')
  assert.equal(statusOf(again), 200)
  await using idle = await lab({
    deadlines: { headersMs: 60_000, requestMs: 60_000, idleMs: 200, answerMs: 60_000 },
  })
  const used = idle.connect()
  used.write(`${GET}\r\n`)
  await once(used.resume(), 'close')
})

test('many silent clients delay no other, up to the limit of each user and of all; root comes in', async () => {
  await using it = await lab({ connections: { perUid: 3, inAll: 5 } })
  const silent = [it.connect(), it.connect(), it.connect()]
  for (const socket of silent) {
    await once(socket, 'connect')
    socket.write(GET)
  }
  await eventually(() => it.server.connections === 3, 'they are there')
  const refused = await it.raw(TWIN_GET)
  assert.equal(statusOf(refused), 429)
  assert.match(refused, /"code":"BPFTOKEN_BUSY"/)
  it.uid = 1001
  assert.equal((await it.ask('/v1/status')).status, 200)
  const others = [it.connect(), it.connect()]
  await eventually(() => it.server.connections === 5, 'these too')
  it.uid = 0
  assert.equal((await it.ask('/v1/status')).status, 200)
  it.uid = 1000
  silent[0]!.destroy()
  await eventually(() => it.server.connections === 4, 'one has gone')
  assert.equal((await it.ask('/v1/status')).status, 200)
  for (const socket of [...silent, ...others]) socket.destroy()
})

test('where all room is taken, who has most loses the oldest to who has fewer; who has as many is refused', async () => {
  await using it = await lab({ connections: { perUid: 4, inAll: 4 } })
  const greedy = [it.connect(), it.connect(), it.connect()]
  for (const socket of greedy) await once(socket, 'connect')
  await eventually(() => it.server.connections === 3, 'they are there')
  it.uid = 1001
  const modest = it.connect()
  await eventually(() => it.server.connections === 4, 'all room is taken')
  const ended: unknown[] = []
  for (const socket of [...greedy, modest]) socket.once('close', () => ended.push(socket))
  it.uid = 1002
  const third = it.connect()
  await once(greedy[0]!.resume(), 'close')
  it.uid = 1003
  const refused = await it.raw(TWIN_GET)
  assert.equal(statusOf(refused), 200, 'greedy had two yet')
  await eventually(() => ended.length === 2 && it.server.connections === 3, 'who asked has gone')
  assert.deepEqual(ended, greedy.slice(0, 2))
  const fourth = it.connect()
  await eventually(() => it.server.connections === 4, 'one each')
  it.uid = 1004
  assert.equal(statusOf(await it.raw(TWIN_GET)), 429)
  for (const socket of [greedy[2]!, modest, third, fourth]) socket.destroy()
})

test('a client that takes nothing of its answer is cut, and one that takes it slowly is not', async () => {
  const bytes = 32 * 1024 * 1024
  const metrics = async () => ({ text: 'x'.repeat(bytes), type: 'text/plain' })
  const deadlines = { headersMs: 60_000, requestMs: 60_000, idleMs: 60_000, answerMs: 3000 }
  await using it = await lab({ metrics, metricsReaders: [1000], deadlines })
  const GET_METRICS = 'GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n'
  const stuck = it.connect()
  const slow = it.connect()
  let taken = 0
  slow.on('data', chunk => {
    taken += chunk.length
    slow.pause()
    setTimeout(() => slow.resume(), taken < 20 * 65_536 ? 300 : 0)
  })
  slow.write(GET_METRICS)
  stuck.write(GET_METRICS)
  await eventually(() => it.server.connections === 2, 'both have asked')
  await eventually(() => it.server.connections === 1, 'who takes nothing is cut')
  await eventually(() => taken > bytes, 'who takes it slowly gets all')
  assert.equal(it.server.connections, 1)
  for (const socket of [stuck, slow]) socket.destroy()
})

test('a request before the answer to the one before it is refused, and that one answered', async () => {
  let finish = (): void => {}
  const service = fakeService({
    showLoan: () =>
      new Promise((_, reject) => {
        finish = () => reject(new Error('later'))
      }),
  })
  await using it = await lab({ service })
  const socket = it.connect()
  let text = ''
  socket.setEncoding('utf8').on('data', part => {
    text += part
  })
  socket.write(`GET /v1/loans/loan-1 HTTP/1.1\r\nHost: a\r\n\r\n${GET}\r\n`)
  await eventually(() => service.asked.length === 1, 'the first is asked')
  finish()
  await once(socket, 'close')
  const statuses = [...text.matchAll(/HTTP\/1\.1 (\d+)/g)].map(([, status]) => status)
  assert.deepEqual(statuses, ['500', '400'])
  assert.equal(service.asked.length, 1)
  assert.equal(await it.raw(`${GET}\r\n`.repeat(3)), '', 'three at once are a flood')
  const twin = it.connect()
  for (let i = 0; i < 2; i++) {
    twin.write(`${GET}\r\n`)
    const [answer] = await once(twin.setEncoding('utf8'), 'data')
    assert.equal(statusOf(answer), 200)
  }
  twin.destroy()
})

test('a client that asks again once it has all of a long answer is answered', async () => {
  const loans = Array.from({ length: 5000 }, () => LOAN)
  await using it = await lab({
    service: fakeService({ listLoans: () => Promise.resolve({ status: 200, body: { loans } }) }),
  })
  const socket = it.connect()
  socket.setEncoding('latin1')
  const closed = once(socket, 'close').then(() => 'closed')
  const request = 'GET /v1/loans HTTP/1.1\r\nHost: a\r\n\r\n'
  for (let i = 0; i < 40; i++) {
    const read = new Promise<string>(resolve => {
      let text = ''
      let whole: number | undefined
      const take = (part: string): void => {
        text += part
        const head = text.indexOf('\r\n\r\n')
        if (head < 0) return
        whole ??= head + 4 + Number(/content-length: (\d+)/i.exec(text)![1])
        if (text.length < whole) return
        socket.off('data', take)
        resolve(text)
      }
      socket.on('data', take)
    })
    socket.write(request)
    assert.equal(statusOf(await Promise.race([read, closed])), 200, `answer ${i}`)
  }
  socket.destroy()
})

test('what comes behind a request and is none closes the connection, after the answer', async () => {
  await using it = await lab()
  const answer = await it.raw(`${GET}\r\nthis is no request\r\n\r\n`)
  assert.equal(statusOf(answer), 200)
  assert.equal(answer.match(/HTTP\/1\.1 \d/g)!.length, 1)
})

test('a client that goes is told to the service by the signal of its call', async () => {
  let signal: AbortSignal | undefined
  const service = fakeService({
    showRequest: call =>
      new Promise((_, reject) => {
        signal = call.signal
        signal.addEventListener('abort', () => reject(new Error('nobody waits')), { once: true })
      }),
  })
  await using it = await lab({ service })
  const socket = it.connect()
  socket.write('GET /v1/requests/request-1?wait=60 HTTP/1.1\r\nHost: a\r\n\r\n')
  await eventually(() => signal !== undefined, 'it is asked')
  assert.equal(signal!.aborted, false)
  socket.destroy()
  await eventually(() => signal!.aborted, 'it is told')
})
