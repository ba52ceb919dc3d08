/**
 * What one policy grants and another does not: side by side, field by field. Pure.
 *
 * More is what lets a workload do more, or more workloads do it; less is the opposite. What is
 * neither, such as the name, is other.
 */
import { describeMask } from './mask-text.ts'
import {
  type AllowList,
  APPROVALS,
  DEFAULT_LIMITS,
  EVENTS,
  LAUNCHES,
  LIMIT_PATHS,
  type Limits,
  type Policy,
} from './policy.ts'
import { formatDuration, formatSize } from './quantity.ts'
import { assessRisk, type RiskLevel } from './risk.ts'
import { ANY_MASK, MASK_DOMAINS, type MaskDomain, type Vocabulary } from './vocabulary.ts'

export interface Difference {
  /** The field, e.g. `spec.rights.progs`. */
  readonly path: string
  /** What each policy has there; undefined: nothing. */
  readonly before: string | undefined
  readonly after: string | undefined
  /** Of the second policy, against the first. */
  readonly grants: 'more' | 'less' | 'other'
}

export interface PolicyDifferences {
  readonly differences: readonly Difference[]
  readonly risk: { readonly before: RiskLevel; readonly after: RiskLevel }
}

export function comparePolicies(before: Policy, after: Policy, vocabulary: Vocabulary): PolicyDifferences {
  return {
    differences: [
      ...other('metadata.name', before.name, after.name),
      ...other('metadata.description', before.description, after.description),
      ...subjects(before, after),
      ...MASK_DOMAINS.flatMap(domain => rights(domain, before, after, vocabulary)),
      ...items('spec.rights.capabilities', before.rights.capabilities, after.rights.capabilities),
      ...(Object.keys(LIMIT_PATHS) as (keyof Limits)[]).flatMap(field =>
        limit(field, before.limits, after.limits),
      ),
      ...allowList('spec.programs.digests', before.programs.digests, after.programs.digests),
      ...allowList('spec.targets.functions', before.targets.functions, after.targets.functions),
      ...CHOICES.flatMap(([path, of, order]) => choice(path, of(before), of(after), order)),
    ],
    risk: { before: assessRisk(before, vocabulary).level, after: assessRisk(after, vocabulary).level },
  }
}

function other(path: string, before: string | undefined, after: string | undefined): Difference[] {
  return before === after ? [] : [{ path, before, after, grants: 'other' }]
}

/** What only one of two lists has. */
function items(path: string, before: readonly string[], after: readonly string[]): Difference[] {
  return [
    ...before
      .filter(one => !after.includes(one))
      .map(one => ({ path, before: one, after: undefined, grants: 'less' as const })),
    ...after
      .filter(one => !before.includes(one))
      .map(one => ({ path, before: undefined, after: one, grants: 'more' as const })),
  ]
}

function rights(domain: MaskDomain, before: Policy, after: Policy, vocabulary: Vocabulary): Difference[] {
  const path = `spec.rights.${domain}`
  const [a, b] = [before.rights.masks[domain], after.rights.masks[domain]]
  // `any` stays one word: it is not cut to the bits that this kernel knows.
  if (a !== b && (a === ANY_MASK || b === ANY_MASK)) {
    const text = (mask: bigint) => describeMask(vocabulary, domain, mask).join(' ') || undefined
    return [{ path, before: text(a), after: text(b), grants: b === ANY_MASK ? 'more' : 'less' }]
  }
  const words = (mask: bigint) => describeMask(vocabulary, domain, mask)
  return items(path, words(a & ~b), words(b & ~a))
}

/** No list is everybody whom root names; each entry lets in more. */
function subjects(before: Policy, after: Policy): Difference[] {
  const path = 'spec.subjects'
  const texts = (policy: Policy) => policy.subjects?.map(entry => JSON.stringify(entry))
  const [a, b] = [texts(before), texts(after)]
  if (a !== undefined && b !== undefined) return items(path, a, b)
  if (a === b) return []
  const text = (list: string[] | undefined) => (list === undefined ? undefined : list.join(' ') || 'nobody')
  return [{ path, before: text(a), after: text(b), grants: b === undefined ? 'more' : 'less' }]
}

function limit(field: keyof Limits, before: Limits, after: Limits): Difference[] {
  const effective = (limits: Limits) => limits[field] ?? (DEFAULT_LIMITS as Limits)[field]
  const text = (limits: Limits): string | undefined => {
    const value = effective(limits)
    if (value === undefined) return undefined
    const shown =
      field === 'mapBytes'
        ? formatSize(BigInt(value))
        : field === 'lifetimeSec'
          ? formatDuration(Number(value))
          : String(value)
    return limits[field] === undefined ? `${shown} (default)` : shown
  }
  if (before[field] === after[field]) return []
  const [a, b] = [effective(before), effective(after)]
  // A default that is stated is the same limit, but then a guard is needed.
  const grants = a === b ? 'other' : a !== undefined && (b === undefined || b > a) ? 'more' : 'less'
  return [{ path: LIMIT_PATHS[field], before: text(before), after: text(after), grants }]
}

function allowList(path: string, before: AllowList, after: AllowList): Difference[] {
  if (before !== 'any' && after !== 'any') return items(path, before, after)
  if (before === after) return []
  const text = (list: AllowList) => (list === 'any' ? 'any' : list.join(' ') || 'none')
  return [{ path, before: text(before), after: text(after), grants: after === 'any' ? 'more' : 'less' }]
}

type Choice = string | number | boolean

/** Each field with its values, from the one that grants least to the one that grants most. */
const CHOICES: readonly (readonly [string, (policy: Policy) => Choice, readonly Choice[]])[] = [
  ['spec.approval', ({ approval }) => approval, APPROVALS.toReversed()],
  ['spec.launch', ({ launch = 'none' }) => launch, LAUNCHES],
  ['spec.sharing.bindMount', ({ sharing }) => sharing.bindMount, [false, true]],
  ['spec.sharing.passToken', ({ sharing }) => sharing.passToken, [false, true]],
  ['spec.revocable', ({ revocable }) => revocable, [true, false]],
  ['spec.network', ({ network }) => network, ['own', 'host']],
  ['spec.cgroups', ({ cgroups }) => cgroups, ['own', 'any']],
  ['spec.guard', ({ guard }) => guard, ['required', 'optional']],
  ['spec.derive.allowed', ({ derive }) => derive.allowed, [false, true]],
  ['spec.derive.maxDepth', ({ derive }) => derive.maxDepth, Array.from({ length: 17 }, (_, i) => i)],
  ['spec.mode', ({ mode }) => mode, ['enforce', 'permissive']],
  // As with derived delegations, the stricter one records more.
  ['spec.events', ({ events }) => events, EVENTS.toReversed()],
]

function choice(path: string, before: Choice, after: Choice, order: readonly Choice[]): Difference[] {
  if (before === after) return []
  const grants = order.indexOf(after) > order.indexOf(before) ? 'more' : 'less'
  return [{ path, before: String(before), after: String(after), grants }]
}
