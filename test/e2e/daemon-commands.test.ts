/**
 * The commands that ask the daemon, against its HTTP server with a service that lends nothing: what
 * they ask for, what they print, and what they exit with.
 */
import assert from 'node:assert/strict'
import { readFileSync, readlinkSync } from 'node:fs'
import { test } from 'node:test'
import type { DocumentName } from '../../src/api/names.ts'
import type { RouteAnswer, RouteName } from '../../src/api/routes.ts'
import type { Call, Service } from '../../src/daemon/service.ts'
import { BusyError, DeniedError } from '../../src/errors.ts'
import { cli, finish, type Result, startCli } from '../helpers/cli.ts'
import { checkedDocument, documentOf } from '../helpers/documents.ts'
import { eventually } from '../helpers/eventually.ts'
import { Scratch } from '../helpers/scratch.ts'
import { EVENT, type FakeService, fakeService, LOAN } from '../unit/daemon/http/fake-service.ts'
import { type Lab, lab } from '../unit/daemon/http/lab.ts'

const PID = String(process.pid)
const AT = '2026-01-02T03:04:05.000Z'
const EXIT_SIGINT = 130

interface Daemon extends AsyncDisposable {
  readonly socket: string
  readonly service: FakeService
  run(...words: string[]): Promise<Result>
  /** What it was asked since the last call of this, without each request's abort signal. */
  asked(): [RouteName, unknown][]
}

async function daemon(
  instead: Partial<Service['handlers']> = {},
  streams: Partial<Service['streams']> = {},
): Promise<Daemon> {
  const service = fakeService({ events: noMore, audit: noMoreRecords, ...instead }, streams)
  const it: Lab = await lab({ service })
  it.uid = 0
  return {
    socket: it.path,
    service,
    run: (...words) => cli([...words, '--socket', it.path]),
    asked: () => service.asked.splice(0).map(({ route, request }) => [route, request]),
    [Symbol.asyncDispose]: () => it[Symbol.asyncDispose](),
  }
}

const aborted = (signal: AbortSignal): Promise<void> =>
  new Promise(resolve => {
    if (signal.aborted) resolve()
    else signal.addEventListener('abort', () => resolve(), { once: true })
  })

/** Answers with one event, and to whoever asks on after that with none. */
const noMore: Service['handlers']['events'] = (_, { query }) =>
  Promise.resolve({
    status: 200,
    body: { events: query.after === undefined ? [EVENT] : [], lost: 3, next: 42 },
  })
const RECORD = {
  seq: 1,
  batch: 1,
  at: AT,
  previous: '',
  hash: 'ab',
  event: 'lend.did',
  facts: { uid: 7, why: 'a\u001bb' },
}
const noMoreRecords: Service['handlers']['audit'] = (_, { query }) =>
  Promise.resolve({ status: 200, body: { records: query.after === undefined ? [RECORD] : [], next: 2 } })

const REQUEST: RouteAnswer<'showRequest'> = {
  id: 'request-1',
  state: 'waiting',
  policy: 'dev',
  askedAt: AT,
  until: '2096-01-02T03:04:05.000Z',
  asker: { pid: 7, uid: 1000, gid: 1000, userNamespace: 'user:[1]' },
  recipient: { pid: 8, userNamespace: 'user:[2]' },
  place: { path: '/sys/fs/bpf' },
}
const approved: RouteAnswer<'showRequest'> = {
  ...REQUEST,
  state: 'approved',
  decided: { at: AT, by: 0, comment: 'yes' },
  loan: 'loan-1',
}

const DELEGATE = ['delegate', '--pid', PID, '--policy', 'dev']

