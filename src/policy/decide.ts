/**
 * Who gets a delegation: a verdict with its trace. Pure: the same facts, the same verdict.
 *
 * A policy without `subjects` restricts nobody: the operator who names it decides. With `subjects`,
 * any one entry must match, and within it every field; nobody else gets it, and with an empty list
 * nobody at all. An unknown fact never matches. A refusal is a value; the trace says of each
 * policy, entry and field why.
 */
import { type GlobKind, globMatches, nameFault } from './glob.ts'
import type { Policy } from './policy.ts'
import { type EntryPlace, PolicyIndex } from './policy-index.ts'
import type { Fact, Identity, Subject, SubjectFacts } from './subject.ts'
import { factsMatch, isCalled, KINDS, type Known, knownOf, matcherOf } from './subject-matcher.ts'

export interface Request {
  /**
   * Who named the policy: somebody who may lend anything, or the subject, which asks for itself.
   */
  readonly by: 'operator' | 'subject'
  /**
   * The operator lends also to a subject that the policy does not name. Of no effect `by` a
   * subject.
   */
  readonly anySubject?: boolean
}

type SubjectField = keyof Subject

export interface FieldTrace {
  readonly field: SubjectField
  /** What the entry says, as text. */
  readonly wanted: string
  /** `unknown`: nobody can say it of this subject; `unsupported`: of no subject, on any machine. */
  readonly outcome: 'matches' | 'differs' | 'unknown' | 'unsupported'
  /** What the subject is, or why that is not known. */
  readonly found: string
}

export interface EntryTrace {
  /** The entry, e.g. `spec.subjects[0]`. */
  readonly path: string
  readonly matches: boolean
  readonly fields: readonly FieldTrace[]
}

export interface PolicyTrace {
  readonly policy: string
  /**
   * `unstated`: the policy has no `subjects`; `nobody`: the list is empty; else what came of the
   * entries.
   */
  readonly subjects: 'unstated' | 'nobody' | 'matched' | 'unmatched' | 'unsupported'
  readonly entries: readonly EntryTrace[]
}

interface Judged {
  /** The time of the decision. */
  readonly at: string
  readonly trace: readonly PolicyTrace[]
}

export interface Allowed extends Judged {
  readonly allowed: true
  /** The policy that allows it: the first that does. */
  readonly policy: string
  /**
   * An entry matched; or no subjects are stated, and the operator decides; or the operator
   * overrides them.
   */
  readonly because: 'subject' | 'operator' | 'any-subject'
  /** The entry that matched, e.g. `spec.subjects[0]`. */
  readonly entry?: string
}

export interface Refused extends Judged {
  readonly allowed: false
  /** `unsupported`: every entry of every policy names what cannot be known here. */
  readonly because: 'nobody-matches' | 'unsupported'
}

export type Verdict = Allowed | Refused

/**
 * Whether `subject` gets a delegation under one of `policies`, and why. Of many policies that are
 * asked for again and again make an index once. The trace is made when it is read: of a thousand
 * policies it takes a thousand times as long as the verdict.
 */
export function decide(
  subject: SubjectFacts,
  request: Request,
  policies: readonly Policy[] | PolicyIndex,
  now: Date,
): Verdict {
  const isIndex = policies instanceof PolicyIndex
  const all = isIndex ? policies.policies : policies
  const judged = { at: now.toISOString() }
  const traced = <V extends object>(verdict: V) => withTrace(verdict, all, subject)
  const known = knownOf(subject)
  const found = isIndex ? policies.first(known) : firstIn(policies, known)
  if (request.by === 'operator') {
    const unstated = all.find(
      ({ subjects }, i) => subjects === undefined && i < (found?.policy ?? all.length),
    )
    if (unstated !== undefined)
      return traced({ allowed: true, policy: unstated.name, because: 'operator', ...judged })
  }
  if (found !== undefined) {
    const { name: policy } = all[found.policy]!
    return traced({ allowed: true, policy, because: 'subject', entry: pathOfEntry(found.entry), ...judged })
  }
  const [first] = all
  if (request.by === 'operator' && request.anySubject === true && first !== undefined)
    return traced({ allowed: true, policy: first.name, because: 'any-subject', ...judged })
  const because = isUnsupported(all) ? 'unsupported' : 'nobody-matches'
  return traced({ allowed: false, because, ...judged })
}

/** What `PolicyIndex.first` finds, of policies that are asked for once. */
function firstIn(policies: readonly Policy[], known: Known): EntryPlace | undefined {
  for (const [policy, { subjects }] of policies.entries()) {
    const entry = subjects === undefined ? -1 : matcherOf(subjects).first(known)
    if (entry >= 0) return { policy, entry }
  }
  return undefined
}

