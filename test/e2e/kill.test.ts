/**
 * Commands that are killed at random moments: nothing of them is left, or the whole of what they
 * do.
 *
 * BPFTOKEN_TEST_KILLS says how often each command is killed (`make test-kill`: 200 times),
 * BPFTOKEN_TEST_SEED at which moments.
 */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { closeSync, existsSync, mkdirSync, openSync, readdirSync, readFileSync, rmdirSync } from 'node:fs'
import { availableParallelism, constants } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { residue, snapshot } from '../../scripts/residue.ts'
import { undelegate } from '../../src/delegation/delegate.ts'
import { bpffsMounts } from '../../src/ebpf/bpffs.ts'
import { cgroupRoot } from '../../src/lending/recipient/cgroup.ts'
import { endExecutors } from '../../src/sys/executor/pool.ts'
import { isPopulated } from '../helpers/cgroup.ts'
import { CLI, cli, finish } from '../helpers/cli.ts'
import { conclusive, Inconclusive } from '../helpers/conclusive.ts'
import { eventually } from '../helpers/eventually.ts'
import { needsTokens, ROOT } from '../helpers/machine.ts'
import { Scratch } from '../helpers/scratch.ts'
import { Lab, vocabulary } from '../kernel/delegation/lab.ts'

const POLICY = join(ROOT, 'examples/policies/packet-counter.yaml')
const LENT = ['delegate_cmds=map_create:prog_load:btf_load', 'delegate_progs=xdp']

const kills = Number(process.env['BPFTOKEN_TEST_KILLS'] ?? 40)
const seed = Number(process.env['BPFTOKEN_TEST_SEED'] ?? Date.now() % 2 ** 31)
/** How often each of the signals comes that a command handles. */
const polite = Math.ceil(kills / 4)

const machine = needsTokens()
const before = snapshot()
const descriptors = readdirSync('/proc/self/fd').length

after(async () => {
  await endExecutors()
  assert.deepEqual(await residue(before), [])
  await eventually(() => readdirSync('/proc/self/fd').length <= descriptors, 'descriptors are left')
})

