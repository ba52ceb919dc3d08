/** What the host's root has written down: policies, who may delegate, what is revoked or renewed, confined cgroups. */
import { EVERYTHING, encodeTerms, type GuardTerms, NO_CEILING, type RawTerms } from '../../guard/terms.ts'
import type { AllowList } from '../../policy/policy.ts'
import type { Cgroup } from './actor.ts'
import { type Delegation, endOf, newDelegation } from './delegation.ts'
import type { GuardState } from './state.ts'
import { lifetimeOf } from './terms.ts'

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

export interface ListedDelegator extends Pick<Delegator, 'parent' | 'cgroup'> {
  readonly implicit: boolean
  readonly ceiling: RawTerms
}

/** When it ends now, or why it cannot be renewed. */
export type Renewal = number | 'endless' | 'expired' | 'revoked' | 'sooner'

export class Registry {
  readonly #state: GuardState
  readonly #policies = new Map<string, RawTerms>()
  readonly #lists = new Map<bigint, readonly string[]>()
  /** Of lists, by their members. */
  readonly #numbers = new Map<string, bigint>()
  readonly #delegators = new Map<string, ListedDelegator>()
  readonly #confined = new Map<Cgroup, Delegation>()
  #lastConfinement = 0

  constructor(state: GuardState) {
    this.#state = state
  }

  #encode(terms: GuardTerms): RawTerms {
    const list = (members: AllowList): bigint => (members === 'any' ? 0n : this.#listNumber(members))
    const [digests, functions] = [list(terms.programs.digests), list(terms.targets.functions)]
    return encodeTerms(terms, { digests, functions })
  }

  /** The same members have the same number. */
  #listNumber(members: readonly string[]): bigint {
    const key = [...new Set(members)].sort().join(' ')
    const known = this.#numbers.get(key)
    if (known !== undefined) return known
    const number = BigInt(this.#numbers.size + 1)
    this.#numbers.set(key, number)
    this.#lists.set(number, members)
    return number
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
  renew(of: Delegation, until: number): Renewal {
    if (of.revoked) return 'revoked'
    if (of.expired) return 'expired'
    const now = endOf(of)
    if (now === Number.POSITIVE_INFINITY) return 'endless'
    if (now <= this.#state.now) return 'expired'
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
      expiresAt: this.#state.now + lifetimeOf(terms),
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

  // ---- what the hooks ask ----

  /** Of an ability. */
  policy(name: string): RawTerms | undefined {
    return this.#policies.get(name)
  }

  delegator(process: string): ListedDelegator | undefined {
    return this.#delegators.get(process)
  }

  isListed(list: bigint, word: string | undefined): boolean {
    return word !== undefined && this.#lists.get(list)!.includes(word)
  }

  get someAreConfined(): boolean {
    return this.#confined.size > 0
  }

  confinementOf(cgroup: Cgroup): Delegation | undefined {
    for (let at: Cgroup | undefined = cgroup; at !== undefined; at = at.parent) {
      const of = this.#confined.get(at)
      if (of !== undefined) return of
    }
    return undefined
  }
}
