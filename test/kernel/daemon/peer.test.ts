/**
 * Who asks, and what it may: attempts to be taken for somebody else, each with its honest twin.
 */
import assert from 'node:assert/strict'
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  chmodSync,
  chownSync,
  copyFileSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { compiled } from '../../../scripts/compiled.ts'
import type { AskerFacts } from '../../../src/daemon/asker.ts'
import { hasCapability } from '../../../src/daemon/peer.ts'
import { cgroupRoot } from '../../../src/lending/recipient/cgroup.ts'
import type { SubjectFacts } from '../../../src/policy/subject.ts'
import { hasPowerOver } from '../../../src/sys/namespace.ts'
import { openNamespace, openProcess } from '../../../src/sys/process.ts'
import { ownNamespace } from '../../../src/sys/self.ts'
import { CLONE_NEWNS, CLONE_NEWUSER } from '../../../src/uapi/constants.ts'
import { eventually } from '../../helpers/eventually.ts'
import { Scratch } from '../../helpers/scratch.ts'
import { FUSE, FuseServer } from '../delegation/fuse.ts'
import { leavesNothing } from '../delegation/leaves-nothing.ts'
import { Workload } from '../delegation/workload.ts'
import { type Answer, askBy, Judge } from './judge.ts'

const ALICE = 61001
const BOB = 61002
const AT_FDCWD = -100
const MS_BIND = 0x1000
const O_RDONLY = 0
const O_CLOEXEC = 0o2000000

let judge: Judge
/** In namespaces that its user made. */
let alices: Workload
let bobs: Workload

before(async () => {
  judge = await Judge.start()
  alices = await inOwnNamespaces(ALICE)
  bobs = await inOwnNamespaces(BOB)
})
after(async () => {
  for (const one of [alices, bobs]) one[Symbol.dispose]()
  await Promise.all([alices.exited, bobs.exited])
  await judge[Symbol.asyncDispose]()
})
leavesNothing()

/** A process of that user in a user and mount namespace that it made, with itself as root. */
async function inOwnNamespaces(uid: number, inside = 0): Promise<Workload> {
  const workload = await Workload.onHost(uid)
  await workload.must('unshare', CLONE_NEWUSER | CLONE_NEWNS)
  for (const map of ['uid_map', 'gid_map'])
    writeFileSync(`/proc/${workload.pid}/${map}`, `${inside} ${uid} 1`)
  return workload
}

/** `body` with processes that end afterwards. */
async function withAll<T extends Workload[]>(
  started: [...{ [K in keyof T]: Promise<T[K]> }],
  body: (...those: T) => Promise<void>,
): Promise<void> {
  const those = (await Promise.all(started)) as T
  try {
    await body(...those)
  } finally {
    for (const one of those) one[Symbol.dispose]()
    await Promise.all(those.map(one => one.exited))
  }
}

function denied({ ok, code, message }: Answer, why: RegExp): void {
  assert.equal(ok, undefined, 'it was allowed')
  assert.equal(code, 'BPFTOKEN_DENIED')
  assert.match(message ?? '', why)
}

function refused({ ok, code, message }: Answer, why: RegExp): void {
  assert.equal(ok, undefined, 'it was allowed')
  assert.equal(code, 'BPFTOKEN_INPUT')
  assert.match(message ?? '', why)
}

test('a user may lend to what is in namespaces of its own, named by number, pidfd, or as itself', () =>
  withAll([Workload.onHost(ALICE)], async alice => {
    using line = await judge.line(alice)
    assert.deepEqual(await line.ask(`pid ${alices.pid}`), { ok: alices.pid })
    const pidfd = await alice.must('pidfd_open', alices.pid, 0)
    assert.deepEqual(await line.ask(`pidfd ${pidfd}`), { ok: alices.pid })
    using within = await judge.line(alices)
    assert.deepEqual(await within.ask('self'), { ok: alices.pid })
    assert.deepEqual(await line.ask('root'), { ok: false })
  }))