function isUnsupported(policies: readonly Policy[]): boolean {
  return (
    policies.length > 0 &&
    policies.every(({ subjects }) => subjects !== undefined && matcherOf(subjects).unsupported)
  )
}

function withTrace<V extends object>(
  verdict: V,
  policies: readonly Policy[],
  subject: SubjectFacts,
): V & Pick<Judged, 'trace'> {
  let trace: readonly PolicyTrace[] | undefined
  return Object.defineProperty(verdict, 'trace', {
    enumerable: true,
    get: () => {
      trace ??= policies.map(policy => tracePolicy(policy, subject))
      return trace
    },
  }) as V & Pick<Judged, 'trace'>
}

function pathOfEntry(index: number): string {
  return `spec.subjects[${index}]`
}

function tracePolicy(policy: Policy, subject: SubjectFacts): PolicyTrace {
  const { name, subjects } = policy
  if (subjects === undefined) return { policy: name, subjects: 'unstated', entries: [] }
  const entries = subjects.map((entry, i) => traceEntry(entry, pathOfEntry(i), subject))
  return { policy: name, subjects: summary(entries), entries }
}

function summary(entries: readonly EntryTrace[]): PolicyTrace['subjects'] {
  if (entries.length === 0) return 'nobody'
  if (entries.some(({ matches }) => matches)) return 'matched'
  const needsMore = ({ fields }: EntryTrace): boolean =>
    fields.some(({ outcome }) => outcome === 'unsupported')
  return entries.every(needsMore) ? 'unsupported' : 'unmatched'
}

function traceEntry(entry: Subject, path: string, subject: SubjectFacts): EntryTrace {
  const fields = (Object.keys(entry) as SubjectField[])
    .filter(field => entry[field] !== undefined)
    .map(field => traceField(entry, field, subject))
  // Fail closed: an entry that says nothing matches nobody.
  const matches = fields.length > 0 && fields.every(({ outcome }) => outcome === 'matches')
  return { path, matches, fields }
}

function traceField(entry: Subject, field: SubjectField, subject: SubjectFacts): FieldTrace {
  const wanted = entry[field]
  const text = typeof wanted === 'object' ? JSON.stringify(wanted) : String(wanted)
  // The compiler does not see that the field and its value go together.
  return { field, wanted: text, ...COMPARE[field](wanted as never, subject) }
}

type Comparison = Pick<FieldTrace, 'outcome' | 'found'>
type Compare<F extends SubjectField> = (wanted: NonNullable<Subject[F]>, subject: SubjectFacts) => Comparison

/** One for each field of the schema, so that a field cannot be added and not compared. */
const COMPARE: { readonly [F in SubjectField]-?: Compare<F> } = {
  user: (wanted, { user }) => compare(user, is => isCalled(is, wanted), identityText),
  group: (wanted, { groups }) =>
    compare(
      groups,
      all => all.some(group => isCalled(group, wanted)),
      all => all.map(identityText).join(', ') || 'in no group',
    ),
  cgroup: (wanted, { cgroup }) => compareName(wanted, cgroup, KINDS.cgroup),
  unit: (wanted, { unit }) => compareName(wanted, unit, KINDS.unit),
  executable: (wanted, { executable }) => compareName(wanted, executable, KINDS.executable),
  label: (wanted, { label }) => compareName(wanted, label, KINDS.label),
  container: (wanted, { container = UNTOLD }) =>
    compare(container, is => factsMatch('container', wanted, is), JSON.stringify),
  kubernetes: (wanted, { kubernetes = UNTOLD }) =>
    wanted.serviceAccount === undefined
      ? compare(kubernetes, is => factsMatch('kubernetes', wanted, is), JSON.stringify)
      : UNSUPPORTED,
}

const UNTOLD: Fact<never> = { unknown: 'no runtime has said of what container it is' }

/** No runtime knows it; whoever watches the cluster's pods would. */
const UNSUPPORTED: Comparison = { outcome: 'unsupported', found: 'its service account cannot be known here' }

function compare<T>(fact: Fact<T>, matches: (is: T) => boolean, text: (is: T) => string): Comparison {
  if ('unknown' in fact) return { outcome: 'unknown', found: fact.unknown }
  return { outcome: matches(fact.is) ? 'matches' : 'differs', found: text(fact.is) }
}

function compareName(pattern: string, fact: Fact<string>, kind: GlobKind): Comparison {
  const fault = 'is' in fact ? nameFault(fact.is, kind) : undefined
  if (fault !== undefined) return { outcome: 'unknown', found: fault }
  return compare(
    fact,
    name => globMatches(pattern, name, kind),
    name => name,
  )
}

function identityText({ id, names }: Identity): string {
  if (id === undefined) return names.join(', ')
  return names.length === 0 ? String(id) : `${id} (${names.join(', ')})`
}
