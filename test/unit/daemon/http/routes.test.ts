/** What goes through the routes: validation, answers, problems, who may. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ROUTES, type Route, type RouteName } from '../../../../src/api/routes.ts'
import { problem } from '../../../../src/api/service.ts'
import { BusyError, DeniedError, NotFoundError, PolicyError } from '../../../../src/errors.ts'
import { fakeService } from './fake-service.ts'
import { lab } from './lab.ts'

/** For each route what is asked. */
const ASKS: Readonly<Record<RouteName, { path?: string; body?: unknown }>> = {
  status: {},
  listPolicies: {},
  showPolicy: { path: '/v1/policies/dev' },
  reload: {},
  decide: { body: { policy: 'dev', recipient: { self: true } } },
  lend: { body: { policy: { name: 'dev' }, recipient: { pidfd: 5 }, place: { path: '/sys/fs/bpf' } } },
  listLoans: { path: '/v1/loans?state=live&limit=10' },
  showLoan: { path: '/v1/loans/loan-1' },
  derive: {
    path: '/v1/loans/loan-1/derive',
    body: { policy: { name: 'dev' }, recipient: { self: true }, place: { path: '/sys/fs/bpf' } },
  },
  renew: { path: '/v1/loans/loan-1/renew', body: { lifetimeSec: 60 } },
  revoke: { body: { what: { loan: 'loan-1' } } },
  listRequests: {},
  showRequest: { path: '/v1/requests/request-1?wait=5' },
  approve: { path: '/v1/requests/request-1/approve', body: {} },
  deny: { path: '/v1/requests/request-1/deny', body: { comment: 'no' } },
  withdraw: { path: '/v1/requests/request-1/withdraw' },
  events: { path: '/v1/events?after=3&delegation=4294967295&since=2026-01-01T00:00:00%2B01:00' },
  audit: {},
  verifyAudit: {},
  ociHook: { body: { state: { id: 'abc', pid: 8, bundle: '/run/abc', annotations: {} } } },
  announceContainers: { body: { runtime: 'nri', whole: true, containers: [{ id: 'abc', name: 'web' }] } },
  listContainers: {},
}

const ALL = Object.entries(ROUTES) as [RouteName, Route][]
const LEND = ASKS.lend.body as object

test('each route is answered for root as its schema says', async () => {
  const service = fakeService()
  await using it = await lab({ service })
  it.uid = 0
  for (const [name, route] of ALL) {
    const { path = route.path, body } = ASKS[name]
    const answer = await it.ask(path, { method: route.method, body })
    assert.ok(answer.status in route.answers, `${name}: ${answer.text}`)
    assert.deepEqual(route.answers[answer.status]!.parse(answer.json), answer.json)
    assert.equal(answer.headers['content-type'], 'application/json')
    assert.equal(answer.headers['cache-control'], 'no-store')
  }
  assert.deepEqual(
    service.asked.map(({ route }) => route),
    ALL.map(([name]) => name),
  )
  const request = (name: RouteName): unknown => service.asked.find(({ route }) => route === name)!.request
  assert.deepEqual(request('events'), {
    query: { after: 3, delegation: 0xffff_ffff, since: '2026-01-01T00:00:00+01:00' },
  })
  assert.deepEqual(request('showRequest'), { params: { id: 'request-1' }, query: { wait: 5 } })
})

test('routes that are for root alone are refused to others, before the service is asked', async () => {
  const service = fakeService()
  await using it = await lab({ service })
  const mine = ALL.filter(([, route]) => route.root)
  assert.ok(mine.length > 3)
  for (const [name, route] of mine) {
    const { path = route.path, body } = ASKS[name]
    const { status, json } = await it.ask(path, { method: route.method, body })
    assert.equal(status, 403, name)
    assert.equal(json.code, 'BPFTOKEN_DENIED')
  }
  assert.deepEqual(service.asked, [])
  assert.equal((await it.ask('/v1/status')).status, 200)
})

