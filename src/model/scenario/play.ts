/** Plays a scenario: what each step comes to, by the kernel's checks and the guard's. */
import { PolicyError } from '../../errors.ts'
import { parsePolicy } from '../../policy/parse.ts'
import type { Terms } from '../../policy/policy.ts'
import { parseDuration } from '../../policy/quantity.ts'
import { bpf_cmd } from '../../uapi/bpf.ts'
import type { FsContext } from '../bpffs.ts'
import { type BpfCall, decide, decideFs, type FsCall } from '../decide.ts'
import { type BpffsInstance, CLOSED, type Program, type Token } from '../file.ts'
import { type Asked, type Asker, askCommand, askMap, askProg, askToken } from '../guard/ask.ts'
import {
  type Actor,
  type Cgroup,
  type Delegation,
  Guard,
  type GuardCall,
  type GuardNote,
  type GuardProgram,
  type GuardToken,
  type GuardVerdict,
  ROOT_CGROUP,
} from '../guard/guard.ts'
import type { Check, ErrnoName } from '../judge.ts'
import type { KernelFacts } from '../kernel.ts'
import type { LsmHook, Machine } from '../machine.ts'
import { knownKernel } from '../machines.ts'
import { MAP_TYPES } from '../map-types.ts'
import { INITIAL, MODEL_CAPABILITIES, nestedIn, type Task, type UserNamespace } from '../task.ts'
import type { ParsedScenario } from './parse.ts'
import type { ScenarioStep } from './schema.ts'

/** One step, as it went. */
export interface Played {
  readonly step: ScenarioStep
  readonly line: number
  /** `ok`, or an errno. */
  readonly outcome: string
  readonly checks: readonly Check[]
  /** What the guard said, where it decided. */
  readonly guard?: GuardVerdict & { readonly refused: true }
  /** What the guard would have refused, were the policy not permissive. */
  readonly watched: readonly GuardNote[]
  /** Why it came out so: the check that decided, in a sentence. */
  readonly why: string
  /** Whether it is what the scenario expects; absent: it expects nothing. */
  readonly met?: boolean
}

interface Mounted {
  readonly instance: BpffsInstance
  readonly delegation?: Delegation
  /** Which mount it is: a bind mount is another one of the same bpffs. */
  readonly mount: object
  readonly place: string
}

interface Held {
  readonly token: Token
  /** As the guard has it; absent: there is no guard. */
  readonly record?: GuardToken
  readonly owners: Set<string>
}

interface Loaded {
  readonly program: Program
  readonly record?: GuardProgram
}

interface Outcome {
  readonly outcome: string
  readonly checks?: readonly Check[]
  readonly guard?: GuardVerdict
  /** Why, where it is neither the kernel's nor a hook's answer. */
  readonly note?: string
}

const OK: Outcome = { outcome: 'ok' }

/** `running`: the facts of the kernel that runs here, where somebody can give them. */
export function playScenario(parsed: ParsedScenario, running?: () => KernelFacts): Played[] {
  const stage = new Stage(parsed, running)
  return parsed.document.spec.story.map((step, i) => {
    const { outcome, checks = [], guard, note } = stage.play(step, i)
    const said = guard?.refused === true ? guard : undefined
    const watched = stage.watched()
    const why = note ?? whyText(outcome, checks, said, watched)
    const right = step.expect === undefined ? undefined : step.expect === outcome
    const because = step.because === undefined || `${why}`.includes(step.because)
    return {
      step,
      line: parsed.plain.valueAt(['spec', 'story', i]).line,
      outcome,
      checks,
      ...(said === undefined ? {} : { guard: said }),
      watched,
      why,
      ...(right === undefined && step.because === undefined ? {} : { met: right !== false && because }),
    }
  })
}

