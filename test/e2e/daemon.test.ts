/**
 * The commands and the daemon together, for root and for ordinary users: real loans to real
 * namespaces. What the guard adds is in test/vm.
 */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { get, type IncomingMessage } from 'node:http'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { after, before, test } from 'node:test'
import { PACKAGE } from '../../scripts/installed.ts'
import { listInstances } from '../../src/delegation/instances.ts'
import { cli, finish, type Result, startCli } from '../helpers/cli.ts'
import { checkedDocument, documentOf } from '../helpers/documents.ts'
import { eventually } from '../helpers/eventually.ts'
import { needsTokens } from '../helpers/machine.ts'
import { Scratch } from '../helpers/scratch.ts'
import { inOwnNamespaces } from '../kernel/daemon/service-lab.ts'
import { vocabulary } from '../kernel/delegation/lab.ts'
import { leavesNothing } from '../kernel/delegation/leaves-nothing.ts'
import type { Workload } from '../kernel/delegation/workload.ts'

const machine = needsTokens()
const ALICE = 61011
const BOB = 61012
const ROOT_UID = 0
const PATH = '/sys/fs/bpf'
const RIGHTS = '  rights: { cmds: [map_create], maps: [hash] }'

const MAIN = join(PACKAGE, 'dist/daemon/main.js')

let scratch: Scratch
let daemon: ChildProcess
let log = ''
let socket: string
let policies: string

function policy(name: string, spec: string): void {
  const text = `apiVersion: bpftoken.dev/v1\nkind: DelegationPolicy\nmetadata: { name: ${name} }\nspec:\n${spec}\n`
  writeFileSync(join(policies, `${name}.yaml`), text)
}