test('a path that is not there is 404, another method 405, with those that are', async () => {
  await using it = await lab()
  for (const path of ['/', '/v1', '/v1/loans/', '/v1//status', '/v1/loans/loan-1/nothing', '/v1/%73tatus'])
    assert.equal((await it.ask(path)).status, 404, path)
  for (const [method, path, allow] of [
    ['DELETE', '/v1/loans', 'POST, GET'],
    ['HEAD', '/v1/status', 'GET'],
    ['OPTIONS', '/v1/loans/loan-1', 'GET'],
    ['PUT', '/v1/loans/loan-1/renew', 'POST'],
  ] as const) {
    const { status, headers } = await it.ask(path, { method })
    assert.equal(status, 405, path)
    assert.equal(headers.allow, allow)
  }
  assert.equal((await it.ask('/v1/loans')).status, 200)
})

/** A request that is not valid, what is said of it, and its twin. */
const INVALID: readonly [path: string, body: unknown, says: RegExp, twin: [path: string, body: unknown]][] = [
  ['/v1/loans/loan-01', undefined, /^params\.id: /, ['/v1/loans/loan-1', undefined]],
  ['/v1/loans/..%2f..%2fetc', undefined, /^params\.id: /, ['/v1/loans/loan-2', undefined]],
  ['/v1/policies/..', undefined, /^params\.name: /, ['/v1/policies/a-b', undefined]],
  ['/v1/policies/%00', undefined, /^params\.name: /, ['/v1/policies/a', undefined]],
  ['/v1/loans?limit=10001', undefined, /^query\.limit: /, ['/v1/loans?limit=10000', undefined]],
  ['/v1/loans?limit=1e3', undefined, /^query\.limit: /, ['/v1/loans?limit=1000', undefined]],
  ['/v1/loans?uid=4294967295', undefined, /^query\.uid: /, ['/v1/loans?uid=4294967294', undefined]],
  ['/v1/loans?states=live', undefined, /^query: .*states/, ['/v1/loans?state=live', undefined]],
  ['/v1/status?x=1', undefined, /^query: this route takes no query/, ['/v1/status?', undefined]],
  ['/v1/loans', { ...LEND, extra: 1 }, /^body: .*extra/, ['/v1/loans', LEND]],
  [
    '/v1/loans',
    JSON.stringify(LEND).replace('{', '{"__proto__":{"dryRun":true},'),
    /^body: /,
    ['/v1/loans', LEND],
  ],
  [
    '/v1/loans',
    { ...LEND, recipient: { pid: 0 } },
    /^body\.recipient\.pid: /,
    ['/v1/loans', { ...LEND, recipient: { pid: 1 } }],
  ],
  [
    '/v1/loans',
    { ...LEND, recipient: { pid: 1, self: true } },
    /^body\.recipient/,
    ['/v1/loans', { ...LEND, recipient: { self: true } }],
  ],
  [
    '/v1/loans',
    { ...LEND, recipient: { pidfd: 2 ** 31 } },
    /^body\.recipient\.pidfd: /,
    ['/v1/loans', { ...LEND, recipient: { pidfd: 2 ** 31 - 1 } }],
  ],
  [
    '/v1/loans',
    { ...LEND, place: { path: 'sys' } },
    /^body\.place/,
    ['/v1/loans', { ...LEND, place: { path: '/sys' } }],
  ],
  [
    '/v1/loans',
    { ...LEND, place: { path: '/a\0b' } },
    /^body\.place/,
    ['/v1/loans', { ...LEND, place: { path: '/a b' } }],
  ],
  ['/v1/loans', [], /^body: /, ['/v1/loans', LEND]],
  ['/v1/revoke', { what: {} }, /^body\.what/, ['/v1/revoke', { what: { all: true } }]],
  ['/v1/revoke', { what: { uid: 1, all: true } }, /^body\.what/, ['/v1/revoke', { what: { uid: 1 } }]],
  [
    '/v1/loans/loan-1/renew',
    { lifetimeSec: '60' },
    /^body\.lifetimeSec: /,
    ['/v1/loans/loan-1/renew', { lifetimeSec: 60 }],
  ],
]

test('what is not valid is a problem that says where, and the service is not asked', async () => {
  const service = fakeService()
  await using it = await lab({ service })
  for (const [path, body, says, [goodPath, goodBody]] of INVALID) {
    const { status, headers, json } = await it.ask(path, { body })
    assert.equal(status, 400, `${path} ${JSON.stringify(body)}`)
    assert.equal(headers['content-type'], 'application/problem+json')
    assert.deepEqual(problem.parse(json), json)
    assert.equal(json.code, 'BPFTOKEN_INPUT')
    assert.match(json.detail, says, `${path} ${JSON.stringify(body)}`)
    assert.equal(`${json.issues[0].path}: ${json.issues[0].message}`, json.detail.split('\n')[0])
    assert.deepEqual(service.asked, [])
    const good = await it.ask(goodPath, { body: goodBody })
    assert.ok(good.status < 300, `${goodPath} ${JSON.stringify(goodBody)}: ${good.text}`)
    service.asked.length = 0
  }
})

