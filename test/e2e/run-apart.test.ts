/**
 * `bpftoken run --apart` of an ordinary user, with the daemon and the launcher themselves: what the
 * program gets and what not, who may have it, and how it ends. Where users may make no namespaces
 * it is the same without --apart: see test/vm/no-namespaces.test.ts.
 */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmdirSync,
  writeFileSync,
} from 'node:fs'
import { getPriority } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { compiled } from '../../scripts/compiled.ts'
import { residue, snapshot } from '../../scripts/residue.ts'
import { Client } from '../../src/client/client.ts'
import { Bpftokend } from '../helpers/bpftokend.ts'
import { execute, finish, inPublic, PUBLIC, PUBLIC_CLI, type Result } from '../helpers/cli.ts'
import { eventually } from '../helpers/eventually.ts'
import { Launchd } from '../helpers/launchd.ts'
import { needsTokens } from '../helpers/machine.ts'
import {
  asUser,
  Front,
  hasWhatIsLentAlone,
  LENT_OBJECT,
  lentObjectPolicies,
  OTHER_USER,
  USER,
} from '../helpers/ordinary-user.ts'
import { Scratch } from '../helpers/scratch.ts'
import { quote, Terminal } from '../helpers/terminal.ts'

const residueBefore = snapshot()
after(async () => assert.deepEqual(await residue(residueBefore), []))

/** TCP sockets that a process has. */
function tcpSockets(pid: number): number {
  const all = readdirSync(`/proc/${pid}/fd`).map(fd => {
    try {
      return readlinkSync(`/proc/${pid}/fd/${fd}`)
    } catch {
      return ''
    }
  })
  const tcp = readFileSync('/proc/net/tcp', 'utf8')
  return all.filter(link => {
    const inode = /^socket:\[(\d+)\]$/.exec(link)?.[1]
    return inode !== undefined && new RegExp(` ${inode} `).test(tcp)
  }).length
}

