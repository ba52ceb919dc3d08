/** What is done with a token: what is made by it, and what is counted until it is freed. */
import { bpf_map_flags, bpf_map_type, bpf_prog_type } from '../../uapi/bpf.ts'
import { CAPABILITIES } from '../../uapi/constants.ts'
import type { ModelCapability, UserNamespace } from '../task.ts'
import { type Actor, isBelow, isHostRoot } from './actor.ts'
import { counts, countsBytes, type Delegation, forget, uncount } from './delegation.ts'
import type { Namespaces } from './namespaces.ts'
import type { GuardMap, GuardProgram, GuardToken } from './objects.ts'
import { ownerOfProgram } from './owner.ts'
import type { Registry } from './registry.ts'
import type { GuardState } from './state.ts'
import { has, hasFlag, type Kind, PERMISSIVE } from './terms.ts'
import { type GuardVerdict, Judged, PASSED, refusal } from './verdict.ts'

/** A program that is loaded, as the hook sees it. */
export interface LoadedProgram {
  readonly type: number
  readonly expectedAttach: number
  readonly instructions: number
  /** The attach target, by its name in the kernel's BTF; absent: none, or another program. */
  readonly target?: string
  readonly digests: readonly string[]
}

export interface MadeMap {
  readonly type: number
  readonly flags?: number
  /** For people to reckon with: entries x (key + value), or the size of a ring buffer. */
  readonly bytes: bigint
}

export class Use {
  readonly #state: GuardState
  readonly #registry: Registry
  readonly #namespaces: Namespaces

  constructor(state: GuardState, registry: Registry, namespaces: Namespaces) {
    this.#state = state
    this.#registry = registry
    this.#namespaces = namespaces
  }

  // ---- tokens ----

  /** bpf_token_create, through a mount of the bpffs; `place`: where that is; absent: nowhere. */
  tokenCreate(
    of: Delegation | undefined,
    actor: Actor,
    userNamespace: UserNamespace,
    mount: object,
    place?: string,
  ): { readonly verdict: GuardVerdict; readonly token?: GuardToken } {
    const what = new Judged('token_create')
    const made = { userNamespace, told: new Set<number>() }
    if (!this.#state.judgedBy(of, what)) {
      const verdict = this.#state.journal.judge(what, 'EACCES')
      return verdict.refused ? { verdict } : { verdict, token: made }
    }
    if (what.reason === 'none' && of.cgroup !== undefined && !isBelow(actor.cgroup, of.cgroup))
      what.reason = 'cgroup'
    if (what.reason === 'none' && !hasFlag(of.terms, 'bindMount') && !isInPlace(of, mount, place))
      what.reason = 'elsewhere'
    const passed = this.#state.journal.pass(what, 'EACCES')
    if (passed.refused) return { verdict: passed }
    of.home ??= actor.cgroup
    const verdict = this.#enroll(of, 'tokens', what)
    return verdict.refused ? { verdict } : { verdict, token: { ...made, delegation: of } }
  }