test('with --json each prints one document of its schema', async () => {
  await using it = await daemon()
  for (const words of [
    ['status'],
    ['policy', 'list'],
    ['requests'],
    ['requests', '--all'],
    ['approve', 'request-1'],
    ['deny', '1', '--comment', 'no'],
    ['renew', 'loan-1', '--lifetime', '2h'],
    ['reload'],
    ['ls'],
    ['show', 'loan-1'],
    ['revoke', 'loan-1'],
    ['derive', 'loan-1', '--pid', PID, '--policy', 'narrow'],
    DELEGATE,
    ['events'],
    ['audit', 'query'],
    ['audit', 'export'],
    ['audit', 'verify'],
  ]) {
    const { status, stdout, stderr } = await it.run(...words, '--json')
    assert.equal(status, 0, `${words.join(' ')}: ${stderr}`)
    checkedDocument(documentOf(words), stdout)
  }
  const { status, stdout } = await it.run('explain', '--request', '--json')
  assert.equal(status, 3)
  checkedDocument('explain', stdout)
})

/** Runs a command that must end with this status, and gives what it prints. */
async function says(it: Daemon, words: string[], patterns: RegExp[], status = 0): Promise<void> {
  const { status: ended, stdout, stderr } = await it.run(...words)
  assert.equal(ended, status, `${words.join(' ')}: ${stderr}`)
  for (const pattern of patterns) assert.match(stdout + stderr, pattern, words.join(' '))
}

test('what people are told', async () => {
  await using it = await daemon()
  await says(it, ['status'], [/bad\.yaml: no/, /1 live, 0 of others/, /1 waiting/, /all is well/])
  await says(it, ['policy', 'list'], [/^dev +yes +none +low +dev\.yaml/m])
  await says(it, ['requests'], [/^request-1 .*dev .*uid 1000 .*process 8 .*\/sys\/fs\/bpf/m])
  await says(it, ['approve', '1'], [/^request-1: .* approved by uid 0, loan-1$/m])
  await says(it, ['deny', '1'], [/denied by uid 0/])
  await says(it, ['ls'], [/^loan-1 +live for 0s +dev +process 8 +\/sys\/fs\/bpf +1000 +3 +cmds=0x1$/m])
  await says(it, ['show', 'loan-1'], [/^live +1 of 8 tokens, 2 programs/m, /^because +subjects\[0\]/m])
  // By the guard's number it is the same loan; a number that no loan has is told as such.
  await says(it, ['show', '3'], [/^loan +loan-1$/m, /^live +1 of 8 tokens/m])
  await says(it, ['show', '4'], [/no loan of yours with delegation 4[\s\S]*--direct asks the guard/], 1)
  await says(
    it,
    ['ls', '--tree'],
    [/loan-1 of policy dev/, /loaded under these: bpftoken ls --tree --direct/],
  )
  await says(it, ['revoke', 'loan-1'], [/taken back: loan-1/, /goes on; --detach/])
  await says(
    it,
    ['events'],
    [/refused token_create \(revoked\): counter 8 uid 1000, 2 times/, /3 events were lost/],
  )
  await says(it, ['audit', 'query'], [/^1 \S+ lend\.did uid=7 why="a\\u\{1b\}b"$|why="a\\u001bb"$/m])
  await says(it, ['audit', 'verify'], [/^intact: 1 records/])
  await says(it, ['explain', '--request'], [/^Refused: no policy names it/], 3)
  await says(it, DELEGATE, [/^loan-1: lent to process 8 at \/sys\/fs\/bpf: /m, /revoke loan-1 takes it back/])
})

