/**
 * The guard, as far as stories play it: marked contexts, abilities, ceilings, derived delegations,
 * one place, counts, ends and revocation. Its words, numbers and defaults are those of the BPF
 * programs (bpf/guard/abi.h, by guard/layout.ts).
 *
 * What it judges of attaching, of maps that carry programs and of other people's objects is not here.
 */
import {
  GUARD_DEFAULT_MAPS,
  GUARD_DEFAULT_PROGRAMS,
  GUARD_DEFAULT_TOKENS,
  type POINTS,
  type REASONS,
} from '../guard/layout.ts'
import type { Terms } from '../policy/policy.ts'
import { MASK_DOMAINS, type Masks } from '../policy/vocabulary.ts'
import type { ErrnoName } from './judge.ts'
import { INITIAL, type ModelCapability, type Task, type UserNamespace } from './task.ts'

export type GuardPoint = (typeof POINTS)[keyof typeof POINTS]
export type GuardReason = (typeof REASONS)[keyof typeof REASONS]

/** What the guard says: nothing against it, or a refusal. */
export type GuardVerdict =
  | { readonly refused: false }
  | {
      readonly refused: true
      readonly point: GuardPoint
      readonly reason: GuardReason
      readonly errno: ErrnoName
    }

const PASSED: GuardVerdict = { refused: false }

function refusal(point: GuardPoint, reason: GuardReason, errno: ErrnoName): GuardVerdict {
  return { refused: true, point, reason, errno }
}

/** A program that may delegate. */
export interface Delegator {
  /** What it lends is within these terms; absent: any. */
  readonly ceiling?: Terms
  /** It need not mark what it lends, and lends on the terms of its ceiling. */
  readonly implicit?: boolean
  /** What it lends is derived from this delegation. */
  readonly parent?: Delegation
}

export interface Delegation {
  readonly id: number
  readonly terms: Terms
  readonly userNamespace: UserNamespace
  /** Seconds of the story's clock; absent: never. */
  readonly expiresAt?: number
  readonly parent?: Delegation
  /** How many times in a row it may be derived from. */
  readonly depth: number
  revoked: boolean
  /** Where its first token was made; absent: nowhere yet. */
  place?: string
  readonly usage: { tokens: number; programs: number; maps: number; mapBytes: bigint }
}

interface Pending {
  readonly by: string
  readonly delegator: Delegator
  terms: Terms | undefined
  abilities: number
}

export class Guard {
  readonly #policies: ReadonlyMap<string, Terms>
  readonly #delegators: Map<string, Delegator>
  readonly #pending = new Map<string, Pending>()
  #lastId = 0
  /** Seconds since the story began. */
  now = 0

  /** Policies by their names, and delegators by the names of their tasks. */
  constructor(policies: ReadonlyMap<string, Terms>, delegators: ReadonlyMap<string, Delegator>) {
    this.#policies = policies
    this.#delegators = new Map(delegators)
  }

  /** From now on what this task lends is derived from a delegation. */
  deriveBy(name: string, parent: Delegation): void {
    this.#delegators.set(name, { ...this.#delegators.get(name), parent })
  }

  /** A mount option of a context, by a task of this name. `old`: by mount(2). */
  option(context: string, name: string, task: Task, key: string, value = '', old = false): GuardVerdict {
    if (key === 'bpftoken_guard') return refusal('option', 'none', 'EKEYREJECTED')
    if (key !== 'delegate' && key !== 'abilities' && !key.startsWith('delegate_')) return PASSED
    if (old) return refusal('option', 'old-mount', 'EACCES')
    const isAdmin = task.userNamespace === INITIAL && task.capabilities.has('sys_admin')
    const delegator = isAdmin ? this.#delegators.get(name) : undefined
    if (delegator === undefined) return refusal('option', 'no-delegator', 'EACCES')
    const known = this.#pending.get(context)
    let pending = known?.by === name ? known : undefined
    if (key === 'delegate' || (pending === undefined && delegator.implicit === true && key !== 'abilities')) {
      const terms = delegator.implicit === true ? delegator.ceiling : undefined
      pending = { by: name, delegator, terms, abilities: 0 }
      this.#pending.set(context, pending)
    }
    if (pending === undefined) return refusal('option', 'not-marked', 'EACCES')
    return key === 'abilities' ? this.#name(pending, value) : PASSED
  }

