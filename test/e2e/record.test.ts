/**
 * bpftoken record: what a run asks for becomes a policy that is enough for another run, and nobody
 * else's calls are in it.
 */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { constants } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { compiled } from '../../scripts/compiled.ts'
import { residue, snapshot } from '../../scripts/residue.ts'
import { removeCgroup } from '../helpers/cgroup.ts'
import { cli, execute, finish, inPublic, PUBLIC, PUBLIC_CLI, type Result, startCli } from '../helpers/cli.ts'
import { checkedDocument } from '../helpers/documents.ts'
import { eventually } from '../helpers/eventually.ts'
import { CACHE, needsProgram, needsTokens, ROOT } from '../helpers/machine.ts'
import { Scratch } from '../helpers/scratch.ts'
import { xdpObject } from '../helpers/xdp-object.ts'

const machine = needsTokens()
const OBJECT = 'test/fixtures/network.bpf.o'
const BPFTOOL = join(CACHE, 'host/usr/sbin/bpftool')
const scratch = new Scratch()
const before = snapshot()
after(async () => {
  scratch[Symbol.dispose]()
  assert.deepEqual(await residue(before), [])
})

const NR_BPF = process.arch === 'arm64' ? 280 : 321
/** Perl: `make(TYPE)` makes a map of that type with bpf(2), and says whether it could. */
const PERL = `sub make { my $attr = pack("L5 x52", $_[0], 4, 4, 1, 0); my $fd = syscall(${NR_BPF}, 0, $attr, 72); $fd >= 0 }\n`
const HASH = 1
const ARRAY = 2
const PERCPU_HASH = 5
const LRU_HASH = 9
const QUEUE = 22

const ASKS = machine.skip === undefined ? compiled(join(ROOT, 'test/vm/asks.c')) : ''

/** The words of a recording, by domain. */
async function recordJson(...args: string[]): Promise<Result & { found: Found }> {
  const file = scratch.write('recorded.yaml', '')
  const result = await cli(['record', '-o', file, '--json', ...args])
  return { ...result, found: checkedDocument('record', result.stdout) as Found }
}
interface Found {
  complete: boolean
  lost: { calls: number }
  rights: { domain: string; word: string; askers: { pid: number; outcomes: Record<string, number> }[] }[]
  unserved: { call: string }[]
  counted: Record<string, number>
}
const maps = ({ rights }: Found): string[] =>
  rights.filter(({ domain }) => domain === 'maps').map(({ word }) => word)

/** A command in which this checkout can be seen by everybody. */
const shown = (words: string[]): Promise<Result> => execute(...inPublic(words))

test('what our own loader asked for is exactly its plan, and is enough for a rerun', machine, async () => {
  const policy = join(scratch.path, 'loader.yaml')
  const load = [process.execPath, PUBLIC_CLI, 'obj', 'load', `${PUBLIC}/${OBJECT}`]
  const recorded = await shown([process.execPath, PUBLIC_CLI, 'record', '-o', policy, '--', ...load])
  assert.equal(recorded.status, 0, recorded.stderr)
  // The command's own output is still there.
  assert.match(recorded.stdout, /^program +count +xdp/m)
  const strict = ['plan', '--loader', 'bpftoken', '--check', policy, '--strict', OBJECT]
  const checked = await cli(strict)
  assert.equal(checked.status, 0, checked.stdout + checked.stderr)
  const again = await shown([process.execPath, PUBLIC_CLI, 'run', '--policy', policy, '--', ...load])
  assert.equal(again.status, 0, again.stderr)
  assert.match(again.stdout, /^loaded with the token of \/sys\/fs\/bpf$/m)
  // The twin: without one of these rights it is refused.
  const text = readFileSync(policy, 'utf8')
  writeFileSync(policy, text.replace(/^ {6}- ringbuf .*\n/m, ''))
  const without = await shown([process.execPath, PUBLIC_CLI, 'run', '--policy', policy, '--', ...load])
  assert.equal(without.status, 3, without.stdout)
})

