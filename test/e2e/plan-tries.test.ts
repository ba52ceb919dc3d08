/**
 * plan tries: what the verifier wants is in the plan, with its words, and such a plan works; where
 * nothing can be tried, the plan says so; an interrupted one leaves nothing.
 */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { cli, execute, finish, inPublic, PUBLIC_CLI, publicCli } from '../helpers/cli.ts'
import { needsTokens, ROOT } from '../helpers/machine.ts'
import { planned as plannedBy } from '../helpers/planned.ts'
import { tidyScratch } from '../helpers/tidy-scratch.ts'
import { READS_STACK, READS_UNSET, xdpObject } from '../helpers/xdp-object.ts'

const machine = needsTokens()
const scratch = tidyScratch()

const PASS = scratch.write('pass.o', xdpObject())
const READS = scratch.write('reads.o', xdpObject('xdp', 'reads', 2, READS_STACK))
const BROKEN = scratch.write('broken.o', xdpObject('xdp', 'broken', 2, READS_UNSET))
const NOBODY = { uid: 65534, gid: 65534 }

interface Plan {
  readonly capabilities: readonly { name: string; by: string[]; fromTrying?: true }[]
  readonly notes: readonly string[]
  readonly problems: readonly string[]
  readonly trials: readonly { object: string; outcome: string; loads: number; why?: string }[]
}

const planned = (...args: string[]) => plannedBy<Plan>('--loader', 'bpftoken', ...args)

const names = ({ capabilities }: Plan): string[] => capabilities.map(({ name }) => name)

test('plan adds what the verifier asks for, with its own line as the reason', machine, async () => {
  const plan = await planned(READS)
  assert.deepEqual(names(plan), ['bpf', 'net_admin', 'perfmon'])
  const { by, fromTrying } = plan.capabilities[2]!
  assert.equal(fromTrying, true)
  assert.match(by[0]!, /^program "reads": the verifier says: .*invalid read from stack/)
  assert.equal(plan.trials[0]!.outcome, 'loads')
  // The twin, which needs no more than its file says.
  const plain = await planned(PASS)
  assert.deepEqual(names(plain), ['bpf', 'net_admin'])
  assert.deepEqual(plain.trials, [{ object: PASS, outcome: 'loads', loads: 1, leftOut: [] }])
})

test(
  'an object whose maps would take the memory of the machine is planned, and not loaded',
  machine,
  async () => {
    const legacy = readFileSync(join(ROOT, 'test/fixtures/legacy.bpf.o'))
    const definition = (...words: number[]): Buffer => Buffer.from(new Uint32Array(words).buffer)
    const at = legacy.indexOf(definition(1, 4, 8, 16))
    assert.notEqual(at, -1)
    const sized = (name: string, entries: number): string => {
      definition(2, 4, 2 ** 20, entries).copy(legacy, at)
      return scratch.write(name, legacy)
    }
    const large = await planned(sized('large.o', 2048))
    assert.deepEqual(large.trials, [])
    assert.match(
      large.notes.join('\n'),
      /its maps take 2049 MiB of memory, and what takes more than \d+ is not/,
    )
    const small = await planned(sized('small.o', 2))
    assert.equal(small.trials[0]?.outcome, 'loads', 'the twin')
  },
)

test('what is found for one loader is in the plan for another', machine, async () => {
  const { status, stdout } = await publicCli(['plan', '--loader', 'libbpf', '--json', READS])
  assert.equal(status, 0)
  assert.ok(names(JSON.parse(stdout) as Plan).includes('perfmon'))
})

test(
  'a workload loads the object under the plan that was tried, and not without what was found',
  machine,
  async () => {
    const load = async (policy: string): Promise<number> => {
      const command = [
        process.execPath,
        PUBLIC_CLI,
        'run',
        '--policy',
        policy,
        '--',
        process.execPath,
        PUBLIC_CLI,
      ]
      const { status } = await execute(...inPublic([...command, 'obj', 'load', READS]))
      return status
    }
    const { stdout } = await publicCli(['plan', '--loader', 'bpftoken', READS])
    assert.match(stdout, /^ {6}- perfmon # program "reads": the verifier says: /m)
    assert.equal(await load(scratch.write('tried.yaml', stdout)), 0)
    const less = stdout.replace(/^ {6}- perfmon.*\n/m, '')
    assert.notEqual(await load(scratch.write('less.yaml', less)), 0)
  },
)

test('plan of what no right helps says why, and is what the file says', machine, async () => {
  const plan = await planned(BROKEN)
  assert.deepEqual(names(plan), ['bpf', 'net_admin'])
  assert.equal(plan.trials[0]!.outcome, 'refused')
  assert.match(plan.trials[0]!.why!, /R5 !read_ok/)
  assert.ok(plan.notes.some(note => /does not load on this kernel, whatever is lent/.test(note)))
})

test('plan --no-try, and one without rights, ask no kernel and say what is left open', async () => {
  const { stdout } = await cli(['plan', '--no-try', '--json', READS])
  const plan = JSON.parse(stdout) as Plan
  assert.deepEqual(plan.trials, [])
  const ordinary = await cli(['plan', '--json', PASS], NOBODY)
  assert.equal(ordinary.status, 0, ordinary.stderr)
  const unable = JSON.parse(ordinary.stdout) as Plan
  assert.deepEqual(unable.trials, [])
  assert.ok(unable.notes.some(note => note.startsWith('not tried on a kernel: ')))
})

test(
  'plan tells whose files an ordinary user may not reach, and goes on without trying',
  machine,
  async () => {
    const script =
      'mount -t tmpfs -o mode=700 none /mnt && mkdir /mnt/it && mount --bind "$0" /mnt/it && exec "$1" /mnt/it/dist/cli/main.js plan --json "$2"'
    const root = process.cwd()
    const { status, stdout, stderr } = await execute('unshare', [
      '--mount',
      'sh',
      '-c',
      script,
      root,
      process.execPath,
      PASS,
    ])
    assert.equal(status, 0, stderr)
    const plan = JSON.parse(stdout) as Plan
    assert.ok(
      plan.notes.some(note => /not tried on a kernel: .* may not read/.test(note)),
      plan.notes.join(),
    )
  },
)

test(
  'plan that is interrupted while it tries ends as its signal says, and leaves nothing',
  machine,
  async () => {
    const files = Array.from({ length: 40 }, (_, i) =>
      scratch.write(`many-${i}.o`, xdpObject('xdp', `p${i}`, 2, READS_STACK)),
    )
    const [command, args] = inPublic([process.execPath, PUBLIC_CLI, 'plan', ...files])
    const child = spawn(command, args)
    // While the first ones are being tried.
    setTimeout(() => child.kill('SIGINT'), 900)
    const { status, stdout } = await finish(child)
    assert.ok(status === 130 || status === 0, `${status}`)
    if (status === 130) assert.equal(stdout, '')
  },
)
