/**
 * The page on the loopback, which every user of the machine and every page in a browser can reach:
 * what each attack gets, and beside it what the page itself gets. As root, as the service is used.
 */
import assert from 'node:assert/strict'
import { existsSync, readFileSync, statSync } from 'node:fs'
import { connect } from 'node:net'
import { type TestContext, test } from 'node:test'
import { CSP } from '../../src/page/gate.ts'
import { cli } from '../helpers/cli.ts'
import { checkedDocument } from '../helpers/documents.ts'
import { eventually } from '../helpers/eventually.ts'
import { type Answer, ask, Page, type Visitor, visitorOf } from '../helpers/page.ts'
import { Scratch } from '../helpers/scratch.ts'
import { type Asked, type FakeService, fakeService } from '../unit/daemon/http/fake-service.ts'
import { type Lab, lab } from '../unit/daemon/http/lab.ts'

interface Stage {
  readonly page: Page
  readonly daemon: Lab
  readonly service: FakeService
}

async function stage(t: TestContext, ...words: string[]): Promise<Stage> {
  const service = fakeService()
  const daemon = await lab({ service })
  daemon.uid = 0
  const page = await Page.start(daemon.path, ...words)
  t.after(async () => {
    await page[Symbol.asyncDispose]()
    await daemon[Symbol.asyncDispose]()
  })
  return { page, daemon, service }
}

/** The answer must be 403 and reveal nothing. */
function assertStranger({ status, text, headers }: Answer, what: string): void {
  assert.deepEqual([status, text], [403, ''], what)
  assert.equal(headers['set-cookie'], undefined, what)
  assert.equal(headers.location, undefined, what)
}

async function assertLooks(page: Page, visitor: Visitor, role: string): Promise<void> {
  const { status, text } = await page.as(visitor, '/look')
  assert.equal(status, 200, text)
  const seen = JSON.parse(text)
  assert.equal(seen.role, role)
  assert.equal(seen.seen.loans[0].id, 'loan-1')
  assert.equal(seen.seen.requests[0].id, 'request-1')
}

const statusOf = (line: string): number => Number(/^HTTP\/1\.1 (\d{3}) /.exec(line)?.[1] ?? 0)

test('the address opens the page, with all that it loads', async t => {
  const { page } = await stage(t)
  const visitor = await page.enter()
  for (const path of ['/', '/page.css', '/page.mjs', '/view.mjs', '/model.mjs']) {
    const { status, headers, text } = await page.ask(path, { headers: { cookie: visitor.cookie } })
    assert.equal(status, 200, path)
    assert.ok(text.length > 100, path)
    assert.match(headers['content-type'] ?? '', /^text\/(html|css|javascript); charset=utf-8$/)
  }
  await assertLooks(page, visitor, 'viewer')
})

test('an address is good once', async t => {
  const { page } = await stage(t)
  const visitor = await page.enter()
  assertStranger(await page.ask(new URL(page.viewer).pathname), 'again')
  await assertLooks(page, visitor, 'viewer')
})

test('an attempt from elsewhere does not use the address up', async t => {
  const { page } = await stage(t)
  const path = new URL(page.viewer).pathname
  assertStranger(
    await page.ask(path, { headers: { 'sec-fetch-site': 'cross-site' } }),
    'a link of another site',
  )
  assertStranger(await page.ask(path, { headers: { host: `localhost:${page.port}` } }), 'another Host')
  assertStranger(await page.ask(path, { headers: { origin: 'http://evil.example' } }), 'another Origin')
  await assertLooks(page, await page.enter(), 'viewer')
})