test('what bpftool asked for is enough for a rerun, and no more than its plan', {
  ...machine,
  ...needsProgram('host/usr/sbin/bpftool'),
}, async () => {
  const object = scratch.write('pass.o', xdpObject())
  const policy = join(scratch.path, 'bpftool.yaml')
  const dir = join(scratch.path, 'fs')
  mkdirSync(dir)
  const tool = scratch.write('bpftool', readFileSync(BPFTOOL), 0o755)
  const script = `mount -t bpf bpf ${dir} && ${tool} prog load ${object} ${dir}/pass`
  const recorded = await cli(['record', '-o', policy, '--', 'unshare', '--mount', 'sh', '-c', script])
  assert.equal(recorded.status, 0, recorded.stderr)
  const { stdout } = await cli(['plan', '--json', '--loader', 'libbpf', object])
  const planned = JSON.parse(stdout) as { rights: { domain: string; word: string }[] }
  const words = new Set(planned.rights.map(({ word }) => word))
  const listed = [...readFileSync(policy, 'utf8').matchAll(/^ {6}- (\w+) # (.*)$/gm)]
  assert.ok(listed.some(([, word]) => word === 'xdp'))
  // Feature probes of libbpf that the plan leaves out, for their refusal changes no load.
  const beyond = listed
    .map(([, word]) => word!)
    .filter(word => !words.has(word) && !CAPABILITIES.includes(word))
  for (const word of beyond) assert.match(text(policy), new RegExp(`- ${word} # bpftool`))
  const again = await cli(['run', '--policy', policy, '--', tool, 'prog', 'load', object, '/sys/fs/bpf/pass'])
  assert.equal(again.status, 0, again.stderr)
  // The twin: without the program type it is refused.
  writeFileSync(policy, text(policy).replace(/^ {6}- xdp .*\n/gm, ''))
  const without = await cli([
    'run',
    '--policy',
    policy,
    '--',
    tool,
    'prog',
    'load',
    object,
    '/sys/fs/bpf/pass',
  ])
  assert.notEqual(without.status, 0)
})
const CAPABILITIES = ['bpf', 'net_admin', 'perfmon', 'sys_admin']
const text = (file: string): string => readFileSync(file, 'utf8')

test('threads and processes that it forks are seen, and nobody else is', machine, async () => {
  // Two threads at once, a child, and a grandchild whose parent has ended.
  const workload = `${PERL} use threads;
    my @all = map { my $type = $_; threads->create(sub { make($type) for 1 .. 50 }) } (${HASH}, ${ARRAY});
    $_->join for @all;
    my $child = fork; if (!$child) { make(${PERCPU_HASH}); if (!fork) { sleep 1; make(${LRU_HASH}); exit } exit }
    waitpid $child, 0; sleep 2`
  const stranger = spawn('perl', [
    '-e',
    `${PERL} while (1) { make(${QUEUE}); select undef, undef, undef, .01 }`,
  ])
  try {
    const { status, found } = await recordJson('--', 'perl', '-e', workload)
    assert.equal(status, 0)
    assert.deepEqual(maps(found), ['hash', 'array', 'percpu_hash', 'lru_hash'])
    const askers = (word: string) => found.rights.find(right => right.word === word)!.askers
    assert.deepEqual(askers('hash')[0]!.outcomes, { ok: 50 })
    assert.deepEqual(askers('array')[0]!.outcomes, { ok: 50 })
    assert.equal(askers('hash')[0]!.pid, askers('array')[0]!.pid)
    assert.equal(new Set(['hash', 'percpu_hash', 'lru_hash'].map(word => askers(word)[0]!.pid)).size, 3)
    assert.equal(found.complete, true)
  } finally {
    stranger.kill('SIGKILL')
  }
})

test(
  'a running process is watched from then on with the children that it has, until interrupted',
  machine,
  async () => {
    // It waits for a line, and its child, which is older than the recording, waits for the pipe.
    const running = spawn('perl', [
      '-e',
      `${PERL} $| = 1; pipe R, W; if (!fork) { close W; <R>; make(${LRU_HASH}); exit } make(${ARRAY}); print "ready\\n"; <STDIN>; make(${HASH}); close W; wait; print "done\\n"; <STDIN>`,
    ])
    try {
      let said = ''
      running.stdout.on('data', chunk => (said += String(chunk)))
      await eventually(() => said.includes('ready'), 'it never began')
      const file = join(scratch.path, 'pid.yaml')
      const recorder = startCli(['record', '-o', file, '--pid', String(running.pid)], { stdio: 'pipe' })
      let noted = ''
      recorder.stderr!.on('data', chunk => (noted += String(chunk)))
      await eventually(() => noted.includes('watching'), 'the recorder never began')
      running.stdin.write('\n')
      await eventually(() => said.includes('done'), 'it never went on')
      recorder.kill('SIGINT')
      const { status } = await finish(recorder)
      assert.equal(status, 0, noted)
      assert.match(text(file), /^ {6}- hash #/m)
      assert.match(text(file), /^ {6}- lru_hash #/m)
      // What it did before was not seen.
      assert.doesNotMatch(text(file), /^ {6}- array #/m)
    } finally {
      running.kill('SIGKILL')
    }
  },
)

test('a cgroup is watched with those below it', machine, async () => {
  // Of its own, for not every machine has this hierarchy mounted.
  const root = join(scratch.path, 'cgroups')
  mkdirSync(root)
  assert.equal((await execute('mount', ['-t', 'cgroup2', 'cgroup2', root])).status, 0)
  const parent = join(root, `bpftoken-test-record-${process.pid}`)
  mkdirSync(join(parent, 'below'), { recursive: true })
  try {
    const file = join(scratch.path, 'cgroup.yaml')
    const recorder = startCli(['record', '-o', file, '--cgroup', parent], { stdio: 'pipe' })
    let noted = ''
    recorder.stderr!.on('data', chunk => {
      noted += String(chunk)
    })
    await eventually(() => noted.includes('watching'), 'the recorder never began')
    const script = 'open F, ">$ARGV[0]/cgroup.procs"; print F $$; close F; make($ARGV[1])'
    for (const [dir, type] of [
      [parent, HASH],
      [join(parent, 'below'), ARRAY],
      [root, QUEUE],
    ] as const)
      assert.equal((await execute('perl', ['-e', PERL + script, dir, String(type)])).status, 0)
    recorder.kill('SIGTERM')
    assert.equal((await finish(recorder)).status, 0)
    assert.match(text(file), /^ {6}- hash #/m)
    assert.match(text(file), /^ {6}- array #/m)
    assert.doesNotMatch(text(file), /^ {6}- queue #/m)
  } finally {
    await removeCgroup(parent)
    await execute('umount', [root])
  }
})

test('calls that no token serves are named, and plain ones counted', machine, async () => {
  const workload = `${PERL} my $id = pack("L3", 0, 0, 0); syscall(${NR_BPF}, 11, $id, 12); my $key = pack("L x28", 99); syscall(${NR_BPF}, 1, $key, 32) for 1 .. 10`
  const { found } = await recordJson('--', 'perl', '-e', workload)
  assert.deepEqual(
    found.unserved.map(({ call }) => call),
    ['prog_get_next_id'],
  )
  assert.deepEqual(found.counted, { map_lookup_elem: 10 })
  assert.deepEqual(found.rights, [])
})

test('when there is no room for all calls, the result says that it is incomplete', machine, async () => {
  // The recorder is stopped while 60,000 calls are made, which are more than the ring holds.
  const workload = `${PERL} kill "STOP", getppid; make(${HASH}) for 1 .. 60000; kill "CONT", getppid`
  const { status, stderr, found } = await recordJson('--', 'perl', '-e', workload)
  assert.equal(status, 0)
  assert.equal(found.complete, false)
  assert.ok(found.lost.calls > 0)
  assert.match(stderr, /INCOMPLETE/)
  assert.match(text(join(scratch.path, 'recorded.yaml')), /^# INCOMPLETE/m)
})

test('who calls faster than calls are read keeps it from no end', machine, async () => {
  // More calls than a ring's worth are there at any moment, of which none is made.
  const flood = `fork; fork; my $attr = pack("L5 x52", ${HASH}, 4, 4, 0, 0); syscall(${NR_BPF}, 0, $attr, 72) while getppid != 1`
  const script = `if (!fork) { sleep 1; ${flood}; exit } sleep 1 while 1`
  const workload = spawn('perl', ['-e', script], { detached: true, stdio: 'ignore' })
  try {
    const recorder = startCli(['record', '--json', '--pid', String(workload.pid)], {
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    let [answer, said] = ['', '']
    recorder.stdout!.on('data', chunk => (answer += String(chunk)))
    recorder.stderr!.on('data', chunk => (said += String(chunk)))
    await eventually(() => said.includes('watching'), 'it never began')
    await sleep(2000)
    recorder.kill('SIGINT')
    await eventually(() => recorder.exitCode !== null || recorder.signalCode !== null, 'it never ended')
    const found = checkedDocument('record', answer) as Found & { calls: number }
    assert.ok(found.calls > 0)
    assert.equal(found.complete, found.lost.calls === 0)
  } finally {
    process.kill(-workload.pid!, 'SIGKILL')
  }
})

test("the exit status is the command's, and signals to the recorder are the command's", machine, async () => {
  const status = async (...words: string[]) => (await cli(['record', '--', ...words])).status
  assert.equal(await status('sh', '-c', 'exit 7'), 7)
  assert.equal(await status('sh', '-c', 'kill -KILL $$'), 128 + constants.signals.SIGKILL)
  assert.equal(await status('bpftoken-no-such-program'), 127)
  assert.equal(await status(scratch.write('plain', '')), 126)
  const script = `${PERL} $SIG{TERM} = sub { make(${HASH}); exit 9 }; $| = 1; print "perl ", "waits\\n"; sleep 1 while 1`
  const recorder = startCli(['record', '--', 'perl', '-e', script], { stdio: ['ignore', 'pipe', 'pipe'] })
  let [answer, said] = ['', '']
  recorder.stdout!.on('data', chunk => (answer += String(chunk)))
  // The answer stands alone.
  recorder.stderr!.on('data', chunk => (said += String(chunk)))
  await eventually(() => said.includes('perl waits'), 'it never began')
  recorder.kill('SIGTERM')
  await eventually(() => recorder.exitCode !== null || recorder.signalCode !== null, 'it never ended')
  assert.equal(recorder.exitCode, 9)
  assert.match(answer, /^ {6}- hash #/m)
  assert.doesNotMatch(answer, /perl waits/)
})

test('what is to be watched must be said, once', async () => {
  for (const args of [[], ['--pid', '1', '--', 'true'], ['--pid', '1', '--cgroup', '/sys/fs/cgroup']])
    assert.equal((await cli(['record', ...args])).status, 2, args.join(' '))
})

const NR_MMAP = process.arch === 'arm64' ? 222 : 9

test(
  'what a call is given is seen, also where it is in no memory yet when the call begins',
  machine,
  async () => {
    const attr = scratch.write('attr', '')
    /** A map of that type, whose attributes lie in a file that is mapped and was not touched. */
    const untouched = `open(F, "+>", ${JSON.stringify(attr)}); syswrite(F, pack("L5 x4076", ${LRU_HASH}, 4, 4, 1, 0));
    my $at = syscall(${NR_MMAP}, 0, 4096, 3, 2, fileno(F), 0); syscall(${NR_BPF}, 0, $at, 72) >= 0 or exit 1;`
    const { status, found } = await recordJson(
      '--',
      'perl',
      '-e',
      `${PERL} ${untouched} make(${HASH}) or exit 2`,
    )
    assert.equal(status, 0)
    assert.deepEqual(maps(found), ['hash', 'lru_hash'])
    assert.equal(found.complete, true)
    // Where nobody can read it, nothing comes of it, and nothing is missing.
    const nowhere = await recordJson('--', 'perl', '-e', `syscall(${NR_BPF}, 0, 4096, 72) < 0 or exit 1`)
    assert.equal(nowhere.status, 0)
    assert.equal(nowhere.found.complete, true)
  },
)

/** What a seccomp filter does with bpf(2): its action, how the command ends, and what is said of it. */
const ANSWERS: Readonly<Record<string, readonly [action: string, status: number, outcome: string]>> = {
  'kills the process': ['0x80000000', 128 + constants.signals.SIGSYS, 'SIGSYS'],
  'kills the thread': ['0x0', 128 + constants.signals.SIGSYS, 'SIGSYS'],
  'sends SIGSYS': ['0x30000', 0, 'SIGSYS'],
  'answers with an errno': ['0x50001', 0, 'EPERM'],
  'says that it was done': ['0x50000', 0, 'answer of 0'],
}
for (const [what, [action, status, outcome]] of Object.entries(ANSWERS))
  for (const by of ['process', 'thread'])
    test(`a seccomp filter that ${what}, of a ${by}, is not taken for the kernel`, machine, async () => {
      const ran = await recordJson('--', ASKS, 'filtered', action, String(QUEUE), by)
      // The kernel ends one thread alone where others live.
      assert.equal(ran.status, by === 'thread' && what === 'kills the thread' ? 0 : status, ran.stderr)
      assert.deepEqual(maps(ran.found), ['queue'])
      const [right] = ran.found.rights.filter(({ domain }) => domain === 'maps')
      assert.deepEqual(right!.askers[0]!.outcomes, { [`${outcome} before the kernel's bpf(2) was asked`]: 1 })
      assert.equal(ran.found.complete, true)
    })

test('a seccomp filter that lets bpf(2) pass takes nothing from the kernel’s answers', machine, async () => {
  const { found } = await recordJson('--', ASKS, 'filtered', '0x7fff0000', String(HASH), 'process')
  const [right] = found.rights.filter(({ domain }) => domain === 'maps')
  assert.deepEqual(right!.askers[0]!.outcomes, { ok: 1 })
})

test('a number of the system call of more than 32 bits hides nothing', {
  skip: machine.skip ?? (process.arch === 'x64' ? false : 'x86-64 alone has such registers'),
}, async () => {
  const { found } = await recordJson('--', ASKS, 'wide', String(HASH))
  assert.deepEqual([maps(found), found.complete], [['hash'], true])
})

test('a flag for which the kernel asks the host is said to be no matter of tokens', machine, async () => {
  const ZERO_SEED = 1 << 6
  const make = (flags: number): string =>
    `my $attr = pack("L5 x52", ${HASH}, 4, 4, 1, ${flags}); syscall(${NR_BPF}, 0, $attr, 72)`
  const seeded = await recordJson('--', 'perl', '-e', make(ZERO_SEED))
  assert.deepEqual(
    seeded.found.unserved.map(({ call }) => call),
    ['map_create with BPF_F_ZERO_SEED'],
  )
  const plain = await recordJson('--', 'perl', '-e', make(0))
  assert.deepEqual(plain.found.unserved, [])
})

test('where the recording is to go is tried before anything runs', machine, async () => {
  const mark = join(scratch.path, 'ran')
  const ran = await cli(['record', '-o', join(scratch.path, 'nowhere/x.yaml'), '--', 'touch', mark])
  assert.equal(ran.status, 1)
  assert.match(ran.stderr, /Cannot write ".*nowhere\/x\.yaml": ENOENT/)
  assert.equal(existsSync(mark), false)
  // The twin; and what was there before stays until something else is written.
  const file = scratch.write('kept.yaml', 'kept')
  const refused = await cli(['record', '-o', file, '--', '/nonexistent'])
  assert.equal(refused.status, 127)
  const done = await cli(['record', '-o', file, '--', 'touch', mark])
  assert.equal(done.status, 0, done.stderr)
  assert.equal(existsSync(mark), true)
  assert.match(readFileSync(file, 'utf8'), /^kind: DelegationPolicy$/m)
})

test('a recording that its file does not take goes to standard output', machine, async () => {
  const { status, stdout, stderr } = await cli(['record', '-o', '/dev/full', '--', 'true'])
  assert.equal(status, 1)
  assert.match(stderr, /Cannot write "\/dev\/full": ENOSPC/)
  assert.match(stdout, /^kind: DelegationPolicy$/m)
})

test('the arguments of a command are not in its policy', machine, async () => {
  const { status, stdout } = await cli(['record', '--', 'true', '--password=hunter2'])
  assert.equal(status, 0)
  assert.match(stdout, /^# Least rights for what was seen of true with arguments;/)
  assert.doesNotMatch(stdout, /hunter2/)
})