test('each option of delegate and derive is asked for, and nothing else', async () => {
  await using it = await daemon()
  using scratch = new Scratch()
  const file = scratch.write('mine.yaml', 'kind: x\n')
  await it.run(
    ...[...DELEGATE, '--path', '/mnt/b', '--only-cgroup', '/c', '--strict', '--lifetime', '2h'],
    ...['--comment', 'please', '--any-subject', '--dry-run'],
  )
  const [[, full] = []] = it.asked()
  const { recipient, ...body } = (full as { body: { recipient: { pidfd: number } } }).body
  assert.equal(typeof recipient.pidfd, 'number')
  assert.deepEqual(body, {
    policy: { name: 'dev' },
    place: { path: '/mnt/b' },
    ...{ cgroup: '/c', strict: true, lifetimeSec: 7200, comment: 'please' },
    ...{ anySubject: true, dryRun: true },
  })
  await it.run('delegate', '--pid', PID, '--policy', file)
  const [[, plain] = []] = it.asked()
  assert.deepEqual(
    { ...(plain as { body: object }).body, recipient: 0 },
    {
      ...{ policy: { document: 'kind: x\n' }, recipient: 0, place: { path: '/sys/fs/bpf' } },
    },
  )
  // A number is the guard's, so the loan is looked for.
  await it.run('derive', '3', '--pid', PID, '--policy', 'dev', '--strict', '--lifetime', '1m')
  const [[list] = [], [derive, of] = []] = it.asked()
  assert.deepEqual([list, derive], ['listLoans', 'derive'])
  const { params, body: asked } = of as { params: object; body: { recipient: object } }
  assert.deepEqual(params, { id: 'loan-1' })
  assert.deepEqual(
    { ...asked, recipient: 0 },
    {
      ...{ policy: { name: 'dev' }, recipient: 0, place: { path: '/sys/fs/bpf' } },
      ...{ exact: true, lifetimeSec: 60 },
    },
  )
  await says(it, ['derive', '4', '--pid', PID, '--policy', 'dev'], [/no loan of yours with delegation 4/], 1)
})

test('revoke names exactly one thing, and each kind of it', async () => {
  await using it = await daemon()
  for (const [words, what] of [
    [['loan-7'], { loan: 'loan-7' }],
    [['7'], { delegation: 7 }],
    [['--container', 'web'], { container: 'web' }],
    [['--unit', 'a.service'], { unit: 'a.service' }],
    [['--user', 'root'], { uid: 0 }],
    [['--user', '1000'], { uid: 1000 }],
    [['--policy', 'dev'], { policy: 'dev' }],
    [['--all'], { all: true }],
  ] as const) {
    await it.run('revoke', ...words, '--detach', '--kill', '--dry-run', '--comment', 'x')
    assert.deepEqual(it.asked(), [
      ['revoke', { body: { what, detach: true, kill: true, dryRun: true, comment: 'x' } }],
    ])
  }
  for (const words of [[], ['7', '--all'], ['--all', '--unit', 'a'], ['loan-0'], ['--policy', './x.yaml']])
    await says(it, ['revoke', ...words], [/bpftoken:|error:/], 2)
  assert.deepEqual(it.asked(), [])
})

test('something that stays is exit 1; that nothing was there is said', async () => {
  let body: RouteAnswer<'revoke'> = { dryRun: false, loans: [], complete: true }
  await using it = await daemon({ revoke: () => Promise.resolve({ status: 200, body }) })
  await says(it, ['revoke', 'loan-7'], [/nothing was taken back/])
  const object = { delegation: 3, id: 9, type: 'xdp', name: 'drop' }
  const left = { programs: 1, maps: 0, links: 0 }
  body = {
    ...{ dryRun: false, loans: [LOAN], complete: false },
    undone: { detached: [], stays: [object], killed: [{ pid: 4, task: 'x y' }], left },
  }
  await says(
    it,
    ['revoke', 'loan-1', '--detach'],
    [/attached +9 +xdp +"drop"/, /killed +process 4 +"x y"/, /1 program, 0 maps/, /not all is undone/],
    1,
  )
})