test('whoever has no cookie gets 403 and nothing else', async t => {
  const { page, service } = await stage(t, '--operator')
  const visitor = await page.enter(page.operator!)
  service.asked.length = 0
  const wrong = visitor.cookie.replace(/=.*/, `=${'A'.repeat(43)}`)
  for (const cookie of [
    undefined,
    '',
    'x=y',
    wrong,
    visitor.cookie.replace(/=.*/, '='),
    `${visitor.cookie}x`,
  ]) {
    const headers: Record<string, string> = cookie === undefined ? {} : { cookie }
    for (const path of [
      '/',
      '/page.mjs',
      '/page.css',
      '/look',
      '/no/such',
      '/index.html',
      `/${'x'.repeat(3000)}`,
    ])
      assertStranger(await page.ask(path, { headers: { ...headers, 'x-bpftoken-key': visitor.key } }), path)
    for (const method of ['POST', 'PUT', 'OPTIONS'])
      assertStranger(await page.ask('/look', { method, headers: { ...page.ours, ...headers } }), method)
    assertStranger(
      await page.ask('/act', {
        body: '{"what":"approve","of":"request-1"}',
        headers: { ...page.ours, ...headers, 'x-bpftoken-key': visitor.key },
      }),
      'act',
    )
  }
  assert.deepEqual(service.asked, [])
  await assertLooks(page, visitor, 'operator')
})

test('a cookie that another port of this machine was sent shows nothing without the key', async t => {
  const { page, service } = await stage(t, '--operator')
  const [viewer, operator] = [await page.enter(), await page.enter(page.operator!)]
  service.asked.length = 0
  for (const key of ['', 'A'.repeat(43), viewer.key]) {
    assertStranger(await page.as({ cookie: operator.cookie, key }, '/look'), key)
    assertStranger(
      await page.act({ cookie: operator.cookie, key }, { what: 'approve', of: 'request-1' }),
      key,
    )
  }
  assertStranger(await page.ask('/look', { headers: { cookie: operator.cookie } }), 'no key')
  assert.deepEqual(service.asked, [])
  await assertLooks(page, operator, 'operator')
})

test('a name that is made to lead here gets nothing: DNS rebinding', async t => {
  const { page } = await stage(t)
  const visitor = await page.enter()
  for (const host of [
    ...[`evil.example:${page.port}`, `localhost:${page.port}`, '127.0.0.1', `127.0.0.1:${page.port + 1}`],
    ...[`127.0.0.1:${page.port}.evil.example`, `[::1]:${page.port}`, `0.0.0.0:${page.port}`],
  ]) {
    assertStranger(await page.as(visitor, '/look', { headers: { host } }), host)
    assertStranger(await page.as(visitor, '/', { headers: { host } }), host)
  }
  await assertLooks(page, visitor, 'viewer')
})

test('another page in the browser gets nothing, with the cookie or without', async t => {
  const { page, service } = await stage(t, '--operator')
  const visitor = await page.enter(page.operator!)
  service.asked.length = 0
  for (const headers of [
    { origin: 'http://evil.example', 'sec-fetch-site': 'cross-site' },
    { origin: 'null', 'sec-fetch-site': 'cross-site' },
    { 'sec-fetch-site': 'cross-site' },
    { origin: `http://127.0.0.1:${page.port + 1}`, 'sec-fetch-site': 'same-site' },
    { 'sec-fetch-site': 'same-site' },
    { origin: `https://${page.host}`, 'sec-fetch-site': 'same-origin' },
  ]) {
    assertStranger(await page.as(visitor, '/', { headers }), JSON.stringify(headers))
    assertStranger(await page.as(visitor, '/look', { headers }), JSON.stringify(headers))
    const { status } = await page.act(visitor, { what: 'approve', of: 'request-1' }, headers)
    assert.equal(status, 403, JSON.stringify(headers))
  }
  assert.deepEqual(service.asked, [])
  await assertLooks(page, visitor, 'operator')
})

