/** bpftoken init and try: from a C file to counted packets, and nothing left of it. */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import {
  chmodSync,
  copyFileSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  symlinkSync,
  unlinkSync,
} from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { after, test } from 'node:test'
import { residue, snapshot } from '../../scripts/residue.ts'
import { CLI, cli, execute, finish, inPublic, PUBLIC, publicCli } from '../helpers/cli.ts'
import { checkedDocument } from '../helpers/documents.ts'
import { eventually, HANG_MS } from '../helpers/eventually.ts'
import { inVm, needsTokens, ROOT } from '../helpers/machine.ts'
import { Scratch } from '../helpers/scratch.ts'
import { commandsOf } from '../helpers/shell-blocks.ts'
import { xdpObject } from '../helpers/xdp-object.ts'

const machine = needsTokens()
const starter = starterTools()
const before = snapshot()
after(async () => assert.deepEqual(await residue(before), []))

/** What compiles the starter, or why there is none. */
function starterTools(): { skip?: string; clang: string } {
  if (machine.skip !== undefined) return { ...machine, clang: '' }
  if (inVm) return { skip: 'there is no compiler in a VM', clang: '' }
  const { status, stdout, stderr } = spawnSync(join(ROOT, 'scripts/starter-tools.sh'), { encoding: 'utf8' })
  return status === 0 ? { clang: stdout.trim() } : { skip: stderr.trim(), clang: '' }
}

/** A directory in which the commands `bpftoken` and `sudo` are ours. */
function workplace(): { scratch: Scratch; env: NodeJS.ProcessEnv } {
  const scratch = new Scratch()
  const bin = join(scratch.path, 'bin')
  mkdirSync(bin)
  const main = `exec "${process.execPath}" ${PUBLIC}/dist/cli/main.js "$@"`
  for (const [name, line] of [
    ['bpftoken', main],
    ['sudo', 'exec "$@"'],
  ])
    chmodSync(scratch.write(`bin/${name}`, `#!/bin/sh\n${line}\n`), 0o755)
  return { scratch, env: { ...process.env, PATH: `${bin}:${process.env['PATH']}`, CLANG: starter.clang } }
}

/** The command, with this repository at PUBLIC, in a directory. */
function inPlace(cwd: string, line: string): [string, string[]] {
  return inPublic(['sh', '-c', 'cd "$1" && eval "exec $2"', 'sh', cwd, line])
}

/** Lines of its output, until `enough`; then the signal, and all that it says. */
async function watched(
  child: ChildProcess,
  enough: (line: string) => boolean,
  signal: NodeJS.Signals = 'SIGINT',
): Promise<string[]> {
  const lines: string[] = []
  const timer = setTimeout(() => child.kill('SIGKILL'), HANG_MS)
  let interrupted = false
  for await (const line of createInterface(child.stdout!)) {
    lines.push(line)
    if (interrupted || !enough(line)) continue
    interrupted = true
    child.kill(signal)
  }
  clearTimeout(timer)
  assert.ok(interrupted, `it ended by itself: ${lines.join('\n')}`)
  return lines
}

async function statusOf(child: ChildProcess): Promise<number | null> {
  if (child.exitCode === null && child.signalCode === null) await once(child, 'exit')
  return child.exitCode
}