test('events asks by what is named, and goes on from where it was', async () => {
  const follow = async function* ({ signal }: Call): AsyncGenerator<typeof EVENT> {
    yield { ...EVENT, seq: 50, task: 'later' }
    await aborted(signal)
  }
  await using it = await daemon({}, { events: follow as never })
  const words = [
    '--since',
    '2026-01-01T00:00:00Z',
    '--delegation',
    'loan-1',
    '--uid',
    '0',
    '--reason',
    'limit',
  ]
  const child = startCli(['events', ...words, '--follow', '--json', '--socket', it.socket])
  const ended = finish(child)
  let lines = ''
  child.stdout!.on('data', chunk => {
    lines += chunk
  })
  await eventually(() => lines.includes('later'), 'no event came')
  child.kill('SIGINT')
  const { status, stdout } = await ended
  assert.equal(status, 0)
  const events = stdout.trim().split('\n')
  assert.equal(events.length, 2)
  for (const line of events) checkedDocument('events', line)
  const query = { since: '2026-01-01T00:00:00.000Z', delegation: 3, uid: 0, reason: 'limit' }
  assert.deepEqual(it.asked(), [
    ['showLoan', { params: { id: 'loan-1' } }],
    ['events', { query: { ...query, limit: 1000 } }],
    ['events', { query: { ...query, limit: 1000, after: 42 } }],
    ['events', { query: { ...query, after: 42 } }],
  ])
})

test('requests --follow tells each change once', async () => {
  const follow = async function* ({ signal }: Call): AsyncGenerator<RouteAnswer<'listRequests'>> {
    yield { requests: [REQUEST] }
    yield { requests: [REQUEST, { ...REQUEST, id: 'request-2' }] }
    yield { requests: [approved, { ...REQUEST, id: 'request-2' }] }
    await aborted(signal)
  }
  await using it = await daemon({}, { listRequests: follow as never })
  const child = startCli(['requests', '--all', '--follow', '--json', '--socket', it.socket])
  const ended = finish(child)
  let lines = ''
  child.stdout!.on('data', chunk => {
    lines += chunk
  })
  await eventually(() => lines.includes('approved'), 'no change came')
  child.kill('SIGTERM')
  const { status, stdout } = await ended
  assert.equal(status, 0)
  const told = stdout
    .trim()
    .split('\n')
    .map(line => checkedDocument('requests', line) as { id: string; state: string })
  assert.deepEqual(
    told.map(({ id, state }) => `${id} ${state}`),
    ['request-1 waiting', 'request-2 waiting', 'request-1 approved'],
  )
})

/** A daemon that asks somebody first; `decide` gives what the request is when it is looked at. */
function asking(decide: (looks: number) => RouteAnswer<'showRequest'>): Promise<Daemon> {
  let looks = 0
  return daemon({
    lend: () => Promise.resolve({ status: 202, body: { request: REQUEST } }),
    showRequest: () => Promise.resolve({ status: 200, body: decide(++looks) }),
  })
}

test('a request that waits is waited for: its id is said, and then the loan', async () => {
  await using it = await asking(looks => (looks < 3 ? REQUEST : approved))
  await says(it, DELEGATE, [
    /request-1 waits to be approved: bpftoken approve request-1/,
    /^loan-1: lent to /m,
  ])
  assert.deepEqual(
    it.asked().map(([route]) => route),
    ['lend', 'showRequest', 'showRequest', 'showRequest', 'showLoan'],
  )
  const { stdout } = await it.run(...DELEGATE, '--json')
  checkedDocument('delegate', stdout)
})

test('--no-wait leaves it; its document says what waits', async () => {
  await using it = await asking(() => REQUEST)
  await says(it, [...DELEGATE, '--no-wait'], [/^request-1 waits to be approved/])
  const { stdout } = await it.run(...DELEGATE, '--no-wait', '--json')
  const { request } = checkedDocument('delegate', stdout) as { request: { id: string } }
  assert.equal(request.id, 'request-1')
  assert.deepEqual(
    it.asked().map(([route]) => route),
    ['lend', 'lend'],
  )
})

test('a request that is denied, expired, withdrawn or failed is no loan', async () => {
  const decided = { at: AT, by: 0, comment: 'not today' }
  for (const [state, status, words] of [
    ['denied', 3, /request-1 was denied: "not today"/],
    ['withdrawn', 3, /was withdrawn/],
    ['expired', 1, /Nobody decided on request-1 in time/],
    ['failed', 1, /could not be lent/],
  ] as const) {
    await using it = await asking(() => ({ ...REQUEST, state, decided }))
    await says(it, DELEGATE, [words], status)
  }
})