test("nobody may lend to what is in another user's namespaces, however it is named", () =>
  withAll([Workload.onHost(ALICE)], async alice => {
    using line = await judge.line(alice)
    denied(await line.ask(`pid ${bobs.pid}`), /no power over/)
    const pidfd = await alice.must('pidfd_open', bobs.pid, 0)
    denied(await line.ask(`pidfd ${pidfd}`), /no power over/)
    using bob = await judge.line(bobs)
    assert.deepEqual(await bob.ask('self'), { ok: bobs.pid })
  }))

test('whatever number a process has in a user namespace, who made the outermost one is its owner', async () => {
  const boxed = await Workload.onHost(ALICE)
  await boxed.must('unshare', CLONE_NEWUSER | CLONE_NEWNS)
  // As newuidmap(1) gives a user subordinate numbers.
  for (const map of ['uid_map', 'gid_map'])
    writeFileSync(`/proc/${boxed.pid}/${map}`, `0 ${ALICE} 1\n1 165536 10`)
  await withAll(
    [Promise.resolve(boxed), Workload.onHost(BOB), Workload.onHost(0)],
    async (sub, bob, roots) => {
      await sub.must('setresgid', 5, 5, 5)
      await sub.must('setresuid', 5, 5, 5)
      using line = await judge.line(sub)
      const facts = (await line.ask('facts')).ok as AskerFacts
      assert.deepEqual([facts.uid, facts.owner], [165540, `user ${ALICE}`])
      await sub.must('unshare', CLONE_NEWUSER)
      using nested = await judge.line(sub)
      assert.deepEqual(await nested.ask('owner'), { ok: `user ${ALICE}` })
      using other = await judge.line(bob)
      assert.deepEqual(await other.ask('owner'), { ok: `user ${BOB}` })
      assert.equal(((await other.ask('facts')).ok as AskerFacts).owner, undefined)
      await roots.must('unshare', CLONE_NEWUSER)
      using contained = await judge.line(roots)
      assert.match(String((await contained.ask('owner')).ok), /^user:\[\d+\]$/)
    },
  )
})

test('to a user a process that is not there, another one and the host are all the same; root is told', () =>
  withAll([Workload.onHost(ALICE), Workload.onHost(ALICE)], async (alice, gone) => {
    gone[Symbol.dispose]()
    await gone.exited
    using line = await judge.line(alice)
    const told = async (pid: number): Promise<string> =>
      JSON.stringify(await line.ask(`pid ${pid}`)).replace(`process ${pid},`, 'process N,')
    const first = await told(gone.pid)
    assert.match(first, /no power over process N, or there is none/)
    for (const pid of [bobs.pid, process.pid, 1]) assert.equal(await told(pid), first)
    assert.deepEqual(await line.ask(`pid ${alices.pid}`), { ok: alices.pid })
    await withAll([Workload.onHost(0)], async workload => {
      using root = await judge.line(workload)
      assert.equal((await root.ask(`pid ${gone.pid}`)).code, 'BPFTOKEN_NOT_FOUND')
      assert.equal((await root.ask(`pid ${process.pid}`)).code, 'BPFTOKEN_CONFLICT')
    })
  }))

test('nobody may lend to what is in the initial user namespace', () =>
  withAll([Workload.onHost(ALICE)], async alice => {
    using line = await judge.line(alice)
    const { ok, code, message } = await line.ask('self')
    assert.deepEqual([ok, code], [undefined, 'BPFTOKEN_CONFLICT'])
    assert.match(message ?? '', /same user namespace as bpftoken/)
    for (const pid of [alice.pid, process.pid]) denied(await line.ask(`pid ${pid}`), /no power over/)
    using ours = openProcess(process.pid)
    using initial = openNamespace(ours, 'user')
    const holder = { userNamespace: ownNamespace('user'), uid: 0, isAdmin: true }
    assert.equal(hasPowerOver(initial, holder), false)
  }))

