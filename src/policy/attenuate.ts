/**
 * Attenuation: the meet of two sets of terms, so that what is derived is never more than its
 * origin.
 *
 * Every component is a lattice of its own (masks and sets under intersection, quantities under
 * minimum, choices under "the stricter one"), so the whole is one: idempotent, associative,
 * commutative, and never above either side. The property tests hold it to that.
 */

import { describeMask } from './mask-text.ts'
import {
  type AllowList,
  CAPABILITIES,
  DEFAULT_LIMITS,
  EVENTS,
  type Events,
  LIMIT_PATHS,
  type Limits,
  type Terms,
} from './policy.ts'
import { formatDuration, formatSize } from './quantity.ts'
import { MASK_DOMAINS, type Masks, type Vocabulary } from './vocabulary.ts'

/** One thing that the child asked for and does not get. */
export interface Removal {
  /** The field, e.g. `spec.rights.progs`. */
  readonly path: string
  /** What was removed: a word, a quantity, a choice. */
  readonly what: string
  readonly why: string
}

/** The greatest terms that are within both. Commutative. */
export function meet(a: Terms, b: Terms): Terms {
  const masks: Masks = {
    cmds: a.rights.masks.cmds & b.rights.masks.cmds,
    maps: a.rights.masks.maps & b.rights.masks.maps,
    progs: a.rights.masks.progs & b.rights.masks.progs,
    attachs: a.rights.masks.attachs & b.rights.masks.attachs,
  }
  const both = (name: (typeof CAPABILITIES)[number]) =>
    a.rights.capabilities.includes(name) && b.rights.capabilities.includes(name)
  return {
    rights: { masks, capabilities: CAPABILITIES.filter(both) },
    limits: meetLimits(a.limits, b.limits),
    programs: { digests: meetLists(a.programs.digests, b.programs.digests) },
    targets: { functions: meetLists(a.targets.functions, b.targets.functions) },
    sharing: {
      bindMount: a.sharing.bindMount && b.sharing.bindMount,
      passToken: a.sharing.passToken && b.sharing.passToken,
    },
    revocable: a.revocable || b.revocable,
    network: a.network === 'host' && b.network === 'host' ? 'host' : 'own',
    cgroups: a.cgroups === 'any' && b.cgroups === 'any' ? 'any' : 'own',
    guard: a.guard === 'optional' && b.guard === 'optional' ? 'optional' : 'required',
    derive: {
      allowed: a.derive.allowed && b.derive.allowed,
      maxDepth: Math.min(a.derive.maxDepth, b.derive.maxDepth),
    },
    mode: a.mode === 'permissive' && b.mode === 'permissive' ? 'permissive' : 'enforce',
    events: meetEvents(a.events, b.events),
  }
}

/**
 * What remains of `child` under `parent`, and what was removed and why. The terms are `meet(parent,
 * child)`; counting down `derive.maxDepth` from level to level is the caller's, since a meet must
 * be idempotent.
 */
export function attenuate(
  parent: Terms,
  child: Terms,
  vocabulary: Vocabulary,
): { terms: Terms; removed: Removal[] } {
  const terms = meet(parent, child)
  const removed = [
    ...removedRights(child, terms, vocabulary),
    ...removedLimits(child.limits, terms.limits),
    ...removedItems('spec.programs.digests', child.programs.digests, terms.programs.digests),
    ...removedItems('spec.targets.functions', child.targets.functions, terms.targets.functions),
    ...removedChoices(child, terms),
  ]
  return { terms, removed }
}

/** Whether `inner` asks for nothing that `outer` does not have. */
export function isWithin(inner: Terms, outer: Terms, vocabulary: Vocabulary): boolean {
  return attenuate(outer, inner, vocabulary).removed.length === 0
}