/** Numbers from 0 to 1, the same for the same seed: mulberry32. */
function random(start: number): () => number {
  let state = start >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

/** A cgroup whose processes are those of one command and of whatever it starts, under any name. */
class Cage implements Disposable {
  readonly path: string
  readonly #scratch = new Scratch()
  /** The last command's standard error, in a file: nobody waits for who else holds it. */
  readonly #said = join(this.#scratch.path, 'said')

  constructor(name: string) {
    const root = cgroupRoot() ?? assert.fail('no cgroup2 is mounted')
    this.path = join(root, `bpftoken-kill-${process.pid}-${name}`)
    mkdirSync(this.path)
  }

  start(args: readonly string[]): ChildProcess {
    const script = 'echo $$ >"$0/cgroup.procs" && exec "$@"'
    const said = openSync(this.#said, 'w')
    try {
      return spawn('sh', ['-c', script, this.path, process.execPath, CLI, ...args], {
        stdio: ['ignore', 'ignore', said],
      })
    } finally {
      closeSync(said)
    }
  }

  said(): string {
    return readFileSync(this.#said, 'utf8')
  }

  /** `pid command` of each. */
  processes(): string[] {
    const pids = readFileSync(join(this.path, 'cgroup.procs'), 'utf8').split('\n').filter(Boolean)
    return pids.map(pid => `${pid} ${existsSync(`/proc/${pid}`) ? readFileSync(`/proc/${pid}/comm`) : ''}`)
  }

  async empty(): Promise<void> {
    try {
      await eventually(() => !isPopulated(this.path), 'processes are left')
    } catch (error) {
      throw new Error(`processes are left: ${this.processes().join(', ')}`, { cause: error })
    }
  }

  [Symbol.dispose](): void {
    rmdirSync(this.path)
    this.#scratch[Symbol.dispose]()
  }
}

interface Round {
  readonly signal: NodeJS.Signals
  /** When it comes, as a part of the time that the command takes. */
  readonly at: number
}

/**
 * Which signals, and when each comes: from 0 to `wholes` times what the command takes, so that some
 * come late.
 */
function plan(next: () => number, wholes: number): Round[] {
  const count: [NodeJS.Signals, number][] = [
    ['SIGKILL', kills],
    ['SIGINT', polite],
    ['SIGTERM', polite],
  ]
  return count.flatMap(([signal, times]) =>
    Array.from({ length: times }, () => ({ signal, at: next() * wholes })),
  )
}

/**
 * Runs as many rounds at a time as there are processors, until there is none left.
 */
async function onLanes(
  rounds: readonly Round[],
  lane: (number: number, take: () => Round | undefined) => Promise<void>,
): Promise<void> {
  let next = 0
  await Promise.all(
    Array.from({ length: availableParallelism() }, (_, number) => lane(number, () => rounds[next++])),
  )
}

/**
 * The command's exit status when `signal` comes after so long. `look` is called just before that.
 */
async function killed(
  child: ChildProcess,
  signal: NodeJS.Signals,
  delayMs: number,
  look: () => void = () => {},
): Promise<number> {
  const result = finish(child)
  await sleep(delayMs)
  look()
  child.kill(signal)
  return (await result).status
}

/** The time that the command takes from its start to its end, here and now. */
async function durationMs(command: () => ChildProcess, undo: () => Promise<void>): Promise<number> {
  const times: number[] = []
  for (let turn = 0; turn < 3; turn++) {
    const start = performance.now()
    assert.equal((await finish(command())).status, 0)
    times.push(performance.now() - start)
    await undo()
  }
  return times.sort((a, b) => a - b)[1]!
}

const byIts = (signal: NodeJS.Signals): number => 128 + constants.signals[signal]

test('delegate that is killed at any moment leaves nothing, or the whole delegation', machine, t =>
  conclusive(t, async () => {
    t.diagnostic(`BPFTOKEN_TEST_SEED=${seed}`)
    const rounds = plan(random(seed), 1.15)
    const took: number[] = []
    const seen = { none: 0, whole: 0 }
    await onLanes(rounds, async (number, take) => {
      using cage = new Cage(`delegate-${number}`)
      using lab = await Lab.open()
      const { pid } = lab.sandbox
      const mounts = (): ReturnType<typeof bpffsMounts> =>
        bpffsMounts(readFileSync(`/proc/${pid}/mountinfo`, 'utf8')).filter(({ delegated }) => delegated)
      const takeBack = async (): Promise<void> => {
        await undelegate(lab.target, vocabulary)
        assert.deepEqual(mounts(), [])
      }
      const command = (): ChildProcess => cage.start(['delegate', '--pid', String(pid), '--policy', POLICY])
      const wholeMs = await durationMs(command, takeBack)
      took.push(wholeMs)
      for (let round = take(); round !== undefined; round = take()) {
        const { signal } = round
        const delayMs = round.at * wholeMs
        const status = await killed(command(), signal, delayMs)
        const what = `${signal} after ${delayMs.toFixed(1)} of ${wholeMs.toFixed(1)} ms gave ${status}`
        await cage.empty()
        const left = mounts()
        assert.ok(left.length <= 1, `${what}: stacked`)
        if (left.length === 1) {
          seen.whole++
          await isWhole(pid, what)
          // Who is told that it was interrupted has lent nothing.
          assert.ok(status === 0 || signal === 'SIGKILL', `${what}, and it is delegated`)
          await takeBack()
        } else {
          seen.none++
          assert.equal(status, byIts(signal), `${what}, and nothing is delegated: ${cage.said()}`)
        }
        await lab.lending({ cmds: 1n }, () => {})
      }
      lab[Symbol.dispose]()
      await lab.sandbox.exited
    })
    t.diagnostic(
      `${rounds.length} kills within ${Math.max(...took).toFixed(0)} ms; ` +
        `${seen.none} left nothing, ${seen.whole} the whole delegation`,
    )
    if (seen.none === 0 || seen.whole === 0) throw new Inconclusive(`seed ${seed}: ${JSON.stringify(seen)}`)
  }),
)

/** That `ls` shows the delegation, with all that the policy lends. */
async function isWhole(pid: number, what: string): Promise<void> {
  const listed = JSON.parse((await cli(['ls', '--json'])).stdout) as {
    path: string
    options: string[]
    pids: number[]
  }[]
  const ours = listed.filter(({ pids }) => pids.includes(pid))
  assert.equal(ours.length, 1, what)
  assert.equal(ours[0]!.path, '/sys/fs/bpf', what)
  for (const option of LENT) assert.ok(ours[0]!.options.includes(option), `${what}: ${ours[0]!.options}`)
}

test('run that is killed at any moment leaves nothing', machine, t =>
  conclusive(t, async () => {
    t.diagnostic(`BPFTOKEN_TEST_SEED=${seed}`)
    const rounds = plan(random(seed), 1.3)
    const took: number[] = []
    const seen = { before: 0, running: 0 }
    await onLanes(rounds, async (number, take) => {
      using cage = new Cage(`run-${number}`)
      const run = (...command: string[]): ChildProcess =>
        cage.start(['run', '--policy', POLICY, '--', ...command])
      const wholeMs = await durationMs(
        () => run('true'),
        () => cage.empty(),
      )
      took.push(wholeMs)
      for (let round = take(); round !== undefined; round = take()) {
        const { signal } = round
        const status = await killed(run('sleep', '1000'), signal, round.at * wholeMs, () => {
          seen[cage.processes().some(line => line.endsWith(' sleep\n')) ? 'running' : 'before']++
        })
        const what = `${signal} at ${round.at.toFixed(3)} of ${wholeMs.toFixed(1)} ms gave ${status}`
        assert.equal(status, byIts(signal), `${what}: ${cage.said()}`)
        await cage.empty()
      }
    })
    t.diagnostic(
      `${rounds.length} kills within ${Math.max(...took).toFixed(0)} ms; ` +
        `the program ran at ${seen.running} of them`,
    )
    if (seen.before === 0 || seen.running === 0)
      throw new Inconclusive(`seed ${seed}: ${JSON.stringify(seen)}`)
  }),
)