test('acts are for an operator that says all that it must', async t => {
  const { page, service } = await stage(t, '--operator')
  const [viewer, operator] = [await page.enter(), await page.enter(page.operator!)]
  const approve = { what: 'approve', of: 'request-1' }
  service.asked.length = 0
  assert.equal((await page.act(viewer, approve)).status, 403)
  const { origin, 'sec-fetch-site': site, 'content-type': type } = page.ours as Record<string, string>
  const body = JSON.stringify(approve)
  const sent = async (headers: Record<string, string>) =>
    (await page.as(operator, '/act', { body, headers })).status
  assert.equal(await sent({ 'sec-fetch-site': site!, 'content-type': type! }), 403, 'no Origin')
  assert.equal(await sent({ origin: origin!, 'content-type': type! }), 403, 'no Sec-Fetch-Site')
  assert.equal(await sent({ origin: origin!, 'sec-fetch-site': site!, 'content-type': 'text/plain' }), 415)
  assert.equal(await sent({ origin: origin!, 'sec-fetch-site': site! }), 415, 'no type')
  for (const wrong of [
    ...['', '{', '[]', '{"what":"look"}', '{"what":"reload","of":"x"}', '{"what":"revoke","of":"request-1"}'],
    ...['{"what":"revoke","of":"loan-1","kill":true}', '{"what":"approve","of":"../../v1/reload"}'],
  ])
    assert.equal((await page.act(operator, wrong)).status, 400, wrong)
  assert.equal((await page.act(operator, ' '.repeat(5000))).status, 413)
  assert.deepEqual(service.asked, [])
  for (const [what, of, route] of [
    ['approve', 'request-1', 'approve'],
    ['deny', 'request-1', 'deny'],
    ['revoke', 'loan-1', 'revoke'],
  ] as const) {
    const { status, text } = await page.act(operator, { what, of })
    assert.equal(status, 200, text)
    assert.match(JSON.parse(text).done, new RegExp(of))
    assert.equal((service.asked as readonly Asked[]).at(-1)?.route, route)
  }
})

test('without --operator there is no address to act with, and nothing acts', async t => {
  const { page, service } = await stage(t)
  assert.equal(page.operator, undefined)
  const viewer = await page.enter()
  service.asked.length = 0
  for (const ask of [
    { what: 'approve', of: 'request-1' },
    { what: 'revoke', of: 'loan-1' },
  ])
    assertStranger(await page.act(viewer, ask), ask.what)
  assert.deepEqual(service.asked, [])
})

test('guessing is answered twenty times at once and then held up, while sessions go on', async t => {
  const { page } = await stage(t, '--operator')
  const viewer = await page.enter()
  const answers = await Promise.all(
    Array.from({ length: 40 }, (_, i) => page.ask(`/enter/${String(i).padStart(43, 'A')}`)),
  )
  const statuses = answers.map(({ status }) => status)
  assert.ok(
    statuses.every(status => status === 403 || status === 429),
    statuses.join(),
  )
  assert.ok(statuses.filter(status => status === 403).length >= 20, statuses.join())
  assert.ok(statuses.includes(429), statuses.join())
  assert.ok(answers.every(({ text }) => text === ''))
  await assertLooks(page, viewer, 'viewer')
  let operator: Visitor | undefined
  await eventually(async () => {
    const answer = await page.ask(new URL(page.operator!).pathname)
    if (answer.status === 303) operator = visitorOf(answer)
    return answer.status === 303
  }, 'the address is never taken again')
  await assertLooks(page, operator!, 'operator')
})

test('every answer says how it may be used: not kept, framed, sniffed, or read by others', async t => {
  const { page } = await stage(t)
  const entered = await page.ask(new URL(page.viewer).pathname)
  const visitor = visitorOf(entered)
  assert.match(
    entered.headers['set-cookie']![0]!,
    new RegExp(`^bpftoken-${page.port}=[A-Za-z0-9_-]{43}; HttpOnly; SameSite=Strict; Path=/$`),
  )
  assert.equal(entered.headers['set-cookie']!.length, 1)
  for (const answer of [
    entered,
    await page.ask('/'),
    await page.as(visitor, '/'),
    await page.as(visitor, '/page.mjs'),
    await page.as(visitor, '/look'),
    await page.as(visitor, '/look', { method: 'PUT', headers: page.ours }),
  ]) {
    const { headers } = answer
    assert.equal(headers['content-security-policy'], CSP)
    assert.equal(headers['cache-control'], 'no-store')
    assert.equal(headers['x-content-type-options'], 'nosniff')
    assert.equal(headers['referrer-policy'], 'no-referrer')
    assert.equal(headers['cross-origin-opener-policy'], 'same-origin')
    assert.equal(headers['cross-origin-resource-policy'], 'same-origin')
    assert.equal(headers['cross-origin-embedder-policy'], 'require-corp')
    assert.equal(headers['access-control-allow-origin'], undefined)
  }
})

