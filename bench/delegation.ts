/**
 * One delegation into an existing namespace, ours beside C.
 *
 * C three times: `checked` makes sure of the target and of the mount through /proc, `bare` does
 * not, and so is the least that any delegator must do; `floor` makes sure of all with the newest
 * calls. None of them is safe from its target: their children share memory and descriptors.
 */
import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import path from 'node:path'
import { CProgram } from './c-program.ts'
import { delegation, masks, policies, sandboxes, targets, vocabularies } from './dist.ts'
import { type Comparison, compare, interleave, summarize } from './stats.ts'

const GOAL_RATIO = 1.25
const PER_ROUND = 10
const AT_ONCE = 16
const PATH = '/sys/fs/bpf'
const NOBODY = 65534
const POLICY = path.resolve(__dirname, '../examples/policies/packet-counter.yaml')
/** On the whole machine, and in the target. */
const MANY_MOUNTS = { machine: 10_000, target: 1_000 }

export interface DelegationResult {
  readonly comparisons: Comparison[]
  /**
   * The first one of the process: code that is not compiled, and an executor that is not started
   * yet.
   */
  readonly firstUs: number
  /** Delegations in a second, one after the other and `AT_ONCE` at a time. */
  readonly perSecond: { readonly one: number; readonly many: number }
  /** Median of one delegation where there are few mounts, and where there are many. */
  readonly mounts: { readonly fewUs: number; readonly manyUs: number }
}

const nowUs = (): number => performance.now() * 1000

function median(times: readonly number[]): number {
  return summarize(times).median
}

export async function measureDelegation(roundCount: number): Promise<DelegationResult> {
  const vocabulary = vocabularies.runningVocabulary()
  const policy = policies.parsePolicy(readFileSync(POLICY, 'utf8'), { source: POLICY, vocabulary })
  const spec = {
    command: ['true'], // never released
    uid: NOBODY,
    gid: NOBODY,
    network: 'own',
    capabilities: [],
  } as const
  using sandbox = await sandboxes.Sandbox.start(spec)

  async function delegateOnce(pid: number): Promise<number> {
    const start = nowUs()
    {
      using target = targets.openTarget(pid)
      await delegation.delegate(policy, target, vocabulary, { path: PATH })
    }
    const took = nowUs() - start
    using target = targets.openTarget(pid)
    await delegation.undelegate(target, vocabulary, { path: PATH })
    return took
  }
  async function ours(pid: number = sandbox.pid): Promise<number[]> {
    const times: number[] = []
    for (let i = 0; i < PER_ROUND; i++) times.push(await delegateOnce(pid))
    return times
  }

  const hex = (['cmds', 'maps', 'progs', 'attachs'] as const).map(d => masks.hexMask(policy.rights.masks[d]))
  const args = [`${sandbox.pid}`, PATH, `${NOBODY}`, `${NOBODY}`, ...hex]
  using program = new CProgram('delegate', args)
  using floorProgram = new CProgram('delegate-floor', args)
  async function c(kind: 'bare' | 'checked'): Promise<number[]> {
    const times = JSON.parse(await program.ask(`${kind} ${PER_ROUND}`)) as number[][]
    return times.map(steps => steps.reduce((sum, ns) => sum + ns, 0) / 1000)
  }
  async function floor(): Promise<number[]> {
    return (JSON.parse(await floorProgram.ask(`${PER_ROUND}`)) as number[]).map(ns => ns / 1000)
  }

  const firstUs = await delegateOnce(sandbox.pid)
  await ours() // warm up
  await c('checked')
  await floor()
  const checked = await interleave(roundCount, ours, () => c('checked'))
  const floors = await interleave(roundCount, ours, floor)
  const bare = await interleave(roundCount, ours, () => c('bare'))
  return {
    comparisons: [
      compare('delegation, C with checks', 'us', checked, GOAL_RATIO),
      compare('delegation, floor in C', 'us', floors),
      compare('delegation, C without checks', 'us', bare),
    ],
    firstUs,
    perSecond: await throughput(),
    mounts: await amongMounts(),
  }

  /** Each into a sandbox of its own; unmounting included. */
  async function throughput(): Promise<DelegationResult['perSecond']> {
    const started = await Promise.all(Array.from({ length: AT_ONCE }, () => sandboxes.Sandbox.start(spec)))
    const pids = started.map(one => one.pid)
    const perSecond = async (atOnce: boolean): Promise<number> => {
      const rounds = Math.max(5, Math.ceil(roundCount / 2))
      const start = nowUs()
      for (let round = 0; round < rounds; round++)
        if (atOnce) await Promise.all(pids.map(delegateOnce))
        else for (const pid of pids) await delegateOnce(pid)
      return (rounds * pids.length * 1e6) / (nowUs() - start)
    }
    await perSecond(true) // warm up
    const result = { one: await perSecond(false), many: await perSecond(true) }
    for (const one of started) one[Symbol.dispose]()
    return result
  }

  /**
   * In a mount namespace of its own with its target in it, where there are `count` mounts of tmpfs.
   */
  async function amongMounts(): Promise<DelegationResult['mounts']> {
    const few = spawn('unshare', ['--user', '--map-root-user', '--mount', 'sleep', '600'], {
      stdio: 'ignore',
    })
    const script = `mount -t tmpfs none /mnt && cd /mnt && mkdir d && for i in $(seq ${MANY_MOUNTS.target}); do mount -t tmpfs none d; done && echo ready && exec sleep 600`
    const many = spawn('unshare', ['--user', '--map-root-user', '--mount', 'sh', '-c', script], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    const machine = spawn(
      'unshare',
      ['--mount', 'sh', '-c', script.replace(String(MANY_MOUNTS.target), String(MANY_MOUNTS.machine))],
      { stdio: ['ignore', 'pipe', 'inherit'] },
    )
    try {
      await Promise.all(
        [many, machine].map(child => new Promise(resolve => child.stdout!.once('data', resolve))),
      )
      await ours(few.pid!)
      await ours(many.pid!)
      const rounds = await interleave(
        Math.max(5, roundCount),
        () => ours(few.pid!),
        () => ours(many.pid!),
      )
      return {
        fewUs: median(rounds.flatMap(round => round.ours)),
        manyUs: median(rounds.flatMap(round => round.c)),
      }
    } finally {
      for (const child of [few, many, machine]) child.kill('SIGKILL')
    }
  }
}
