/** Plays a scenario: what each step comes to, by the kernel's checks and the guard's. */
import { PolicyError } from '../../errors.ts'
import { parsePolicy } from '../../policy/parse.ts'
import type { Terms } from '../../policy/policy.ts'
import { parseDuration } from '../../policy/quantity.ts'
import type { FsContext } from '../bpffs.ts'
import { type BpfCall, decide, decideFs, type FsCall } from '../decide.ts'
import { type BpffsInstance, CLOSED, type Program, type Token } from '../file.ts'
import { type Delegation, Guard, type GuardVerdict } from '../guard.ts'
import type { Check, ErrnoName } from '../judge.ts'
import type { KernelFacts } from '../kernel.ts'
import type { LsmHook, Machine } from '../machine.ts'
import { knownKernel, type MachineName } from '../machines.ts'
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
  /** Why it came out so: the check that decided, in a sentence. */
  readonly why: string
  /** Whether it is what the scenario expects; absent: it expects nothing. */
  readonly met?: boolean
}

interface Mounted {
  readonly instance: BpffsInstance
  readonly delegation?: Delegation
  place: string
  /** Further places, by their names: bind mounts of it. */
}

interface Held {
  readonly token: Token
  readonly delegation?: Delegation
  readonly owners: Set<string>
}

interface Outcome {
  readonly outcome: string
  readonly checks?: readonly Check[]
  readonly guard?: GuardVerdict
}

const OK: Outcome = { outcome: 'ok' }

/** `running`: the facts of the kernel that runs here, where somebody can give them. */
export function playScenario(parsed: ParsedScenario, running?: () => KernelFacts): Played[] {
  const stage = new Stage(parsed, running)
  return parsed.document.spec.story.map((step, i) => {
    const { outcome, checks = [], guard } = stage.play(step, i)
    const said = guard?.refused === true ? guard : undefined
    const why = whyText(outcome, checks, said)
    const right = step.expect === undefined ? undefined : step.expect === outcome
    const because = step.because === undefined || `${why}`.includes(step.because)
    return {
      step,
      line: parsed.plain.valueAt(['spec', 'story', i]).line,
      outcome,
      checks,
      ...(said === undefined ? {} : { guard: said }),
      why,
      ...(right === undefined && step.because === undefined ? {} : { met: right !== false && because }),
    }
  })
}

