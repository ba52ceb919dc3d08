/**
 * What the guard's judgements cost on this processor, beside the calls of bpf(2) that they judge.
 * The programs of bpf/guard-cost.bpf.c are the guard's own C, called with a real token, maps and
 * programs: see test/kernel/guard/judgement.ts. Each answer is checked: a judgement that does not
 * allow what it should is no way to measure.
 */
import { bpf_attach_type, bpf_cmd } from '../src/uapi/bpf.ts'
import { CAPABILITIES } from '../src/uapi/constants.ts'
import { Judgement } from '../test/kernel/guard/judgement.ts'
import { type Summary, summarize } from './stats.ts'

/** As many as a processor's caches hold. */
const OBJECTS = 64
const REAL_CALLS = 2000
const SUM_GOAL = 0.05
const NOTHING_GOAL_NS = 25

type Subject = 'maps' | 'programs' | 'files'

interface Hook {
  readonly name: string
  readonly hook: string
  readonly of: Subject
  readonly number?: number
}

const OTHER = 'bpf: lookup'
/** In an order in which each finds what it needs: a record is made, used and removed. */
const HOOKS: readonly Hook[] = [
  { name: OTHER, hook: 'bpf', of: 'maps', number: bpf_cmd.BPF_MAP_LOOKUP_ELEM },
  { name: 'bpf: map create', hook: 'bpf', of: 'maps', number: bpf_cmd.BPF_MAP_CREATE },
  { name: 'bpf: program load', hook: 'bpf', of: 'maps', number: bpf_cmd.BPF_PROG_LOAD },
  { name: 'bpf: map update', hook: 'bpf', of: 'maps', number: bpf_cmd.BPF_MAP_UPDATE_ELEM },
  { name: 'bpf_token_cmd', hook: 'token_cmd', of: 'maps', number: bpf_cmd.BPF_MAP_CREATE },
  { name: 'bpf_token_capable', hook: 'token_capable', of: 'maps', number: CAPABILITIES.CAP_BPF },
  { name: 'bpf_map_create', hook: 'map_create', of: 'maps' },
  { name: 'bpf_map', hook: 'map', of: 'maps' },
  { name: 'bpf_map_free', hook: 'map_free', of: 'maps' },
  { name: 'bpf_prog_load', hook: 'prog_load', of: 'programs' },
  { name: 'bpf_prog', hook: 'prog', of: 'programs' },
  { name: 'bpf: link create', hook: 'bpf', of: 'programs', number: bpf_cmd.BPF_LINK_CREATE },
  { name: 'bpf_prog_free', hook: 'prog_free', of: 'programs' },
  { name: 'file_open', hook: 'file_open', of: 'files' },
  { name: 'file_receive', hook: 'file_receive', of: 'files' },
]

/** Which hooks one call passes, and how often: counted by the kernel in a VM with the guard. */
const CALLS_OF = {
  map: { 'bpf: map create': 1, bpf_token_cmd: 1, bpf_token_capable: 1, bpf_map_create: 1, bpf_map: 1 },
  program: { 'bpf: program load': 1, bpf_token_cmd: 1, bpf_token_capable: 8, bpf_prog_load: 1, bpf_prog: 1 },
}

export interface HookCost {
  readonly name: string
  /** Nanoseconds of one call, when nothing else was called in between. */
  readonly inARow: Summary
  /** The same after real calls, when the processor's caches hold other things. */
  readonly afterCalls: Summary
}

export interface Share {
  readonly call: string
  readonly callNs: number
  /** Of all hooks that it passes, in nanoseconds. */
  readonly hooksNs: number
  readonly hooksAfterCallsNs: number
}

export interface GuardResult {
  readonly hooks: readonly HookCost[]
  /** Nanoseconds, without a guard. */
  readonly calls: Readonly<Record<string, Summary>>
  readonly shares: readonly Share[]
  readonly shareGoal: number
  readonly nothingNs: number
  readonly nothingGoalNs: number
}

const sampleName = (hook: string, afterRealCalls: boolean): string =>
  `${hook}, ${afterRealCalls ? 'after real calls' : 'in a row'}`

class Measuring {
  readonly #judgement: Judgement
  readonly #samples = new Map<string, number[]>()
  readonly #addresses: Record<Subject, bigint[]> = { maps: [], programs: [], files: [] }
  /** What bpf(2) was given when it is asked about these. */
  readonly #given: Record<Subject, readonly number[]> = { maps: [], programs: [], files: [] }

  constructor(judgement: Judgement) {
    this.#judgement = judgement
  }

