/**
 * explain -- CMD: a process that ends right after a refused call waits until it has been looked at.
 * Nobody else sees that it waits, and whatever becomes of whoever looks, it goes on.
 */
import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { compiled } from '../../../scripts/compiled.ts'
import { residue, snapshot } from '../../../scripts/residue.ts'
import { type Explanation, explainCall } from '../../../src/lending/explain.ts'
import { runningKernel } from '../../../src/lending/kernel-model.ts'
import { situationOfPid } from '../../../src/lending/situation.ts'
import { HeldCommand } from '../../../src/record/held-command.ts'
import { Recorder } from '../../../src/record/recorder.ts'
import { cli, startCli } from '../../helpers/cli.ts'
import { eventually } from '../../helpers/eventually.ts'
import { needsTokens, ROOT } from '../../helpers/machine.ts'
import { Scratch } from '../../helpers/scratch.ts'
import { SID, sidCommand } from '../../helpers/sid.ts'
import { ENOUGH, under } from './explained.ts'

const machine = needsTokens()
const scratch = new Scratch()
const before = snapshot()
const ONCE = machine.skip === undefined ? compiled(join(ROOT, 'test/kernel/lending/ends-at-once.c')) : ''
const WAITS = machine.skip === undefined ? compiled(join(ROOT, 'test/kernel/lending/waits-for-stops.c')) : ''
after(async () => {
  scratch[Symbol.dispose]()
  assert.deepEqual(await residue(before), [])
})

const APART = ['unshare', '--user', '--map-root-user', '--mount']

/** What is explained of each refused call of a command, and how that ended. */
async function explained(command: readonly string[]): Promise<{ all: Explanation[]; status: number }> {
  const all: Promise<Explanation>[] = []
  const kernel = runningKernel()
  let held: HeldCommand | undefined
  using recorder = await Recorder.start(
    call => {
      // Of each process the first of each kind is.
      if (call.need === undefined || !call.held) return
      const look = situationOfPid(call.pid)
        .then(situation => explainCall(kernel, situation, call.need!, call))
        .finally(() => held!.letGo(call.tid))
      look.catch(() => {})
      all.push(look)
    },
    { holds: true, logs: true },
  )
  held = HeldCommand.start(recorder, command as [string], ['ignore', 'ignore', 'inherit'])
  const status = await held.ended
  recorder.drain()
  return { all: await Promise.all(all), status }
}

test('50 of 50 processes that end right after a refused call have their cause', machine, async () => {
  const loop = `for i in $(seq 50); do '${ONCE}'; done; exit 7`
  const { all, status } = await explained([...APART, 'sh', '-c', loop])
  assert.equal(status, 7)
  assert.deepEqual(
    all.map(({ call, errno, cause }) => `${call} ${errno} ${cause}`),
    Array.from({ length: 50 }, () => 'map_create hash EPERM no-delegation'),
  )
  // The change, which is to lend it one.
  const lent = await explained([...under(scratch, ENOUGH), ONCE, 'token'])
  assert.deepEqual(lent, { all: [], status: 0 })
})

test('a refused call of the command that explain runs, by itself, five times', machine, async () => {
  for (let run = 0; run < 5; run++) {
    const { status, stdout, stderr } = await cli([
      'explain',
      '--',
      ...under(scratch, { ...ENOUGH, maps: ['array'] }),
      ONCE,
      'token',
    ])
    assert.equal(status, 3, stderr)
    assert.match(stdout, /^map_create hash: refused \(EPERM\): token-map-type$/m)
    assert.doesNotMatch(stderr, /ended before/)
  }
})

const BPFTOOL = join(SID, 'usr/sbin/bpftool')

test(
  'bpftool map create, which ends at once',
  machine.skip === undefined && !existsSync(BPFTOOL) ? { skip: 'bpftool is missing: make debs' } : machine,
  async () => {
    const words = 'map create /sys/fs/bpf/m type hash key 4 value 4 entries 8 name m'
    const tool = `${sidCommand('bpftool')} ${words}`
    for (let run = 0; run < 3; run++) {
      const { all } = await explained([...under(scratch, ENOUGH), 'sh', '-c', tool])
      assert.equal(all.at(-1)!.cause, 'no-token')
    }
  },
)