before(async () => {
  if (machine.skip !== undefined) return
  scratch = new Scratch()
  policies = join(scratch.path, 'policies')
  mkdirSync(policies)
  policy(
    'alices',
    `  subjects: [{ user: ${ALICE} }]\n  limits: { lifetime: 8h }\n  guard: optional\n${RIGHTS}`,
  )
  policy('approved', `  subjects: [{ user: ${ALICE} }]\n  approval: required\n${RIGHTS}`)
  policy('roots', RIGHTS)
  mkdirSync(join(scratch.path, 'run'))
  socket = join(scratch.path, 'run/d.sock')
  const words = ['--socket', socket, '--state', join(scratch.path, 'state'), '--policies', policies]
  daemon = spawn(process.execPath, [MAIN, ...words, '--config', join(scratch.path, 'none.yaml')], {
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  daemon.stderr!.on('data', text => {
    log += text
  })
  await eventually(() => log.includes('is ready') || daemon.exitCode !== null, 'it is ready')
  assert.equal(daemon.exitCode, null, log)
})
after(async () => {
  if (machine.skip !== undefined) return
  const ended = once(daemon, 'exit')
  daemon.kill('SIGTERM')
  assert.deepEqual(await ended, [0, null], log)
  scratch[Symbol.dispose]()
})
if (machine.skip === undefined) leavesNothing()

/** Runs the command as that user. */
function as(uid: number, ...words: string[]): Promise<Result> {
  return cli([...words, '--socket', socket], { uid, gid: uid, cwd: '/' })
}

/** Runs a command that must end with this status, and gives what it prints. */
async function ends(status: number, uid: number, ...words: string[]): Promise<string> {
  const { status: ended, stdout, stderr } = await as(uid, ...words)
  assert.equal(ended, status, `${words.join(' ')}: ${stdout}${stderr}`)
  return stdout + stderr
}

/** Runs a command that must succeed, and gives its document. */
async function document<T>(uid: number, ...words: string[]): Promise<T> {
  const { status, stdout, stderr } = await as(uid, ...words, '--json')
  assert.equal(status, 0, `${words.join(' ')}: ${stderr}`)
  return checkedDocument(documentOf(words), stdout) as T
}

const isMounted = (pid: number): boolean =>
  listInstances(vocabulary).some(({ pids, path }) => pids.includes(pid) && path === PATH)

/** Runs `body` with a process of the user in namespaces of its own. */
async function within(uid: number, body: (pid: string, inside: Workload) => Promise<void>): Promise<void> {
  const inside = await inOwnNamespaces(uid)
  try {
    await body(String(inside.pid), inside)
  } finally {
    inside[Symbol.dispose]()
    await inside.exited
  }
}

interface Lent {
  loan: { id: string; record: { expiresAt?: string } }
}

/** One of the daemon's numbers; 0: it has not counted it yet. */
async function counted(name: string): Promise<number> {
  const [answer] = (await once(get({ socketPath: socket, path: '/metrics', agent: false }), 'response')) as [
    IncomingMessage,
  ]
  const line = (await text(answer)).split('\n').find(one => one.startsWith(`${name} `))
  return Number(line?.split(' ')[1] ?? 0)
}

test('each decision, and each end, is counted once', machine, () =>
  within(ALICE, async pid => {
    const names = ['decisions_total{verdict="allowed"}', 'decisions_total{verdict="refused"}']
    const all = [...names, 'loans_ended_total{why="revoked"}'].map(name => `bpftoken_${name}`)
    const numbers = (): Promise<number[]> => Promise.all(all.map(counted))
    const before = await numbers()
    const to = ['--pid', pid, '--policy', 'alices']
    await ends(3, BOB, 'delegate', ...to)
    await ends(0, ALICE, 'delegate', ...to)
    await ends(0, ALICE, 'undelegate', '--pid', pid)
    const after = await numbers()
    assert.deepEqual(
      after.map((now, i) => now - before[i]!),
      [1, 1, 1],
    )
  }),
)

test(
  'a user lends to its own namespace, sees, renews and takes back; another user does none of it',
  machine,
  () =>
    within(ALICE, async pid => {
      const to = ['--pid', pid, '--policy', 'alices']
      assert.match(await ends(3, BOB, 'delegate', ...to), /no power over|no subject|names/i)
      assert.match(await ends(0, ALICE, 'delegate', ...to, '--dry-run'), /policy alices allows it/)
      assert.equal(isMounted(Number(pid)), false)
      const { loan } = await document<Lent>(ALICE, 'delegate', ...to, '--lifetime', '1h')
      assert.equal(isMounted(Number(pid)), true)
      assert.match(await ends(0, ALICE, 'ls'), new RegExp(`${loan.id} +live for (59m|1h)`))
      assert.match(await ends(0, ALICE, 'ls', '--tree'), new RegExp(`${loan.id} of policy alices at ${PATH}`))
      assert.match(await ends(0, ALICE, 'show', loan.id), new RegExp(`asked .* by uid ${ALICE}`))
      assert.match(await ends(0, BOB, 'ls'), /^nothing is lent$/m)
      for (const words of [
        ['show', loan.id],
        ['revoke', loan.id],
        ['renew', loan.id, '--lifetime', '2h'],
      ])
        await ends(1, BOB, ...words)
      assert.equal(isMounted(Number(pid)), true)
      await ends(0, ALICE, 'renew', loan.id, '--lifetime', '2h')
      assert.match(await ends(0, ALICE, 'ls'), /live for (1h59m|2h)/)
      assert.match(await ends(0, ALICE, 'undelegate', '--pid', pid), new RegExp(`taken back: ${loan.id}`))
      assert.equal(isMounted(Number(pid)), false)
      await ends(1, ALICE, 'undelegate', '--pid', pid)
      assert.match(await ends(0, ALICE, 'show', loan.id), /ended: revoked/)
      const records = await ends(0, ROOT_UID, 'audit', 'query', '--loan', loan.id)
      assert.match(records, /lend\.will[\s\S]*lend\.did/)
      assert.match(await ends(0, ROOT_UID, 'audit', 'verify'), /^intact/)
      await ends(3, ALICE, 'audit', 'query')
    }),
)

test('root lends by name and by file; nobody else by file', machine, () =>
  within(ALICE, async pid => {
    const text = `apiVersion: bpftoken.dev/v1\nkind: DelegationPolicy\nmetadata: { name: own }\nspec:\n${RIGHTS}\n`
    const file = scratch.write('own.yaml', text)
    assert.match(await ends(3, ALICE, 'delegate', '--pid', pid, '--policy', file), /Only root/)
    await ends(3, ALICE, 'delegate', '--pid', pid, '--policy', 'roots')
    for (const policy of [file, 'roots']) {
      const { loan } = await document<Lent>(ROOT_UID, 'delegate', '--pid', pid, '--policy', policy)
      assert.equal(isMounted(Number(pid)), true)
      // There is no guard: tokens stay, which is said.
      assert.match(await ends(1, ROOT_UID, 'revoke', loan.id), /no guard holds to loan-/)
      assert.equal(isMounted(Number(pid)), false)
    }
    const bad = scratch.write('bad.yaml', 'kind: DelegationPolicy\nspek: {}\n')
    assert.match(await ends(2, ROOT_UID, 'delegate', '--pid', pid, '--policy', bad), /spek/)
    await ends(1, ROOT_UID, 'delegate', '--pid', pid, '--policy', 'none-such')
  }),
)

test('a context that a process opened is configured, and mounted by the process', machine, () =>
  within(ALICE, async (pid, inside) => {
    const fd = await inside.must('fsopen', 'bpf', 0)
    const context = ['--pid', pid, '--policy', 'alices', '--context-fd', String(fd)]
    assert.match(await ends(0, ALICE, 'delegate', ...context), /may now mount its context/)
    const mount = await inside.must('fsmount', fd, 0, 0)
    await inside.must('move_mount', mount, '', -100, PATH, 4)
    assert.equal(isMounted(Number(pid)), true)
    await ends(1, ALICE, 'revoke', '--all')
    assert.equal(isMounted(Number(pid)), false)
  }),
)

/** The delegation that Alice waits for, and the number of its request. */
async function waiting(pid: string, ...more: string[]) {
  const words = ['delegate', '--pid', pid, '--policy', 'approved', '--comment', 'for tests', ...more]
  const child = startCli([...words, '--socket', socket], { uid: ALICE, gid: ALICE, cwd: '/' })
  const ended = finish(child)
  let request: string | undefined
  await eventually(async () => {
    const { requests } = await document<{ requests: { id: string }[] }>(ROOT_UID, 'requests')
    request = requests[0]?.id
    return request !== undefined
  }, 'nothing waits')
  return { child, ended, request: request! }
}

test('what must be approved waits: approved it is lent, denied or withdrawn it is not', machine, () =>
  within(ALICE, async pid => {
    const first = await waiting(pid)
    assert.equal(isMounted(Number(pid)), false)
    assert.match(await ends(0, ROOT_UID, 'requests'), /request-\d+ +waiting.*approved.*for tests/)
    assert.match(await ends(0, BOB, 'requests'), /^nothing waits$/m)
    await ends(3, ALICE, 'approve', first.request)
    assert.match(await ends(0, ROOT_UID, 'approve', first.request), /approved by uid 0, loan-\d+/)
    const { status, stdout, stderr } = await first.ended
    assert.equal(status, 0, stderr)
    assert.match(stdout, /^loan-\d+: lent to /)
    assert.match(stderr, new RegExp(`${first.request} waits to be approved`))
    assert.equal(isMounted(Number(pid)), true)
    await ends(1, ROOT_UID, 'revoke', '--user', String(ALICE))
    assert.equal(isMounted(Number(pid)), false)

    const second = await waiting(pid)
    await ends(0, ROOT_UID, 'deny', second.request, '--comment', 'not today')
    const denied = await second.ended
    assert.equal(denied.status, 3)
    assert.match(denied.stderr, /was denied: "not today"/)

    const third = await waiting(pid)
    third.child.kill('SIGINT')
    const gone = await third.ended
    assert.equal(gone.status, 130)
    assert.match(gone.stderr, /is withdrawn/)
    await ends(1, ROOT_UID, 'approve', third.request)
    assert.equal(isMounted(Number(pid)), false)
    const all = await ends(0, ALICE, 'requests', '--all')
    for (const state of ['approved', 'denied', 'withdrawn'])
      assert.match(all, new RegExp(`request-\\d+ +${state}`))
  }),
)

test('--no-wait leaves a request that waits', machine, () =>
  within(ALICE, async pid => {
    const words = ['delegate', '--pid', pid, '--policy', 'approved', '--no-wait']
    const { request } = await document<{ request: { id: string } }>(ALICE, ...words)
    assert.match(await ends(0, ALICE, 'requests'), new RegExp(request.id))
    await ends(0, ROOT_UID, 'deny', request.id)
  }),
)

test('explain tells whether, and which entry says so', machine, () =>
  within(ALICE, async pid => {
    const words = ['explain', '--request', '--policy', 'alices', '--pid', pid]
    assert.match(await ends(0, ALICE, ...words), /Allowed by policy "alices": spec\.subjects\[0\] matches/)
    // Whoever may not have the policy is told that there is none.
    for (const name of ['alices', 'nobodys'])
      assert.match(
        await ends(1, BOB, 'explain', '--request', '--policy', name),
        new RegExp(`There is no policy "${name}"`),
      )
  }),
)

test('revoke by user, by policy and all: first what would be, then what is', machine, () =>
  within(ALICE, async pid => {
    for (const selector of [['--user', String(ALICE)], ['--policy', 'alices'], ['--all']]) {
      const { loan } = await document<Lent>(ALICE, 'delegate', '--pid', pid, '--policy', 'alices')
      assert.match(
        await ends(0, ROOT_UID, 'revoke', ...selector, '--dry-run'),
        new RegExp(`would take back: ${loan.id}`),
      )
      assert.equal(isMounted(Number(pid)), true)
      // A user cannot take back what others have, by whatever name.
      assert.match(await ends(0, BOB, 'revoke', '--all'), /nothing was taken back/)
      assert.equal(isMounted(Number(pid)), true)
      assert.match(await ends(1, ROOT_UID, 'revoke', ...selector), new RegExp(`taken back: ${loan.id}`))
      assert.equal(isMounted(Number(pid)), false)
    }
  }),
)

test(
  'policies: each sees its own; a bad file keeps the old policy, and status says so',
  machine,
  async () => {
    assert.match(await ends(0, ALICE, 'policy', 'list'), /^alices +yes +none/m)
    assert.doesNotMatch(await ends(0, BOB, 'policy', 'list'), /alices +yes/)
    const file = join(policies, 'alices.yaml')
    const good = readFileSync(file, 'utf8')
    writeFileSync(file, 'kind: nonsense\n')
    try {
      assert.match(await ends(1, ROOT_UID, 'reload'), /alices\.yaml is not as it was loaded/)
      assert.match(await ends(1, ROOT_UID, 'status'), /not well:/)
      assert.match(await ends(0, ALICE, 'policy', 'list'), /^alices +yes/m)
    } finally {
      writeFileSync(file, good)
    }
    await ends(3, ALICE, 'reload')
    assert.match(await ends(0, ROOT_UID, 'reload'), /policies are loaded/)
  },
)