  #name(pending: Pending, value: string): GuardVerdict {
    if (value === '') {
      pending.terms = undefined
      pending.abilities = 0
      return PASSED
    }
    const more = this.#policies.get(value)
    if (more === undefined) return refusal('mark', 'no-ability', 'ENOENT')
    const added = pending.terms === undefined ? more : addUp(pending.terms, more)
    if (added === undefined) return refusal('mark', 'lists', 'EACCES')
    pending.terms = added
    pending.abilities++
    return PASSED
  }

  /** A superblock is created: its delegation, if it has one, or a refusal. */
  superblock(
    context: string,
    name: string,
    userNamespace: UserNamespace,
    masks: Masks,
  ): GuardVerdict & { delegation?: Delegation } {
    if (MASK_DOMAINS.every(domain => masks[domain] === 0n)) return PASSED
    const pending = this.#pending.get(context)
    this.#pending.delete(context)
    if (pending === undefined || pending.by !== name) return refusal('superblock', 'not-marked', 'EACCES')
    const { terms, delegator } = pending
    if (terms === undefined || !isWithin(masks, terms) || !isWithin(masks, delegator.ceiling ?? terms))
      return refusal('superblock', 'beyond-abilities', 'EACCES')
    const made = this.#enlist(terms, delegator, userNamespace, masks)
    return made === undefined
      ? refusal('superblock', 'beyond-parent', 'EACCES')
      : { refused: false, delegation: made }
  }

  #enlist(
    terms: Terms,
    { parent }: Delegator,
    userNamespace: UserNamespace,
    masks: Masks,
  ): Delegation | undefined {
    const depth = terms.derive.allowed ? terms.derive.maxDepth : 0
    const { lifetimeSec } = terms.limits
    const ownEnd = lifetimeSec === undefined ? Number.POSITIVE_INFINITY : this.now + lifetimeSec
    const end = Math.min(ownEnd, parent?.expiresAt ?? Number.POSITIVE_INFINITY)
    if (parent !== undefined && (this.ended(parent) !== undefined || !fits(terms, masks, depth, parent)))
      return undefined
    if (parent !== undefined) take(parent, terms)
    return {
      id: ++this.#lastId,
      terms: { ...terms, rights: { ...terms.rights, masks } },
      userNamespace,
      ...(end === Number.POSITIVE_INFINITY ? {} : { expiresAt: end }),
      ...(parent === undefined ? {} : { parent }),
      depth,
      revoked: false,
      usage: { tokens: 0, programs: 0, maps: 0, mapBytes: 0n },
    }
  }

  /** Why a delegation holds no more; undefined: it lives. */
  ended(of: Delegation): GuardReason | undefined {
    if (of.revoked) return 'revoked'
    return of.expiresAt !== undefined && this.now >= of.expiresAt ? 'expired' : undefined
  }

  tokenCreate(of: Delegation | undefined, place: string): GuardVerdict {
    if (of === undefined) return refusal('token_create', 'unregistered', 'EACCES')
    const ended = this.ended(of)
    if (ended !== undefined) return refusal('token_create', ended, 'EACCES')
    if (!of.terms.sharing.bindMount && of.place !== undefined && of.place !== place)
      return refusal('token_create', 'elsewhere', 'EACCES')
    if (of.usage.tokens >= (of.terms.limits.tokens ?? GUARD_DEFAULT_TOKENS))
      return refusal('token_create', 'tokens', 'EDQUOT')
    return PASSED
  }

  /** Whether a token is used for a command; where not, the kernel ignores it. */
  tokenCmd(of: Delegation | undefined, task: Task): GuardVerdict {
    const reason = of === undefined ? 'unregistered' : this.ended(of)
    if (reason !== undefined) return refusal('token_cmd', reason, 'EPERM')
    return this.#isStranger(of!, task) ? refusal('token_cmd', 'stranger', 'EPERM') : PASSED
  }

  /** The capabilities that a token may stand in for. */
  lends(of: Delegation): ReadonlySet<ModelCapability> {
    return new Set(of.terms.rights.capabilities)
  }

  mapCreate(of: Delegation, bytes: bigint): GuardVerdict {
    const { limits } = of.terms
    if (of.usage.maps >= (limits.maps ?? GUARD_DEFAULT_MAPS)) return refusal('map_create', 'maps', 'EDQUOT')
    const over = limits.mapBytes !== undefined && of.usage.mapBytes + bytes > limits.mapBytes
    return over ? refusal('map_create', 'map-bytes', 'EDQUOT') : PASSED
  }

  progLoad(of: Delegation, instructions: number, target: string | undefined): GuardVerdict {
    const { limits, targets } = of.terms
    if (target !== undefined && targets.functions !== 'any' && !targets.functions.includes(target))
      return refusal('prog_load', 'function', 'EACCES')
    if (limits.instructions !== undefined && instructions > limits.instructions)
      return refusal('prog_load', 'instructions', 'EDQUOT')
    const over = of.usage.programs >= (limits.programs ?? GUARD_DEFAULT_PROGRAMS)
    return over ? refusal('prog_load', 'programs', 'EDQUOT') : PASSED
  }

  /** A token comes to another task by a socket or pidfd_getfd(2). */
  receive(of: Delegation, task: Task): GuardVerdict {
    const may = of.terms.sharing.passToken || task.userNamespace === of.userNamespace
    return may ? PASSED : refusal('receive', 'stranger', 'EACCES')
  }

  /** move_mount(2) of a mount that has a place. */
  move(of: Delegation): GuardVerdict {
    return of.terms.sharing.bindMount ? PASSED : refusal('move', 'elsewhere', 'EACCES')
  }

  reopen(): GuardVerdict {
    return refusal('reopen', 'reopened', 'EACCES')
  }

  /** What a cgroup is confined to, without any token. */
  confined(terms: Terms, domain: 'maps' | 'progs', type: number, attach = 0): GuardVerdict {
    const { masks } = terms.rights
    const has = (mask: bigint, bit: number): boolean => ((mask >> BigInt(bit)) & 1n) === 1n
    const allowed = has(masks[domain], type) && (domain === 'maps' || has(masks.attachs, attach))
    return allowed ? PASSED : refusal(domain === 'maps' ? 'map_create' : 'prog_load', 'rights', 'EPERM')
  }

  #isStranger(of: Delegation, task: Task): boolean {
    if (of.terms.sharing.passToken) return false
    for (let at: UserNamespace | undefined = task.userNamespace; at !== undefined; at = at.parent)
      if (at === of.userNamespace) return false
    return true
  }
}