test('power over a user namespace comes from above it, and not from beside it', () =>
  withAll([Workload.onHost(ALICE), inOwnNamespaces(ALICE)], async (alice, sandbox) => {
    // Of the same user, but in a sandbox: the kernel gives it no power over what is beside that.
    using boxed = await judge.line(sandbox)
    const pidfd = await sandbox.must('pidfd_open', alices.pid, 0)
    denied(await boxed.ask(`pidfd ${pidfd}`), /no power over/)
    assert.deepEqual(await boxed.ask('self'), { ok: sandbox.pid })
    using line = await judge.line(alice)
    assert.deepEqual(await line.ask(`pid ${sandbox.pid}`), { ok: sandbox.pid })
  }))

test('in a namespace, its capability counts, there and in one below; without it nothing does', async () => {
  const asAlice = ['setpriv', `--reuid=${ALICE}`, `--regid=${ALICE}`, '--clear-groups'] as const
  const OWN = ['unshare', '--user', '--map-root-user', '--mount']
  const POWERLESS = ['setpriv', '--bounding-set=-all', '--inh-caps=-all']
  const within = ['nsenter', '--user', `--target=${alices.pid}`, '--setuid=0', '--setgid=0'] as const
  await withAll(
    [
      Workload.startedBy(...asAlice, ...OWN, ...POWERLESS),
      Workload.startedBy(...asAlice, ...OWN),
      Workload.startedBy(...within, ...OWN),
    ],
    async (none, all, below) => {
      using mayNot = await judge.line(none)
      denied(await mayNot.ask('self'), /no power over/)
      using may = await judge.line(all)
      assert.deepEqual(await may.ask('self'), { ok: all.pid })
      await below.must('getpid')
      const asked = async (above: Workload): Promise<Answer> => {
        using line = await judge.line(above)
        return await line.ask(`pidfd ${await above.must('pidfd_open', below.pid, 0)}`)
      }
      assert.deepEqual(await asked(alices), { ok: below.pid })
      denied(await asked(bobs), /no power over/)
      denied(await asked(all), /no power over/)
    },
  )
})

test('a connection that was passed to another user is worth what the one that opened it is', () =>
  withAll([Workload.onHost(ALICE), Workload.onHost(BOB)], async (alice, bob) => {
    const opened = await judge.connect(alice)
    using connection = await alice.give(opened)
    await alice.must('close', opened)
    const passed = await bob.take(connection)
    assert.equal(((await askBy(bob, passed, 'facts')).ok as AskerFacts).uid, ALICE)
    denied(await askBy(bob, passed, `pid ${bobs.pid}`), /no power over/)
    assert.deepEqual(await askBy(bob, passed, `pid ${alices.pid}`), { ok: alices.pid })
    const own = await judge.connect(bob)
    assert.deepEqual(await askBy(bob, own, `pid ${bobs.pid}`), { ok: bobs.pid })
    // And nothing, once that one has gone.
    alice[Symbol.dispose]()
    await alice.exited
    denied(await askBy(bob, passed, `pid ${alices.pid}`), /has exited/)
  }))

test('a process that executes a setuid program after it connected may nothing', async () => {
  using scratch = new Scratch()
  const setuid = copy(scratch, 'setuid', 0, 0, 0o4755)
  const setgid = copy(scratch, 'setgid', 0, BOB, 0o2755)
  const plain = copy(scratch, 'plain', 0, 0, 0o755)
  for (const [file, how, why] of [
    [setuid, 'stay', /connected as user 61001, and has ids 61001 0 0 0 now/],
    [setuid, 'all', /connected as user 61001, and has ids 0 0 0 0 now/],
    [setgid, 'stay', /connected as group 61001, and has ids 61001 61002 61002 61002 now/],
    [setgid, 'all', /connected as group 61001, and has ids 61002/],
    [plain, 'stay', undefined],
    [plain, 'all', undefined],
  ] as const)
    await withAll([Workload.onHost(ALICE)], async alice => {
      using line = await judge.line(alice)
      assert.deepEqual(await line.ask(`pid ${alices.pid}`), { ok: alices.pid })
      await alice.becomes(file, how)
      if (why === undefined) {
        assert.deepEqual(await line.ask(`pid ${alices.pid}`), { ok: alices.pid })
        assert.deepEqual(((await line.ask('subject')).ok as SubjectFacts).executable, { is: file })
        return
      }
      // It does that after execve(2).
      await eventually(async () => why.test((await line.ask('root')).message ?? ''), `not ${why}`)
      for (const question of ['root', 'facts', 'subject', 'self', 'pidfd 0', `pid ${alices.pid}`, 'take 0'])
        denied(await line.ask(question), why)
    })
})