/** The deciding check of a refusal; of what went well, why a token that was named was not used. */
function whyText(
  outcome: string,
  checks: readonly Check[],
  guard: Played['guard'],
  watched: readonly GuardNote[],
): string {
  const dropped = checks.find(
    ({ rule, passed }) => !passed && rule.errno === undefined && !rule.name.startsWith('LSM bpf_prog'),
  )
  const last = checks.at(-1)
  const failed = outcome === 'ok' || last === undefined || last.passed ? undefined : last
  const parts = [
    ...watched.map(({ point, reason }) => `the guard would refuse at ${point}: ${reason}`),
    ...(guard === undefined ? [] : [`the guard refuses at ${guard.point}: ${guard.reason}`]),
    ...(dropped === undefined || dropped === failed
      ? []
      : [`the token is ignored: ${dropped.rule.needs}; there: ${dropped.found}`]),
    ...(failed === undefined ? [] : [`needs ${failed.needed}; there: ${failed.found}`]),
  ]
  return parts.join('; ')
}

class Stage {
  readonly #parsed: ParsedScenario
  readonly #machine: Machine
  readonly #tasks = new Map<string, Task>()
  readonly #actors = new Map<string, Actor>()
  readonly #cgroups = new Map<string, Cgroup>([['/', ROOT_CGROUP]])
  readonly #policies = new Map<string, Terms>()
  readonly #guard: Guard | undefined
  readonly #contexts = new Map<string, { context: FsContext; mark: object; delegation?: Delegation }>()
  readonly #delegations: Delegation[] = []
  readonly #mounts = new Map<string, Mounted>()
  readonly #tokens = new Map<string, Held>()
  readonly #programs = new Map<string, Loaded>()

  constructor(parsed: ParsedScenario, running?: () => KernelFacts) {
    const { spec } = parsed.document
    this.#parsed = parsed
    if (spec.kernel === 'running' && running === undefined)
      this.#wrong(['spec', 'kernel'], 'there is no running kernel to ask here; name one')
    const kernel = spec.kernel === 'running' ? running!() : knownKernel(spec.kernel)
    this.#machine = { kernel, unprivilegedBpfDisabled: spec.unprivilegedBpfDisabled }
    for (const [name, policy] of Object.entries(spec.policies))
      this.#policies.set(name, this.#terms(name, policy))
    if (spec.guard !== undefined) this.#guard = new Guard({ mode: spec.guard.mode })
    for (const [name, terms] of this.#policies) this.#guard?.installPolicy(name, terms)
    for (const [name, task] of Object.entries(spec.tasks)) this.#addTask(name, task)
    for (const [name, { ceiling, implicit }] of Object.entries(spec.guard?.delegators ?? {})) {
      const path = ['spec', 'guard', 'delegators', name]
      if (!this.#tasks.has(name)) this.#wrong(path, 'no task of that name')
      const terms = ceiling === undefined ? undefined : this.#policy(ceiling, [...path, 'ceiling'])
      this.#guard!.allow(name, { implicit, ...(terms === undefined ? {} : { ceiling: terms }) })
    }
  }

  #addTask(name: string, task: ParsedScenario['document']['spec']['tasks'][string]): void {
    const made: Task = {
      userNamespace: this.#namespace(task.userNamespace, ['spec', 'tasks', name, 'userNamespace']),
      uid: task.uid,
      capabilities: new Set(task.capabilities === 'all' ? MODEL_CAPABILITIES : task.capabilities),
      ...(task.seccomp === undefined ? {} : { seccomp: task.seccomp }),
    }
    this.#tasks.set(name, made)
    // In a cgroup of its own, unless it says otherwise.
    const cgroup = this.#cgroup(task.cgroup ?? `/${name}`)
    const inHostNetwork = task.network === 'host'
    this.#actors.set(name, { process: name, task: made, cgroup, inHostNetwork })
    if (task.confined === undefined) return
    const policy = this.#policy(task.confined, ['spec', 'tasks', name, 'confined'])
    this.#guard?.confine(cgroup, policy)
  }

  /** By its path; those above it are made, too. */
  #cgroup(path: string): Cgroup {
    let at = ROOT_CGROUP
    let so = ''
    for (const part of path.split('/').filter(one => one !== '')) {
      so += `/${part}`
      const known = this.#cgroups.get(so) ?? { name: so, parent: at }
      this.#cgroups.set(so, known)
      at = known
    }
    return at
  }