test('Ctrl-C withdraws; a loan that was made just then is named', async () => {
  for (const [body, words] of [
    [{ ...REQUEST, state: 'withdrawn' }, /request-1 is withdrawn/],
    [approved, /loan-1 stands; bpftoken revoke loan-1 takes it back/],
  ] as const) {
    const service = fakeService({
      lend: () => Promise.resolve({ status: 202, body: { request: REQUEST } }),
      showRequest: ({ signal }) =>
        new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason))),
      withdraw: () => Promise.resolve({ status: 200, body: body as RouteAnswer<'withdraw'> }),
    })
    const it = await lab({ service })
    try {
      const child = startCli([...DELEGATE, '--socket', it.path])
      const ended = finish(child)
      await eventually(() => service.asked.some(({ route }) => route === 'showRequest'), 'it does not wait')
      child.kill('SIGINT')
      const { status, stderr } = await ended
      assert.equal(status, EXIT_SIGINT)
      assert.match(stderr, words)
      assert.equal(service.asked.filter(({ route }) => route === 'withdraw').length, 1)
    } finally {
      await it[Symbol.asyncDispose]()
    }
  }
})

test('what the daemon refuses is refused with its words, and the status of the table', async () => {
  const trace = [{ policy: 'dev', subjects: 'nobody', entries: [] }] as const
  await using it = await daemon({
    lend: () => Promise.reject(new DeniedError('Not you', { reason: 'subject-refused', trace })),
    status: () => Promise.reject(new BusyError('Too many')),
  })
  await says(it, DELEGATE, [/Not you/, /next: Add this subject/], 3)
  await says(it, ['status'], [/Too many/], 1)
  const { stderr } = await it.run(...DELEGATE, '--json')
  const { error } = checkedDocument('error', stderr) as { error: { code: string; trace: unknown } }
  assert.deepEqual([error.code, error.trace], ['BPFTOKEN_DENIED', trace])
})

test('what is not well is exit 1', async () => {
  const status = (await fakeService().handlers.status({} as never, {} as never)).body
  await using it = await daemon({
    status: () => Promise.resolve({ status: 200, body: { ...status, concerns: ['the disk is full'] } }),
    reload: () =>
      Promise.resolve({ status: 200, body: { loaded: 2, faults: [{ file: 'x.yaml', message: 'odd' }] } }),
    verifyAudit: () =>
      Promise.resolve({
        status: 200,
        body: { intact: false, records: 9, from: 1, head: 'ab', fault: { seq: 4, message: 'cut' } },
      }),
  })
  await says(it, ['status'], [/not well: the disk is full/], 1)
  await says(it, ['reload'], [/2 policies are loaded/, /x\.yaml is not as it was loaded: odd/], 1)
  await says(it, ['audit', 'verify'], [/not intact: record 4: cut/], 1)
})

test('undelegate takes back what lies there, and says that there is nothing else', async () => {
  const own = { ...LOAN, record: { ...LOAN.record!, recipient: { ...LOAN.record!.recipient } } }
  let state: 'ended' | 'ending' = 'ended'
  await using it = await daemon({
    revoke: () =>
      Promise.resolve({ status: 200, body: { dryRun: false, loans: [{ ...LOAN, state }], complete: false } }),
    listLoans: () => Promise.resolve({ status: 200, body: { loans: [own, { ...own, id: 'loan-2' }] } }),
  })
  own.record.recipient.userNamespace = readlinkSync('/proc/self/ns/user')
  await says(it, ['undelegate', '--pid', PID], [/taken back: loan-1/])
  assert.deepEqual(
    it.asked().filter(([route]) => route === 'revoke'),
    [
      ['revoke', { body: { what: { loan: 'loan-1' } } }],
      ['revoke', { body: { what: { loan: 'loan-2' } } }],
    ],
  )
  state = 'ending'
  await says(it, ['undelegate', '--pid', PID], [/still mounted, and looked after until it is not: loan-1/], 1)
  await says(it, ['undelegate', '--pid', PID, '--path', '/other'], [/has lent nothing to/], 1)
})