/** xattr security.capability of version 3: CAP_SYS_ADMIN, effective, in namespaces of that root. */
function sysAdminOf(root: number): Uint8Array {
  const [revision, effective] = [0x03000000, 1]
  return new Uint8Array(Uint32Array.of(revision | effective, 1 << 21, 0, 0, 0, root).buffer)
}

test('a process that got its capability by executing a file, after it connected, may nothing by it', async () => {
  using scratch = new Scratch()
  const plain = copy(scratch, 'plain', 0, 0, 0o755)
  const capable = copy(scratch, 'capable', 0, 0, 0o755)
  const root = await Workload.onHost(0)
  // Alice is root there, and Bob a user without rights.
  const container = await Workload.onHost(ALICE)
  try {
    assert.equal(await root.call('setxattr', capable, 'security.capability', sysAdminOf(ALICE), 24, 0), 0)
    await container.must('unshare', CLONE_NEWUSER | CLONE_NEWNS)
    for (const map of ['uid_map', 'gid_map'])
      writeFileSync(`/proc/${container.pid}/${map}`, `0 ${ALICE} 1\n1 ${BOB} 1\n`)
    const enter = ['nsenter', '--user', '--mount', `--target=${container.pid}`] as const
    const asBob = [...enter, '--setuid=1', '--setgid=1'] as const
    const set = ['setpriv', '--reuid=1', '--regid=1', '--clear-groups'] as const
    const given = [...set, '--inh-caps=+sys_admin', '--ambient-caps=+sys_admin'] as const
    const isAdmin = (bob: Workload): boolean =>
      hasCapability(/CapEff:\s*(\w+)/.exec(readFileSync(`/proc/${bob.pid}/status`, 'utf8'))![1], 21)
    for (const file of [plain, capable])
      await withAll([Workload.startedBy(...asBob)], async bob => {
        using line = await judge.line(bob)
        denied(await line.ask('self'), /no power over/)
        await bob.becomes(file, 'stay')
        await eventually(() => isAdmin(bob) === (file === capable), 'it has not become that')
        denied(await line.ask('self'), /no power over/)
      })
    // Its twin has it by nobody's file.
    await withAll([Workload.startedBy(...enter, '--setuid=0', '--setgid=0', ...given)], async bob => {
      using line = await judge.line(bob)
      assert.equal(((await line.ask('facts')).ok as AskerFacts).uid, BOB)
      assert.equal(isAdmin(bob), true)
      assert.deepEqual(await line.ask('self'), { ok: bob.pid })
      await bob.becomes(plain, 'stay')
      assert.deepEqual(await line.ask('self'), { ok: bob.pid })
    })
  } finally {
    for (const one of [root, container]) one[Symbol.dispose]()
    await Promise.all([root.exited, container.exited])
  }
})

function copy(scratch: Scratch, name: string, uid: number, gid: number, mode: number): string {
  const file = join(scratch.path, name)
  copyFileSync(compiled(join(__dirname, 'become.c')), file)
  chownSync(file, uid, gid)
  chmodSync(file, mode)
  return file
}

test('a process that gave up being root after it connected may nothing by that connection', () =>
  withAll([Workload.onHost(0)], async root => {
    using line = await judge.line(root)
    assert.deepEqual(await line.ask('root'), { ok: true })
    assert.deepEqual(await line.ask(`pid ${bobs.pid}`), { ok: bobs.pid })
    await root.must('setresuid', ALICE, ALICE, ALICE)
    denied(await line.ask('root'), /connected as user 0/)
    denied(await line.ask(`pid ${alices.pid}`), /connected as user 0/)
  }))