  /** What the last step would have been refused for. */
  watched(): GuardNote[] {
    return this.#guard?.takeNotes().filter(({ verdict }) => verdict === 'would-refuse') ?? []
  }

  #wrong(path: (string | number)[], message: string): never {
    const at = this.#parsed.plain.valueAt(path)
    throw new PolicyError(this.#parsed.document.metadata.name, [{ path: path.join('.'), ...at, message }])
  }

  #terms(name: string, spec: unknown): Terms {
    const document = { apiVersion: 'bpftoken.dev/v1', kind: 'DelegationPolicy', metadata: { name }, spec }
    return parsePolicy(JSON.stringify(document), {
      source: `policy ${name}`,
      vocabulary: this.#machine.kernel.vocabulary,
    })
  }

  #policy(name: string, path: (string | number)[]): Terms {
    return this.#policies.get(name) ?? this.#wrong(path, 'no policy of that name')
  }

  readonly #made = new Map<string, UserNamespace>([['init', INITIAL]])

  #namespace(name: string, path: (string | number)[], depth = 0): UserNamespace {
    const known = this.#made.get(name)
    if (known !== undefined) return known
    const declared = this.#parsed.document.spec.userNamespaces[name]
    if (declared === undefined || depth > 32) this.#wrong(path, 'no user namespace of that name, or a circle')
    const parent = this.#namespace(declared!.parent, ['spec', 'userNamespaces', name, 'parent'], depth + 1)
    const made = nestedIn(parent, name, declared!.owner)
    this.#made.set(name, made)
    return made
  }

  #found<T>(map: ReadonlyMap<string, T>, name: string | undefined, field: string, i: number): T {
    const path = ['spec', 'story', i, field]
    if (name === undefined) return this.#wrong(['spec', 'story', i], `this needs a field "${field}"`)
    return map.get(name) ?? this.#wrong(path, `nothing of that name is there yet`)
  }

  play(step: ScenarioStep, i: number): Outcome {
    if (step.do === 'wait') return this.#wait(step, i)
    const task = this.#found(this.#tasks, step.as, 'as', i)
    switch (step.do) {
      case 'fsopen':
      case 'set':
      case 'create':
      case 'fsmount':
        return this.#context(step, task, i)
      case 'mount':
        return this.#mount(step, task, i)
      case 'bind':
      case 'move':
        return this.#place(step, i)
      case 'token':
        return this.#token(step, task, i)
      case 'pass':
        return this.#pass(step, i)
      case 'reopen':
        return this.#guard === undefined ? OK : refusedBy(this.#guard.reopen())
      case 'renew':
        return this.#renew(step, i)
      case 'derive':
        return this.#derive(step, i)
      case 'revoke':
        return this.#revoke(step, i)
      default:
        return this.#use(step, task, i)
    }
  }

  #wait(step: ScenarioStep, i: number): Outcome {
    const seconds = this.#seconds(step, i)
    if (this.#guard !== undefined) this.#guard.now += seconds
    return OK
  }

  #seconds(step: ScenarioStep, i: number): number {
    const seconds = step.for === undefined ? undefined : parseDuration(step.for)
    return seconds ?? this.#wrong(['spec', 'story', i], 'this needs a field "for", such as 1h')
  }

  /** fsopen, set, create and fsmount. */
  #context(step: ScenarioStep, task: Task, i: number): Outcome {
    const name = step.context ?? this.#wrong(['spec', 'story', i], 'this needs a field "context"')
    const known = step.do === 'fsopen' ? undefined : this.#found(this.#contexts, name, 'context', i)
    const actor = this.#actors.get(step.as!)!
    if (step.do === 'set' && known!.context.phase === 'options') {
      const said = this.#guard?.option(known!.mark, actor, step.key ?? '', step.value)
      // bpffs looks at what the module has let through.
      if (said?.refused === true) return refusedBy(said)
    }
    const call = fsCall(step, known?.context)
    const decision = decideFs(this.#machine, task, call)
    const outcome: Outcome = { outcome: decision.errno ?? 'ok', checks: decision.checks }
    const { context } = decision
    if (context === undefined) return outcome
    const mark = known?.mark ?? {}
    if (step.do === 'create' && decision.errno === undefined) {
      const said = this.#guard?.superblock(mark, actor, context.userNamespace, context.masks)
      if (said?.verdict.refused === true) {
        this.#contexts.set(name, { context: { ...context, phase: 'failed' }, mark })
        return { ...refusedBy(said.verdict), checks: decision.checks }
      }
      const delegation = said?.delegation
      if (delegation !== undefined) this.#delegations.push(delegation)
      this.#contexts.set(name, { context, mark, ...(delegation === undefined ? {} : { delegation }) })
      return outcome
    }
    this.#contexts.set(name, { ...known, mark, context })
    if (step.do === 'fsmount' && decision.errno === undefined && step.mount !== undefined) {
      const mount = {}
      // Mounted, and put where its name says.
      this.#guard?.move(known?.delegation, mount, false)
      this.#mounts.set(step.mount, {
        instance: { userNamespace: context.userNamespace, masks: context.masks },
        ...(known?.delegation === undefined ? {} : { delegation: known.delegation }),
        mount,
        place: step.mount,
      })
    }
    return outcome
  }

  #mount(step: ScenarioStep, task: Task, i: number): Outcome {
    const name = step.mount ?? this.#wrong(['spec', 'story', i], 'this needs a field "mount"')
    const actor = this.#actors.get(step.as!)!
    const mark = {}
    const options = Object.entries(step.options ?? {}).map(([key, value]) => ({ key, value }))
    for (const { key, value } of options) {
      const said = this.#guard?.option(mark, actor, key, value, true)
      if (said?.refused === true) return refusedBy(said)
    }
    const decision = decideFs(this.#machine, task, { op: 'mount', options })
    if (decision.instance !== undefined) {
      const { userNamespace, masks } = decision.instance
      const said = this.#guard?.superblock(mark, actor, userNamespace, masks)
      if (said?.verdict.refused === true) return refusedBy(said.verdict)
      this.#mounts.set(name, { instance: decision.instance, mount: {}, place: name })
    }
    return { outcome: decision.errno ?? 'ok', checks: decision.checks }
  }

  /** A bind mount is another mount of the same; a move changes the place. mount(2) asks no hook. */
  #place(step: ScenarioStep, i: number): Outcome {
    const mounted = this.#found(this.#mounts, step.mount, 'mount', i)
    const to = step.to ?? this.#wrong(['spec', 'story', i], 'this needs a field "to"')
    const isMove = step.do === 'move'
    const said = isMove ? this.#guard?.move(mounted.delegation, mounted.mount, true) : undefined
    if (said?.refused === true) return refusedBy(said)
    this.#mounts.set(to, { ...mounted, ...(isMove ? {} : { mount: {} }), place: to })
    if (isMove) this.#mounts.delete(step.mount!)
    return OK
  }

  #token(step: ScenarioStep, task: Task, i: number): Outcome {
    const { instance, ...through } = this.#found(this.#mounts, step.mount, 'mount', i)
    const call = { op: 'token_create', bpffs: { kind: 'bpffs', instance, isRoot: true } } as const
    const asker = this.#asker(step)
    const asked =
      asker === undefined
        ? { decision: decide(this.#with(step), task, call) }
        : askToken(asker, call, through, bpf_cmd.BPF_TOKEN_CREATE)
    if (asked.decision.errno === undefined && step.token !== undefined)
      this.#tokens.set(step.token, {
        token: instance,
        ...(asked.made === undefined ? {} : { record: asked.made }),
        owners: new Set([step.as!]),
      })
    return outcomeOf(asked)
  }

  #pass(step: ScenarioStep, i: number): Outcome {
    const held = this.#found(this.#tokens, step.token, 'token', i)
    const to = this.#found(this.#actors, step.to, 'to', i)
    const said = held.record === undefined ? undefined : this.#guard?.receive(to, { token: held.record })
    if (said?.refused === true) return refusedBy(said)
    held.owners.add(step.to!)
    return OK
  }

  #derive(step: ScenarioStep, i: number): Outcome {
    const delegator = step.delegator ?? this.#wrong(['spec', 'story', i], 'this needs a field "delegator"')
    const { guard, delegation } = this.#lent(step, i, 'derived from')
    guard.deriveBy(delegator, delegation)
    return OK
  }

  #revoke(step: ScenarioStep, i: number): Outcome {
    const { guard, delegation } = this.#lent(step, i, 'revoked')
    guard.revoke(delegation, this.#delegations)
    return OK
  }

  /** To live so long from now on. */
  #renew(step: ScenarioStep, i: number): Outcome {
    const { guard, delegation } = this.#lent(step, i, 'renewed')
    const end = guard.renew(delegation, guard.now + this.#seconds(step, i))
    return typeof end === 'number' ? OK : { outcome: 'refused', note: `it cannot be renewed: ${end}` }
  }

  #lent(step: ScenarioStep, i: number, what: string): { guard: Guard; delegation: Delegation } {
    const { delegation } = this.#found(this.#mounts, step.mount, 'mount', i)
    if (this.#guard === undefined || delegation === undefined)
      this.#wrong(['spec', 'story', i], `only what the guard knows can be ${what}`)
    return { guard: this.#guard!, delegation: delegation! }
  }

  /** bpf(2), with or without a token. */
  #use(step: ScenarioStep, task: Task, i: number): Outcome {
    const held = step.token === undefined ? undefined : this.#found(this.#tokens, step.token, 'token', i)
    const mine = held?.owners.has(step.as!) === true
    const file = held === undefined || !mine ? CLOSED : { kind: 'token' as const, token: held.token }
    const choice = step.token === undefined ? {} : { token: { flag: true, file } }
    const call = this.#call(step, choice, i)
    const asker = this.#asker(step, mine ? held?.record : undefined)
    const asked: Asked<unknown> =
      asker === undefined
        ? { decision: decide(this.#with(step), task, call) }
        : this.#ask(asker, step, call, i)
    if (call.op === 'prog_load' && asked.decision.errno === undefined && step.prog !== undefined)
      this.#programs.set(step.prog, {
        program: {
          type: step.type ?? 'socket_filter',
          expectedAttach: call.attach ?? 0,
          ...(held === undefined ? {} : { token: held.token }),
        },
        ...(asked.made === undefined ? {} : { record: asked.made as GuardProgram }),
      })
    return outcomeOf(asked)
  }

  #ask(asker: Asker, step: ScenarioStep, call: BpfCall, i: number): Asked<unknown> {
    const cmd = bpf_cmd[`BPF_${call.op.toUpperCase()}` as keyof typeof bpf_cmd]
    if (call.op === 'map_create') {
      const made = { type: call.type, flags: call.flags ?? 0, bytes: BigInt(step.bytes ?? 8) }
      return askMap(asker, call, made, cmd)
    }
    if (call.op === 'prog_load') {
      const loaded = {
        type: call.type,
        expectedAttach: call.attach ?? 0,
        instructions: step.instructions ?? 2,
        ...(step.target === undefined ? {} : { target: step.target }),
        digests: step.digest === undefined ? [] : [step.digest],
      }
      return askProg(asker, call, loaded, cmd)
    }
    return askCommand(asker, call, this.#command(step, call, cmd, i))
  }

  /** What the hook `bpf` sees of a command. */
  #command(step: ScenarioStep, call: BpfCall, cmd: number, i: number): GuardCall {
    if (call.op !== 'link_create' && call.op !== 'prog_detach') return { cmd }
    const record = this.#found(this.#programs, step.prog, 'prog', i).record
    const object = record === undefined ? {} : { object: { kind: 'program' as const, program: record } }
    const target =
      call.target.kind === 'device'
        ? ({ kind: 'other' } as const)
        : ({ kind: 'cgroup', cgroup: this.#target(step) } as const)
    return { cmd, ...object, type: call.attach, target }
  }

  /** The cgroup that is attached to: the task's own, if the step names none. */
  #target(step: ScenarioStep): Cgroup {
    return step.cgroup === undefined ? this.#actors.get(step.as!)!.cgroup : this.#cgroup(step.cgroup)
  }

  /** The machine with what other security modules say at this step. */
  #with(step: ScenarioStep): Machine {
    const lsm = step.lsm as Partial<Record<LsmHook, ErrnoName>> | undefined
    return lsm === undefined ? this.#machine : { ...this.#machine, lsm }
  }

  #asker(step: ScenarioStep, token?: GuardToken): Asker | undefined {
    if (this.#guard === undefined) return undefined
    return {
      guard: this.#guard,
      machine: this.#with(step),
      actor: this.#actors.get(step.as!)!,
      ...(token === undefined ? {} : { token }),
    }
  }

  #bit(domain: 'maps' | 'progs' | 'attachs', word: string | undefined, i: number, field: string): number {
    const vocabulary = this.#machine.kernel.vocabulary[domain]
    const bit = word === undefined ? undefined : vocabulary.bitOfName.get(word)
    return bit ?? this.#wrong(['spec', 'story', i, field], `this kernel has no ${domain} "${word ?? ''}"`)
  }

  #call(step: ScenarioStep, choice: object, i: number): BpfCall {
    const attach = step.attach === undefined ? 0 : this.#bit('attachs', step.attach, i, 'attach')
    switch (step.do) {
      case 'map': {
        const type = this.#bit('maps', step.type, i, 'type')
        const outer = MAP_TYPES[step.type!]?.needsInner === true ? { inner: { kind: 'map' as const } } : {}
        return { op: 'map_create', type, ...outer, ...choice }
      }
      case 'prog': {
        const target = step.target === undefined ? {} : { target: 1 }
        const size = step.instructions === undefined ? {} : { instructions: step.instructions }
        return {
          op: 'prog_load',
          type: this.#bit('progs', step.type, i, 'type'),
          attach,
          ...target,
          ...size,
          ...choice,
        }
      }
      case 'btf':
        return { op: 'btf_load', ...choice }
      case 'btf_by_id':
        return { op: 'btf_get_fd_by_id', exists: true, ...choice }
      case 'pin': {
        const held = step.token === undefined ? undefined : this.#tokens.get(step.token)
        const { instance } = this.#found(this.#mounts, step.mount, 'mount', i)
        return {
          op: 'obj_pin',
          object: held === undefined ? { kind: 'map' } : { kind: 'token', token: held.token },
          directory: { kind: 'bpffs', instance, isRoot: true },
        }
      }
      default: {
        const { program: prog } = this.#found(this.#programs, step.prog, 'prog', i)
        const isDevice = prog.type === 'xdp' || prog.type === 'sched_cls'
        const target = isDevice
          ? { kind: 'device' as const, exists: true }
          : { kind: 'file' as const, file: { kind: 'cgroup' as const } }
        return step.do === 'detach'
          ? { op: 'prog_detach', target, attach }
          : { op: 'link_create', prog: { kind: 'prog', prog }, target, attach }
      }
    }
  }
}

function fsCall(step: ScenarioStep, context: FsContext | undefined): FsCall {
  switch (step.do) {
    case 'fsopen':
      return { op: 'fsopen' }
    case 'set':
      return {
        op: 'fsconfig_set',
        context: context!,
        key: step.key ?? '',
        ...(step.value === undefined ? {} : { value: step.value }),
      }
    case 'create':
      return { op: 'fsconfig_create', context: context! }
    default:
      return { op: 'fsmount', context: context! }
  }
}

function refusedBy(said: GuardVerdict): Outcome {
  return said.refused ? { outcome: said.errno, guard: said } : OK
}

function outcomeOf({ decision: { errno, checks }, said }: Asked<unknown>): Outcome {
  return { outcome: errno ?? 'ok', checks, ...(said === undefined ? {} : { guard: said }) }
}