  async prepare(): Promise<void> {
    const judgement = this.#judgement
    const programs = await judgement.makePrograms(OBJECTS)
    const maps = await judgement.makeMaps(OBJECTS, { type: 'array', entries: 1 })
    for (const fd of maps.fds) {
      const { object, file } = await judgement.find(fd)
      this.#addresses.maps.push(object)
      this.#addresses.files.push(file)
    }
    for (const fd of programs.fds) this.#addresses.programs.push((await judgement.find(fd)).object)
    // A write to a map that carries nothing; a link in the workload's own network.
    this.#given.maps = [maps.fds[0]!]
    this.#given.programs = [programs.fds[0]!, 1, bpf_attach_type.BPF_XDP]
  }

  #add(name: string, ns: number): void {
    const samples = this.#samples.get(name) ?? []
    samples.push(ns)
    this.#samples.set(name, samples)
  }

  summary(name: string): Summary {
    return summarize(this.#samples.get(name)!)
  }

  /** All hooks, each many times: in a row, or each time after real calls. */
  async hooks(afterRealCalls: boolean): Promise<void> {
    const judgement = this.#judgement
    let subject: Subject | undefined
    for (const { name, hook, of, number = 0 } of HOOKS) {
      if (of !== subject) {
        judgement.setObjects(this.#addresses[of])
        judgement.setAttr(this.#given[of])
      }
      subject = of
      const question = { calls: OBJECTS, number, afterRealCalls }
      const base = await judgement.judge('nothing', question)
      const { allowed, ns } = await judgement.judge(hook, question)
      if (allowed !== OBJECTS) throw new Error(`${name}: ${allowed} of ${OBJECTS} calls were allowed`)
      this.#add(sampleName(name, afterRealCalls), ns - base.ns)
    }
    const { maps, programs, map_bytes } = judgement.usage()
    if (maps !== 0 || programs !== 0 || map_bytes !== 0n)
      throw new Error(`What was made and freed is still counted: ${maps} maps, ${programs} programs`)
  }

  async calls(): Promise<void> {
    const judgement = this.#judgement
    const made = {
      'map create, array of 1': await judgement.makeMaps(OBJECTS, { type: 'array', entries: 1 }),
      'map create, hash of 1024': await judgement.makeMaps(OBJECTS, { type: 'hash', entries: 1024 }),
      'program load': await judgement.makePrograms(OBJECTS),
    }
    for (const [name, { ns, fds }] of Object.entries(made)) {
      this.#add(name, ns)
      await judgement.close(fds)
    }
    this.#add('map lookup', await judgement.callMany('lookup', REAL_CALLS))
    this.#add('a command that is none', await judgement.callMany('empty', REAL_CALLS))
  }
}

export async function measureGuard(roundCount: number): Promise<GuardResult> {
  const judgement = await Judgement.open()
  try {
    const measuring = new Measuring(judgement)
    await measuring.prepare()
    for (let i = 0; i < roundCount; i++) {
      await measuring.hooks(false)
      await measuring.hooks(true)
      await measuring.calls()
    }
    const hooks = HOOKS.map(({ name }) => ({
      name,
      inARow: measuring.summary(sampleName(name, false)),
      afterCalls: measuring.summary(sampleName(name, true)),
    }))
    const names = ['map create, array of 1', 'map create, hash of 1024', 'program load', 'map lookup']
    const calls = Object.fromEntries(
      [...names, 'a command that is none'].map(name => [name, measuring.summary(name)]),
    )
    const sum = (of: Record<string, number>, how: 'inARow' | 'afterCalls'): number =>
      Object.entries(of).reduce((ns, [hook, times]) => {
        return ns + times * hooks.find(({ name }) => name === hook)![how].median
      }, 0)
    const share = (call: string, of: Record<string, number>): Share => ({
      call,
      callNs: calls[call]!.median,
      hooksNs: sum(of, 'inARow'),
      hooksAfterCallsNs: sum(of, 'afterCalls'),
    })
    return {
      hooks,
      calls,
      shares: [
        ...names.slice(0, 2).map(call => share(call, CALLS_OF.map)),
        share('program load', CALLS_OF.program),
        share('map lookup', { [OTHER]: 1 }),
      ],
      shareGoal: SUM_GOAL,
      nothingNs: sum({ [OTHER]: 1 }, 'afterCalls'),
      nothingGoalNs: NOTHING_GOAL_NS,
    }
  } finally {
    judgement[Symbol.dispose]()
    await judgement.ended()
  }
}