  /** Counts an object: the one way for tokens, maps and programs. */
  #enroll(of: Delegation, kind: Kind, what: Judged, bytes = 0n): GuardVerdict {
    if (counts(of, kind, 1) && what.reason === 'none') what.reason = kind
    if (kind === 'maps' && countsBytes(of, bytes) && what.reason === 'none') what.reason = 'map-bytes'
    const verdict = this.#state.journal.judge(what, 'EDQUOT')
    if (verdict.refused) this.#countDown(of, kind, bytes)
    return verdict
  }

  #countDown(of: Delegation, kind: Kind, bytes = 0n): void {
    uncount(of, kind, 1)
    of.usage.mapBytes -= bytes
  }

  /** bpf_token_cmd: where it refuses, the kernel ignores the token. */
  tokenCmd({ delegation }: GuardToken, actor: Actor): GuardVerdict {
    const what = new Judged('token_cmd', { quiet: true })
    if (
      this.#state.judgedBy(delegation, what) &&
      what.reason === 'none' &&
      this.#state.isStranger(actor, delegation)
    )
      what.reason = 'stranger'
    return this.#state.say(what, 'EPERM')
  }

  /** bpf_token_capable: one event for each token and capability. */
  tokenCapable(token: GuardToken, capability: ModelCapability): GuardVerdict {
    const what = new Judged('token_capable', { quiet: true })
    const number = CAPABILITIES[`CAP_${capability.toUpperCase()}` as keyof typeof CAPABILITIES]
    const { delegation } = token
    if (
      this.#state.judgedBy(delegation, what) &&
      what.reason === 'none' &&
      !has(delegation.terms.capabilities, number)
    ) {
      what.reason = 'capability'
      if (token.told.has(number))
        return what.mode === PERMISSIVE ? PASSED : refusal('token_capable', 'capability', 'EPERM')
      token.told.add(number)
    }
    return this.#state.say(what, 'EPERM')
  }

  /** The delegation under which a call is judged, with or without a token; no reason and none: it is free. */
  #subject(token: GuardToken | undefined, actor: Actor, what: Judged): Delegation | undefined {
    const of = token === undefined ? this.#registry.confinementOf(actor.cgroup) : token.delegation
    if (token === undefined && of === undefined) return undefined
    return this.#state.judgedBy(of, what) ? of : undefined
  }

  // ---- maps and programs ----

  /** bpf_map_create. Without a verdict against it the map is on record, if it is anybody's. */
  mapCreate(
    actor: Actor,
    token: GuardToken | undefined,
    { type, flags = 0, bytes }: MadeMap,
  ): { readonly verdict: GuardVerdict; readonly map: GuardMap } {
    const what = new Judged('map_create')
    const of = this.#subject(token, actor, what)
    const free = { type, bytes }
    if (of === undefined)
      return {
        verdict: what.reason === 'none' ? PASSED : this.#state.journal.judge(what, 'EACCES'),
        map: free,
      }
    const { terms } = of
    if (what.reason === 'none') {
      const isStructOps = type === bpf_map_type.BPF_MAP_TYPE_STRUCT_OPS
      if (token === undefined && !has(terms.masks.maps, type)) what.reason = 'rights'
      else if (isStructOps && (flags & bpf_map_flags.BPF_F_LINK) === 0 && !hasFlag(terms, 'irrevocable'))
        what.reason = 'outlives'
    }
    const passed = this.#passObject(what)
    if (passed.refused) return { verdict: passed, map: free }
    const verdict = this.#enroll(of, 'maps', what, bytes)
    return { verdict, map: verdict.refused ? free : { ...free, delegation: of } }
  }

  /** As the kernel does for a token without the bit: EPERM. */
  #passObject(what: Judged): GuardVerdict {
    return this.#state.journal.pass(what, what.reason === 'rights' ? 'EPERM' : 'EACCES')
  }

  /** bpf_prog_load, before the verifier. */
  progLoad(
    actor: Actor,
    token: GuardToken | undefined,
    program: LoadedProgram,
  ): { readonly verdict: GuardVerdict; readonly program: GuardProgram } {
    const what = new Judged('prog_load')
    const of = this.#subject(token, actor, what)
    const free: GuardProgram = {
      digests: program.digests,
      admitted: false,
      ...(token === undefined ? {} : { token }),
    }
    if (of === undefined)
      return {
        verdict: what.reason === 'none' ? PASSED : this.#state.journal.judge(what, 'EACCES'),
        program: free,
      }
    const { terms } = of
    if (what.reason === 'none') {
      const { masks, functions } = terms
      const hasRights = has(masks.progs, program.type) && has(masks.attachs, program.expectedAttach)
      if (token === undefined && !hasRights) what.reason = 'rights'
      else if (
        functions !== 0n &&
        hasTarget(program.type) &&
        !this.#registry.isListed(functions, program.target)
      )
        what.reason = 'function'
    }
    const passed = this.#passObject(what)
    if (passed.refused) return { verdict: passed, program: free }
    if (program.instructions > terms.instructions) what.reason = 'instructions'
    const verdict = this.#enroll(of, 'programs', what)
    const made: GuardProgram = { ...free, delegation: of, admitted: terms.digests === 0n }
    return { verdict, program: verdict.refused ? free : made }
  }

  /** bpf_prog: a program becomes a descriptor, when it is verified, from a pin, or by its id. */
  openProgram(actor: Actor, program: GuardProgram): GuardVerdict {
    const what = new Judged('open', { quiet: true })
    if (program.token === undefined && !this.#registry.someAreConfined) return PASSED
    const { of } = ownerOfProgram(this.#state, program, what)
    if (of === undefined) {
      if (what.reason === 'none' || isHostRoot(actor)) return PASSED
      return this.#state.journal.judge(what, 'EACCES')
    }
    // What was loaded before a delegation ended may be opened, and is attached no more.
    what.reason = 'none'
    if (this.#state.isStranger(actor, of) && !isHostRoot(actor)) what.reason = 'stranger'
    const passed = this.#state.journal.pass(what, 'EACCES')
    if (passed.refused || program.admitted) return passed
    what.point = 'prog_load'
    const list = of.terms.digests
    if (!program.digests.some(digest => this.#registry.isListed(list, digest))) what.reason = 'digest'
    const verdict = this.#state.journal.judge(what, 'EACCES')
    if (!verdict.refused) program.admitted = true
    return verdict
  }

  // ---- the end of objects ----

  superblockFreed(of: Delegation): void {
    of.usage.superblocks--
    forget(of, this.#namespaces.unrule)
  }

  tokenFreed({ delegation }: GuardToken): void {
    this.#freed(delegation, 'tokens')
  }

  mapFreed({ delegation, bytes }: GuardMap): void {
    this.#freed(delegation, 'maps', bytes)
  }

  programFreed({ delegation }: GuardProgram): void {
    this.#freed(delegation, 'programs')
  }

  #freed(of: Delegation | undefined, kind: Kind, bytes = 0n): void {
    if (of === undefined) return
    this.#countDown(of, kind, bytes)
    forget(of, this.#namespaces.unrule)
  }
}

/** Whether a bpffs is where it was: through the mount, and at the place, of the first token. */
function isInPlace(of: Delegation, mount: object, place: string | undefined): boolean {
  of.mount ??= mount
  if (of.mount !== mount) return false
  if (place === undefined) return true
  of.place ??= place
  return of.place === place
}

const WITH_TARGET: ReadonlySet<number> = new Set([
  bpf_prog_type.BPF_PROG_TYPE_TRACING,
  bpf_prog_type.BPF_PROG_TYPE_LSM,
  bpf_prog_type.BPF_PROG_TYPE_EXT,
  bpf_prog_type.BPF_PROG_TYPE_STRUCT_OPS,
])
const hasTarget = (type: number): boolean => WITH_TARGET.has(type)
