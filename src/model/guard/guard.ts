/**
 * The guard as one: a method for each of its hooks, and what its management does. Time is in seconds
 * of a clock that the caller moves.
 *
 * A hook has effects (it counts, marks, writes events), so it is asked only where the kernel would
 * ask it, and what it has put on record is let go where the kernel fails the call afterwards.
 */
import { GUARD_PROBE_KEY } from '../../guard/layout.ts'
import { EVERYTHING, encodeTerms, type GuardTerms, NO_CEILING, type RawTerms } from '../../guard/terms.ts'
import type { AllowList } from '../../policy/policy.ts'
import type { Masks } from '../../policy/vocabulary.ts'
import { bpf_map_flags, bpf_map_type, bpf_prog_type } from '../../uapi/bpf.ts'
import { CAPABILITIES } from '../../uapi/constants.ts'
import type { ErrnoName } from '../judge.ts'
import type { ModelCapability, UserNamespace } from '../task.ts'
import { INITIAL } from '../task.ts'
import { type Actor, type Cgroup, isBelow, isHostAdmin, isHostRoot, isInside } from './actor.ts'
import { Attaching, type GuardCall } from './attach.ts'
import {
  counts,
  countsBytes,
  type Delegation,
  endOf,
  forget,
  liveness,
  newDelegation,
  takePart,
  uncount,
} from './delegation.ts'
import type { GuardLink, GuardMap, GuardObject, GuardProgram, GuardToken } from './objects.ts'
import {
  added,
  begun,
  ENFORCE,
  has,
  hasFlag,
  isEmpty,
  isWithin,
  type Kind,
  lifetimeOf,
  mayDerive,
  PERMISSIVE,
  type Rules,
  rulesOf,
  withEventsOf,
} from './terms.ts'
import { type GuardNote, type GuardVerdict, Journal, Judged, PASSED, refusal } from './verdict.ts'

export type { Actor, Cgroup } from './actor.ts'
export { ROOT_CGROUP } from './actor.ts'
export type { GuardCall, GuardTarget } from './attach.ts'
export type { Delegation } from './delegation.ts'
export type { GuardLink, GuardMap, GuardObject, GuardProgram, GuardToken } from './objects.ts'
export type { GuardNote, GuardPoint, GuardReason, GuardVerdict } from './verdict.ts'

export interface GuardSettings {
  /** Of what belongs to no delegation. */
  readonly mode?: 'enforce' | 'permissive'
  /** Events for what is allowed, too. */
  readonly audit?: boolean
}

/** Who may delegate, and how much. */
export interface Delegator {
  readonly ceiling?: GuardTerms
  /** It need not mark what it lends, and lends on the terms of its ceiling. */
  readonly implicit?: boolean
  /** What it lends is derived from this delegation. */
  readonly parent?: Delegation
  /** Tokens of what it lends are made in this cgroup and below only. */
  readonly cgroup?: Cgroup
}

interface ListedDelegator extends Pick<Delegator, 'parent' | 'cgroup'> {
  readonly implicit: boolean
  readonly ceiling: RawTerms
}

/** A context that an allowed delegator has marked, until its superblock is created. */
interface Pending extends Pick<ListedDelegator, 'parent' | 'cgroup' | 'ceiling'> {
  readonly process: string
  terms: RawTerms
}

/** What tasks of a user namespace, and of those below it, may attach. */
interface NamespaceRules {
  delegation: Delegation
  readonly enforced: { ownNetwork: number; revocable: number }
  readonly watched: { ownNetwork: number; revocable: number }
}

/** What the parts of the guard know of each other. */
export interface GuardState {
  readonly mode: number
  /** The delegation by which the call is judged, and a first verdict in `what`; false: there is none. */
  judgedBy(of: Delegation | undefined, what: Judged): of is Delegation
  say(what: Judged, errno: ErrnoName): GuardVerdict
  isStranger(actor: Actor, of: Delegation): boolean
  confinementOf(cgroup: Cgroup): Delegation | undefined
  /** The rules of the caller's user namespace and of those above it; undefined: there are none. */
  rulesAround(
    actor: Actor,
  ): { readonly delegation: Delegation; readonly enforced: Rules; readonly watched: Rules } | undefined
}

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

