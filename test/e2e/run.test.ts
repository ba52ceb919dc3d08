/**
 * What the program of `bpftoken run` gets of its caller, and how it ends. Each refusal stands
 * beside what must work.
 */
import assert from 'node:assert/strict'
import type { ChildProcess, SpawnOptions } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, chownSync, existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync } from 'node:fs'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { compiled } from '../../scripts/compiled.ts'
import { cgroupRoot } from '../../src/lending/recipient/cgroup.ts'
import { hasBit } from '../../src/policy/vocabulary.ts'
import { effectiveCapabilities } from '../../src/sys/self.ts'
import { CAPABILITIES } from '../../src/uapi/constants.ts'
import { CLI, cli, execute, finish, PUBLIC_CLI, publicCli, type Result, startCli } from '../helpers/cli.ts'
import { needsTokens, ROOT } from '../helpers/machine.ts'
import { Scratch } from '../helpers/scratch.ts'
import { quote, STOPPABLE, stopsAndResumes, Terminal } from '../helpers/terminal.ts'

const machine = needsTokens()
const POLICY = join(ROOT, 'examples/policies/packet-counter.yaml')
const RUN = [process.execPath, CLI, 'run', '--policy', POLICY]

/** The probe, where every user may run it. */
function probeIn(stage: Scratch): string {
  const source = compiled(join(__dirname, 'run-probe.c'))
  return stage.write('probe', readFileSync(source), 0o755)
}

/** The lines of the probe by name. */
function factsOf({ stdout, stderr }: Result): Map<string, string> {
  assert.match(stdout, /^descriptors/m, stderr)
  return new Map(stdout.split('\n').map(line => line.split(/[ :]\s*(.*)/s) as [string, string]))
}

function environmentOf({ stdout }: Result): string[] {
  return [...stdout.matchAll(/^env (\w+)/gm)].map(([, name]) => name!).sort()
}

/** A caller that has much to give away: runs the command with it. */
function fromRoot(stage: Scratch, command: readonly string[]): Promise<Result> {
  const secret = stage.write('secret', 'root only', 0o600)
  const script = `
    exec 9<${secret} 17<${secret} 200<>${secret}
    umask 077; trap '' PIPE USR1 HUP 35
    echo -500 > /proc/self/oom_score_adj 2> /dev/null; renice -n -5 -p $$ > /dev/null; ionice -c 1 -p $$
    export SECRET=abc SSH_AUTH_SOCK=/run/agent LC_TIME=C TZ=UTC
    exec "$@"`
  const words = ['bash', '-c', script, 'bash', ...command]
  return execute(probeIn(stage), ['keyed', ...words], { cwd: '/' })
}

/**
 * Whether we may keep a process from the OOM killer: in some machines root has not this capability.
 */
const maySpare = (): boolean => hasBit(effectiveCapabilities(), CAPABILITIES.CAP_SYS_RESOURCE)