/** All rights of both, the strictest of their limits. Undefined: their lists do not go together. */
function addUp(a: Terms, b: Terms): Terms | undefined {
  const lists = [
    [a.programs.digests, b.programs.digests],
    [a.targets.functions, b.targets.functions],
  ] as const
  for (const [one, other] of lists)
    if (one !== 'any' && other !== 'any' && one.join() !== other.join()) return undefined
  const masks = Object.fromEntries(
    MASK_DOMAINS.map(domain => [domain, a.rights.masks[domain] | b.rights.masks[domain]]),
  ) as unknown as Masks
  const least = <T extends number | bigint>(x: T | undefined, y: T | undefined): T | undefined =>
    x === undefined ? y : y === undefined || x < y ? x : y
  const limits = Object.fromEntries(
    (['tokens', 'programs', 'maps', 'mapBytes', 'instructions', 'lifetimeSec'] as const)
      .map(field => [field, least(a.limits[field], b.limits[field])] as const)
      .filter(([, value]) => value !== undefined),
  )
  return {
    ...a,
    rights: {
      masks,
      capabilities: [...new Set([...a.rights.capabilities, ...b.rights.capabilities])],
    },
    limits,
    programs: { digests: a.programs.digests === 'any' ? b.programs.digests : a.programs.digests },
    targets: { functions: a.targets.functions === 'any' ? b.targets.functions : a.targets.functions },
    sharing: {
      bindMount: a.sharing.bindMount && b.sharing.bindMount,
      passToken: a.sharing.passToken && b.sharing.passToken,
    },
    derive: {
      allowed: a.derive.allowed && b.derive.allowed,
      maxDepth: Math.min(a.derive.maxDepth, b.derive.maxDepth),
    },
  }
}

function isWithin(masks: Masks, { rights }: Terms): boolean {
  return MASK_DOMAINS.every(domain => (masks[domain] & ~rights.masks[domain]) === 0n)
}

/** Whether a derived delegation is within its origin, and what it states is left there. */
function fits(terms: Terms, masks: Masks, depth: number, parent: Delegation): boolean {
  const all = parent.terms
  const room = (field: 'tokens' | 'programs' | 'maps', most: number): boolean =>
    parent.usage[field] + (terms.limits[field] ?? 0) <= (all.limits[field] ?? most) &&
    (terms.limits[field] ?? most) <= (all.limits[field] ?? most)
  return (
    isWithin(masks, all) &&
    terms.rights.capabilities.every(name => all.rights.capabilities.includes(name)) &&
    depth < parent.depth &&
    room('tokens', GUARD_DEFAULT_TOKENS) &&
    room('programs', GUARD_DEFAULT_PROGRAMS) &&
    room('maps', GUARD_DEFAULT_MAPS) &&
    (terms.limits.instructions ?? Number.POSITIVE_INFINITY) <=
      (all.limits.instructions ?? Number.POSITIVE_INFINITY) &&
    !(terms.sharing.passToken && !all.sharing.passToken) &&
    !(terms.sharing.bindMount && !all.sharing.bindMount)
  )
}

/** What a derived delegation states counts as used by its origin. */
function take({ usage }: Delegation, { limits }: Terms): void {
  usage.tokens += limits.tokens ?? 0
  usage.programs += limits.programs ?? 0
  usage.maps += limits.maps ?? 0
}
