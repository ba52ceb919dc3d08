/** Who may enable delegation: mount options, and the superblock that they become. */
import { GUARD_PROBE_KEY } from '../../guard/layout.ts'
import type { RawTerms } from '../../guard/terms.ts'
import type { Masks } from '../../policy/vocabulary.ts'
import type { UserNamespace } from '../task.ts'
import { type Actor, isBelow, isHostAdmin } from './actor.ts'
import { type Delegation, endOf, liveness, newDelegation, takePart } from './delegation.ts'
import type { Namespaces } from './namespaces.ts'
import type { ListedDelegator, Registry } from './registry.ts'
import type { GuardState } from './state.ts'
import { added, begun, ENFORCE, isEmpty, isWithin, lifetimeOf, mayDerive, withEventsOf } from './terms.ts'
import { type GuardVerdict, Judged, PASSED, refusal } from './verdict.ts'

/** A context that an allowed delegator has marked, until its superblock is created. */
interface Pending extends Pick<ListedDelegator, 'parent' | 'cgroup' | 'ceiling'> {
  readonly process: string
  terms: RawTerms
}

/** What a superblock comes to. */
export interface Enabled {
  readonly verdict: GuardVerdict
  /** Absent: it has none. */
  readonly delegation?: Delegation
}

export class Enabling {
  readonly #state: GuardState
  readonly #registry: Registry
  readonly #namespaces: Namespaces
  readonly #pending = new Map<object, Pending>()
  #lastId = 63

  constructor(state: GuardState, registry: Registry, namespaces: Namespaces) {
    this.#state = state
    this.#registry = registry
    this.#namespaces = namespaces
  }

  // ---- mount options ----

  /** fs_context_parse_param. `context` is known again by its identity; `old`: by mount(2). */
  option(context: object, actor: Actor, key: string, value?: string, old = false): GuardVerdict {
    if (key === GUARD_PROBE_KEY) return refusal('option', 'none', 'EKEYREJECTED')
    if (key !== 'delegate' && key !== 'abilities' && !key.startsWith('delegate_')) return PASSED
    const what = new Judged('option')
    what.mode = this.#state.mode
    const refuse = (reason: Judged['reason']): GuardVerdict => {
      what.reason = reason
      return this.#state.journal.judge(what, 'EACCES')
    }
    if (old) return refuse('old-mount')
    const by = isHostAdmin(actor) ? this.#registry.delegator(actor.process) : undefined
    if (by === undefined) return refuse('no-delegator')
    const known = this.#pending.get(context)
    let now = known?.process === actor.process ? known : undefined
    if (key === 'delegate') {
      this.#mark(context, actor, by)
      what.point = 'mark'
      return this.#state.journal.judge(what, 'EACCES')
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
    const terms = this.#registry.policy(name)
    if (terms === undefined) {
      what.mode = this.#state.mode
      what.reason = 'no-ability'
      return this.#state.journal.judge(what, 'ENOENT')
    }
    what.mode = ENFORCE
    const sum = added(now.terms, terms)
    if (sum === undefined) {
      what.reason = 'lists'
      return this.#state.journal.judge(what, 'EACCES')
    }
    now.terms = sum
    what.events = sum.events
    return this.#state.journal.judge(what, 'EACCES')
  }

  // ---- the superblock ----

  /** sb_kern_mount: its delegation, if it has one, or a refusal. */
  superblock(context: object, actor: Actor, userNamespace: UserNamespace, masks: Masks): Enabled {
    if (isEmpty(masks)) return { verdict: PASSED }
    const what = new Judged('superblock')
    const from = this.#pending.get(context)
    // The superblock is created by the process that marked the context, or not at all.
    if (from === undefined || from.process !== actor.process) {
      what.mode = this.#state.mode
      what.reason = 'not-marked'
      return { verdict: this.#state.journal.judge(what, 'EACCES') }
    }
    this.#pending.delete(context)
    what.mode = from.terms.mode
    what.events = from.terms.events
    if (!isWithin(masks, from.terms.masks) || !isWithin(masks, from.ceiling.masks)) {
      what.reason = 'beyond-abilities'
      // Without any ability named there is no policy to be permissive.
      if (isEmpty(from.terms.masks)) what.mode = this.#state.mode
      const verdict = this.#state.journal.judge(what, 'EACCES')
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
    const verdict = this.#state.journal.judge(what, 'EACCES')
    return { verdict, ...(delegation === undefined ? {} : { delegation }) }
  }

  /** The new superblock's delegation; undefined: more than its origin has left. */
  #enlist(from: Pending, userNamespace: UserNamespace, masks: Masks): Delegation | undefined {
    const id = ++this.#lastId
    let { cgroup } = from
    let expiresAt = this.#state.now + lifetimeOf(from.terms)
    let terms: RawTerms = {
      ...from.terms,
      masks,
      capabilities: from.terms.capabilities & from.ceiling.capabilities,
    }
    const { parent } = from
    if (parent !== undefined) {
      if (parent.isGone || liveness(parent, this.#state.now) !== 'none' || !mayDerive(terms, parent.terms))
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
    this.#namespaces.rule(made)
    return made
  }
}