describe('run gives its program nothing of its caller but what is named', machine, () => {
  test('descriptors, keys, variables, umask, signals and precedence', async () => {
    using stage = new Scratch()
    const probe = join(stage.path, 'probe')
    const twin = factsOf(await fromRoot(stage, [probe]))
    assert.match(twin.get('descriptors')!, /\b9\b.*\b17\b.*\b200\b/)
    assert.equal(twin.get('key'), 'ok')
    assert.equal(twin.get('umask'), '077')
    if (maySpare()) assert.equal(twin.get('oom'), '-500')
    assert.equal(twin.get('nice'), '-5')
    assert.equal(twin.get('io-class'), '1')
    assert.notEqual(Number.parseInt(twin.get('SigIgn')!, 16), 0)

    const result = await fromRoot(stage, [...RUN, '--', probe])
    const facts = factsOf(result)
    assert.equal(facts.get('descriptors'), '0 1 2')
    assert.equal(facts.get('key'), 'ENOKEY')
    assert.equal(facts.get('umask'), '022')
    assert.equal(facts.get('oom'), '0')
    assert.equal(facts.get('nice'), '0')
    assert.equal(facts.get('io-class'), '0')
    assert.equal(facts.get('groups'), '0')
    assert.equal(Number.parseInt(facts.get('SigIgn')!, 16), 0)
    assert.equal(Number.parseInt(facts.get('SigBlk')!, 16), 0)
    assert.equal(facts.get('leads-session'), '1', 'there is no terminal')
    assert.notEqual(facts.get('cgroup-namespace'), twin.get('cgroup-namespace'))
    const always = ['HOME', 'LC_TIME', 'LOGNAME', 'PATH', 'SHELL', 'TZ', 'USER']
    assert.deepEqual(
      environmentOf(result).filter(name => !['LANG', 'TERM', 'LC_ALL'].includes(name)),
      always,
    )
  })

  test('variables that are named, or all with --keep-env', async () => {
    using stage = new Scratch()
    const probe = probeIn(stage)
    const with_ = async (...words: string[]): Promise<string> =>
      (await fromRoot(stage, [...RUN, ...words, '--', probe])).stdout
    const named = await with_('--env', 'SECRET', '--env', 'OTHER=a=b')
    assert.match(named, /^env SECRET=abc$/m)
    assert.match(named, /^env OTHER=a=b$/m)
    assert.doesNotMatch(named, /SSH_AUTH_SOCK/)
    const all = await with_('--keep-env')
    assert.match(all, /^env SSH_AUTH_SOCK=/m)
    assert.match(all, /^env USER=nobody$/m)
    assert.equal((await cli([...RUN.slice(2), '--env', '=x', '--', 'true'])).status, 2)
    assert.equal((await cli([...RUN.slice(2), '--env', 'NO_SUCH_VARIABLE', '--', 'true'])).status, 2)
  })

  test('variables and arguments byte by byte, or not at all', async () => {
    const bytes = (script: string): Promise<Result> => {
      const words = [
        ...RUN,
        '--env',
        '__proto__=x',
        '--',
        'sh',
        '-c',
        'env; printf "%s" "$1" | od -An -tx1',
        'sh',
      ]
      return execute('bash', ['-c', script, 'bash', ...words])
    }
    const good = await bytes(`LC_TERMINAL_VERSION=ü exec "$@" $'\\xe2\\x82\\xac'`)
    assert.equal(good.status, 0, good.stderr)
    assert.match(good.stdout, /^LC_TERMINAL_VERSION=ü$/m)
    assert.match(good.stdout, /^__proto__=x$/m)
    assert.match(good.stdout, /^ e2 82 ac$/m)
    for (const script of [`exec "$@" $'a\\xff'`, `TZ=$'\\xff' exec "$@"`, `exec "$@" $'\\xc0\\x80'`]) {
      const { status, stdout, stderr } = await bytes(script)
      assert.deepEqual([status, stdout], [2, ''], script)
      assert.match(stderr, /UTF-8/)
    }
    assert.equal((await bytes(`SECRET=$'\\xff' exec "$@"`)).status, 0, 'which is not passed on')
  })

  test("the loader's variables reach the program, and never the launcher, which is root", async () => {
    using stage = new Scratch()
    const source = stage.write(
      'who.c',
      '#include <stdio.h>\n#include <unistd.h>\n__attribute__((constructor)) static void who(void) { char self[99] = ""; ' +
        'if (readlink("/proc/self/exe", self, 98) > 0) dprintf(2, "loaded by %s\\n", self); }\n',
    )
    const library = join(stage.path, 'who.so')
    await execute('gcc', ['-shared', '-fPIC', '-o', library, source])
    chmodSync(library, 0o755)
    const { stderr } = await cli([...RUN.slice(2), '--env', `LD_PRELOAD=${library}`, '--', '/bin/true'])
    assert.match(stderr, /^loaded by .*\/true$/m)
    assert.doesNotMatch(stderr, /bpftoken-launch/)
  })

  test('three descriptors, whichever of them its caller has closed', async () => {
    using stage = new Scratch()
    const probe = probeIn(stage)
    for (const closed of ['<&-', '>&- 2>&-', '<&- >&- 2>&-', '2>&-']) {
      const out = join(stage.path, 'out')
      const script = `exec "$@" -- sh -c '"$0" > "$1"' ${probe} ${out} ${closed}`
      stage.write('out', '', 0o666)
      chmodSync(out, 0o666)
      const { status } = await execute('bash', ['-c', script, 'bash', ...RUN], { cwd: '/' })
      assert.equal(status, 0, closed)
      assert.match(readFileSync(out, 'utf8'), /^descriptors 0 1 2$/m, closed)
    }
  })

  test('a working directory that its user can come to, else /', async () => {
    using stage = new Scratch()
    mkdirSync(join(stage.path, 'open'))
    mkdirSync(join(stage.path, 'shut/within'), { recursive: true })
    chmodSync(join(stage.path, 'shut'), 0o700)
    const in_ = (name: string): Promise<Result> =>
      cli([...RUN.slice(2), '--', 'pwd'], { cwd: join(stage.path, name) })
    assert.equal((await in_('open')).stdout, `${join(stage.path, 'open')}\n`)
    const shut = await in_('shut/within')
    assert.equal(shut.stdout, '/\n')
    assert.match(shut.stderr, /starts in \//)
  })
})

test(
  'run --identity: the program is the user that it is outside, and its capabilities make a token',
  machine,
  async () => {
    using stage = new Scratch()
    const probe = probeIn(stage)
    const caps = '0000008000001000'
    const as = async (...words: string[]) => factsOf(await cli([...RUN.slice(2), ...words, '--', probe]))
    const same = await as('--identity', '--user', '4001:4002')
    assert.equal(same.get('uids'), '4001:4002')
    assert.deepEqual([same.get('CapEff'), same.get('CapAmb'), same.get('CapBnd')], [caps, caps, caps])
    const root = await as('--user', '4001:4002')
    assert.equal(root.get('uids'), '0:0')
    assert.deepEqual([root.get('CapEff'), Number(root.get('CapAmb')), root.get('CapBnd')], [caps, 0, caps])

    const inside = 'touch /sys/fs/bpf/x 2>&1; stat -c %u:%g /sys/fs/bpf; exec "$@"'
    for (const [words, owner] of [
      [['--identity'], '4001:4002'],
      [[], '0:0'],
    ] as const) {
      const show = ['node', PUBLIC_CLI, 'token', 'show']
      const command = ['sh', '-c', inside, 'sh', process.execPath, ...show.slice(1)]
      const { status, stdout, stderr } = await publicCli([
        ...RUN.slice(2),
        ...['--user', '4001:4002', ...words, '--', ...command],
      ])
      assert.equal(status, 0, stderr)
      assert.match(stdout, new RegExp(`^${owner}$`, 'm'), 'who may pin there')
      assert.match(stdout, /^progs +xdp$/m)
    }
  },
)

describe('run refuses numbers that the kernel would cut', machine, () => {
  const withPasswd = (file: string, ...words: string[]): Promise<Result> =>
    execute('unshare', [
      ...['--mount', 'sh', '-c', 'mount --bind "$0" /etc/passwd && exec "$@"', file],
      ...[...RUN, ...words, '--', 'cat', '/proc/self/uid_map'],
    ])

  test('of users, before anything starts', async () => {
    for (const user of [
      '4294967296:4294967296',
      '65534:4294967296',
      '4294967295',
      '-1',
      '0x1',
      '1e3',
      '+1',
      ' 1',
    ]) {
      const { status, stdout } = await cli([...RUN.slice(2), `--user=${user}`, '--', 'id', '-u'])
      assert.equal(status, 2, user)
      assert.equal(stdout, '', user)
    }
    for (const bad of ['4294967296', '-1', 'x']) {
      const env = { ...process.env, SUDO_UID: bad, SUDO_GID: bad }
      assert.equal((await cli([...RUN.slice(2), '--', 'id'], { env })).status, 2, bad)
    }
    const good = await cli([
      ...RUN.slice(2),
      '--user=4294967294:4294967294',
      '--',
      'cat',
      '/proc/self/uid_map',
    ])
    assert.match(good.stdout, /^ +0 4294967294 +1$/m)
  })

  test('of entries in passwd(5)', async () => {
    using stage = new Scratch()
    const lines = 'wraps:x:4294967296:4294967296::/:/bin/sh\nfine:x:4294967294:1::/home/fine:/bin/fine\n'
    const file = stage.write('passwd', lines)
    const wraps = await withPasswd(file, '--user', 'wraps')
    assert.equal(wraps.status, 2)
    assert.equal(wraps.stdout, '')
    assert.match((await withPasswd(file, '--user', 'fine')).stdout, /^ +0 4294967294 +1$/m)
  })

  test('of processes, descriptors and delegations', async () => {
    for (const number of ['4294967296', '0x1', '1e3', '01', '-1', '', ' 1', '1.0', '٣', '9'.repeat(30)]) {
      for (const words of [
        ['delegate', '--policy', POLICY, `--pid=${number}`],
        ['delegate', '--policy', POLICY, '--pid=1', `--context-fd=${number}`],
        ['undelegate', `--pid=${number}`],
        ['derive', '--policy', POLICY, '--pid=1', '--', number],
        ['revoke', '--', number],
        ['show', '--', number],
        ['unconfine', '--', number],
      ])
        assert.equal((await cli(words)).status, 2, words.join(' '))
    }
    assert.equal((await cli(['undelegate', '--pid=4194304'])).status, 1, 'a number that nobody has')
  })
})

test(
  'run ends as env(1) does: 127 there is no such program, 126 it cannot be executed',
  machine,
  async () => {
    using stage = new Scratch()
    mkdirSync(join(stage.path, 'shut'))
    stage.write('shut/hidden', '#!/bin/sh\n', 0o755)
    chmodSync(join(stage.path, 'shut'), 0o700)
    stage.write('plain', 'not executable')
    stage.write('lost', '#!/no/such/interpreter\n', 0o755)
    stage.write('bare', 'echo "$1"; exit 9\n', 0o755)
    const PATH = `${stage.path}/shut:/etc/passwd:${stage.path}:/usr/bin:/bin`
    const run = (...command: string[]): Promise<Result> =>
      cli([...RUN.slice(2), '--', ...command], { env: { ...process.env, PATH } })
    for (const [name, expected] of [
      ['no-such-program', 127],
      ['hidden', 127],
      ['', 127],
      [`${stage.path}/none`, 127],
      ['lost', 127],
      ['plain', 126],
      [`${stage.path}/shut/hidden`, 126],
      [stage.path, 126],
      ['true', 0],
      ['false', 1],
    ] as const)
      assert.equal((await run(name)).status, expected, name)
    const bare = await run('bare', 'said')
    assert.deepEqual([bare.status, bare.stdout], [9, 'said\n'], 'without #! it is a script of the shell')
    const { stderr } = await run('/no/\x1b[31m\nforged')
    assert.ok(!stderr.includes('\x1b') && !/^forged/m.test(stderr), JSON.stringify(stderr))
  },
)

test('run tells of every signal that ended its program', machine, async () => {
  const endedBy = async (signal: number): Promise<number> =>
    (await cli([...RUN.slice(2), '--', 'sh', '-c', `kill -${signal} $$`])).status
  for (const signal of [1, 9, 11, 13, 35, 64]) assert.equal(await endedBy(signal), 128 + signal)
})

/** Whether the process has not been seen to be gone. */
const lives = (pid: string): boolean => existsSync(`/proc/${pid}`) && !/^State:\sZ/m.test(statusOf(pid))

function statusOf(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/status`, 'utf8')
  } catch {
    return 'State:\tZ' // Gone between two looks.
  }
}

/** What it was executed as. */
function nameOf(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0')[0]!
  } catch {
    return '' // As above.
  }
}

/** Waits for what must come; the limit is for hangs. */
async function until(what: string, holds: () => boolean): Promise<void> {
  for (let tries = 0; !holds(); tries++) {
    assert.ok(tries < 1500, `never: ${what}`)
    await sleep(20)
  }
}

/** Starts `run`, and gives the first line that its program says. */
async function startSaying(
  words: readonly string[],
  options: SpawnOptions = {},
): Promise<{ child: ChildProcess; line: string }> {
  const child = startCli([...RUN.slice(2), ...words], { ...options, stdio: ['ignore', 'pipe', 'inherit'] })
  const [line] = (await once(child.stdout!, 'data')) as [Buffer]
  return { child, line: String(line).trim() }
}

test(
  'run that is killed kills its program, also one that has cleared its death signal',
  machine,
  async () => {
    const script = 'echo $$; exec setpriv --pdeathsig clear sleep 1000 > /dev/null'
    const { child, line: pid } = await startSaying(['--', 'sh', '-c', script])
    await until('it has cleared it', () => nameOf(pid) === 'sleep')
    assert.ok(lives(pid))
    child.kill('SIGKILL')
    await finish(child)
    await until('it is gone', () => !lives(pid))
  },
)

describe('run --kill-rest leaves no process behind', machine, () => {
  /**
   * Says the numbers of three that stay: a child, one of a session of its own, one forked twice.
   */
  const LEAVE = `
    sleep 1000 > /dev/null 2>&1 & echo $!
    setsid sh -c 'echo $$; exec sleep 1000 > /dev/null 2>&1' &
    (setsid sh -c 'trap "" TERM HUP INT; (setsid sh -c "echo \\$\\$; exec sleep 1000 > /dev/null 2>&1" &)' &)
  `
  const cgroups = (): string[] => readdirSync(cgroupRoot()!).filter(name => name.startsWith('bpftoken-run-'))

  async function start(
    words: string[],
    after: string,
    options: SpawnOptions = {},
  ): Promise<{ child: ChildProcess; pids: string[] }> {
    const script = `{ ${LEAVE} } | { read a; read b; read c; echo $a $b $c; }; ${after}`
    const { child, line } = await startSaying([...words, '--', 'sh', '-c', script], options)
    const pids = line.split(' ')
    assert.equal(pids.length, 3, line)
    return { child, pids }
  }

  test('when its program ends', async () => {
    const before = new Set(cgroups())
    const { child, pids } = await start(['--kill-rest'], 'exit 7')
    assert.equal((await finish(child)).status, 7)
    assert.deepEqual(pids.filter(lives), [])
    assert.deepEqual(
      cgroups().filter(name => !before.has(name)),
      [],
    )
  })

  test('when a signal ends it, and when it cannot be executed', async () => {
    const before = new Set(cgroups())
    const { child, pids } = await start(['--kill-rest'], 'sleep 1000')
    child.kill('SIGTERM')
    assert.equal((await finish(child)).status, 143)
    assert.deepEqual(pids.filter(lives), [])
    assert.equal((await cli([...RUN.slice(2), '--kill-rest', '--', '/no/such'])).status, 127)
    await until('no cgroup', () => cgroups().every(name => before.has(name)))
  })

  test('when bpftoken is killed', async () => {
    const before = new Set(cgroups())
    const { child, pids } = await start(['--kill-rest'], 'sleep 1000')
    child.kill('SIGKILL')
    await finish(child)
    await until('all gone', () => !pids.some(lives))
    await until('no cgroup', () => cgroups().every(name => before.has(name)))
  })

  test('when bpftoken is stopped, and stays so', async () => {
    using stage = new Scratch()
    const before = new Set(cgroups())
    const { child, pids } = await start(
      ['--kill-rest'],
      `while [ ! -e ${stage.path}/go ]; do sleep 0.1; done; exit 7`,
    )
    child.kill('SIGSTOP')
    await until('it is stopped', () => /^State:\sT/m.test(statusOf(String(child.pid))))
    assert.deepEqual(pids.filter(lives), pids)
    stage.write('go', '')
    await until('all gone', () => !pids.some(lives))
    await until('no cgroup', () => cgroups().every(name => before.has(name)))
    assert.match(statusOf(String(child.pid)), /^State:\sT/m)
    child.kill('SIGCONT')
    assert.equal((await finish(child)).status, 7)
  })

  test('when its whole process group is killed at any moment', async () => {
    const before = new Set(cgroups())
    for (let delay = 0; delay < 400; delay += 20) {
      const child = startCli([...RUN.slice(2), '--kill-rest', '--', 'sleep', '1000'], {
        stdio: 'ignore',
        detached: true,
      })
      await sleep(delay)
      process.kill(-child.pid!, 'SIGKILL')
      await finish(child)
    }
    await until('no cgroup', () => cgroups().every(name => before.has(name)))
    const { child, pids } = await start(['--kill-rest'], 'sleep 1000', { detached: true })
    process.kill(-child.pid!, 'SIGKILL')
    await finish(child)
    await until('all gone', () => !pids.some(lives))
    await until('no cgroup', () => cgroups().every(name => before.has(name)))
  })

  test('and is refused where its user could move out of the cgroup', async () => {
    const from = join(cgroupRoot()!, `bpftoken-test-${process.pid}`)
    const own = join(from, 'own')
    mkdirSync(own, { recursive: true })
    /** From within `own`, as user and group 4001. */
    const run = (...words: string[]): Promise<Result> => {
      const script = 'echo $$ > "$0/cgroup.procs"; exec "$@"'
      const command = [...RUN, '--user', '4001:4001', ...words, '--', 'true']
      return execute('sh', ['-c', script, own, ...command])
    }
    try {
      assert.equal((await run('--kill-rest')).status, 0)
      for (const [file, uid, gid, mode] of [
        [own, 4001, 0, 0o644],
        [own, 4001, 0, 0o444],
        [own, 0, 4001, 0o664],
        [own, 0, 0, 0o646],
        [from, 4001, 0, 0o644],
      ] as const) {
        const procs = join(file, 'cgroup.procs')
        chownSync(procs, uid, gid)
        chmodSync(procs, mode)
        const { status, stderr } = await run('--kill-rest')
        assert.equal(status, 4, `${procs} ${uid} ${gid} ${mode.toString(8)}`)
        assert.match(stderr, /could leave its cgroup/)
        assert.equal((await run()).status, 0, 'without --kill-rest')
        chownSync(procs, 4002, 4002)
        chmodSync(procs, 0o664)
        assert.equal((await run('--kill-rest')).status, 0, 'another may')
        chownSync(procs, 0, 0)
        chmodSync(procs, 0o644)
      }
    } finally {
      await until('the last has left', () => readFileSync(join(own, 'cgroup.procs'), 'utf8') === '')
      rmdirSync(own)
      rmdirSync(from)
    }
  })

  test('when bpftoken is killed at any moment', async () => {
    using stage = new Scratch()
    const before = new Set(cgroups())
    // A program of a name of its own, by which those that stay are found.
    const stays = stage.write('stays', readFileSync('/bin/sleep'), 0o755)
    const alive = (): boolean =>
      readdirSync('/proc').some(pid => /^\d+$/.test(pid) && lives(pid) && nameOf(pid) === stays)
    let started = 0
    // At last also while its program runs: on a slow machine that is later.
    for (let delay = 0; delay < 800 || started === 0; delay += 40) {
      const script = `${stays} 1000 & (setsid ${stays} 1000 &); exec ${stays} 1000`
      const child = startCli([...RUN.slice(2), '--kill-rest', '--', 'sh', '-c', script], { stdio: 'ignore' })
      await sleep(delay)
      if (alive()) started++
      child.kill('SIGKILL')
      await finish(child)
      await until(`all gone after ${delay} ms`, () => !alive())
    }
    await until('no cgroup', () => cgroups().every(name => before.has(name)))
  })

  test('without it, what the program left goes on', async () => {
    const { child, pids } = await start([], 'exit 7')
    assert.equal((await finish(child)).status, 7)
    try {
      assert.deepEqual(pids.filter(lives), pids)
    } finally {
      for (const pid of pids) process.kill(Number(pid), 'SIGKILL')
      await until('all gone', () => !pids.some(lives))
    }
  })
})

describe('run on a terminal', machine, () => {
  test('its program cannot type into it, by any way to ioctl(2), and may do the rest', async () => {
    using stage = new Scratch()
    const probe = probeIn(stage)
    using without = new Terminal(quote([probe, 'type']))
    await without.ended()
    using within = new Terminal(quote([...RUN, '--', probe, 'type']))
    assert.equal(await within.ended(), 0)
    const answers = (text: string): [string, string, string][] =>
      [...text.matchAll(/([\w-]+) (TIOC\w+) (\w+)\r?$/gm)].map(([, way, request, answer]) => [
        way!,
        request!,
        answer!,
      ])
    const allowed = new Map(
      answers(without.seen).map(([way, request, answer]) => [`${way} ${request}`, answer]),
    )
    assert.ok(allowed.size >= 6, without.seen)
    const legacy = readFileSync('/proc/sys/dev/tty/legacy_tiocsti', 'utf8').trim() === '1'
    assert.equal(allowed.get('native TIOCSTI'), legacy ? 'ok' : 'EIO')
    assert.equal(allowed.get('high-bits TIOCSTI'), legacy ? 'ok' : 'EIO')
    assert.equal(answers(within.seen).length, allowed.size)
    for (const [way, request, answer] of answers(within.seen)) {
      const refusal =
        way === 'x32' ? 'ENOSYS' : request === 'TIOCGWINSZ' ? allowed.get(`${way} ${request}`) : 'EPERM'
      assert.equal(answer, refusal, `${way} ${request}`)
    }
  })

  test('Ctrl-C ends the program, once', async () => {
    using terminal = new Terminal(
      quote([
        ...RUN,
        '--',
        'sh',
        '-c',
        'trap "echo got it; exit 5" INT; echo ready; while :; do sleep 0.1; done',
      ]),
    )
    await terminal.see(/ready/)
    terminal.type('\x03')
    assert.equal(await terminal.ended(), 5)
    assert.equal(terminal.seen.match(/got it/g)?.length, 1)
    using plain = new Terminal(quote([...RUN, '--', 'sh', '-c', 'echo ready; exec sleep 1000']))
    await plain.see(/ready/)
    plain.type('\x03')
    assert.equal(await plain.ended(), 130)
  })

  test('Ctrl-Z stops program and run together, and fg brings both back', async () => {
    using terminal = new Terminal('bash --norc -i')
    const command = quote([...RUN, '--', 'sh', '-c', STOPPABLE])
    await stopsAndResumes({ terminal, prompt: /# / }, command, { status: 130 })
  })

  test('a program that stops itself, or its process group, stops run with it', async () => {
    for (const whom of ['$$', '0']) {
      using terminal = new Terminal('bash --norc -i')
      await terminal.see(/# /)
      const script = `kill -TSTP ${whom}; echo resu""med; exit 6`
      terminal.type(`${quote([...RUN, '--', 'sh', '-c', script])}\n`)
      await terminal.see(/Stopped/)
      terminal.type('fg > /dev/null\n')
      await terminal.see(/^resumed/m)
      await terminal.see(/# /)
      terminal.type('echo status=$?\n')
      await terminal.see(/status=6/)
      terminal.type('exit\n')
      await terminal.ended()
    }
  })

  test('its program stays in the session of its own terminal, and of no other', async () => {
    using stage = new Scratch()
    const probe = probeIn(stage)
    const out = stage.write('out', '')
    const leads = async (...before: string[]): Promise<string | undefined> => {
      using terminal = new Terminal(`${quote([...before, ...RUN, '--', probe])} > ${out} 2>&1`)
      assert.equal(await terminal.ended(), 0, readFileSync(out, 'utf8'))
      return /^leads-session (.)$/m.exec(readFileSync(out, 'utf8'))?.[1]
    }
    assert.equal(await leads(), '0')
    assert.equal(await leads(probe, 'master'), '1', "the master of another session's terminal")
  })

  test('an interactive shell under it has job control', async () => {
    using terminal = new Terminal(quote([...RUN, '--', 'bash', '--norc', '-i']))
    const before = await terminal.see(/# /)
    terminal.type('(echo star""ted; exec sleep 1000)\n')
    await terminal.see(/^started/m)
    terminal.type('\x1a')
    await terminal.see(/Stopped/)
    terminal.type('kill -9 %1; wait; echo fin""ished\n')
    await terminal.see(/^finished/m)
    terminal.type('exit 3\n')
    assert.equal(await terminal.ended(), 3)
    assert.doesNotMatch(before, /job control|cannot set terminal/)
  })
})

test(
  'run without a terminal: Ctrl-C at bpftoken reaches all that its program has started',
  machine,
  async () => {
    // A pipeline in the foreground: not one of these would get a signal that only the shell gets.
    const script = 'trap "exit 5" INT; sh -c "echo \\$\\$; exec sleep 1000 > /dev/null" ; :'
    const { child, line: pid } = await startSaying(['--', 'sh', '-c', script])
    child.kill('SIGINT')
    assert.equal((await finish(child)).status, 5)
    assert.ok(!lives(pid))
  },
)