test('what is no request, too long, or never ends is refused, and others are served', async t => {
  const { page } = await stage(t)
  const visitor = await page.enter()
  const head = `GET /look HTTP/1.1\r\nHost: ${page.host}\r\nCookie: ${visitor.cookie}\r\nX-Bpftoken-Key: ${visitor.key}\r\n`
  const end = 'Connection: close\r\n\r\n'
  assert.equal(statusOf(await page.raw(`${head}${end}`)), 200, 'the twin of what follows')
  assert.equal(statusOf(await page.raw(`${head}Host: evil.example\r\n${end}`)), 400, 'two hosts')
  assert.equal(statusOf(await page.raw(`${head}Cookie: a=b\r\n${end}`)), 400, 'two cookies')
  assert.equal(statusOf(await page.raw(`${head}Content-Length: 5\r\n${end}GET /`)), 400, 'a body')
  assert.ok(
    [0, 400].includes(
      statusOf(await page.raw(`${head}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n${end}`)),
    ),
  )
  assert.ok([0, 400].includes(statusOf(await page.raw('\x16\x03\x01 no HTTP at all\r\n\r\n'))))
  assert.ok([0, 400].includes(statusOf(await page.raw(`GET / HTTP/1.1\r\n\r\n`))), 'no host')
  assert.ok([0, 400, 431].includes(statusOf(await page.raw(`${head}X-Long: ${'x'.repeat(9000)}\r\n${end}`))))
  assert.equal(statusOf(await page.raw(`${head}${'X: y\r\n'.repeat(70)}${end}`)), 431)
  assert.ok(
    [0, 403].includes(statusOf(await page.raw(`${head}Expect: 100-continue\r\nContent-Length: 9\r\n${end}`))),
  )
  // Headers that never end are not waited for, and hold up nobody.
  const slow = Array.from({ length: 32 }, () => {
    const socket = connect({ host: '127.0.0.1', port: page.port })
    socket
      .resume()
      .on('error', () => {})
      .write(head)
    return socket
  })
  await assertLooks(page, visitor, 'viewer')
  await eventually(() => slow.every(({ destroyed }) => destroyed), 'slow connections are never closed')
  await assertLooks(page, visitor, 'viewer')
})

test('browsers speak to a process without rights, which others of its user cannot look into', async t => {
  const { page } = await stage(t)
  const pid = childOf(page.child.pid!)
  const status = readFileSync(`/proc/${pid}/status`, 'utf8')
  const field = (name: string) => new RegExp(`(?:^|\n)${name}:[ \\t]*(.*)`).exec(status)?.[1]?.trim()
  assert.equal(field('Uid'), '65534\t65534\t65534\t65534')
  assert.match(field('Gid')!, /^(\d+)\t\1\t\1\t\1$/)
  assert.doesNotMatch(field('Gid')!, /^0\t/)
  assert.equal(field('Groups'), '')
  assert.equal(field('CapEff'), '0000000000000000')
  assert.equal(field('CapPrm'), '0000000000000000')
  // What may not be dumped is root's below /proc, and can be traced by root alone.
  assert.equal(statSync(`/proc/${pid}/mem`).uid, 0)
  assert.equal(readFileSync(`/proc/${pid}/environ`, 'utf8'), '')
  const parent = readFileSync(`/proc/${page.child.pid}/status`, 'utf8')
  assert.match(parent, /\nUid:\s*0\t0\t0\t0\n/)
  await assertLooks(page, await page.enter(), 'viewer')
})

const gone = (pid: number): Promise<void> => eventually(() => !runs(pid), `${pid} still runs`)

