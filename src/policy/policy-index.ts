/**
 * Many policies, made ready to be asked whom they name: of a thousand only those are compared that
 * can match at all. Pure; made once each time that policies are read, and asked by `decide`.
 *
 * Each entry of a policy's subjects is filed under one value that a subject must have to match it:
 * a user, a group, a whole name, the text before a pattern's first wildcard, what its runtime tells of
 * its container, or, where only labels are named, that it tells anything. If there are several it is the one that the fewest entries have, so that
 * what all policies say finds none of them. The entry itself is then compared as a whole: where it
 * is filed decides how soon, never whether.
 */
import { globStart } from './glob.ts'
import type { Policy } from './policy.ts'
import type { Subject } from './subject.ts'
import { KINDS, type Known, matcherOf } from './subject-matcher.ts'

/** Where an entry of the subjects of one of several policies is. */
export interface EntryPlace {
  /** The index of the policy. */
  readonly policy: number
  /** The index among its subjects. */
  readonly entry: number
}

interface Filed extends EntryPlace {
  readonly matches: (known: Known) => boolean
}

type NameField = keyof typeof KINDS
/** What a runtime tells in one text each; labels are many. */
const TOLD_FIELDS = ['name', 'image', 'digest', 'namespace'] as const
type ToldField = (typeof TOLD_FIELDS)[number]
type Field = NameField | ToldField | 'user' | 'group' | 'runtime'

const NAME_FIELDS = Object.keys(KINDS) as NameField[]

/** What a subject must have: in `field` this number or text, or a text that begins so. */
interface Key {
  readonly field: Field
  readonly value: string | number
  readonly isStart: boolean
}

/** A runtime tells of the subject's container or pod. */
const TOLD: Key = { field: 'runtime', value: 'told', isStart: false }

/** Entries of one field. Numbers and texts differ, as they do in policies. */
class Drawer {
  readonly whole = new Map<string | number, Filed[]>()
  readonly starts = new Map<string | number, Filed[]>()
  /** Of the keys of `starts`. */
  readonly #lengths = new Set<number>()

  file({ value, isStart }: Key, filed: Filed): void {
    const place = isStart ? this.starts : this.whole
    if (isStart) this.#lengths.add(String(value).length)
    const there = place.get(value)
    if (there === undefined) place.set(value, [filed])
    else there.push(filed)
  }

  *named(name: string): Generator<readonly Filed[]> {
    const whole = this.whole.get(name)
    if (whole !== undefined) yield whole
    for (const length of this.#lengths) {
      const begun = length <= name.length ? this.starts.get(name.slice(0, length)) : undefined
      if (begun !== undefined) yield begun
    }
  }
}

export class PolicyIndex {
  readonly policies: readonly Policy[]
  /** The subjects of all: who asks for the names in them asks for all at once. */
  readonly subjects: readonly Subject[]
  readonly #drawers: Readonly<Record<Field, Drawer>>

  /** The policies must not be changed any more. */
  constructor(policies: readonly Policy[]) {
    this.policies = policies
    this.subjects = policies.flatMap(({ subjects = [] }) => subjects)
    const drawer = (): Drawer => new Drawer()
    this.#drawers = {
      ...{ user: drawer(), group: drawer(), cgroup: drawer(), unit: drawer() },
      ...{ executable: drawer(), label: drawer(), runtime: drawer() },
      ...{ name: drawer(), image: drawer(), digest: drawer(), namespace: drawer() },
    }
    const counts = new Map<string, number>()
    const keysOf = this.subjects.map(entryKeys)
    for (const keys of keysOf)
      for (const key of keys) counts.set(textOf(key), (counts.get(textOf(key)) ?? 0) + 1)
    let at = 0
    policies.forEach(({ subjects = [] }, policy) => {
      const { entries } = matcherOf(subjects)
      for (const [entry, matches] of entries.entries()) {
        const keys = keysOf[at++]!
        // Without a key it matches nobody.
        if (keys.length === 0) continue
        const key = keys.reduce((a, b) => (counts.get(textOf(b))! < counts.get(textOf(a))! ? b : a))
        this.#drawers[key.field].file(key, { policy, entry, matches })
      }
    })
  }

  /** The first entry of the first policy that matches; undefined: none does. */
  first(known: Known): EntryPlace | undefined {
    let best: Filed | undefined
    // They are in the order of the policies and of their entries.
    for (const filed of this.#candidates(known))
      for (const one of filed) {
        if (best !== undefined && !isBefore(one, best)) break
        if (!one.matches(known)) continue
        best = one
        break
      }
    return best
  }

  /** Those of the policies that have an entry that matches, in their order. */
  matching(known: Known): Policy[] {
    const found = new Set<number>()
    for (const filed of this.#candidates(known))
      for (const one of filed) if (!found.has(one.policy) && one.matches(known)) found.add(one.policy)
    return [...found].sort((a, b) => a - b).map(policy => this.policies[policy]!)
  }

  *#candidates(known: Known): Generator<readonly Filed[]> {
    const { user, groups } = known
    if (user !== undefined) yield* called(this.#drawers.user, user)
    if (groups !== undefined && this.#drawers.group.whole.size > 0)
      for (const group of groups) yield* called(this.#drawers.group, group)
    if ((known.container ?? known.kubernetes) !== undefined) {
      const told = this.#drawers.runtime.whole.get(TOLD.value)
      if (told !== undefined) yield told
      for (const field of TOLD_FIELDS) {
        const text = toldText(known, field)
        if (text !== undefined) yield* this.#drawers[field].named(text)
      }
    }
    for (const field of NAME_FIELDS) {
      const name = known[field]
      if (name !== undefined) yield* this.#drawers[field].named(name)
    }
  }
}

function* called({ whole }: Drawer, { id, names }: NonNullable<Known['user']>): Generator<readonly Filed[]> {
  for (const name of id === undefined ? names : [id, ...names]) {
    const filed = whole.get(name)
    if (filed !== undefined) yield filed
  }
}

function isBefore(a: EntryPlace, b: EntryPlace): boolean {
  return a.policy < b.policy || (a.policy === b.policy && a.entry < b.entry)
}

/** Each of them every subject has that the entry matches. None: it matches nobody. */
function entryKeys(entry: Subject): Key[] {
  const keys: Key[] = []
  for (const field of TOLD_FIELDS) {
    const pattern = field === 'namespace' ? entry.kubernetes?.namespace : entry.container?.[field]
    if (pattern === undefined) continue
    const start = globStart(pattern, 'text')
    if (start === undefined) return []
    keys.push({ field, value: start.text, isStart: !start.isWhole })
  }
  // Labels alone are named.
  if (keys.length === 0 && (entry.container ?? entry.kubernetes) !== undefined) keys.push(TOLD)
  for (const field of ['user', 'group'] as const) {
    const value = entry[field]
    if (value !== undefined) keys.push({ field, value, isStart: false })
  }
  for (const field of NAME_FIELDS) {
    const pattern = entry[field]
    if (pattern === undefined) continue
    const start = globStart(pattern, KINDS[field])
    if (start === undefined) return []
    keys.push({ field, value: start.text, isStart: !start.isWhole })
  }
  return keys
}

/** Undefined: the runtime has not told it. */
function toldText({ container, kubernetes }: Known, field: ToldField): string | undefined {
  return field === 'namespace' ? kubernetes?.namespace : container?.[field]
}

function textOf({ field, value, isStart }: Key): string {
  return `${field} ${typeof value} ${isStart} ${value}`
}