test('--direct asks no daemon, and only a daemon knows loans and names', async () => {
  await using it = await daemon()
  const env = { ...process.env, BPFTOKEN_SOCKET: it.socket }
  const ls = await cli(['ls', '--direct', '--json'], { env })
  assert.equal(ls.status, 0, ls.stderr)
  assert.ok(Array.isArray(JSON.parse(ls.stdout)))
  for (const words of [
    ['show', 'loan-1', '--direct'],
    ['revoke', 'loan-1', '--direct'],
    ['revoke', '--all', '--direct'],
    ['events', '--since', '1h', '--direct'],
    [...DELEGATE, '--lifetime', '1h', '--direct'],
    ['ls', '--direct', '--socket', it.socket],
  ]) {
    const { status, stderr } = await cli(words, { env })
    const isList = words[0] === 'ls'
    assert.equal(status, isList ? 0 : 2, `${words.join(' ')}: ${stderr}`)
  }
  // These two look for themselves.
  const tree = await cli(['ls', '--tree', '--direct', '--json'], { env })
  assert.ok('lent' in (JSON.parse(tree.stdout) as object), tree.stderr)
  assert.doesNotMatch((await cli(['show', '3', '--direct'], { env })).stdout, /loan-1/)
  assert.deepEqual(it.asked(), [])
  // The twin: the variable names the daemon.
  assert.equal((await cli(['show', 'loan-1'], { env })).status, 0)
  assert.equal(it.asked().length, 1)
})

test('no daemon where one is named, or where only it can answer: exit 5, with what to do', async () => {
  using scratch = new Scratch()
  const socket = `${scratch.path}/none.sock`
  for (const words of [['status'], ['requests'], DELEGATE, ['show', 'loan-1'], ['ls'], ['events']]) {
    const { status, stdout, stderr } = await cli([...words, '--socket', socket])
    assert.deepEqual([status, stdout], [5, ''], `${words.join(' ')}: ${stderr}`)
    assert.match(stderr, /No daemon answers at .*none\.sock[\s\S]*next: Start it: systemctl start bpftokend/)
  }
  const { stderr } = await cli(['status', '--json', '--socket', socket])
  const { error } = checkedDocument('error' satisfies DocumentName, stderr) as { error: { code: string } }
  assert.equal(error.code, 'BPFTOKEN_UNREACHABLE')
})

const REFUSED = {
  ...{ seq: 7, first: AT, last: AT, count: 3, verdict: 'refused', point: 'map_create', reason: 'maps' },
  ...{ delegation: 3, loan: 'loan-1', uid: 1000, pid: 8, task: 'counter', cmd: 'map_create', type: 'hash' },
  ...{ name: 'flows', cgroup: '4242' },
}
const PERMITTED = {
  ...{ ...REFUSED, seq: 9, count: 2, verdict: 'would-refuse', point: 'token_capable' },
  ...{ reason: 'capability', type: 'net_admin', name: '', cmd: undefined },
}
/** Two refusals, and between them what is none. */
const KEPT = [REFUSED, { ...EVENT, verdict: 'allowed', reason: 'none', seq: 8 }, PERMITTED]
const kept: Service['handlers']['events'] = (_, { query: { after = 0, limit = 1000 } }) => {
  const events = KEPT.filter(({ seq }) => seq > after).slice(0, limit)
  return Promise.resolve({ status: 200, body: { events, lost: 0, next: events.at(-1)?.seq ?? after } })
}