test(
  'a parent that waits for stopped children, too, sees none; and one that another stops is stopped',
  machine,
  async () => {
    const run = await cli([
      'explain',
      '--',
      ...APART,
      'sh',
      '-c',
      `'${WAITS}' '${ONCE}'; '${WAITS}' stop '${ONCE}'`,
    ])
    assert.equal(run.status, 3, run.stderr)
    assert.match(run.stderr, /^ended\nstopped ended$/m)
    assert.match(run.stdout, /no-delegation/)
  },
)

let stuckOnes = 0

/** A command that is held, since explain does not get to look at it; `done` is there when it went on. */
async function stuck() {
  const at = join(scratch.path, `done-${++stuckOnes}`)
  const explain = startCli(
    ['explain', '--', ...APART, 'sh', '-c', `echo ready >&2; read line; '${ONCE}'; echo > '${at}'`],
    {
      stdio: ['pipe', 'ignore', 'pipe'],
    },
  )
  let said = ''
  explain.stderr!.on('data', bytes => {
    said += String(bytes)
  })
  try {
    await eventually(() => said.includes('ready'), 'it never began')
    const [holder] = childrenOf(explain.pid!)
    assert.ok(holder !== undefined)
    process.kill(explain.pid!, 'SIGSTOP')
    await eventually(() => stateOf(explain.pid!) === 'T', 'it did not stop')
    explain.stdin!.write('\n')
    await eventually(() => descendants(holder).some(pid => stateOf(pid) === 't'), 'nobody is held')
    assert.equal(existsSync(at), false)
    return { explain, holder, at }
  } catch (error) {
    explain.kill('SIGKILL')
    throw error
  }
}

const childrenOf = (pid: number): number[] =>
  readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8')
    .trim()
    .split(' ')
    .filter(one => one !== '')
    .map(Number)
const descendants = (pid: number): number[] => {
  try {
    return childrenOf(pid).flatMap(child => [child, ...descendants(child)])
  } catch {
    return []
  }
}
const stateOf = (pid: number): string | undefined => {
  try {
    return /^State:\s+(\S)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]
  } catch {
    return undefined
  }
}

for (const [what, end] of [
  ['explain is killed', ({ explain }) => process.kill(explain.pid!, 'SIGKILL')],
  ['what holds it is killed', ({ holder }) => process.kill(holder, 'SIGKILL')],
  [
    'both are killed',
    ({ explain, holder }) => {
      process.kill(holder, 'SIGKILL')
      process.kill(explain.pid!, 'SIGKILL')
    },
  ],
  ['explain does not answer', () => {}],
] satisfies [string, (of: Awaited<ReturnType<typeof stuck>>) => void][])
  test(`whoever is held goes on where ${what}`, machine, async () => {
    const of = await stuck()
    try {
      end(of)
      await eventually(() => existsSync(of.at), 'it never went on')
    } finally {
      of.explain.kill('SIGKILL')
      await eventually(() => of.explain.exitCode !== null || of.explain.signalCode !== null, 'it lives')
    }
  })

test('the other threads go on, and signals and the status are as without', machine, async () => {
  const traps = `trap "exit 9" TERM; '${ONCE}'; kill -TERM $$; sleep 60`
  const { all, status } = await explained([...APART, 'sh', '-c', traps])
  assert.equal(status, 9)
  assert.equal(all.length, 1)
  const killed = await explained(['sh', '-c', 'kill -KILL $$'])
  assert.equal(killed.status, 128 + 9)
})

test('a command that is not there is said', machine, async () => {
  const { status, stderr } = await cli(['explain', '--', '/nonexistent/loader'])
  assert.equal(status, 2)
  assert.match(stderr, /Cannot run \/nonexistent\/loader: ENOENT/)
})