test('a process that took the number of the one that connected is not that one', () =>
  withAll([Workload.onHost(ALICE), Workload.onHost(ALICE)], async (alice, keeper) => {
    using line = await judge.line(alice)
    // Another process has its connection too, so that it lasts.
    assert.equal(((await line.ask('facts')).ok as AskerFacts).pid, alice.pid)
    const own = await inOwnNamespaces(ALICE)
    const pidfd = await keeper.must('pidfd_open', own.pid, 0)
    using other = await judge.line(keeper)
    assert.deepEqual(await other.ask(`pidfd ${pidfd}`), { ok: own.pid })
    for (const one of [alice, own]) one[Symbol.dispose]()
    await Promise.all([alice.exited, own.exited])

    const imposters = [
      await asNumber(alice.pid, ALICE),
      await asNumber(own.pid, ALICE, 'unshare', '--user', '--map-root-user', '--mount'),
    ]
    try {
      for (const question of ['facts', 'root', `pid ${alices.pid}`])
        denied(await line.ask(question), /has exited/)
      // Nor is it the one that a pidfd means. By its number it can be named: it is what has that
      // now.
      refused(await other.ask(`pidfd ${pidfd}`), /no pidfd of a process that runs/)
      assert.deepEqual(await other.ask(`pid ${own.pid}`), { ok: own.pid })
    } finally {
      for (const imposter of imposters) await imposter()
    }
    const stranger = await asNumber(own.pid, BOB, 'unshare', '--user', '--map-root-user', '--mount')
    try {
      denied(await other.ask(`pid ${own.pid}`), /no power over/)
    } finally {
      await stranger()
    }
  }))

/** A process of that number and user that waits; it ends by what is returned. */
async function asNumber(pid: number, uid: number, ...words: string[]): Promise<() => Promise<void>> {
  const program = ['/usr/bin/setpriv', `--reuid=${uid}`, `--regid=${uid}`, '--clear-groups', ...words, 'cat']
  let child: ChildProcess | undefined
  // The number is free once the kernel has let go of the process that had it.
  await eventually(async () => {
    child = spawn(compiled(join(__dirname, 'become.c')), ['number', String(pid), ...program], {
      stdio: ['pipe', 'ignore', 'ignore'],
    })
    await Promise.race([
      once(child, 'exit'),
      eventually(() => commOf(pid) === 'cat' || child?.exitCode !== null, 'never'),
    ])
    return child.exitCode === null
  }, `process number ${pid} does not become free`)
  return async () => {
    const ended = once(child!, 'exit')
    child!.stdin!.end()
    await ended
  }
}

function commOf(pid: number): string | undefined {
  try {
    return readFileSync(`/proc/${pid}/comm`, 'utf8').trim()
  } catch {
    return undefined
  }
}

const root = cgroupRoot()

test(
  'a process is judged by the cgroup that it is in when it asks',
  { skip: root === undefined ? 'no cgroups of version 2' : false },
  () =>
    withAll([Workload.onHost(ALICE)], async alice => {
      const name = `bpftoken-test-${process.pid}`
      const [before, later] = [`${name}-1.scope`, `${name}-2.scope`]
      for (const each of [before, later]) mkdirSync(join(root!, each))
      const move = (to: string): void => writeFileSync(join(root!, to, 'cgroup.procs'), String(alice.pid))
      try {
        move(before)
        using line = await judge.line(alice)
        for (const each of [before, later, before]) {
          move(each)
          const { cgroup, unit } = (await line.ask('facts')).ok as AskerFacts
          assert.deepEqual({ cgroup, unit }, { cgroup: `/${each}`, unit: each })
          const subject = (await line.ask('subject')).ok as { cgroup: unknown }
          assert.deepEqual(subject.cgroup, { is: `/${each}` })
        }
      } finally {
        move('.')
        for (const each of [before, later]) rmdirSync(join(root!, each))
      }
    }),
)