test('events --suggest of those that the daemon keeps, by loan, and what is left open', async () => {
  await using it = await daemon({ events: kept })
  const { status, stdout } = await it.run('events', '--suggest', '--json')
  assert.equal(status, 0)
  const { suggestions } = checkedDocument('events-suggest', stdout) as {
    suggestions: {
      of: string
      additions: { path: string; value: string }[]
      unanswered: { reason: string }[]
    }[]
  }
  assert.deepEqual(
    suggestions.map(({ of, additions, unanswered }) => [
      of,
      additions.map(({ path, value }) => `${path} ${value}`),
      unanswered.map(({ reason }) => reason),
    ]),
    [['loan-1', ['spec.rights.capabilities net_admin'], ['maps']]],
  )
  assert.deepEqual(
    it.asked().map(([, request]) => (request as { query: { after?: number } }).query.after),
    [undefined, 9],
  )
  await says(
    it,
    ['events', '--suggest'],
    [
      /^# To be added to the policy of loan-1$/m,
      /^ {4}capabilities:\n {6}- net_admin # let through 2 times: counter \(pid 8, uid 1000\)$/m,
      /^# maps: .*: refused 3 times: /m,
    ],
  )
  await using none = await daemon({ events: noMoreOf([]) })
  await says(none, ['events', '--suggest'], [/^# Nothing was refused or let through$/m])
})

function noMoreOf(events: RouteAnswer<'events'>['events']): Service['handlers']['events'] {
  return (_, { query }) =>
    Promise.resolve({
      status: 200,
      body: { events: (query.after ?? 0) === 0 ? events : [], lost: 0, next: 0 },
    })
}

test('explain --event and --last: what the guard refused, with the loan, and the smallest change', async () => {
  await using it = await daemon({ events: kept })
  const { status, stdout } = await it.run('explain', '--event', '7', '--json')
  assert.equal(status, 3)
  const said = checkedDocument('explain', stdout) as Record<string, unknown>
  assert.deepEqual(
    [said['call'], said['errno'], said['cause'], said['loan'], said['policy'], said['edit']],
    [
      'map_create hash "flows"',
      'EDQUOT',
      'guard-maps',
      'loan-1',
      'dev',
      { path: 'spec.limits.maps', value: 4097 },
    ],
  )
  await says(
    it,
    ['explain', '--event', '7'],
    [
      /^event 7: map_create hash "flows": refused \(EDQUOT\): guard-maps$/m,
      /^ {2}of {6}loan-1, policy dev$/m,
      /^ {2}found {3}spec\.limits\.maps: 4096, by default, of which 3 are in use now$/m,
      /^ {2}change {2}spec\.limits\.maps: 4097$/m,
    ],
    3,
  )
  await says(it, ['explain', '--event', '8'], [/^event 8: .*: allowed$/m], 0)
  // Of the guard alone: this machine may have recordings that are newer.
  await says(
    it,
    ['explain', '--last', '--delegation', 'loan-1'],
    [/^event 9: token_capable net_admin: would-refuse: guard-capability$/m],
    3,
  )
  await says(
    it,
    ['explain', '--last', '--pid', '8', '--uid', '1000', '--delegation', 'loan-1'],
    [/^event 9: /m],
    3,
  )
  await says(it, ['explain', '--last', '--pid', '9'], [/none is a refusal of those that are named/], 1)
  await says(it, ['explain', '--event', '6'], [/The daemon has no event 6 that you may see/], 1)
  await says(it, ['explain', '--event', '0'], [/whole number from 1/], 2)
  await says(it, ['explain', '--event', '7', '--last'], [/One thing is explained at a time/], 2)
  await says(it, ['explain', '--event', '7', '--yes'], [/--yes is for --fix/], 2)
  await says(it, ['explain', '--event', '7', '--fix'], [/no terminal to ask on[\s\S]*--yes/], 2)
  await using none = await daemon({ events: noMoreOf([]) })
  await says(
    none,
    ['explain', '--last', '--delegation', 'loan-1'],
    [/none is a refusal of those that are named/],
    1,
  )
})

test('explain --event --fix changes the file of the loan that the daemon names, and has it read again', async () => {
  using scratch = new Scratch()
  const document = (maps: string) =>
    `apiVersion: bpftoken.dev/v1\nkind: DelegationPolicy\nmetadata: { name: dev }\nspec:\n  rights:\n    cmds: [map_create]\n    maps: [hash]\n${maps}`
  const file = scratch.write('dev.yaml', document('  limits: { maps: 4096 } # few\n'))
  let faults: { file: string; message: string }[] = []
  const policy = { name: 'dev', digest: 'ab', file, risk: 'low', approval: 'none', allowed: true } as const
  await using it = await daemon({
    events: kept,
    listPolicies: () => Promise.resolve({ status: 200, body: { policies: [policy] } }),
    reload: () => Promise.resolve({ status: 200, body: { loaded: 1, faults } }),
  })
  const { status, stdout } = await it.run('explain', '--event', '7', '--fix', '--yes', '--json')
  assert.equal(status, 0, stdout)
  const { fix } = checkedDocument('explain', stdout) as {
    fix: { applied: boolean; reloaded: boolean; diff: string; run: string[]; again: { verdict: string } }
  }
  assert.deepEqual([fix.applied, fix.reloaded, fix.again.verdict], [true, true, 'ok'])
  assert.match(fix.diff, /^- {2}limits: \{ maps: 4096 \} # few\n\+ {2}limits: \{ maps: 4097 \} # few$/m)
  assert.deepEqual(fix.run, ['bpftoken revoke loan-1', 'bpftoken delegate --pid 8 --policy dev'])
  assert.equal(readFileSync(file, 'utf8'), document('  limits: { maps: 4097 } # few\n'))
  assert.ok(it.asked().some(([route]) => route === 'reload'))
  // It has it by now: what was lent is older.
  await says(it, ['explain', '--event', '7', '--fix', '--yes'], [/has it already: what was lent is older/], 0)
  assert.ok(!it.asked().some(([route]) => route === 'reload'))
  faults = [{ file, message: 'no' }]
  await says(
    it,
    ['explain', '--event', '9', '--fix', '--yes'],
    [/The daemon does not take ".*dev\.yaml": no/],
    2,
  )
})

test('explain --event --fix of a loan whose time is over lends it anew, to who is there still', async () => {
  const expired = { ...REFUSED, reason: 'expired', point: 'token_cmd', type: undefined }
  let loan: RouteAnswer<'showLoan'> = LOAN
  const over = (pid: number, userNamespace: string): void => {
    const { status: _, record, ...rest } = LOAN
    const recipient = { ...record!.recipient, pid, userNamespace }
    loan = { ...rest, state: 'ended', record: { ...record!, recipient }, ended: { at: AT, why: 'expired' } }
  }
  await using it = await daemon({
    events: noMoreOf([expired]),
    showLoan: () => Promise.resolve({ status: 200, body: loan }),
  })
  // By its number it asks for those after the one before.
  const words = ['explain', '--last', '--fix', '--yes']
  const lent = () => it.asked().filter(([route]) => route === 'lend')
  over(process.pid, readlinkSync('/proc/self/ns/user'))
  const { status, stdout } = await it.run(...words, '--json')
  const said = checkedDocument('explain', stdout) as {
    cause: string
    state: string
    fix: { applied: boolean }
  }
  assert.deepEqual([status, said.cause, said.state, said.fix.applied], [0, 'guard-expired', 'expired', true])
  const [[, request] = [], ...others] = lent()
  assert.deepEqual(others, [])
  const { recipient, ...body } = (request as { body: { recipient: { pidfd: number } } }).body
  assert.equal(typeof recipient.pidfd, 'number')
  assert.deepEqual(body, { policy: { name: 'dev' }, place: { path: '/sys/fs/bpf' } })
  await says(it, words, [/^fix: lend policy dev anew to /m, /^done: .*: loan-1$/m], 0)
  lent()
  for (const [pid, namespace] of [
    [process.pid, 'user:[1]'],
    [4_194_304, 'user:[1]'],
  ] as const) {
    over(pid, namespace)
    await says(it, words, [/nothing is changed: .*lend anew/, /run +bpftoken delegate --pid/], 3)
  }
  assert.deepEqual(lent(), [])
})
