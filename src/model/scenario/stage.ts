/** What is on the stage: what the scenario puts there, and what its story has made, by their names. */
import { PolicyError } from '../../errors.ts'
import { pathSegments, pathText } from '../../policy/located.ts'
import { parsePolicy } from '../../policy/parse.ts'
import type { Terms } from '../../policy/policy.ts'
import { parseDuration } from '../../policy/quantity.ts'
import type { FsContext } from '../bpffs.ts'
import type { BpffsInstance, Program, Token } from '../file.ts'
import type { Asker } from '../guard/ask.ts'
import {
  type Actor,
  type Cgroup,
  type Delegation,
  Guard,
  type GuardNote,
  type GuardProgram,
  type GuardToken,
  ROOT_CGROUP,
} from '../guard/guard.ts'
import type { ErrnoName } from '../judge.ts'
import type { KernelFacts } from '../kernel.ts'
import type { LsmHook, Machine } from '../machine.ts'
import { knownKernel } from '../machines.ts'
import { INITIAL, MODEL_CAPABILITIES, nestedIn, type Task, type UserNamespace } from '../task.ts'
import type { ParsedScenario } from './parse.ts'
import type { ScenarioStep } from './schema.ts'

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

/** What a step would have used is not there, since an earlier one failed or took it away. */
export class Missing extends Error {
  readonly errno: ErrnoName

  constructor(field: string, name: string) {
    super(`there is no ${field} "${name}": what was to make it failed, or it is elsewhere now`)
    this.errno = field === 'mount' ? 'ENOENT' : 'EBADF'
  }
}

/** Names that a step gives, each with the field by which others mean it. */
function madeBy({ do: what, context, mount, to, token, prog }: ScenarioStep): (readonly [string, string])[] {
  const made: Readonly<Record<string, readonly [string | undefined, string]>> = {
    fsopen: [context, 'context'],
    fsmount: [mount, 'mount'],
    mount: [mount, 'mount'],
    bind: [to, 'mount'],
    move: [to, 'mount'],
    token: [token, 'token'],
    prog: [prog, 'prog'],
  }
  const [name, as] = made[what] ?? []
  return name === undefined ? [] : [[name, as!]]
}

export class Stage {
  readonly #parsed: ParsedScenario
  readonly machine: Machine
  readonly tasks = new Map<string, Task>()
  readonly actors = new Map<string, Actor>()
  readonly cgroups = new Map<string, Cgroup>([['/', ROOT_CGROUP]])
  readonly policies = new Map<string, Terms>()
  readonly guard: Guard | undefined
  readonly contexts = new Map<string, { context: FsContext; mark: object; delegation?: Delegation }>()
  readonly delegations: Delegation[] = []
  readonly mounts = new Map<string, Mounted>()
  readonly tokens = new Map<string, Held>()
  readonly programs = new Map<string, Loaded>()

  constructor(parsed: ParsedScenario, running?: () => KernelFacts) {
    const { spec } = parsed.document
    this.#parsed = parsed
    if (spec.kernel === 'running' && running === undefined)
      this.wrong(['spec', 'kernel'], 'there is no running kernel to ask here; name one')
    const kernel = spec.kernel === 'running' ? running!() : knownKernel(spec.kernel)
    this.machine = { kernel, unprivilegedBpfDisabled: spec.unprivilegedBpfDisabled }
    for (const [name, policy] of Object.entries(spec.policies))
      this.policies.set(name, this.#terms(name, policy))
    if (spec.guard !== undefined) this.guard = new Guard({ mode: spec.guard.mode })
    for (const [name, terms] of this.policies) this.guard?.installPolicy(name, terms)
    for (const name of Object.keys(spec.userNamespaces))
      this.#namespace(name, ['spec', 'userNamespaces', name])
    for (const [name, task] of Object.entries(spec.tasks)) this.#addTask(name, task)
    for (const [name, { ceiling, implicit }] of Object.entries(spec.guard?.delegators ?? {})) {
      const path = ['spec', 'guard', 'delegators', name]
      if (!this.tasks.has(name)) this.wrong(path, 'no task of that name')
      const terms = ceiling === undefined ? undefined : this.policy(ceiling, [...path, 'ceiling'])
      this.guard!.allow(name, { implicit, ...(terms === undefined ? {} : { ceiling: terms }) })
    }
  }

  #addTask(name: string, task: ParsedScenario['document']['spec']['tasks'][string]): void {
    const made: Task = {
      userNamespace: this.#namespace(task.userNamespace, ['spec', 'tasks', name, 'userNamespace']),
      uid: task.uid,
      capabilities: new Set(task.capabilities === 'all' ? MODEL_CAPABILITIES : task.capabilities),
      ...(task.seccomp === undefined ? {} : { seccomp: task.seccomp }),
    }
    this.tasks.set(name, made)
    // In a cgroup of its own, unless it says otherwise.
    const cgroup = this.cgroup(task.cgroup ?? `/${name}`)
    const inHostNetwork = task.network === 'host'
    this.actors.set(name, { process: name, task: made, cgroup, inHostNetwork })
    if (task.confined === undefined) return
    const path = ['spec', 'tasks', name, 'confined']
    if (this.guard === undefined) this.wrong(path, 'only a guard confines, and there is none')
    this.guard!.confine(cgroup, this.policy(task.confined, path))
  }