test('the three commands for developers count packets until Ctrl-C', starter, async () => {
  const { scratch, env } = workplace()
  using _ = scratch
  const commands = commandsOf('README.md', 'developer')
  assert.deepEqual(commandsOf('docs/start.md', 'developer'), commands)
  const last = commands.pop()!
  assert.equal(commands.length, 2)
  for (const command of commands) {
    const { status, stderr } = await execute(...inPlace(scratch.path, command), { env })
    assert.equal(status, 0, stderr)
  }
  const child = spawn(...inPlace(scratch.path, last), { env, stdio: ['ignore', 'pipe', 'inherit'] })
  const lines = await watched(child, line => Number(/^packets = (\d+)/.exec(line)?.[1] ?? 0) > 10)
  assert.equal(await statusOf(child), 0)
  const all = lines.join('\n')
  assert.match(all, /^ +- xdp # program "count"$/m)
  assert.match(all, /^ {2}attaches count to xdp:lo$/m)
  assert.match(all, /^loaded with the token of \/sys\/fs\/bpf$/m)
  assert.match(all, /^packets = 0$/m)
  assert.match(all, /^first_packets: \{"bytes":\d+,"protocol":17\}$/m)
  assert.match(all, /^protocols\[6\] = \d+/m)
})

/** The starter, compiled, and a place to use it from. */
async function compiledStarter() {
  const place = workplace()
  const directory = join(place.scratch.path, 'counter')
  assert.equal((await cli(['init', directory])).status, 0)
  const { status, stderr } = await execute('make', ['-C', directory], { env: place.env })
  assert.equal(status, 0, stderr)
  return { ...place, directory, object: join(directory, 'counter.bpf.o') }
}

interface Document {
  readonly type: string
  readonly programs?: { readonly id: number }[]
  readonly maps?: {
    readonly id: number
    readonly map: string
    readonly rows?: { readonly key: unknown; readonly value: number }[]
  }[]
  readonly value?: { readonly bytes: number; readonly protocol: number }
  readonly attach?: string[]
  readonly risk?: { readonly level: string }
}

function packetsIn({ maps }: Document): number {
  const rows = maps?.find(({ map }) => map === '.bss')?.rows ?? []
  return rows.find(({ key }) => key === 'packets')?.value ?? 0
}

test('--json is a document a line, and counters go up; without packets they do not', starter, async () => {
  const { scratch, env, object } = await compiledStarter()
  using _ = scratch
  const child = spawn(...inPlace(scratch.path, `bpftoken try ${object} --json`), {
    env,
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const lines = await watched(child, line => packetsIn(JSON.parse(line) as Document) > 10)
  assert.equal(await statusOf(child), 0)
  const documents = lines.map(line => checkedDocument('try', line) as Document)
  const [policy, loaded, ...rest] = documents
  assert.deepEqual(
    [policy?.type, policy?.attach, policy?.risk?.level],
    ['policy', ['count=xdp:lo'], 'medium'],
  )
  assert.equal(loaded?.type, 'loaded')
  assert.equal(rest.at(-1)?.type, 'end')
  const counted = rest.filter(({ type }) => type === 'counters').map(packetsIn)
  assert.equal(counted[0], 0)
  assert.deepEqual(
    counted,
    counted.toSorted((a, b) => a - b),
  )
  const events = rest.filter(({ type }) => type === 'event')
  assert.ok(events.some(({ value }) => value?.protocol === 17))

  const silent = spawn(...inPlace(scratch.path, `bpftoken try ${object} --json --no-ping`), {
    env,
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const said = await watched(silent, line => (JSON.parse(line) as Document).type === 'counters')
  assert.equal(await statusOf(silent), 0)
  for (const line of said) assert.equal(packetsIn(JSON.parse(line) as Document), 0)
})

test('on a terminal a table is drawn anew, and Ctrl-C ends it', starter, async () => {
  const { scratch, env, object } = await compiledStarter()
  using _ = scratch
  const line = `exec "${process.execPath}" ${PUBLIC}/dist/cli/main.js try ${object}`
  const child = spawn(...inPublic(['script', '-qec', line, '/dev/null']), { env, stdio: 'pipe' })
  let seen = ''
  while (!/packets +[1-9]\d* +\+\d+/.test(seen))
    seen += String((await once(child.stdout!, 'data', { signal: AbortSignal.timeout(HANG_MS) }))[0])
  child.stdin!.write('\x03')
  const { status, stdout } = await finish(child)
  assert.equal(status, 0, stdout)
  assert.match(seen, /counter +value +change/)
  assert.ok(seen.includes('\x1b['))
})

/** The loader of that object, by the namespaces and kernel objects that are its own. */
function tracesOf(name: string, loaded: Document): string[] {
  // The launcher, which watches over it, was given the same words.
  const pid = readdirSync('/proc').find(one => {
    const [program, ...words] = /^\d+$/.test(one) ? commandLine(one) : []
    return program === process.execPath && words.includes(`--name=${name}`)
  })
  const [net, mnt] = ['net', 'mnt'].map(kind => readlinkSync(`/proc/${pid}/ns/${kind}`))
  return [
    `network namespace ${net}`,
    ...[...snapshot()].filter(line => line.startsWith('bpffs ') && line.endsWith(` in ${mnt}`)),
    ...loaded.programs!.map(({ id }) => `prog ${id}`),
    ...loaded.maps!.map(({ id }) => `map ${id}`),
  ]
}

function commandLine(pid: string): string[] {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0')
  } catch {
    return [] // It has ended.
  }
}

test('interrupted or killed, it leaves nothing behind', starter, async () => {
  for (const [signal, name] of [
    ['SIGINT', 'left-by-int'],
    ['SIGKILL', 'left-by-kill'],
  ] as const) {
    const { scratch, env, object } = await compiledStarter()
    using _ = scratch
    const copy = join(scratch.path, `${name}.o`)
    copyFileSync(object, copy)
    const child = spawn(...inPlace(scratch.path, `bpftoken try ${copy} --json`), {
      env,
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    let loaded: Document | undefined
    let traces: string[] = []
    await watched(
      child,
      line => {
        const document = JSON.parse(line) as Document
        if (document.type === 'loaded') loaded = document
        if (document.type !== 'counters') return false
        traces = tracesOf(name, loaded!)
        return true
      },
      signal,
    )
    await statusOf(child)
    // One network, one delegation, one program, three maps.
    assert.equal(traces.length, 6)
    await eventually(
      () => {
        const there = snapshot()
        return traces.every(line => !there.has(line))
      },
      `after ${signal} something stays of ${traces.join(', ')}`,
    )
  }
})

test('the client of the starter counts under run, with its policy', starter, async () => {
  const { scratch, env, directory } = await compiledStarter()
  using _ = scratch
  mkdirSync(join(directory, 'node_modules'))
  symlinkSync(PUBLIC, join(directory, 'node_modules/bpftoken'))
  const { status, stdout } = await cli([
    ...['plan', '--loader', 'bpftoken', '--strict', '--check', join(directory, 'policy.yaml')],
    join(directory, 'counter.bpf.o'),
  ])
  assert.equal(status, 0, stdout)
  const line = `bpftoken run --policy policy.yaml -- "${process.execPath}" client.mjs`
  const child = spawn(...inPlace(directory, line), { env, stdio: ['ignore', 'pipe', 'inherit'] })
  const lines = await watched(child, said => /^[1-9]\d* packets/.test(said))
  assert.equal(await statusOf(child), 0)
  assert.equal(lines[0], 'attached to lo')
})

/** An event for each system call of the machine, those that tell of events among them. */
const FLOOD = `
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); } calls SEC(".maps");
SEC("raw_tp/sys_enter") int enter(void *ctx)
{
	__u64 now = bpf_ktime_get_ns();
	bpf_ringbuf_output(&calls, &now, sizeof(now), 0);
	return 0;
}
char LICENSE[] SEC("license") = "GPL";
`

test('a flood of events, which shows make more of, does not keep Ctrl-C waiting', starter, async () => {
  const { scratch, env, directory } = await compiledStarter()
  using _ = scratch
  scratch.write('counter/flood.bpf.c', FLOOD)
  assert.equal((await execute('make', ['-C', directory, 'flood.bpf.o'], { env })).status, 0)
  for (const [json, mark] of [
    ['', /^\d+ more events$/],
    ['--json', /"type":"event"/],
  ] as const) {
    const line = `bpftoken try ${directory}/flood.bpf.o --yes ${json}`
    const child = spawn(...inPlace(scratch.path, line), { env, stdio: ['ignore', 'pipe', 'inherit'] })
    await watched(child, said => mark.test(said))
    assert.equal(await statusOf(child), 0)
  }
})

test('the same by hand: a plan, run, and obj load --watch', machine, async () => {
  using scratch = new Scratch()
  const object = 'test/fixtures/network.bpf.o'
  const chosen = ['--program', 'count']
  const { stdout } = await cli(['plan', '--loader', 'bpftoken', ...chosen, join(ROOT, object)])
  const policy = scratch.write('policy.yaml', stdout)
  const main = [process.execPath, `${PUBLIC}/dist/cli/main.js`]
  const load = ['obj', 'load', `${PUBLIC}/${object}`, ...chosen, '--attach', 'count=xdp:lo']
  const child = spawn(
    ...inPublic([...main, 'run', '--policy', policy, '--', ...main, ...load, '--watch', '--ping', '--json']),
    { stdio: ['ignore', 'pipe', 'inherit'] },
  )
  const lines = await watched(child, line => {
    const { maps } = JSON.parse(line) as Document
    return (maps?.find(({ map }) => map === '.bss')?.rows ?? []).some(
      ({ key, value }) => key === 'seen' && value > 0,
    )
  })
  assert.equal(await statusOf(child), 0)
  const types = lines.map(line => (checkedDocument('obj-load-watch', line) as Document).type)
  assert.deepEqual([types[0], types[1], types.at(-1)], ['loaded', 'counters', 'end'])
})

const TRACE = `${PUBLIC}/test/fixtures/trace.bpf.o`

test('a name in the object says nothing about where it attaches', machine, async () => {
  using scratch = new Scratch()
  for (const [i, name] of ['count.llvm.1', 'p=tcx:lo/ingress/', 'p=auto', 'let_pass'].entries()) {
    const object = scratch.write(`named-${i}.o`, xdpObject('xdp', name))
    const words = [`${PUBLIC}/dist/cli/main.js`, 'try', object, '--json', '--no-ping']
    const child = spawn(...inPublic([process.execPath, ...words]), { stdio: ['ignore', 'pipe', 'inherit'] })
    const lines = await watched(child, line => (JSON.parse(line) as Document).type === 'counters')
    assert.equal(await statusOf(child), 0)
    const { attach } = JSON.parse(lines[0]!) as Document
    assert.deepEqual(attach, [/=/.test(name) ? JSON.stringify([name, 'xdp:lo']) : `${name}=xdp:lo`])
    const loaded = JSON.parse(lines[1]!) as { programs: { name: string; attached: boolean }[] }
    assert.deepEqual(
      loaded.programs.map(one => [one.name, one.attached]),
      [[name, true]],
    )
  }
})

test('what needs the host is said before anything is done', machine, async () => {
  const { status, stdout, stderr } = await publicCli(['try', TRACE, '--program', 'on_kprobe'])
  assert.equal(status, 4, stderr)
  assert.match(stdout, /^ +- kprobe # program "on_kprobe"$/m)
  assert.match(stdout, /risk: critical$/m)
  assert.doesNotMatch(stdout, /^loaded/m)
  assert.match(stderr, /on_kprobe: perf_event_open\(2\)/)
  assert.match(stderr, /obj load .*--attach auto --watch/)
})

test('commands to paste do what they say, whatever files are called', machine, async () => {
  using scratch = new Scratch()
  const name = 'x;touch pwned #.o'
  const object = scratch.write(name, readFileSync(join(ROOT, 'test/fixtures/trace.bpf.o')))
  const { stderr } = await cli(['try', object, '--program', 'on_kprobe'])
  assert.ok(
    stderr.includes(`bpftoken obj load '${scratch.path}/${name}' --program=on_kprobe --attach`),
    stderr,
  )
  for (const [directory, word] of [
    ['a b;$(id)', "'a b;$(id)'"],
    ['plain', 'plain'],
  ] as const) {
    const { stdout } = await cli(['init', directory], { cwd: scratch.path })
    assert.ok(stdout.endsWith(`\nnext: cd ${word} && make try\n`), stdout)
  }
})

test('what is as good as root is lent with --yes only', machine, async () => {
  const refused = await publicCli(['try', TRACE, '--program', 'on_raw_tp'])
  assert.equal(refused.status, 3, refused.stderr)
  assert.match(refused.stderr, /progs raw_tracepoint: attaches host-wide/)
  assert.doesNotMatch(refused.stdout, /^loaded/m)
  const [command, args] = inPublic([
    ...[process.execPath, `${PUBLIC}/dist/cli/main.js`],
    ...['try', TRACE, '--program', 'on_raw_tp', '--yes'],
  ])
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'inherit'] })
  await watched(child, line => /^by_raw_tp = [1-9]/.test(line))
  assert.equal(await statusOf(child), 0)
})

test('a policy that lacks a right is told, and what the kernel says of it', machine, async () => {
  const { status, stderr } = await publicCli([
    ...['try', `${PUBLIC}/test/fixtures/network.bpf.o`, '--program', 'count'],
    ...['--policy', `${PUBLIC}/examples/policies/socket-filter.yaml`],
  ])
  assert.equal(status, 3)
  assert.match(stderr, /socket-filter\.yaml lacks progs xdp, for program "count"/)
  assert.match(stderr, /failed with EPERM/)
  assert.match(stderr, /Missing right/)
})

test('programs of cgroups see the cgroup of the loader, and no other', machine, async t => {
  const [command, args] = inPublic([
    ...[process.execPath, `${PUBLIC}/dist/cli/main.js`],
    ...['try', `${PUBLIC}/test/fixtures/network.bpf.o`, '--json'],
  ])
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'inherit'] })
  const lines = await watched(child, line => {
    const { type, maps } = JSON.parse(line) as Document
    const rows = maps?.find(({ map }) => map === '.bss')?.rows ?? []
    return type === 'counters' && rows.some(({ key, value }) => key === 'cgroup_packets' && value > 0)
  })
  assert.equal(await statusOf(child), 0)
  const attached = (JSON.parse(lines[0]!) as Document).attach!.find(place => place.includes('cgroup:'))
  t.diagnostic(attached ?? 'none')
  assert.match(attached!, /=cgroup:\/.*\/bpftoken-run-\d+-[0-9a-f]+$/)
})

test('bad words are named, and nothing is done', machine, async () => {
  const object = join(ROOT, 'test/fixtures/network.bpf.o')
  for (const [args, status, message] of [
    [['none.o'], 1, /Cannot read object "none.o": ENOENT/],
    [[object, '--program', 'nobody'], 1, /no program "nobody"/],
    [[object, '--attach', 'nowhere'], 2, /Give xdp:DEVICE/],
    [
      [object, '--program', 'count', '--attach', 'netns:/proc/self/ns/net'],
      2,
      /No program attaches to netns/,
    ],
    [[object, '--cap', 'everything'], 2, /no capability "everything"/],
    [[object, '--program', 'count', '--host-net'], 4, /nothing of the host's network is taken unasked/],
    [[object, '--user', 'root'], 2, /never runs as host root/],
  ] as const) {
    const result = await cli(['try', ...args])
    assert.equal(result.status, status, result.stderr)
    assert.match(result.stderr, message)
    assert.doesNotMatch(result.stdout, /^loaded/m)
  }
})

test('init overwrites nothing, and names what it wrote', async () => {
  using scratch = new Scratch()
  const directory = join(scratch.path, 'new')
  const first = await cli(['init', directory, '--json'])
  assert.equal(first.status, 0, first.stderr)
  const { wrote } = JSON.parse(first.stdout) as { wrote: string[] }
  assert.deepEqual(wrote.map(file => file.replace(`${directory}/`, '')).sort(), readdirSync(directory).sort())
  scratch.write('new/Makefile', 'mine')
  const second = await cli(['init', directory])
  assert.equal(second.status, 1)
  assert.match(second.stderr, /has counter\.bpf\.c, .*README\.md already/)
  unlinkSync(join(directory, 'policy.yaml'))
  const third = await cli(['init', directory, '--force'])
  assert.equal(third.status, 0, third.stderr)
  assert.match(third.stdout, /^wrote .*policy\.yaml\n/)
  assert.equal(readFileSync(join(directory, 'Makefile'), 'utf8'), 'mine')
})

test('init writes nothing where one of its files is a link to nothing', async () => {
  using scratch = new Scratch()
  symlinkSync(join(scratch.path, 'nothing'), join(scratch.path, 'Makefile'))
  const refused = await cli(['init', scratch.path])
  assert.equal(refused.status, 1)
  assert.match(refused.stderr, /has Makefile already/)
  assert.deepEqual(readdirSync(scratch.path), ['Makefile'])
  const forced = await cli(['init', scratch.path, '--force'])
  assert.equal(forced.status, 0, forced.stderr)
  assert.match(forced.stdout, /^left .*Makefile as it is$/m)
  assert.equal(readdirSync(scratch.path).length, 5)
})

test('init takes back what it wrote when it cannot write all', machine, async () => {
  using scratch = new Scratch()
  const script =
    'mount -t tmpfs -o "nr_inodes=$0" none "$1" && { "$2" "$3" init "$1/a/b" >&2; echo $?; ls -R "$1"; }'
  const within = (inodes: number) =>
    execute('unshare', [
      ...['--mount', 'sh', '-c', script, String(inodes), scratch.path, process.execPath, CLI],
    ])
  // The root, two directories, and five files or three.
  const enough = await within(8)
  assert.match(enough.stdout, /^0\n.*Makefile/s, enough.stderr)
  const full = await within(6)
  assert.equal(full.stdout, `1\n${scratch.path}:\n`, full.stderr)
  assert.match(full.stderr, /ENOSPC/)
})