export class Guard implements GuardState {
  readonly mode: number
  readonly #journal: Journal
  readonly #policies = new Map<string, RawTerms>()
  readonly #lists = new Map<bigint, readonly string[]>()
  readonly #delegators = new Map<string, ListedDelegator>()
  readonly #confined = new Map<Cgroup, Delegation>()
  readonly #pending = new Map<object, Pending>()
  readonly #namespaces = new Map<UserNamespace, NamespaceRules>()
  readonly #attaching: Attaching
  #lastId = 63
  #lastConfinement = 0
  #lastList = 0n
  /** Seconds since the story began. */
  now = 0

  constructor({ mode = 'enforce', audit = false }: GuardSettings = {}) {
    this.mode = mode === 'enforce' ? ENFORCE : PERMISSIVE
    this.#journal = new Journal(audit)
    this.#attaching = new Attaching(this)
  }

  /** The events since they were taken last. */
  takeNotes(): GuardNote[] {
    return this.#journal.notes.splice(0)
  }

  // ---- management ----

  #encode(terms: GuardTerms): RawTerms {
    const list = (members: AllowList): bigint => {
      if (members === 'any') return 0n
      this.#lists.set(++this.#lastList, members)
      return this.#lastList
    }
    const [digests, functions] = [list(terms.programs.digests), list(terms.targets.functions)]
    return encodeTerms(terms, { digests, functions })
  }

  installPolicy(name: string, terms: GuardTerms): void {
    this.#policies.set(name, this.#encode(terms))
  }

  /** By the name of its process. */
  allow(process: string, { ceiling, implicit = false, parent, cgroup }: Delegator): void {
    const most = ceiling === undefined ? (implicit ? EVERYTHING : NO_CEILING) : this.#encode(ceiling)
    this.#delegators.set(process, {
      implicit,
      ceiling: most,
      ...(parent === undefined ? {} : { parent }),
      ...(cgroup === undefined ? {} : { cgroup }),
    })
  }

  /** From now on what this process delegates is derived from a delegation; undefined: from none. */
  deriveBy(process: string, parent: Delegation | undefined): void {
    const known = this.#delegators.get(process) ?? { implicit: false, ceiling: NO_CEILING }
    const { parent: _, ...rest } = known
    this.#delegators.set(process, parent === undefined ? rest : { ...rest, parent })
  }

  /** What is derived from it is revoked with it. */
  revoke(of: Delegation, all: Iterable<Delegation>): void {
    of.revoked = true
    const others = [...all]
    for (const one of others) if (one.parent === of && !one.revoked) this.revoke(one, others)
  }

  /** Lets it end later: when it ends now, or why it cannot be. */
  renew(of: Delegation, until: number): number | 'endless' | 'expired' | 'revoked' | 'sooner' {
    if (of.revoked) return 'revoked'
    if (of.expired) return 'expired'
    const now = endOf(of)
    if (now === Number.POSITIVE_INFINITY) return 'endless'
    if (now <= this.now) return 'expired'
    const last = of.parent === undefined ? Number.POSITIVE_INFINITY : endOf(of.parent)
    const end = Math.min(until, last)
    if (end <= now) return 'sooner'
    of.renewedTo = end
    return end
  }

  /** Holds the tasks in a cgroup and below to a policy, for calls without a token. */
  confine(cgroup: Cgroup, policy: GuardTerms): Delegation {
    const terms = this.#encode(policy)
    const of = newDelegation({
      id: ++this.#lastConfinement,
      terms,
      cgroup,
      expiresAt: this.now + lifetimeOf(terms),
    })
    this.unconfine(cgroup)
    this.#confined.set(cgroup, of)
    return of
  }

  unconfine(cgroup: Cgroup): void {
    const of = this.#confined.get(cgroup)
    if (of !== undefined) of.isGone = true
    this.#confined.delete(cgroup)
  }

  // ---- what the parts share ----

  confinementOf(cgroup: Cgroup): Delegation | undefined {
    for (let at: Cgroup | undefined = cgroup; at !== undefined; at = at.parent) {
      const of = this.#confined.get(at)
      if (of !== undefined) return of
    }
    return undefined
  }

  judgedBy(of: Delegation | undefined, what: Judged): of is Delegation {
    if (of === undefined || of.isGone) {
      what.mode = this.mode
      what.reason = 'unregistered'
      return false
    }
    what.under(of)
    what.reason = liveness(of, this.now)
    return true
  }

  say(what: Judged, errno: ErrnoName): GuardVerdict {
    return what.reason === 'none' ? PASSED : this.#journal.judge(what, errno)
  }

  isStranger(actor: Actor, { terms, userNamespace }: Delegation): boolean {
    return !hasFlag(terms, 'passToken') && userNamespace !== undefined && !isInside(actor, userNamespace)
  }

  rulesAround({ task }: Actor) {
    let nearest: Delegation | undefined
    const all = { enforced: { ownNetwork: 0, revocable: 0 }, watched: { ownNetwork: 0, revocable: 0 } }
    for (
      let at: UserNamespace | undefined = task.userNamespace;
      at !== undefined && at !== INITIAL;
      at = at.parent
    ) {
      const found = this.#namespaces.get(at)
      if (found === undefined) continue
      nearest ??= found.delegation
      for (const group of ['enforced', 'watched'] as const) {
        all[group].ownNetwork |= found[group].ownNetwork
        all[group].revocable |= found[group].revocable
      }
    }
    if (nearest === undefined) return undefined
    const rules = (group: 'enforced' | 'watched'): Rules => ({
      ownNetwork: all[group].ownNetwork !== 0,
      revocable: all[group].revocable !== 0,
    })
    return { delegation: nearest, enforced: rules('enforced'), watched: rules('watched') }
  }

  #countRules({ terms, userNamespace }: Delegation, change: 1 | -1): void {
    const found = this.#namespaces.get(userNamespace!)
    if (found === undefined) return
    const group = terms.mode === PERMISSIVE ? found.watched : found.enforced
    const { ownNetwork, revocable } = rulesOf(terms)
    if (ownNetwork) group.ownNetwork += change
    if (revocable) group.revocable += change
  }

  readonly #unrule = (of: Delegation): void => {
    if (!of.isRuled) return
    of.isRuled = false
    this.#countRules(of, -1)
  }

  // ---- mount options ----

  /** fs_context_parse_param. `context` is known again by its identity; `old`: by mount(2). */
  option(context: object, actor: Actor, key: string, value?: string, old = false): GuardVerdict {
    if (key === GUARD_PROBE_KEY) return refusal('option', 'none', 'EKEYREJECTED')
    if (key !== 'delegate' && key !== 'abilities' && !key.startsWith('delegate_')) return PASSED
    const what = new Judged('option')
    what.mode = this.mode
    const refuse = (reason: Judged['reason']): GuardVerdict => {
      what.reason = reason
      return this.#journal.judge(what, 'EACCES')
    }
    if (old) return refuse('old-mount')
    const by = isHostAdmin(actor) ? this.#delegators.get(actor.process) : undefined
    if (by === undefined) return refuse('no-delegator')
    const known = this.#pending.get(context)
    let now = known?.process === actor.process ? known : undefined
    if (key === 'delegate') {
      this.#mark(context, actor, by)
      what.point = 'mark'
      return this.#journal.judge(what, 'EACCES')
    }
    if (now === undefined && by.implicit && key !== 'abilities') now = this.#mark(context, actor, by)
    if (now === undefined) return refuse('not-marked')
    return key === 'abilities' ? this.#name(now, value ?? '') : PASSED
  }

  #mark(context: object, actor: Actor, { ceiling, implicit, parent, cgroup }: ListedDelegator): Pending {
    const pending: Pending = {
      process: actor.process,
      ceiling,
      terms: implicit ? ceiling : begun(ceiling),
      ...(parent === undefined ? {} : { parent }),
      ...(cgroup === undefined ? {} : { cgroup }),
    }
    this.#pending.set(context, pending)
    return pending
  }

  /** `abilities=NAME`; an empty value resets. */
  #name(now: Pending, name: string): GuardVerdict {
    const what = new Judged('mark')
    if (name === '') {
      now.terms = begun(now.ceiling)
      return PASSED
    }
    const terms = this.#policies.get(name)
    if (terms === undefined) {
      what.mode = this.mode
      what.reason = 'no-ability'
      return this.#journal.judge(what, 'ENOENT')
    }
    what.mode = ENFORCE
    const sum = added(now.terms, terms)
    if (sum === undefined) {
      what.reason = 'lists'
      return this.#journal.judge(what, 'EACCES')
    }
    now.terms = sum
    what.events = sum.events
    return this.#journal.judge(what, 'EACCES')
  }

  // ---- the superblock ----

  /** sb_kern_mount: its delegation, if it has one, or a refusal. */
  superblock(
    context: object,
    actor: Actor,
    userNamespace: UserNamespace,
    masks: Masks,
  ): { readonly verdict: GuardVerdict; readonly delegation?: Delegation } {
    if (isEmpty(masks)) return { verdict: PASSED }
    const what = new Judged('superblock')
    const from = this.#pending.get(context)
    // The superblock is created by the process that marked the context, or not at all.
    if (from === undefined || from.process !== actor.process) {
      what.mode = this.mode
      what.reason = 'not-marked'
      return { verdict: this.#journal.judge(what, 'EACCES') }
    }
    this.#pending.delete(context)
    what.mode = from.terms.mode
    what.events = from.terms.events
    if (!isWithin(masks, from.terms.masks) || !isWithin(masks, from.ceiling.masks)) {
      what.reason = 'beyond-abilities'
      // Without any ability named there is no policy to be permissive.
      if (isEmpty(from.terms.masks)) what.mode = this.mode
      const verdict = this.#journal.judge(what, 'EACCES')
      if (verdict.refused) return { verdict }
      what.mode = from.terms.mode
    }
    const delegation = this.#enlist(from, userNamespace, masks)
    // What has no record cannot be held to anything.
    if (delegation === undefined) what.beyondMode('beyond-parent')
    else {
      what.reason = 'none'
      what.delegation = delegation
    }
    const verdict = this.#journal.judge(what, 'EACCES')
    return { verdict, ...(delegation === undefined ? {} : { delegation }) }
  }

  /** The new superblock's delegation; undefined: more than its origin has left. */
  #enlist(from: Pending, userNamespace: UserNamespace, masks: Masks): Delegation | undefined {
    const id = ++this.#lastId
    let { cgroup } = from
    let expiresAt = this.now + lifetimeOf(from.terms)
    let terms: RawTerms = {
      ...from.terms,
      masks,
      capabilities: from.terms.capabilities & from.ceiling.capabilities,
    }
    const { parent } = from
    if (parent !== undefined) {
      if (parent.isGone || liveness(parent, this.now) !== 'none' || !mayDerive(terms, parent.terms))
        return undefined
      // An origin that is bound to a cgroup binds what is derived from it there, or further below.
      if (parent.cgroup !== undefined && cgroup !== undefined && !isBelow(cgroup, parent.cgroup))
        return undefined
      cgroup ??= parent.cgroup
      expiresAt = Math.min(expiresAt, endOf(parent))
      terms = withEventsOf(terms, parent.terms)
      if (!takePart(parent, terms)) return undefined
    }
    const made = newDelegation({
      id,
      terms,
      expiresAt,
      userNamespace,
      ...(parent === undefined ? {} : { parent }),
      ...(cgroup === undefined ? {} : { cgroup }),
    })
    const none = { ownNetwork: 0, revocable: 0 }
    const rules = this.#namespaces.get(userNamespace)
    if (rules === undefined)
      this.#namespaces.set(userNamespace, { delegation: made, enforced: { ...none }, watched: { ...none } })
    else rules.delegation = made
    made.isRuled = true
    this.#countRules(made, 1)
    return made
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
    if (!this.judgedBy(of, what)) {
      const verdict = this.#journal.judge(what, 'EACCES')
      return verdict.refused ? { verdict } : { verdict, token: made }
    }
    if (what.reason === 'none' && of.cgroup !== undefined && !isBelow(actor.cgroup, of.cgroup))
      what.reason = 'cgroup'
    if (what.reason === 'none' && !hasFlag(of.terms, 'bindMount') && !isInPlace(of, mount, place))
      what.reason = 'elsewhere'
    const passed = this.#journal.pass(what, 'EACCES')
    if (passed.refused) return { verdict: passed }
    of.home ??= actor.cgroup
    const verdict = this.#enroll(of, 'tokens', what)
    return verdict.refused ? { verdict } : { verdict, token: { ...made, delegation: of } }
  }

  /** Counts an object: the one way for tokens, maps and programs. */
  #enroll(of: Delegation, kind: Kind, what: Judged, bytes = 0n): GuardVerdict {
    if (counts(of, kind, 1) && what.reason === 'none') what.reason = kind
    if (kind === 'maps' && countsBytes(of, bytes) && what.reason === 'none') what.reason = 'map-bytes'
    const verdict = this.#journal.judge(what, 'EDQUOT')
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
    if (this.judgedBy(delegation, what) && what.reason === 'none' && this.isStranger(actor, delegation))
      what.reason = 'stranger'
    return this.say(what, 'EPERM')
  }

  /** bpf_token_capable: one event for each token and capability. */
  tokenCapable(token: GuardToken, capability: ModelCapability): GuardVerdict {
    const what = new Judged('token_capable', { quiet: true })
    const number = CAPABILITIES[`CAP_${capability.toUpperCase()}` as keyof typeof CAPABILITIES]
    const { delegation } = token
    if (
      this.judgedBy(delegation, what) &&
      what.reason === 'none' &&
      !has(delegation.terms.capabilities, number)
    ) {
      what.reason = 'capability'
      if (token.told.has(number))
        return what.mode === PERMISSIVE ? PASSED : refusal('token_capable', 'capability', 'EPERM')
      token.told.add(number)
    }
    return this.say(what, 'EPERM')
  }

  /** The delegation under which a call is judged, with or without a token; no reason and none: it is free. */
  #subject(token: GuardToken | undefined, actor: Actor, what: Judged): Delegation | undefined {
    const of = token === undefined ? this.confinementOf(actor.cgroup) : token.delegation
    if (token === undefined && of === undefined) return undefined
    return this.judgedBy(of, what) ? of : undefined
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
      return { verdict: what.reason === 'none' ? PASSED : this.#journal.judge(what, 'EACCES'), map: free }
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
    return this.#journal.pass(what, what.reason === 'rights' ? 'EPERM' : 'EACCES')
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
      return { verdict: what.reason === 'none' ? PASSED : this.#journal.judge(what, 'EACCES'), program: free }
    const { terms } = of
    if (what.reason === 'none') {
      const { masks, functions } = terms
      const hasRights = has(masks.progs, program.type) && has(masks.attachs, program.expectedAttach)
      if (token === undefined && !hasRights) what.reason = 'rights'
      else if (functions !== 0n && hasTarget(program.type) && !this.#isListed(functions, program.target))
        what.reason = 'function'
    }
    const passed = this.#passObject(what)
    if (passed.refused) return { verdict: passed, program: free }
    if (program.instructions > terms.instructions) what.reason = 'instructions'
    const verdict = this.#enroll(of, 'programs', what)
    const made: GuardProgram = { ...free, delegation: of, admitted: terms.digests === 0n }
    return { verdict, program: verdict.refused ? free : made }
  }

  #isListed(list: bigint, word: string | undefined): boolean {
    return word !== undefined && this.#lists.get(list)!.includes(word)
  }

  /** bpf_prog: a program becomes a descriptor, when it is verified, from a pin, or by its id. */
  openProgram(actor: Actor, program: GuardProgram): GuardVerdict {
    const what = new Judged('open', { quiet: true })
    if (program.token === undefined && this.#confined.size === 0) return PASSED
    const { of } = this.#attaching.ownerOfProgram(program, what)
    if (of === undefined) {
      if (what.reason === 'none' || isHostRoot(actor)) return PASSED
      return this.#journal.judge(what, 'EACCES')
    }
    // What was loaded before a delegation ended may be opened, and is attached no more.
    what.reason = 'none'
    if (this.isStranger(actor, of) && !isHostRoot(actor)) what.reason = 'stranger'
    const passed = this.#journal.pass(what, 'EACCES')
    if (passed.refused || program.admitted) return passed
    what.point = 'prog_load'
    const list = of.terms.digests
    if (!program.digests.some(digest => this.#isListed(list, digest))) what.reason = 'digest'
    const verdict = this.#journal.judge(what, 'EACCES')
    if (!verdict.refused) program.admitted = true
    return verdict
  }

  /** bpf: each command, before anything else. */
  command(actor: Actor, call: GuardCall): GuardVerdict {
    return this.#attaching.judge(actor, call)
  }

  // ---- the end of objects ----

  superblockFreed(of: Delegation): void {
    of.usage.superblocks--
    forget(of, this.#unrule)
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
    forget(of, this.#unrule)
  }

  // ---- sharing ----

  /** file_receive: a token or program comes by SCM_RIGHTS or pidfd_getfd(2). */
  receive(actor: Actor, object: { readonly token: GuardToken } | GuardObject): GuardVerdict {
    const token =
      'token' in object ? object.token : object.kind === 'program' ? object.program.token : undefined
    if (token === undefined) return PASSED
    const what = new Judged('receive')
    // Of a token that is revoked nothing can be made; what counts here is where it goes.
    if (this.judgedBy(token.delegation, what)) {
      what.reason = 'none'
      const may = hasFlag(token.delegation.terms, 'passToken')
      if (!may && actor.task.userNamespace !== token.userNamespace) what.reason = 'stranger'
    }
    return this.#journal.judge(what, 'EACCES')
  }

  /** move_mount: put somewhere once. `isPlaced`: it is somewhere already. */
  move(of: Delegation | undefined, mount: object, isPlaced: boolean): GuardVerdict {
    if (of === undefined || of.isGone) return PASSED
    const what = new Judged('move')
    what.under(of)
    if (!hasFlag(of.terms, 'bindMount')) {
      of.mount ??= mount
      if (of.mount !== mount || isPlaced) what.reason = 'elsewhere'
    }
    return this.#journal.judge(what, 'EACCES')
  }

  /** file_open of a token through /proc: in every mode. */
  reopen(): GuardVerdict {
    const what = new Judged('reopen')
    what.beyondMode('reopened')
    return this.#journal.judge(what, 'EACCES')
  }

  /** file_open of a pinned iterator, which is to attach. */
  openIterator(actor: Actor, link: GuardLink): GuardVerdict {
    const { of, what } = this.#attaching.ownerOfLink(link, new Judged('attach', { quiet: true }))
    if (isHostRoot(actor)) return of === undefined ? PASSED : this.say(what, 'EACCES')
    if (of !== undefined && what.reason === 'none' && this.isStranger(actor, of)) what.reason = 'stranger'
    return this.say(what, 'EACCES')
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