function meetLimits(a: Limits, b: Limits): Limits {
  const met: Record<string, number | bigint> = {}
  for (const field of LIMIT_FIELDS) {
    const [x, y] = [a[field], b[field]]
    const [ofX, ofY] = [quantity(field, x), quantity(field, y)]
    const least = ofX < ofY ? x : ofY < ofX ? y : (x ?? y)
    // Where the lesser is a default it stays unstated.
    if (least !== undefined) met[field] = least
  }
  return met as Limits
}

const UNLIMITED = Number.POSITIVE_INFINITY

/** What holds: the default where nothing is stated, or no limit. */
function quantity(field: keyof Limits, stated: number | bigint | undefined): number | bigint {
  return stated ?? (DEFAULT_LIMITS as Limits)[field] ?? UNLIMITED
}

const LIMIT_FIELDS = Object.keys(LIMIT_PATHS) as (keyof Limits)[]

function limitText(field: keyof Limits, value: number | bigint): string {
  if (field === 'mapBytes') return formatSize(BigInt(value))
  return field === 'lifetimeSec' ? formatDuration(Number(value)) : String(value)
}

function meetLists(a: AllowList, b: AllowList): AllowList {
  if (a === 'any') return b
  if (b === 'any') return a
  return a.filter(item => b.includes(item)).sort()
}

/**
 * The stricter one records more: a derived delegation must not hide what its origin wants to see.
 */
function meetEvents(a: Events, b: Events): Events {
  return EVENTS.indexOf(a) > EVENTS.indexOf(b) ? a : b
}

const NOT_LENT = 'the parent does not have it to lend'

function removedRights(child: Terms, terms: Terms, vocabulary: Vocabulary): Removal[] {
  const removed: Removal[] = []
  for (const domain of MASK_DOMAINS) {
    const gone = child.rights.masks[domain] & ~terms.rights.masks[domain]
    if (gone === 0n) continue
    for (const what of describeMask(vocabulary, domain, gone)) {
      removed.push({ path: `spec.rights.${domain}`, what, why: NOT_LENT })
    }
  }
  for (const what of child.rights.capabilities) {
    if (terms.rights.capabilities.includes(what)) continue
    removed.push({ path: 'spec.rights.capabilities', what, why: NOT_LENT })
  }
  return removed
}

function removedLimits(child: Limits, met: Limits): Removal[] {
  const removed: Removal[] = []
  for (const field of LIMIT_FIELDS) {
    const [asked, given] = [quantity(field, child[field]), quantity(field, met[field])]
    if (asked === given) continue
    removed.push({
      path: LIMIT_PATHS[field],
      what: asked === UNLIMITED ? 'no limit' : limitText(field, asked),
      why: `the parent's limit is ${limitText(field, given)}`,
    })
  }
  return removed
}

function removedItems(path: string, child: AllowList, met: AllowList): Removal[] {
  if (met === 'any') return []
  if (child === 'any') return [{ path, what: 'any', why: `the parent allows ${met.length} by name` }]
  return child.filter(item => !met.includes(item)).map(what => ({ path, what, why: NOT_LENT }))
}

function removedChoices(child: Terms, met: Terms): Removal[] {
  const choices: [path: string, asked: string | number | boolean, given: string | number | boolean][] = [
    ['spec.sharing.bindMount', child.sharing.bindMount, met.sharing.bindMount],
    ['spec.sharing.passToken', child.sharing.passToken, met.sharing.passToken],
    ['spec.revocable', child.revocable, met.revocable],
    ['spec.network', child.network, met.network],
    ['spec.cgroups', child.cgroups, met.cgroups],
    ['spec.guard', child.guard, met.guard],
    ['spec.derive.allowed', child.derive.allowed, met.derive.allowed],
    ['spec.derive.maxDepth', child.derive.maxDepth, met.derive.maxDepth],
    ['spec.mode', child.mode, met.mode],
    ['spec.events', child.events, met.events],
  ]
  return choices
    .filter(([, asked, given]) => asked !== given)
    .map(([path, asked, given]) => ({ path, what: String(asked), why: `the parent has ${given}` }))
}
