/**
 * How many decisions the kernel model makes in a second of a processor: calls of every kind, by tasks
 * with and without rights, with and without a token. The collector of garbage counts, waiting for a
 * processor does not.
 */
import { type BpfCall, decide } from '../src/model/decide.ts'
import type { Machine } from '../src/model/machine.ts'
import { knownKernel } from '../src/model/machines.ts'
import { INITIAL, MODEL_CAPABILITIES, nestedIn, type Task } from '../src/model/task.ts'
import { ANY_MASK } from '../src/policy/vocabulary.ts'
import { type Summary, summarize } from './stats.ts'

export interface ModelResult {
  /** Decisions in a second of processor time. */
  readonly perSecond: Summary
  readonly goal: number
}

const GOAL_PER_SECOND = 200_000
const DECISIONS = 100_000

export function measureModel(rounds: number): ModelResult {
  const machine: Machine = { kernel: knownKernel('6.18'), unprivilegedBpfDisabled: 2 }
  const inside = nestedIn(INITIAL, 'inside', 0)
  const tasks: Task[] = [
    { userNamespace: inside, uid: 100_000, capabilities: new Set(MODEL_CAPABILITIES) },
    { userNamespace: inside, uid: 100_000, capabilities: new Set() },
    { userNamespace: INITIAL, uid: 0, capabilities: new Set(MODEL_CAPABILITIES) },
  ]
  const cases = tasks.flatMap(task => callsWithin(inside).map(call => ({ task, call })))
  const round = (): number => {
    const started = process.cpuUsage()
    let refused = 0
    for (let i = 0; i < DECISIONS; i++) {
      const { task, call } = cases[i % cases.length]!
      if (decide(machine, task, call).verdict === 'refused') refused++
    }
    const { user, system } = process.cpuUsage(started)
    const seconds = (user + system) / 1e6
    if (refused === 0 || refused === DECISIONS) throw new Error('the model says the same of all calls')
    return DECISIONS / seconds
  }
  for (let i = 0; i < 5; i++) round()
  return { perSecond: summarize(Array.from({ length: rounds }, round)), goal: GOAL_PER_SECOND }
}

function callsWithin(userNamespace: Task['userNamespace']): BpfCall[] {
  const masks = { cmds: ANY_MASK, maps: 0xffffn, progs: ANY_MASK, attachs: ANY_MASK }
  const token = { flag: true, file: { kind: 'token' as const, token: { userNamespace, masks } } }
  const bpffs = { kind: 'bpffs' as const, instance: { userNamespace, masks }, isRoot: true }
  return [
    { op: 'token_create', bpffs },
    ...[1, 2, 6, 15, 27, 30].map(type => ({ op: 'map_create' as const, type, token })),
    ...[1, 3, 6, 8, 26].map(type => ({ op: 'prog_load' as const, type, token })),
    { op: 'map_create', type: 2 },
    { op: 'btf_load', token },
    { op: 'btf_get_fd_by_id', exists: true, token },
    { op: 'prog_get_fd_by_id', exists: true },
  ]
}
