/**
 * Whether the subjects of a policy name somebody, without saying why: what `decide` asks of each
 * policy, while it traces those that are looked at. Pure; made once for each policy.
 */
import { type GlobKind, globMatcher, nameFault } from './glob.ts'
import type { ContainerFacts, Fact, Identity, PodFacts, Subject, SubjectFacts } from './subject.ts'

/** The facts of a subject that can be compared; undefined: it is unknown, and matches nothing. */
export interface Known {
  readonly user: Identity | undefined
  readonly groups: readonly Identity[] | undefined
  readonly cgroup: string | undefined
  readonly unit: string | undefined
  readonly executable: string | undefined
  readonly label: string | undefined
  readonly container: ContainerFacts | undefined
  readonly kubernetes: PodFacts | undefined
}

export function knownOf(subject: SubjectFacts): Known {
  const { user, groups, cgroup, unit, executable, label, container, kubernetes } = subject
  return {
    user: 'is' in user ? user.is : undefined,
    groups: 'is' in groups ? groups.is : undefined,
    cgroup: nameIn(cgroup, KINDS.cgroup),
    unit: nameIn(unit, KINDS.unit),
    executable: nameIn(executable, KINDS.executable),
    label: nameIn(label, KINDS.label),
    container: container !== undefined && 'is' in container ? container.is : undefined,
    kubernetes: kubernetes !== undefined && 'is' in kubernetes ? kubernetes.is : undefined,
  }
}

/** How the patterns of each name are meant. */
export const KINDS = {
  cgroup: 'path',
  unit: 'text',
  executable: 'path',
  label: 'text',
} as const satisfies Record<string, GlobKind>

function nameIn(fact: Fact<string>, kind: GlobKind): string | undefined {
  return 'is' in fact && nameFault(fact.is, kind) === undefined ? fact.is : undefined
}

/** A number is compared with the number, a text with the names. */
export function isCalled({ id, names }: Identity, wanted: string | number): boolean {
  return typeof wanted === 'number' ? id === wanted : names.includes(wanted)
}

type Test = (known: Known) => boolean

/** One for each field of the schema, so that a field cannot be added and not compared. */
const TESTS: { readonly [F in keyof Subject]-?: (wanted: NonNullable<Subject[F]>) => Test } = {
  user:
    wanted =>
    ({ user }) =>
      user !== undefined && isCalled(user, wanted),
  group:
    wanted =>
    ({ groups }) =>
      groups?.some(group => isCalled(group, wanted)) === true,
  cgroup: wanted => nameTest('cgroup', wanted),
  unit: wanted => nameTest('unit', wanted),
  executable: wanted => nameTest('executable', wanted),
  label: wanted => nameTest('label', wanted),
  container: wanted => {
    const parts = partTests({ ...wanted, labels: undefined }, wanted.labels)
    return ({ container }) => container !== undefined && parts(container)
  },
  // Nobody here knows a pod's service account.
  kubernetes: ({ namespace, labels, serviceAccount }) => {
    if (serviceAccount !== undefined) return never
    const parts = partTests({ namespace }, labels)
    return ({ kubernetes }) => kubernetes !== undefined && parts(kubernetes)
  },
}

const never = (): boolean => false

type Parts = { readonly labels?: Readonly<Record<string, string | undefined>> | undefined }

/** Each text that is wanted, and each label, must be known and match. Fail closed: none match nobody. */
function partTests(
  texts: Readonly<Record<string, string | undefined>>,
  labels: Readonly<Record<string, string | undefined>> | undefined,
): (facts: Parts) => boolean {
  const tests = [
    ...Object.entries(texts).flatMap(([field, pattern]) =>
      pattern === undefined ? [] : [textTest(pattern, facts => own(facts, field))],
    ),
    ...Object.entries(labels ?? {}).flatMap(([label, pattern]) =>
      pattern === undefined ? [] : [textTest(pattern, facts => own(facts.labels ?? {}, label))],
    ),
  ]
  return facts => tests.length > 0 && tests.every(test => test(facts))
}

function textTest(pattern: string, textOf: (facts: Parts) => unknown): (facts: Parts) => boolean {
  const matches = globMatcher(pattern, 'text')
  return facts => {
    const text = textOf(facts)
    return typeof text === 'string' && nameFault(text, 'text') === undefined && matches(text)
  }
}

function own(facts: object, field: string): unknown {
  return Object.hasOwn(facts, field) ? (facts as Record<string, unknown>)[field] : undefined
}

/** Whether the runtime's facts are those that the entry names, for a trace of it. */
export function factsMatch<F extends 'container' | 'kubernetes'>(
  field: F,
  wanted: NonNullable<Subject[F]>,
  facts: ContainerFacts & Partial<PodFacts>,
): boolean {
  return TESTS[field](wanted as never)({ [field]: facts } as unknown as Known)
}

function nameTest(field: keyof typeof KINDS, wanted: string): Test {
  const matches = globMatcher(wanted, KINDS[field])
  return known => {
    const name = known[field]
    return name !== undefined && matches(name)
  }
}

export interface SubjectMatcher {
  /** Whether each of the entries matches. */
  readonly entries: readonly Test[]
  /** The index of the first entry that matches, or -1. */
  readonly first: (known: Known) => number
  /** Every entry, and there is one, names what nobody can know. */
  readonly unsupported: boolean
}

const matchers = new WeakMap<readonly Subject[], SubjectMatcher>()

export function matcherOf(subjects: readonly Subject[]): SubjectMatcher {
  const made = matchers.get(subjects)
  if (made !== undefined) return made
  const entries = subjects.map(testOf)
  const matcher = {
    entries,
    first: (known: Known): number => {
      for (let i = 0; i < entries.length; i++) if (entries[i]!(known)) return i
      return -1
    },
    unsupported:
      subjects.length > 0 && subjects.every(({ kubernetes }) => kubernetes?.serviceAccount !== undefined),
  }
  matchers.set(subjects, matcher)
  return matcher
}

/** Every field that is stated must match. Fail closed: an entry that says nothing matches nobody. */
function testOf(entry: Subject): Test {
  const tests = (Object.keys(TESTS) as (keyof Subject)[])
    .filter(field => entry[field] !== undefined)
    // The compiler does not see that the field and its value go together.
    .map(field => TESTS[field](entry[field] as never))
  const [first, second] = tests
  if (first === undefined) return never
  if (second === undefined) return first
  return known => {
    for (let i = 0; i < tests.length; i++) if (!tests[i]!(known)) return false
    return true
  }
}