/** The deciding check of a refusal; of what went well, why a token that was named was not used. */
function whyText(outcome: string, checks: readonly Check[], guard: Played['guard']): string {
  const dropped = checks.find(
    ({ rule, passed }) => !passed && rule.errno === undefined && !rule.name.startsWith('LSM bpf_prog'),
  )
  const last = checks.at(-1)
  const failed = outcome === 'ok' || last === undefined || last.passed ? undefined : last
  const parts = [
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
  readonly #policies = new Map<string, Terms>()
  readonly #guard: Guard | undefined
  readonly #contexts = new Map<string, { context: FsContext; delegation?: Delegation }>()
  readonly #mounts = new Map<string, Mounted>()
  readonly #tokens = new Map<string, Held>()
  readonly #programs = new Map<string, Program>()

  constructor(parsed: ParsedScenario, running?: () => KernelFacts) {
    const { spec } = parsed.document
    this.#parsed = parsed
    if (spec.kernel === 'running' && running === undefined)
      this.#wrong(['spec', 'kernel'], 'there is no running kernel to ask here; name one')
    const kernel = spec.kernel === 'running' ? running!() : knownKernel(spec.kernel as MachineName)
    this.#machine = { kernel, unprivilegedBpfDisabled: spec.unprivilegedBpfDisabled }
    for (const [name, policy] of Object.entries(spec.policies))
      this.#policies.set(name, this.#terms(name, policy))
    for (const [name, task] of Object.entries(spec.tasks)) {
      const userNamespace = this.#namespace(task.userNamespace, ['spec', 'tasks', name, 'userNamespace'])
      this.#tasks.set(name, {
        userNamespace,
        uid: task.uid,
        capabilities: new Set(task.capabilities === 'all' ? MODEL_CAPABILITIES : task.capabilities),
        ...(task.seccomp === undefined ? {} : { seccomp: task.seccomp }),
      })
    }
    if (spec.guard !== undefined) {
      const delegators = Object.entries(spec.guard.delegators).map(([name, { ceiling, implicit }]) => {
        const path = ['spec', 'guard', 'delegators', name]
        if (!this.#tasks.has(name)) this.#wrong(path, 'no task of that name')
        const terms = ceiling === undefined ? undefined : this.#policy(ceiling, [...path, 'ceiling'])
        return [name, { implicit, ...(terms === undefined ? {} : { ceiling: terms }) }] as const
      })
      this.#guard = new Guard(this.#policies, new Map(delegators))
    }
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
      case 'derive':
        return this.#derive(step, i)
      case 'revoke':
        return this.#revoke(step, i)
      default:
        return this.#use(step, task, i)
    }
  }

  #wait(step: ScenarioStep, i: number): Outcome {
    const seconds = step.for === undefined ? undefined : parseDuration(step.for)
    if (seconds === undefined) this.#wrong(['spec', 'story', i], 'this needs a field "for", such as 1h')
    if (this.#guard !== undefined) this.#guard.now += seconds!
    return OK
  }

  /** fsopen, set, create and fsmount. */
  #context(step: ScenarioStep, task: Task, i: number): Outcome {
    const name = step.context ?? this.#wrong(['spec', 'story', i], 'this needs a field "context"')
    const known = step.do === 'fsopen' ? undefined : this.#found(this.#contexts, name, 'context', i)
    if (step.do === 'set') {
      const said = this.#guard?.option(name, step.as!, task, step.key ?? '', step.value)
      // bpffs looks at what the module has let through.
      if (said?.refused === true && known!.context.phase === 'options') return refusedBy(said)
    }
    const call = fsCall(step, known?.context)
    const decision = decideFs(this.#machine, task, call)
    const outcome: Outcome = { outcome: decision.errno ?? 'ok', checks: decision.checks }
    const { context } = decision
    if (context === undefined) return outcome
    if (step.do === 'create' && decision.errno === undefined) {
      const said = this.#guard?.superblock(name, step.as!, context.userNamespace, context.masks)
      if (said?.refused === true) {
        this.#contexts.set(name, { context: { ...context, phase: 'failed' } })
        return { ...refusedBy(said), checks: decision.checks }
      }
      const delegation = said?.delegation
      this.#contexts.set(name, { context, ...(delegation === undefined ? {} : { delegation }) })
      return outcome
    }
    this.#contexts.set(name, { ...known, context })
    if (step.do === 'fsmount' && decision.errno === undefined && step.mount !== undefined)
      this.#mounts.set(step.mount, {
        instance: { userNamespace: context.userNamespace, masks: context.masks },
        ...(known?.delegation === undefined ? {} : { delegation: known.delegation }),
        place: step.mount,
      })
    return outcome
  }

  #mount(step: ScenarioStep, task: Task, i: number): Outcome {
    const name = step.mount ?? this.#wrong(['spec', 'story', i], 'this needs a field "mount"')
    const options = Object.entries(step.options ?? {}).map(([key, value]) => ({ key, value }))
    for (const { key, value } of options) {
      const said = this.#guard?.option(name, step.as!, task, key, value, true)
      if (said?.refused === true) return refusedBy(said)
    }
    const decision = decideFs(this.#machine, task, { op: 'mount', options })
    if (decision.instance !== undefined) {
      const said = this.#guard?.superblock(
        name,
        step.as!,
        decision.instance.userNamespace,
        decision.instance.masks,
      )
      if (said?.refused === true) return refusedBy(said)
      this.#mounts.set(name, { instance: decision.instance, place: name })
    }
    return { outcome: decision.errno ?? 'ok', checks: decision.checks }
  }

  /** A bind mount is another mount of the same; a move changes the place. mount(2) asks no hook. */
  #place(step: ScenarioStep, i: number): Outcome {
    const mounted = this.#found(this.#mounts, step.mount, 'mount', i)
    const to = step.to ?? this.#wrong(['spec', 'story', i], 'this needs a field "to"')
    if (step.do === 'move' && mounted.delegation !== undefined) {
      const said = this.#guard?.move(mounted.delegation)
      if (said?.refused === true) return refusedBy(said)
    }
    this.#mounts.set(to, { ...mounted, place: to })
    if (step.do === 'move') this.#mounts.delete(step.mount!)
    return OK
  }

  #token(step: ScenarioStep, task: Task, i: number): Outcome {
    const mounted = this.#found(this.#mounts, step.mount, 'mount', i)
    const { instance, delegation } = mounted
    const said = this.#guard?.tokenCreate(delegation, mounted.place)
    const machine = this.#asking(step, { bpf_token_create: said })
    const decision = decide(machine, task, {
      op: 'token_create',
      bpffs: { kind: 'bpffs', instance, isRoot: true },
    })
    if (decision.errno === undefined && step.token !== undefined) {
      this.#tokens.set(step.token, {
        token: instance,
        ...(delegation === undefined ? {} : { delegation }),
        owners: new Set([step.as!]),
      })
      if (delegation !== undefined) {
        delegation.place ??= mounted.place
        delegation.usage.tokens++
      }
    }
    return outcomeOf(decision, decision.checks, said)
  }

  #pass(step: ScenarioStep, i: number): Outcome {
    const held = this.#found(this.#tokens, step.token, 'token', i)
    const to = this.#found(this.#tasks, step.to, 'to', i)
    const said = held.delegation === undefined ? undefined : this.#guard?.receive(held.delegation, to)
    if (said?.refused === true) return refusedBy(said)
    held.owners.add(step.to!)
    return OK
  }

  #derive(step: ScenarioStep, i: number): Outcome {
    const { delegation } = this.#found(this.#mounts, step.mount, 'mount', i)
    const delegator = step.delegator ?? this.#wrong(['spec', 'story', i], 'this needs a field "delegator"')
    if (this.#guard === undefined || delegation === undefined)
      this.#wrong(['spec', 'story', i], 'only what the guard knows can be derived from')
    this.#guard.deriveBy(delegator, delegation)
    return OK
  }

  #revoke(step: ScenarioStep, i: number): Outcome {
    const { delegation } = this.#found(this.#mounts, step.mount, 'mount', i)
    if (delegation === undefined)
      this.#wrong(['spec', 'story', i], 'only what the guard knows can be revoked')
    delegation.revoked = true
    return OK
  }

  /** bpf(2), with or without a token. */
  #use(step: ScenarioStep, task: Task, i: number): Outcome {
    const held = step.token === undefined ? undefined : this.#found(this.#tokens, step.token, 'token', i)
    const mine = held?.owners.has(step.as!) === true
    const file = held === undefined || !mine ? CLOSED : { kind: 'token' as const, token: held.token }
    const choice = step.token === undefined ? {} : { token: { flag: true, file } }
    const call = this.#call(step, choice, i)
    const delegation = mine ? held?.delegation : undefined
    const confined = this.#parsed.document.spec.tasks[step.as!]!.confined
    const asked = this.#judged(step, task, call, delegation, mine, confined, i)
    const machine = this.#asking(step, asked.hooks, delegation)
    const decision = decide(machine, task, call)
    if (decision.errno === undefined) this.#count(step, call, delegation, asked.hooks, held)
    return outcomeOf(decision, decision.checks, asked.said)
  }

  /** What the guard would say at each hook that the call may pass. */
  #judged(
    step: ScenarioStep,
    task: Task,
    call: BpfCall,
    delegation: Delegation | undefined,
    isUsed: boolean,
    confined: string | undefined,
    i: number,
  ): { hooks: Partial<Record<LsmHook, GuardVerdict | undefined>>; said?: GuardVerdict } {
    const guard = this.#guard
    if (guard === undefined) return { hooks: {} }
    if (!isUsed) {
      if (confined === undefined || (call.op !== 'map_create' && call.op !== 'prog_load'))
        return { hooks: {} }
      const terms = this.#policy(confined, ['spec', 'tasks', step.as!, 'confined'])
      const domain = call.op === 'map_create' ? 'maps' : 'progs'
      const attach = call.op === 'prog_load' ? call.attach : 0
      const said = guard.confined(terms, domain, call.type, attach)
      return { hooks: { [call.op === 'map_create' ? 'bpf_map_create' : 'bpf_prog_load']: said }, said }
    }
    const used = guard.tokenCmd(delegation, task)
    if (used.refused || delegation === undefined) return { hooks: { bpf_token_cmd: used }, said: used }
    const said =
      call.op === 'map_create'
        ? guard.mapCreate(delegation, BigInt(step.bytes ?? 8))
        : call.op === 'prog_load'
          ? guard.progLoad(delegation, step.instructions ?? 2, step.target)
          : undefined
    void i
    const hook = call.op === 'map_create' ? 'bpf_map_create' : 'bpf_prog_load'
    return { hooks: { [hook]: said }, ...(said === undefined ? {} : { said }) }
  }

  #count(
    step: ScenarioStep,
    call: BpfCall,
    delegation: Delegation | undefined,
    hooks: Partial<Record<LsmHook, GuardVerdict | undefined>>,
    held: Held | undefined,
  ): void {
    const used = hooks.bpf_token_cmd?.refused !== true
    if (delegation !== undefined && used && call.op === 'map_create') {
      delegation.usage.maps++
      delegation.usage.mapBytes += BigInt(step.bytes ?? 8)
    }
    if (call.op !== 'prog_load') return
    if (delegation !== undefined && used) delegation.usage.programs++
    if (step.prog !== undefined)
      this.#programs.set(step.prog, {
        type: step.type ?? 'socket_filter',
        expectedAttach: call.attach ?? 0,
        ...(held === undefined ? {} : { token: held.token }),
      })
  }

  /** The machine with what security modules say: the guard, and those that the step names. */
  #asking(
    step: ScenarioStep,
    hooks: Partial<Record<LsmHook, GuardVerdict | undefined>>,
    delegation?: Delegation,
  ): Machine {
    const lsm: Partial<Record<LsmHook, ErrnoName>> = {}
    for (const [hook, said] of Object.entries(hooks))
      if (said?.refused === true) lsm[hook as LsmHook] = said.errno
    if (this.#guard !== undefined && delegation !== undefined) lsm.bpf_token_capable = 'EPERM'
    for (const [hook, errno] of Object.entries(step.lsm ?? {})) lsm[hook as LsmHook] = errno as ErrnoName
    const lends = delegation === undefined ? undefined : this.#guard?.lends(delegation)
    return { ...this.#machine, lsm, ...(lends === undefined ? {} : { lsmLends: lends }) }
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
        const prog = this.#found(this.#programs, step.prog, 'prog', i)
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

/** The guard's word is told where it decided: its refusal, or a token that was not used for it. */
function outcomeOf(
  { errno }: { errno?: ErrnoName },
  checks: readonly Check[],
  said: GuardVerdict | undefined,
): Outcome {
  return {
    outcome: errno ?? 'ok',
    checks,
    ...(said?.refused === true && errno !== undefined ? { guard: said } : {}),
  }
}