test('addresses and headers that say two things are refused', async () => {
  await using it = await lab()
  for (const path of [
    '/v1/loans?uid=1&uid=2',
    '/v1/loans?uid=%ff',
    '/v1/loans/%e0%a4',
    `/v1/loans?unit=${'a'.repeat(2100)}`,
  ])
    assert.ok([400, 414].includes((await it.ask(path)).status), path)
  assert.equal((await it.ask(`/v1/loans?unit=${'a'.repeat(255)}`)).status, 200)
  assert.equal((await it.ask('/v1/loans?unit=a%20b+c')).status, 200)
})

test('media types: a body is JSON in UTF-8, an answer what the client takes', async () => {
  await using it = await lab()
  const lend = (headers: Record<string, string>) => it.ask('/v1/loans', { body: LEND, headers })
  for (const type of [
    'text/plain',
    'application/x-www-form-urlencoded',
    'application/json; charset=utf-16',
    '',
  ]) {
    const { status, json } = await lend({ 'content-type': type })
    assert.equal(status, 415, type)
    assert.equal(json.code, 'BPFTOKEN_REQUEST')
  }
  assert.equal((await lend({ 'content-encoding': 'gzip' })).status, 415)
  for (const type of [
    'application/json',
    'Application/JSON; charset=UTF-8',
    'application/json;charset="utf-8"',
  ])
    assert.equal((await lend({ 'content-type': type })).status, 201, type)
  const get = (accept: string) => it.ask('/v1/status', { headers: { accept } })
  for (const accept of ['text/html', 'text/event-stream', 'application/json;q=0', 'application/xml, */*;q=0'])
    assert.equal((await get(accept)).status, 406, accept)
  for (const accept of ['*/*', 'application/*', 'text/html, application/json;q=0.1', 'text/*, */*;q=0.1'])
    assert.equal((await get(accept)).status, 200, accept)
  const length = (bytes: number): Record<string, string> => ({ 'content-length': String(bytes) })
  assert.equal((await it.ask('/v1/status', { body: {}, method: 'GET', headers: length(2) })).status, 400)
  assert.equal((await it.ask('/v1/status', { headers: length(0) })).status, 200)
})

test('an Idempotency-Key goes to the service, where the route takes one', async () => {
  const service = fakeService()
  await using it = await lab({ service })
  const lend = (key: string) => it.ask('/v1/loans', { body: LEND, headers: { 'idempotency-key': key } })
  assert.equal((await lend('a-1')).status, 201)
  assert.equal(service.asked[0]!.call.idempotencyKey, 'a-1')
  for (const key of ['', 'a b', 'ä', 'a'.repeat(129)]) assert.equal((await lend(key)).status, 400, key)
  assert.equal((await lend('a'.repeat(128))).status, 201)
  const headers = { 'idempotency-key': 'a' }
  assert.equal((await it.ask('/v1/revoke', { body: { what: { all: true } }, headers })).status, 400)
  assert.equal((await it.ask('/v1/revoke', { body: { what: { all: true } } })).status, 200)
})

test('a page in a browser is refused, whatever it asks for', async () => {
  await using it = await lab()
  for (const headers of [
    { origin: 'null' },
    { origin: 'http://localhost' },
    { 'sec-fetch-site': 'same-origin' },
  ])
    assert.equal((await it.ask('/v1/status', { headers })).status, 403)
  assert.equal((await it.ask('/v1/status', { headers: { referer: 'http://localhost' } })).status, 200)
})