for (const [signal, status] of [
  ['SIGINT', 130],
  ['SIGTERM', 143],
  ['SIGHUP', 129],
  ['SIGKILL', 'SIGKILL'],
] as const)
  test(`${signal} ends the page, and the process that browsers speak to`, async t => {
    const { page } = await stage(t)
    const pid = childOf(page.child.pid!)
    assert.equal(await page.end(signal), status)
    await gone(pid)
  })

test('the process that browsers speak to ends: so does the page, and says so', async t => {
  const { page } = await stage(t)
  process.kill(childOf(page.child.pid!), 'SIGKILL')
  await eventually(() => page.child.exitCode !== null, 'page goes on')
  assert.equal(page.child.exitCode, 1)
  assert.match(page.stderr, /has ended/)
})

/** Whether the process runs. One that has ended may wait for its parent to notice. */
function runs(pid: number): boolean {
  try {
    return !/\nState:\s*Z/.test(readFileSync(`/proc/${pid}/status`, 'utf8'))
  } catch {
    return false
  }
}

function childOf(pid: number): number {
  const [child, ...more] = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8')
    .trim()
    .split(' ')
    .map(Number)
  assert.deepEqual(more, [])
  return child!
}

test('on a Unix socket it is for its owner alone, and the socket goes with it', async t => {
  using scratch = new Scratch()
  const socketPath = `${scratch.path}/page.sock`
  const { page } = await stage(t, '--listen', `unix:${socketPath}`, '--host', 'localhost:8123')
  assert.ok(page.viewer.startsWith('http://localhost:8123/enter/'), page.viewer)
  assert.equal(statSync(socketPath).mode & 0o777, 0o600)
  assert.equal(statSync(socketPath).uid, 0)
  const path = new URL(page.viewer).pathname
  assertStranger(await ask({ socketPath }, path, { headers: { host: 'localhost' } }), 'another Host')
  const { cookie, key } = visitorOf(await ask({ socketPath }, path, { headers: { host: 'localhost:8123' } }))
  const headers = { host: 'localhost:8123', cookie, 'x-bpftoken-key': key }
  assert.equal((await ask({ socketPath }, '/look', { headers })).status, 200)
  const second = await cli([
    'page',
    '--socket',
    page.child.spawnargs.at(page.child.spawnargs.indexOf('--socket') + 1)!,
    '--listen',
    `unix:${socketPath}`,
  ])
  assert.equal(second.status, 1)
  assert.match(second.stderr, /Something listens/)
  assert.equal((await ask({ socketPath }, '/look', { headers })).status, 200, 'the first one is served')
  await page.end()
  assert.equal(existsSync(socketPath), false)
})

test('the daemon goes away: the page stays, and says so', async t => {
  const { page, daemon } = await stage(t)
  const visitor = await page.enter()
  await daemon.server.stop(0)
  const { status, text } = await page.as(visitor, '/look')
  assert.equal(status, 503)
  assert.match(JSON.parse(text).seen.problem, /daemon/)
  assert.equal((await page.as(visitor, '/')).status, 200)
})

test('without a daemon, or with a place that is not of this machine, there is no page', async () => {
  await using daemon = await lab()
  const none = await cli(['page', '--socket', '/no/such.sock'])
  assert.deepEqual([none.status, none.stdout], [5, ''])
  for (const listen of ['0.0.0.0:0', '[::]:0', 'unix:relative', 'localhost:0']) {
    const { status, stdout } = await cli(['page', '--socket', daemon.path, '--listen', listen])
    assert.deepEqual([status, stdout], [2, ''], listen)
  }
  const json = await cli(['page', '--json', '--socket', daemon.path, '--host', 'evil.example'])
  assert.equal(json.status, 2)
  checkedDocument('error', json.stderr)
})

test('the addresses are one document of JSON, and differ', async t => {
  const { page } = await stage(t, '--operator')
  checkedDocument('page', JSON.stringify({ viewer: page.viewer, operator: page.operator }))
  assert.match(page.viewer, /^http:\/\/127\.0\.0\.1:\d+\/enter\/[A-Za-z0-9_-]{43}$/)
  assert.notEqual(page.viewer, page.operator)
})
