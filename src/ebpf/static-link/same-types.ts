/**
 * Which types of a blob are the same: of each class one is kept. Pure.
 *
 * Types refer to each other in circles, so none can be compared by itself. All start as alike as
 * their own words are; then those whose parts turned out to differ are told apart, until there is
 * nothing left to tell them by. What is left together is the same. Forward declarations are of
 * the one struct that has their name. Variables and data sections stay what they are.
 */
import { BTF_KIND } from '../btf/type.ts'
import { kindOf, placesIn, type RawType } from './raw-types.ts'

const FORWARD_ROUNDS = 3

/** The types without what is there twice, and the new id of each old one. */
export function withoutDoubles(types: readonly RawType[]): { types: RawType[]; newId: Uint32Array } {
  const forwarded = new Map<number, number>()
  let classes = classesOf(types, forwarded)
  for (let round = 0; round < FORWARD_ROUNDS && resolveForwards(types, classes, forwarded); round++)
    classes = classesOf(types, forwarded)

  const kept: RawType[] = [types[0]!]
  const idOf = new Map<number, number>()
  const newId = new Uint32Array(types.length)
  for (let id = 1; id < types.length; id++) {
    if (forwarded.has(id)) continue
    const of = classes[id]!
    let number = idOf.get(of)
    if (number === undefined) {
      number = kept.length
      idOf.set(of, number)
      kept.push({ info: types[id]!.info, words: types[id]!.words.slice() })
    }
    newId[id] = number
  }
  for (const [id, struct] of forwarded) newId[id] = newId[struct]!
  for (const type of kept.slice(1))
    for (const place of placesIn(type).types) type.words[place] = newId[type.words[place]!]!
  return { types: kept, newId }
}

/** A number for each type; the same for those that are the same. */
function classesOf(types: readonly RawType[], forwarded: ReadonlyMap<number, number>): Uint32Array {
  const places = types.map(type => placesIn(type).types)
  const classes = new Classes(types.map((type, id) => ownKey(type, id, places[id]!)))
  // Who refers to a type, and by which of its parts.
  const users = types.map((): { readonly id: number; readonly part: number }[] => [])
  for (const [id, type] of types.entries())
    for (const [part, place] of places[id]!.entries()) {
      const of = type.words[place]!
      users[forwarded.get(of) ?? of]!.push({ id, part })
    }
  for (let by = classes.take(); by !== undefined; by = classes.take()) {
    const parts = new Map<number, string>()
    for (const member of by)
      for (const { id, part } of users[member]!) parts.set(id, `${parts.get(id) ?? ''} ${part}`)
    classes.split(parts)
  }
  return classes.of
}

/** What a type is by itself, without the types that it refers to. */
function ownKey(type: RawType, id: number, places: readonly number[]): string {
  const kind = kindOf(type)
  if (id === 0 || kind === BTF_KIND.var || kind === BTF_KIND.datasec) return `only ${id}`
  const words = type.words.slice()
  for (const place of places) words[place] = 0
  return `${type.info} ${words.join(' ')}`
}

/**
 * Classes of types that are not yet told apart, as in Hopcroft's algorithm: a class is looked at
 * again only as the smaller part of what was looked at before, so each type is in few of them, and
 * the whole takes n log n.
 */
class Classes {
  /** By id. */
  readonly of: Uint32Array
  readonly #members: Set<number>[] = []
  /** Classes that others are to be told apart by. */
  readonly #waiting: Set<number>

  /** Types of one key are in one class. */
  constructor(keys: readonly string[]) {
    this.of = new Uint32Array(keys.length)
    const numbers = new Map<string, number>()
    for (const [id, key] of keys.entries()) {
      const number = numbers.get(key) ?? numbers.size
      numbers.set(key, number)
      this.of[id] = number
      this.#members[number] = (this.#members[number] ?? new Set()).add(id)
    }
    this.#waiting = new Set(this.#members.keys())
  }

  /** Members of a class that is waiting; undefined: none is. */
  take(): readonly number[] | undefined {
    for (const number of this.#waiting) {
      this.#waiting.delete(number)
      return [...this.#members[number]!]
    }
    return undefined
  }

  /** Tells apart members of a class that have different keys; those without a key have one, too. */
  split(keys: ReadonlyMap<number, string>): void {
    const groups = new Map<number, Map<string, number[]>>()
    for (const [id, key] of keys) {
      const number = this.of[id]!
      const byKey = groups.get(number) ?? new Map<string, number[]>()
      groups.set(number, byKey)
      const group = byKey.get(key)
      if (group === undefined) byKey.set(key, [id])
      else group.push(id)
    }
    for (const [number, byKey] of groups) this.#divide(number, [...byKey.values()])
  }

  #divide(number: number, groups: readonly (readonly number[])[]): void {
    const members = this.#members[number]!
    const touched = groups.reduce((sum, { length }) => sum + length, 0)
    // One of them stays where it is.
    const moved = touched < members.size ? groups : groups.slice(1)
    const parts = [number]
    for (const group of moved) {
      const made = this.#members.length
      this.#members.push(new Set(group))
      parts.push(made)
      for (const id of group) {
        members.delete(id)
        this.of[id] = made
      }
    }
    const sizeOf = (part: number) => this.#members[part]!.size
    const largest = this.#waiting.has(number)
      ? undefined
      : parts.reduce((a, b) => (sizeOf(b) > sizeOf(a) ? b : a))
    for (const part of parts) if (part !== largest) this.#waiting.add(part)
  }
}

/** Takes forward declarations for the struct or union of their name; false: nothing is new. */
function resolveForwards(
  types: readonly RawType[],
  classes: Uint32Array,
  forwarded: Map<number, number>,
): boolean {
  const FLAG = 0x8000_0000
  /** First id of each, by kind and name; 0: several different ones have it. */
  const named = new Map<string, number>()
  for (const [id, type] of types.entries()) {
    const kind = kindOf(type)
    if ((kind !== BTF_KIND.struct && kind !== BTF_KIND.union) || type.words[0] === 0) continue
    const key = `${kind} ${type.words[0]}`
    const first = named.get(key)
    if (first === undefined) named.set(key, id)
    else if (first !== 0 && classes[first] !== classes[id]) named.set(key, 0)
  }
  let isNew = false
  for (const [id, type] of types.entries()) {
    if (kindOf(type) !== BTF_KIND.fwd || forwarded.has(id)) continue
    const kind = (type.info & FLAG) === 0 ? BTF_KIND.struct : BTF_KIND.union
    const struct = named.get(`${kind} ${type.words[0]}`)
    if (struct === undefined || struct === 0) continue
    forwarded.set(id, struct)
    isNew = true
  }
  return isNew
}