test('failures of the service are problems by the table of errors', async () => {
  const refused = new DeniedError('not you', {
    reason: 'subject-refused',
    context: { uid: 1000, unknown: undefined },
    trace: [{ entry: 'subjects[0]', matched: false, matches: [] }],
  })
  const errors: Error[] = [
    refused,
    new NotFoundError('there is no loan-9'),
    new BusyError('too many'),
    new PolicyError('dev.yaml', [{ path: 'spec', line: 1, col: 2, message: 'no' }]),
    new TypeError("cannot read 'password' of undefined"),
  ]
  const service = fakeService({ showLoan: () => Promise.reject(errors.shift()!) })
  await using it = await lab({ service })
  const get = async () => (await it.ask('/v1/loans/loan-9')).json
  const denied = await get()
  assert.equal(denied.status, 403)
  assert.equal(denied.reason, 'subject-refused')
  assert.equal(denied.hint, 'GET /v1/policies lists the policies that you may have')
  assert.deepEqual(denied.context, { uid: 1000 })
  assert.equal(denied.trace.length, 1)
  assert.deepEqual(await get(), {
    type: 'urn:bpftoken:error:BPFTOKEN_NOT_FOUND',
    title: 'No such object',
    status: 404,
    detail: 'there is no loan-9',
    code: 'BPFTOKEN_NOT_FOUND',
  })
  const busy = await it.ask('/v1/loans/loan-9')
  assert.equal(busy.status, 429)
  assert.equal(busy.headers['retry-after'], '1')
  assert.deepEqual((await get()).issues, [{ path: 'spec', line: 1, col: 2, message: 'no' }])
  const defect = await it.ask('/v1/loans/loan-9')
  assert.equal(defect.status, 500)
  assert.equal(defect.json.code, 'BPFTOKEN_INTERNAL')
  assert.doesNotMatch(defect.text, /password/)
  assert.match(
    String(it.entries.find(({ priority }) => priority === 3)!.fields['BPFTOKEN_ERROR']),
    /password/,
  )
})

test('an answer that is not of its schema is a defect, where answers are checked', async () => {
  const wrong = { status: 200, body: { loaded: -1, faults: [] } }
  const service = fakeService({ reload: () => Promise.resolve(wrong) })
  await using it = await lab({ service })
  it.uid = 0
  assert.equal((await it.ask('/v1/reload', { method: 'POST' })).status, 500)
  await using unchecked = await lab({ service, checkAnswers: false })
  unchecked.uid = 0
  assert.equal((await unchecked.ask('/v1/reload', { method: 'POST' })).status, 200)
})

test('what acts is in the log at info, with ids and the user, and what is refused is not; no text of clients is in its words', async () => {
  await using it = await lab()
  await it.ask('/v1/loans', { body: LEND })
  await it.ask('/v1/policies/%1b%5b2J%0a')
  assert.equal((await it.ask('/v1/loans', { body: {} })).status, 400)
  assert.equal((await it.ask('/v1/reload', { method: 'POST' })).status, 403)
  const [info, ...more] = it.entries.filter(({ priority }) => priority <= 6)
  assert.deepEqual(more, [])
  assert.equal(info!.message, 'lend 201')
  assert.equal(info!.fields['BPFTOKEN_LOAN'], 'loan-1')
  assert.equal(info!.fields['BPFTOKEN_UID'], 1000)
  assert.ok(it.entries.length >= 2)
  for (const { message, fields } of it.entries)
    assert.match([message, ...Object.entries(fields).flat()].join(' '), /^[\x20-\x7e]+$/)
})

test('the numbers are for root and for whom the configuration names; their labels are ours', async () => {
  await using it = await lab({ metricsReaders: [1001] })
  assert.equal((await it.ask('/metrics')).status, 403)
  await it.ask('/v1/loans', { body: LEND })
  // Decisions are counted by the service, of which this one is a fake.
  it.meter.decided('allowed')
  await it.ask('/v1/no-such-path')
  await it.ask('/v1/loans/loan-1')
  for (const uid of [0, 1001]) {
    it.uid = uid
    const { status, text, headers } = await it.ask('/metrics')
    assert.equal(status, 200)
    assert.match(headers['content-type']!, /^text\/plain/)
    for (const line of [
      'bpftoken_requests_total{route="lend",status="201"} 1',
      'bpftoken_requests_total{route="none",status="404"} 1',
      'bpftoken_requests_total{route="showLoan",status="200"} 1',
      'bpftoken_decisions_total{verdict="allowed"} 1',
      'bpftoken_loans_live 1',
      'bpftoken_requests_waiting 2',
      'bpftoken_build_info{version="0.0.0"} 1',
    ])
      assert.ok(text.includes(`${line}\n`), line)
    assert.match(text, /^process_open_fds \d+$/m)
    assert.doesNotMatch(text, /no-such-path|loan-1"/)
  }
})