describe('run by the launcher', needsTokens(), () => {
  const scratch = new Scratch()
  let front: Front
  let daemon: Bpftokend
  let launchd: Launchd
  let root: Client

  before(async () => {
    front = new Front()
    const policy = await lentObjectPolicies()
    const socket = join(scratch.path, 'launch.sock')
    daemon = new Bpftokend(scratch.path, '--launcher', socket)
    const write = (name: string, more: string, guard = 'optional'): void => {
      const text = policy(name, `  guard: ${guard}\n  subjects: [{ user: ${USER} }]\n${more}`)
      writeFileSync(join(daemon.policies, `${name}.yaml`), text, { mode: 0o644 })
    }
    write('dev', '  launch: allowed\n  network: own\n')
    write('host', '  launch: allowed\n  network: host\n')
    write('asked', '  launch: allowed\n  network: own\n  approval: required\n')
    write('closed', '  network: own\n')
    write('held', '  launch: allowed\n  network: own\n', 'required')
    launchd = await new Launchd(socket).ready()
    await daemon.ready()
    root = new Client({ socket: daemon.socket })
  })
  after(async () => {
    root?.[Symbol.dispose]()
    await daemon[Symbol.asyncDispose]()
    await launchd[Symbol.asyncDispose]()
    front[Symbol.dispose]()
    scratch[Symbol.dispose]()
  })

  const words = (policy: string, ...more: string[]): string[] => front.words(policy, '--apart', ...more)
  const environment = (): NodeJS.ProcessEnv => ({ ...process.env, BPFTOKEN_SOCKET: daemon.socket })
  const run = (more: readonly string[], options: Parameters<Front['run']>[2] = {}): Promise<Result> =>
    front.run(daemon.socket, words('dev', ...more), options)
  const shell = (script: string, ...options: string[]): Promise<Result> =>
    run([...options, '--', 'sh', '-c', script])
  const start = (
    script: string,
    around: (command: string[]) => string[] = command => command,
  ): ChildProcess =>
    spawn(...asUser(USER, around(words('dev', '--', 'sh', '-c', script))), {
      env: environment(),
      cwd: '/',
      stdio: 'pipe',
    })
  const restart = async (around?: typeof inPublic): Promise<void> => {
    await launchd[Symbol.asyncDispose]()
    launchd = await new Launchd(launchd.socket, around).ready()
  }
  /** Those that were asked for here; others of this machine are not ours. */
  const liveLoans = async () =>
    (await root.listLoans({ query: { state: 'live' } })).loans.filter(({ spec }) => spec.asker.uid === USER)
  const waiting = async (): Promise<string> => {
    let id: string | undefined
    await eventually(async () => {
      id = (await root.listRequests({ query: { state: 'waiting' } })).requests[0]?.id
      return id !== undefined
    }, 'nothing waits')
    return id!
  }
  /** Processes of the launcher that serve a request. */
  const launched = async (): Promise<string> => (await execute('pgrep', ['-P', String(launchd.pid)])).stdout

  test('without a guard nobody is started who could hand on what reaches a network', async () => {
    const { status, stderr } = await front.run(daemon.socket, words('held', '--', 'true'))
    assert.equal(status, 3, stderr)
    assert.match(stderr, /can be handed to another process of that user/)
    // The twin: a policy that says that it does without.
    assert.equal((await run(['--', 'true'])).status, 0)
  })

  test('a user loads and attaches XDP in a network of its own; another is refused, with the reason', async () => {
    const script = `
      "${process.execPath}" ${PUBLIC_CLI} obj load ${PUBLIC}/${LENT_OBJECT} --program count --attach xdp:lo/skb &
      for i in $(seq 600); do ip -o link show lo | grep -q xdpgeneric && break; sleep 0.1; done
      ip -o link show lo; kill -INT $!; wait $!; echo "status $?"`
    const as = (uid: number): Promise<Result> => {
      const [command, args] = asUser(uid, words('dev', '--', 'sh', '-c', script))
      // Where the launcher is: this repository is shown to users there.
      const there = ['--mount', `--target=${launchd.pid}`, `--wdns=${PUBLIC}`, command, ...args]
      return execute('nsenter', there, { env: environment() })
    }
    await restart(inPublic)
    const { status, stdout, stderr } = await as(USER)
    assert.equal(status, 0, stderr)
    assert.match(stdout, /lo:.*xdpgeneric/)
    assert.match(stdout, /^status 0$/m)
    const other = await as(OTHER_USER)
    assert.deepEqual([other.status, other.stdout], [3, ''])
    assert.match(other.stderr, /user is "4712", not "4711"/)
    await restart()
  })

  test('the policy has to say so', async () => {
    const closed = await front.run(daemon.socket, words('closed', '--', 'echo', 'ran'))
    assert.deepEqual([closed.status, closed.stdout], [3, ''])
    assert.match(
      closed.stderr,
      /does not let the launcher start programs\n.*next: Ask root to say spec.launch: allowed/,
    )
    assert.equal((await run(['--', 'echo', 'ran'])).stdout, 'ran\n', 'the twin')
  })

  test('the namespace is root’s, and the program has what is lent and no more', async () => {
    const script =
      'id -u; cat /proc/self/status; stat -f -c %T /sys/fs/bpf; cat /proc/self/uid_map; readlink /proc/self/ns/user'
    const { status, stdout, stderr } = await shell(script)
    assert.deepEqual([status, stderr], [0, ''])
    hasWhatIsLentAlone(stdout)
    await eventually(async () => (await liveLoans()).length === 0, 'a loan is left')
    const child = start('echo; read x')
    await once(child.stdout!, 'data')
    const [live] = await liveLoans()
    assert.deepEqual(
      [live?.spec.asker.uid, live?.record?.recipient.ownerUid, live?.record?.recipient.pid === child.pid],
      [USER, 0, false],
    )
    // Where a user's own can be entered by every process of that user, this one cannot.
    const enter = (pid: number): Promise<Result> =>
      execute(...asUser(USER, ['nsenter', '--user', '--preserve-credentials', '-t', String(pid), 'true']))
    assert.notEqual((await enter(live!.record!.recipient.pid)).status, 0)
    const own = spawn(...asUser(USER, front.words('host', '--host-net', '--', 'sh', '-c', 'echo; read x')), {
      env: environment(),
      cwd: '/',
      stdio: 'pipe',
    })
    await once(own.stdout!, 'data')
    assert.equal((await enter(own.pid!)).status, 0, 'the twin')
    assert.equal((await finish(child, '\n')).status, 0)
    assert.equal((await finish(own, '\n')).status, 0)
    await eventually(async () => (await liveLoans()).length === 0, 'a loan is left')
  })

  test('--identity, --path and --host-net count; --cap is refused', async () => {
    const seen = await shell(
      'id -u; grep CapAmb /proc/self/status; stat -f -c %T /mnt',
      '--identity',
      '--path=/mnt',
    )
    assert.equal(seen.stdout, '4711\nCapAmb:\t0000008000001000\nbpf_fs\n', seen.stderr)
    const ours = (await execute('readlink', ['/proc/self/ns/net'])).stdout
    const network = ['--', 'readlink', '/proc/self/ns/net']
    assert.notEqual((await run(network)).stdout, ours)
    assert.equal((await front.run(daemon.socket, words('host', '--host-net', ...network))).stdout, ours)
    const shared = await run(['--host-net', ...network])
    assert.deepEqual([shared.status, shared.stdout], [3, ''], 'the policy says own')
    const more = await run(['--cap', 'sys_ptrace', '--', 'echo', 'ran'])
    assert.deepEqual([more.status, more.stdout], [4, ''])
  })

  test('environment and arguments are data, descriptors 0 to 2 the user’s, and no others', async () => {
    const script = 'echo "$X|$1|$LD_PRELOAD"; pwd; umask; cat; ls /proc/self/fd | wc -l'
    const env = { X: 'a\nb', LD_PRELOAD: '/no/such.so', LD_LIBRARY_PATH: '/nowhere' }
    const child = spawn(
      ...asUser(USER, [
        'sh',
        '-c',
        'umask 027; exec "$@"',
        'sh',
        ...words('dev', '--', 'sh', '-c', script, 'sh', '$(id) "x"'),
      ]),
      { env: { ...environment(), ...env }, cwd: '/tmp', stdio: 'pipe' },
    )
    const { status, stdout } = await finish(child, 'typed\n')
    assert.equal(stdout, 'a\nb|$(id) "x"|/no/such.so\n/tmp\n0027\ntyped\n4\n')
    assert.equal(status, 0)
    // A directory that it may not enter is not entered by root for it.
    const hidden = join(scratch.path, 'hidden')
    mkdirSync(hidden, { mode: 0o700 })
    const there = await run(['--', 'pwd'], { cwd: hidden })
    assert.equal(there.stdout, '/\n')
    assert.match(there.stderr, /you may not enter the working directory/)
  })

  test('groups, limits, nice value, affinity and OOM score are those of who asks', async () => {
    const limits = [
      'prlimit',
      '--nofile=100:200',
      '--core=0',
      'nice',
      '-n',
      '5',
      'taskset',
      '1',
      'choom',
      '-n',
      '500',
      '--',
    ]
    const ids = ['--reuid', '4711', '--regid', '4711', '--groups', '4711,4713']
    const script =
      'ulimit -n; ulimit -Hn; nice; grep -E "Cpus_allowed:|Groups" /proc/self/status; cat /proc/self/oom_score_adj; stat -c %A /dev/null >/dev/null; cat "$1"'
    const shared = join(front.program, '../shared')
    writeFileSync(shared, 'by group\n', { mode: 0o640 })
    await execute('chgrp', ['4713', shared])
    const env = environment()
    const command = words('dev', '--', 'sh', '-c', script, 'sh', shared)
    const { stdout, stderr } = await execute('setpriv', [...ids, ...limits, ...command], { env, cwd: '/' })
    // Whoever runs the tests may have a nice value, too.
    const nice = getPriority() + 5
    assert.equal(stdout, `100\n200\n${nice}\nGroups:\t0 65534 \nCpus_allowed:\t1\n500\nby group\n`, stderr)
    const without = await execute(...asUser(USER, command), { env, cwd: '/' })
    assert.doesNotMatch(without.stdout, /by group/, 'the twin, who is not in that group')
  })

  test('the personality is that of who asks, without what would weaken what begins as root', async () => {
    const seen = async (...flags: string[]): Promise<string> => {
      const command = ['setarch', ...flags, ...words('dev', '--', 'cat', '/proc/self/personality')]
      return (await execute(...asUser(USER, command), { env: environment(), cwd: '/' })).stdout
    }
    // --sticky-timeouts, and --addr-no-randomize --read-implies-exec --mmap-page-zero.
    assert.equal(await seen('-T'), '04000000\n')
    assert.equal(await seen('-T', '-R', '-X', '-Z'), '04000000\n')
  })

  test('the cgroup is that of who asks; where the program cannot be put there it is refused', async () => {
    const cgroups = readFileSync('/proc/self/mountinfo', 'utf8')
    const v2 = / (\/\S+) \S+ .*- cgroup2 /.exec(cgroups)![1]!
    const inside = async (directory: string): Promise<Result> => {
      mkdirSync(directory)
      try {
        const move = `echo $$ > ${directory}/cgroup.procs && exec "$@"`
        const [as, user] = asUser(USER, words('dev', '--', 'cat', '/proc/1/cgroup', '/proc/self/cgroup'))
        return await execute('sh', ['-c', move, 'sh', as, ...user], { env: environment(), cwd: '/' })
      } finally {
        await eventually(() => {
          try {
            rmdirSync(directory)
          } catch {
            return false
          }
          return true
        }, 'something is left in it')
      }
    }
    const name = `bpftoken-apart-${process.pid}`
    const seen = await inside(join(v2, name))
    assert.equal(seen.status, 0, seen.stderr)
    // From its own cgroup namespace that is the root.
    assert.match(seen.stdout, /^0::\/$/m)
    const v1 = / (\/\S*pids) \S+ .*- cgroup /.exec(cgroups)?.[1]
    if (v1 === undefined) return
    const other = await inside(join(v1, name))
    assert.deepEqual([other.status, other.stdout], [3, ''])
    assert.match(other.stderr, /is in a cgroup that the program cannot be put into/)
  })

  test('exit status, signals and what cannot be executed are told', async () => {
    for (const [script, expected] of [
      ['exit 7', 7],
      ['kill -9 $$', 137],
      ['kill -TERM $$', 143],
    ] as const)
      assert.equal((await shell(script)).status, expected, script)
    for (const [name, expected] of [
      ['no-such-program', 127],
      ['/etc/passwd', 126],
    ] as const) {
      const { status, stderr } = await run(['--', name])
      assert.equal(status, expected, name)
      assert.match(stderr, /cannot run/)
    }
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGUSR1'] as const) {
      const child = start(
        `trap 'echo got; exit 5' ${signal.slice(3)}; echo ready; while :; do sleep 0.05; done`,
      )
      await once(child.stdout!, 'data')
      child.kill(signal)
      const { status, stdout } = await finish(child)
      assert.deepEqual([status, stdout.includes('got')], [5, true], signal)
    }
  })

  test('when who asked is killed the program ends', async () => {
    await eventually(async () => (await liveLoans()).length === 0, 'a loan is left')
    const child = start('echo $$; exec sleep 300')
    await once(child.stdout!, 'data')
    const [live] = await liveLoans()
    const { pid } = live!.record!.recipient
    assert.ok(existsSync(`/proc/${pid}`))
    child.kill('SIGKILL')
    await eventually(() => !existsSync(`/proc/${pid}`), 'it runs on')
    await eventually(async () => (await liveLoans()).length === 0, 'the loan is left')
  })

  test('on a terminal it has one of its own, with job control, and the size of ours', async () => {
    const inner = words('dev', '--', 'bash', '--norc', '-i')
    const [as, user] = asUser(USER, inner)
    using terminal = new Terminal(quote([as, ...user]), environment())
    await terminal.see(/# |\$ /)
    terminal.type('tty; test -t 0 && echo termi""nal\n')
    const seen = await terminal.see(/^terminal/m)
    assert.match(seen, /\/dev\/pts\/\d+/)
    terminal.type('sh -c \'echo rea""dy; while :; do sleep 0.1; done\'\n')
    await terminal.see(/^ready/m)
    terminal.type('\x1a')
    await terminal.see(/Stopped/)
    terminal.type('fg >/dev/null\n')
    await sleep(200)
    terminal.type('\x03')
    await sleep(200)
    terminal.type('echo status=$?\n')
    await terminal.see(/status=130/)
    terminal.type('exit 9\n')
    assert.equal(await terminal.ended(), 9)
  })

  test('input from a pipe and output to a terminal, and the other way', async () => {
    const command = quote(words('dev', '--', 'sh', '-c', 'cat; test -t 1 && echo to-terminal'))
    const [as, user] = asUser(USER, ['sh', '-c', `echo piped | ${command}`])
    using terminal = new Terminal(quote([as, ...user]), environment())
    await terminal.see(/^piped\r?\nto-terminal\r?\n/m)
    assert.equal(await terminal.ended(), 0)
  })

  test('what confines who asks is not left behind: each is refused', async () => {
    for (const [around, reason] of [
      [['setpriv', '--no-new-privs'], /is in a sandbox/],
      [['setpriv', '--bounding-set', '-net_raw'], /smaller bounding set/],
      [['unshare', '--mount'], /namespaces of its own/],
      [['unshare', '--net'], /namespaces of its own/],
      [['unshare', '--uts'], /namespaces of its own/],
      [['unshare', '--ipc'], /namespaces of its own/],
      [['unshare', '--cgroup'], /namespaces of its own/],
    ] as const) {
      const [as, user] = asUser(USER, words('dev', '--', 'echo', 'ran'))
      const { status, stdout, stderr } = await execute(around[0], [...around.slice(1), as, ...user], {
        env: environment(),
        cwd: '/',
      })
      assert.deepEqual([status, stdout], [3, ''], around.join(' '))
      assert.match(stderr, reason)
    }
  })

  test('where root must approve it waits, with nothing started, and goes on or ends as root says', async () => {
    const begin = () => {
      const child = spawn(...asUser(USER, words('asked', '--', 'echo', 'ran')), {
        env: environment(),
        cwd: '/',
        stdio: 'pipe',
      })
      return { child, ended: finish(child) }
    }
    const approved = begin()
    await root.approve({ params: { id: await waiting() }, body: {} })
    const granted = await approved.ended
    assert.deepEqual([granted.status, granted.stdout], [0, 'ran\n'], granted.stderr)
    const denied = begin()
    await root.deny({ params: { id: await waiting() }, body: {} })
    const refused = await denied.ended
    assert.deepEqual([refused.status, refused.stdout], [3, ''])
    const gone = begin()
    const id = await waiting()
    gone.child.kill('SIGKILL')
    await gone.ended
    const lost = await root.approve({ params: { id }, body: {} })
    assert.notEqual(lost.state, 'approved')
    await eventually(async () => (await launched()) === '', 'something waits on')
  })

  test('only root reaches the launcher, and forged descriptors start nothing', async () => {
    const forger = join(front.program, '../run-forger')
    copyFileSync(compiled(join(__dirname, 'run-forger.c')), forger)
    const reach = [forger, launchd.socket, 'launcher']
    assert.equal((await execute(...asUser(USER, reach))).stdout, 'refused\n')
    assert.equal((await execute(reach[0]!, reach.slice(1))).stdout, 'connected\n', 'the twin')
    const ask = async (what: string): Promise<string> =>
      (await execute(...asUser(USER, [forger, daemon.socket, what]))).stdout
    for (const what of ['file', 'none', 'pidfd', 'kind', 'silent', 'few', 'many', 'words', 'length', 'huge'])
      assert.match(await ask(what), /^HTTP\/1.1 4\d\d [^\n]*\n$/, what)
    for (const what of ['version', 'texts', 'lifeline', 'foreign-lifeline', 'foreign-control'])
      assert.match(await ask(what), /^HTTP\/1.1 4\d\d [^\n]*\n$/, what)
    assert.match(await ask('good'), /^HTTP\/1.1 201 [^\n]*\nran\n|^ran\nHTTP\/1.1 201 /, 'the twin')
    assert.match(await ask('word'), /^HTTP\/1.1 201 [^\n]*\nrstarting it failed: control: EINVAL/)
    await eventually(async () => (await launched()) === '', 'something waits on')
    await eventually(async () => (await liveLoans()).length === 0, 'a loan is left')
  })

  test('who has the loan and never goes on is not waited for, so that nobody keeps the launcher busy', async () => {
    const forger = join(front.program, '../run-forger')
    copyFileSync(compiled(join(__dirname, 'run-forger.c')), forger)
    const child = spawn(...asUser(USER, [forger, daemon.socket, 'idle']), { stdio: 'pipe' })
    const ended = finish(child)
    await eventually(async () => (await liveLoans()).length === 1, 'there is no loan')
    await eventually(async () => (await launched()) === '', 'the launcher waits on', 30_000)
    const { stdout } = await ended
    assert.match(stdout, /^HTTP\/1.1 201 [^\n]*\nrwhoever asks has not said in time that it may start\n$/)
    await eventually(async () => (await liveLoans()).length === 0, 'a loan is left')
  })

  test('one user has only so many started at one time, and is in no other one’s way', async () => {
    const forger = compiled(join(__dirname, 'run-forger.c'))
    const crowd = (uid: number, count: number): ChildProcess =>
      spawn(forger, [launchd.socket, 'crowd', String(uid), String(count)], { stdio: 'pipe', cwd: '/' })
    const first = crowd(USER, 34)
    let text = ''
    try {
      first.stdout!.setEncoding('utf8').on('data', more => {
        text += more
      })
      await eventually(() => /^\d+\n/m.test(text), 'it has no answers')
      assert.equal(text, 'rtoo many programs of this user are being started\n32\n')
      const second = crowd(OTHER_USER, 2)
      assert.equal((await finish(second)).stdout, '2\n', 'the twin')
    } finally {
      first.kill('SIGKILL')
    }
    await eventually(async () => (await launched()) === '', 'something waits on')
    assert.equal((await run(['--', 'echo', 'ran'])).stdout, 'ran\n')
  })

  test('a descriptor that hangs when it is closed keeps the daemon from nothing', async () => {
    const forger = join(front.program, '../run-forger')
    copyFileSync(compiled(join(__dirname, 'run-forger.c')), forger)
    const children: ChildProcess[] = []
    const ends: Promise<unknown>[] = []
    try {
      // Whether the daemon or the launcher is the last that has it, is chance: so there are some.
      for (let round = 0; round < 3; round++) {
        process.kill(launchd.pid, 'SIGSTOP')
        const child = spawn(...asUser(USER, [forger, daemon.socket, 'linger']), { stdio: 'pipe' })
        children.push(child)
        ends.push(once(child, 'exit'))
        await once(child.stdout!, 'data')
        await eventually(() => tcpSockets(daemon.pid) === 1, 'the daemon has not taken it')
        child.stdin!.write('x')
        await once(child.stdout!, 'data')
        process.kill(launchd.pid, 'SIGCONT')
        await eventually(async () => (await launched()) === '', 'the launcher has not refused it')
        await eventually(() => tcpSockets(daemon.pid) === 0, 'it is not closed')
        await liveLoans()
      }
      // Those who do not read are there as before.
      assert.equal((await run(['--', 'echo', 'other'])).stdout, 'other\n')
      assert.ok(children.every(child => child.exitCode === null))
    } finally {
      process.kill(launchd.pid, 'SIGCONT')
      for (const child of children) child.kill('SIGKILL')
      await Promise.all(ends)
    }
  })

  test('a program waits for nobody: who keeps its ends, and never goes on, delays nobody else', async () => {
    const child = start('echo ran')
    child.kill('SIGSTOP')
    assert.equal((await run(['--', 'echo', 'other'])).stdout, 'other\n')
    child.kill('SIGCONT')
    assert.equal((await finish(child)).stdout, 'ran\n')
  })

  test('without a launcher it is refused, with what to do', async () => {
    await launchd[Symbol.asyncDispose]()
    const { status, stdout, stderr } = await run(['--', 'echo', 'ran'])
    assert.deepEqual([status, stdout], [4, ''])
    assert.match(stderr, /No launcher answers.*\n.*next: Ask root to start it/)
    launchd = await new Launchd(launchd.socket).ready()
    assert.equal((await run(['--', 'echo', 'ran'])).stdout, 'ran\n', 'the twin, with one started anew')
  })
})