test('a number that is no descriptor of the asker is refused, and one that is is taken', () =>
  withAll([Workload.onHost(ALICE)], async alice => {
    using line = await judge.line(alice)
    const open = await alice.must('eventfd2', 0, 0)
    const closed = await alice.must('eventfd2', 0, 0)
    await alice.must('close', closed)
    assert.deepEqual(await line.ask(`take ${open}`), { ok: true })
    for (const number of [closed, 2 ** 31 - 1]) {
      refused(await line.ask(`take ${number}`), /has no descriptor/)
      refused(await line.ask(`pidfd ${number}`), /no pidfd/)
    }
    for (const number of [-1, 2 ** 31, 2 ** 32 + open, 2 ** 53, 'NaN', 'Infinity', 0.5]) {
      refused(await line.ask(`take ${number}`), /cannot be the number of a descriptor/)
      refused(await line.ask(`pidfd ${number}`), /cannot be the number of a descriptor/)
      refused(await line.ask(`pid ${number}`), /cannot be the number of a process/)
    }
  }))

test('what is no pidfd of a process is refused', () =>
  withAll([Workload.onHost(ALICE)], async alice => {
    using line = await judge.line(alice)
    const file = await alice.must('openat', AT_FDCWD, '/etc/passwd', O_RDONLY, 0)
    const event = await alice.must('eventfd2', 0, 0)
    const status = await alice.must('openat', AT_FDCWD, `/proc/${alices.pid}/status`, O_RDONLY, 0)
    const directory = await alice.must('openat', AT_FDCWD, `/proc/${alices.pid}`, O_RDONLY, 0)
    const PIDFD_THREAD = 0o200
    const thread = readdirSync('/proc/self/task')
      .map(Number)
      .find(tid => tid !== process.pid)!
    const ofThread = await alice.must('pidfd_open', thread, PIDFD_THREAD)
    for (const number of [0, file, event, status, directory, ofThread])
      refused(await line.ask(`pidfd ${number}`), /no pidfd of a process/)
    const real = await alice.must('pidfd_open', alices.pid, 0)
    assert.deepEqual(await line.ask(`pidfd ${real}`), { ok: alices.pid })
    // Of the first thread it is one of the process too.
    const first = await alice.must('pidfd_open', alices.pid, PIDFD_THREAD)
    assert.deepEqual(await line.ask(`pidfd ${first}`), { ok: alices.pid })
  }))

test('in another pid namespace a process is named by pidfd, and by no number', () =>
  withAll(
    [
      Workload.startedBy(
        'unshare',
        '--pid',
        '--fork',
        '--kill-child',
        'setpriv',
        `--reuid=${ALICE}`,
        `--regid=${ALICE}`,
        '--clear-groups',
      ),
    ],
    async boxed => {
      assert.equal(await boxed.must('getpid'), 1)
      using line = await judge.line(boxed)
      denied(await line.ask(`pid ${alices.pid}`), /by its number from the pid namespace of the daemon alone/)
      denied(await line.ask('pid 1'), /by its number from the pid namespace of the daemon alone/)
      using held = openProcess(alices.pid)
      const pidfd = await boxed.take(held.pidfd)
      assert.deepEqual(await line.ask(`pidfd ${pidfd}`), { ok: alices.pid })
    },
  ))

test('user 0 is root in the initial user namespace alone, and with its capability alone', () =>
  withAll(
    [
      Workload.onHost(0),
      Workload.startedBy('unshare', '--user', '--map-root-user', '--mount'),
      Workload.startedBy(
        'setpriv',
        `--reuid=${ALICE}`,
        `--regid=${ALICE}`,
        '--clear-groups',
        'unshare',
        '--user',
        '--map-root-user',
        '--mount',
      ),
      Workload.powerless(),
    ],
    async (real, mapped, claimed, powerless) => {
      using root = await judge.line(real)
      assert.deepEqual(await root.ask('root'), { ok: true })
      assert.deepEqual(await root.ask(`pid ${bobs.pid}`), { ok: bobs.pid })
      for (const [workload, uid] of [
        [mapped, 0],
        [claimed, ALICE],
        [powerless, 0],
      ] as const) {
        using line = await judge.line(workload)
        assert.deepEqual(await line.ask('root'), { ok: false })
        assert.equal(((await line.ask('facts')).ok as AskerFacts).uid, uid)
        denied(await line.ask(`pid ${bobs.pid}`), /no power over/)
      }
    },
  ))

