/** bpftoken obj load: a one-line trial of a policy, and what is left of it afterwards. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { text } from 'node:stream/consumers'
import { after, test } from 'node:test'
import { residue, snapshot } from '../../scripts/residue.ts'
import { cli, execute, inPublic, PUBLIC, PUBLIC_CLI, publicCli, startCli } from '../helpers/cli.ts'
import { needsTokens, ROOT } from '../helpers/machine.ts'
import { Scratch } from '../helpers/scratch.ts'

const machine = needsTokens()
const OBJECT = 'test/fixtures/network.bpf.o'
const before = snapshot()
after(async () => assert.deepEqual(await residue(before), []))

/** Writes the plan for the object into a file, and gives its path. */
async function planned(scratch: Scratch, ...args: string[]): Promise<string> {
  const { status, stdout, stderr } = await cli(['plan', '--loader', 'bpftoken', ...args, join(ROOT, OBJECT)])
  assert.equal(status, 0, stderr)
  return scratch.write('policy.yaml', stdout)
}

/** `bpftoken obj load ARGS` under `bpftoken run`. */
function trial(policy: string, ...args: string[]) {
  return publicCli(['run', '--policy', policy, '--', process.execPath, PUBLIC_CLI, 'obj', 'load', ...args])
}

test('a planned policy loads its object in one line, and says with which token', machine, async () => {
  using scratch = new Scratch()
  const policy = await planned(scratch)
  const { status, stdout, stderr } = await trial(policy, `${PUBLIC}/${OBJECT}`)
  assert.equal(status, 0, stderr)
  assert.match(stdout, /^loaded with the token of \/sys\/fs\/bpf$/m)
  assert.match(stdout, /^program +count +xdp +id \d+ +\d+ instructions verified$/m)
  assert.match(stdout, /^map +events +ringbuf +id \d+ +4096 entries$/m)
})

const EVENTS = 'test/fixtures/modern/events.bpf.o'
const WATCH_EVENTS = ['--attach', 'auto', '--watch', '--json']

interface Line {
  readonly type: string
  readonly map?: string
  readonly value?: { readonly pid: number; readonly number: number }
}

test('--watch shows calls of a library, through a perf event array', machine, async () => {
  const child = startCli(['obj', 'load', join(ROOT, EVENTS), ...WATCH_EVENTS], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const found: Line[] = []
  for await (const json of createInterface(child.stdout!)) {
    const line = JSON.parse(json) as Line
    // Node asks libc for it each time.
    if (line.type === 'loaded' || line.type === 'counters') assert.ok(process.ppid > 0)
    if (line.type !== 'event' || line.value?.pid !== process.pid) continue
    found.push(line)
    child.kill('SIGINT')
  }
  assert.deepEqual([found[0]?.map, found[0]?.value], ['calls', { pid: process.pid, number: 7 }])
})

test('under a token --watch says that it cannot read one, and goes on', machine, async t => {
  if (Number(readFileSync('/proc/sys/kernel/perf_event_paranoid', 'utf8')) < 1)
    return t.skip('kernel.perf_event_paranoid lets everybody')
  using scratch = new Scratch()
  const plan = await cli(['plan', '--loader', 'bpftoken', join(ROOT, EVENTS)])
  const policy = scratch.write('policy.yaml', plan.stdout)
  const load = ['obj', 'load', `${PUBLIC}/${EVENTS}`, ...WATCH_EVENTS]
  const main = [process.execPath, PUBLIC_CLI]
  const child = spawn(...inPublic([...main, 'run', '--policy', policy, '--', ...main, ...load]), {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const stderr = text(child.stderr)
  const types: string[] = []
  for await (const line of createInterface(child.stdout)) {
    types.push((JSON.parse(line) as Line).type)
    if (types.at(-1) === 'counters') child.kill('SIGINT')
  }
  assert.deepEqual([types[0], types[1], types.at(-1)], ['loaded', 'counters', 'end'])
  return assert.match(await stderr, /calls is not read: perf_event_open .*EACCES.*CAP_PERFMON/)
})

test('without a right the load is refused, and the right is named', machine, async () => {
  using scratch = new Scratch()
  const policy = await planned(scratch, '--program', 'tail')
  const { status, stderr } = await trial(policy, `${PUBLIC}/${OBJECT}`)
  assert.equal(status, 3)
  assert.match(stderr, /program "ingress" \(sched_cls\) failed with EPERM/)
  assert.match(stderr, /Missing rights: progs sched_cls, attachs tcx_ingress/)
})

test('--attach lasts until interrupted, and --pin outlives the command', machine, async () => {
  using scratch = new Scratch()
  const policy = await planned(scratch)
  const load = `"${process.execPath}" ${PUBLIC_CLI} obj load ${PUBLIC}/${OBJECT} --attach xdp:lo/skb`
  // It answers SIGHUP, as SIGINT, once it is attached and waits.
  const script = `
    ${load} --program count >/dev/null 2>&1 &
    until ! kill -0 $! || [ $((0x$(awk '/SigCgt/ { print $2 }' /proc/$!/status) & 1)) = 1 ]; do sleep 0.05; done
    ip -o link show lo; kill -INT $!; wait $!; echo "status $?"
    ip -o link show lo
    ${load} --program count --program tail --pin /sys/fs/bpf/both; ls -d /sys/fs/bpf/both
    ${load} --program count --pin /sys/fs/bpf/kept >/dev/null; ls /sys/fs/bpf/kept | tr '\\n' ' '; echo
    ip -o link show lo
  `
  const [command, args] = inPublic([
    process.execPath,
    PUBLIC_CLI,
    'run',
    '--policy',
    policy,
    '--',
    'sh',
    '-c',
    script,
  ])
  const { status, stdout, stderr } = await execute(command, args)
  assert.equal(status, 0, stderr)
  const lines = stdout.trim().split('\n')
  assert.match(lines[0]!, /xdp/)
  assert.equal(lines[1], 'status 0')
  assert.doesNotMatch(lines[2]!, /xdp/)
  // One device takes one program: the second of two is refused, and nothing of the first stays.
  assert.match(stderr, /device \d+ failed with EBUSY/)
  assert.match(stderr, /ls: cannot access '\/sys\/fs\/bpf\/both'/)
  assert.match(lines[3]!, /\bcount count_link .*\brodata\b/)
  assert.match(lines[4]!, /xdp/)
})

test('bad input is named, and nothing is loaded', machine, async () => {
  for (const [args, status, message] of [
    [['none.o'], 1, /Cannot read object "none.o": ENOENT/],
    [[join(ROOT, 'package.json')], 1, /ELF/],
    [[join(ROOT, OBJECT), '--attach', 'nowhere'], 2, /Give xdp:DEVICE/],
    [[join(ROOT, OBJECT), '--program', 'nobody'], 1, /no program "nobody"/],
  ] as const) {
    const result = await cli(['obj', 'load', ...args])
    assert.equal(result.status, status, result.stderr)
    assert.match(result.stderr, message)
    assert.equal(result.stdout, '')
  }
  const { stderr } = await cli(['obj', 'load', 'none.o', '--json'])
  assert.equal((JSON.parse(stderr) as { error: { code: string } }).error.code, 'BPFTOKEN_NOT_FOUND')
})