  /** By its path; those above it are made, too. */
  cgroup(path: string): Cgroup {
    let at = ROOT_CGROUP
    let so = ''
    for (const part of path.split('/').filter(one => one !== '')) {
      so += `/${part}`
      const known = this.cgroups.get(so) ?? { name: so, parent: at }
      this.cgroups.set(so, known)
      at = known
    }
    return at
  }

  /** What the last step would have been refused for. */
  watched(): GuardNote[] {
    return this.guard?.takeNotes().filter(({ verdict }) => verdict === 'would-refuse') ?? []
  }

  wrong(path: (string | number)[], message: string): never {
    const at = this.#parsed.plain.valueAt(path)
    throw new PolicyError(this.#parsed.source, [{ path: path.join('.'), ...at, message }])
  }

  #terms(name: string, spec: unknown): Terms {
    const document = { apiVersion: 'bpftoken.dev/v1', kind: 'DelegationPolicy', metadata: { name }, spec }
    try {
      return parsePolicy(JSON.stringify(document), {
        source: this.#parsed.source,
        vocabulary: this.machine.kernel.vocabulary,
      })
    } catch (error) {
      if (!(error instanceof PolicyError)) throw error
      // Where it stands in the scenario.
      const issues = error.issues.map(({ path, message }) => {
        const [, ...inside] = pathSegments(path)
        const at = ['spec', 'policies', name, ...inside]
        return { path: pathText(at), ...this.#parsed.plain.valueAt(at), message }
      })
      throw new PolicyError(this.#parsed.source, issues)
    }
  }

  policy(name: string, path: (string | number)[]): Terms {
    return this.policies.get(name) ?? this.wrong(path, 'no policy of that name')
  }

  readonly #namespaces = new Map<string, UserNamespace>([['init', INITIAL]])

  #namespace(name: string, path: (string | number)[], depth = 0): UserNamespace {
    const known = this.#namespaces.get(name)
    if (known !== undefined) return known
    const declared = this.#parsed.document.spec.userNamespaces[name]
    if (declared === undefined || depth > 32) this.wrong(path, 'no user namespace of that name, or a circle')
    const parent = this.#namespace(declared!.parent, ['spec', 'userNamespaces', name, 'parent'], depth + 1)
    const made = nestedIn(parent, name, declared!.owner)
    this.#namespaces.set(name, made)
    return made
  }

  /**
   * Missing: an earlier step was to make it, and did not come to it, or took it away. PolicyError: no
   * step makes it.
   */
  found<T>(map: ReadonlyMap<string, T>, name: string | undefined, field: string, i: number): T {
    const path = ['spec', 'story', i, field]
    if (name === undefined) return this.wrong(['spec', 'story', i], `this needs a field "${field}"`)
    const found = map.get(name)
    if (found !== undefined) return found
    const isMade = this.#parsed.document.spec.story
      .slice(0, i)
      .some(step => madeBy(step).some(([made, as]) => made === name && as === field))
    if (isMade) throw new Missing(field, name)
    return this.wrong(path, `nothing of that name is there yet`)
  }

  seconds(step: ScenarioStep, i: number): number {
    const seconds = step.for === undefined ? undefined : parseDuration(step.for)
    return seconds ?? this.wrong(['spec', 'story', i], 'this needs a field "for", such as 1h')
  }

  lent(step: ScenarioStep, i: number, what: string): { guard: Guard; delegation: Delegation } {
    const { delegation } = this.found(this.mounts, step.mount, 'mount', i)
    if (this.guard === undefined || delegation === undefined)
      this.wrong(['spec', 'story', i], `only what the guard knows can be ${what}`)
    return { guard: this.guard!, delegation: delegation! }
  }

  /** The cgroup that is attached to: the task's own, if the step names none. */
  target(step: ScenarioStep): Cgroup {
    return step.cgroup === undefined ? this.actors.get(step.as!)!.cgroup : this.cgroup(step.cgroup)
  }

  /** The machine with what other security modules say at this step. */
  with(step: ScenarioStep): Machine {
    const lsm = step.lsm as Partial<Record<LsmHook, ErrnoName>> | undefined
    return lsm === undefined ? this.machine : { ...this.machine, lsm }
  }

  asker(step: ScenarioStep, token?: GuardToken): Asker | undefined {
    if (this.guard === undefined) return undefined
    return {
      guard: this.guard,
      machine: this.with(step),
      actor: this.actors.get(step.as!)!,
      ...(token === undefined ? {} : { token }),
    }
  }

  bit(domain: 'maps' | 'progs' | 'attachs', word: string | undefined, i: number, field: string): number {
    const vocabulary = this.machine.kernel.vocabulary[domain]
    const bit = word === undefined ? undefined : vocabulary.bitOfName.get(word)
    return bit ?? this.wrong(['spec', 'story', i, field], `this kernel has no ${domain} "${word ?? ''}"`)
  }
}