test('an executable is known of who is in the initial user namespace, and as its path is ours', async () => {
  using scratch = new Scratch()
  const file = copy(scratch, 'program', 0, 0, 0o755)
  await withAll(
    [Workload.onHost(ALICE), Workload.onHost(ALICE), inOwnNamespaces(ALICE)],
    async (plain, elsewhere, boxed) => {
      const told = async (workload: Workload, change: () => Promise<void>): Promise<unknown> => {
        using line = await judge.line(workload)
        await change()
        return ((await line.ask('subject')).ok as { executable: unknown }).executable
      }
      assert.deepEqual(await told(plain, () => plain.becomes(file, 'stay')), { is: file })
      // Another file is there in its own mount namespace, and a process out here executes that one.
      using other = new Scratch()
      copy(other, 'program', ALICE, ALICE, 0o755)
      await boxed.must('mount', other.path, scratch.path, '', MS_BIND, 0)
      using forged = await boxed.give(await boxed.must('openat', AT_FDCWD, file, O_RDONLY, 0))
      const held = await elsewhere.take(forged)
      assert.deepEqual(await told(elsewhere, () => elsewhere.becomes(file, 'stay', held)), {
        unknown: 'its executable does not lie in our mount namespace',
      })
      assert.match(JSON.stringify(await told(boxed, () => boxed.becomes(file, 'stay'))), /can choose/)
    },
  )
})

test('a process that hangs in execve(2) has nobody wait but who asks for its descriptors', async t => {
  using scratch = new Scratch()
  const device = join(scratch.path, 'fuse')
  execFileSync('mknod', ['-m', '666', device, 'c', '10', '229'])
  await withAll([inOwnNamespaces(ALICE), Workload.onHost(BOB)], async (hanging, innocent) => {
    using line = await judge.line(hanging)
    using other = await judge.line(innocent)
    const mount = async (): Promise<FuseServer | undefined> => {
      await hanging.must('mount', 'none', '/mnt', 'tmpfs', 0, 'mode=755')
      await hanging.must('mkdirat', AT_FDCWD, '/mnt/b', 0o755)
      return FuseServer.mount(hanging, device, '/mnt/b').catch(() => undefined)
    }
    using fuse = await mount()
    if (fuse === undefined) return t.skip('a user namespace cannot mount FUSE here')
    await hanging.must('openat', AT_FDCWD, '/mnt/b/f', O_CLOEXEC, 0)
    assert.deepEqual(await line.ask('take 0'), { ok: true })
    const hung = fuse.hang(FUSE.FLUSH)
    const executes = hanging.becomes('/bin/true', '')
    await hung
    const take = line.ask('take 0')
    // Meanwhile: others, and all that is asked of itself but that.
    assert.deepEqual(await other.ask('take 0'), { ok: true })
    assert.deepEqual(await other.ask('root'), { ok: false })
    using second = await judge.line(innocent)
    assert.deepEqual(await second.ask('take 0'), { ok: true })
    const { code, message } = await take
    assert.equal(code, 'BPFTOKEN_TIMEOUT')
    assert.match(message ?? '', /in the middle of an execve/)
    assert.equal(((await line.ask('facts')).ok as AskerFacts).uid, ALICE)
    // Of what policies ask for, what cannot be had in time is unknown, and the rest is known.
    const { user, executable } = (await line.ask('subject')).ok as SubjectFacts
    assert.deepEqual([user, 'unknown' in executable], [{ is: { id: ALICE, names: [] } }, true])
    fuse.release()
    executes.catch(() => {})
    await hanging.exited
    denied(await line.ask('take 0'), /has exited/)
  })
})
