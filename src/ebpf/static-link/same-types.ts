/**
 * Which types of a blob are the same: of each class one is kept. Pure.
 *
 * Types refer to each other in circles, so none can be compared by itself. All start as alike as
 * their own words are; then those whose parts turned out to differ are told apart, again and again,
 * until a round finds nothing new. What is left together is the same. Forward declarations are of
 * the one struct that has their name. Variables and data sections stay what they are.
 */
import { BTF_KIND } from '../btf/type.ts'
import { kindOf, placesIn, type RawType } from './raw-types.ts'

/** More rounds than types are deep. A blob that is not done by then was made to take long. */
const MAX_ROUNDS = 512
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
  const number = (keys: readonly string[]): { classes: Uint32Array; count: number } => {
    const known = new Map<string, number>()
    const classes = new Uint32Array(keys.length)
    for (const [id, key] of keys.entries()) {
      let found = known.get(key)
      if (found === undefined) {
        found = known.size
        known.set(key, found)
      }
      classes[id] = found
    }
    return { classes, count: known.size }
  }
  const own = (type: RawType, id: number): string => {
    const kind = kindOf(type)
    if (id === 0 || kind === BTF_KIND.var || kind === BTF_KIND.datasec) return `only ${id}`
    const words = type.words.slice()
    for (const place of places[id]!) words[place] = 0
    return `${type.info} ${words.join(' ')}`
  }
  let { classes, count } = number(types.map(own))
  for (let round = 0; round < MAX_ROUNDS; round++) {
    const next = number(
      types.map((type, id) => {
        let key = `${classes[id]}`
        for (const place of places[id]!) {
          const part = type.words[place]!
          key += ` ${classes[forwarded.get(part) ?? part]}`
        }
        return key
      }),
    )
    if (next.count === count) return next.classes
    ;({ classes, count } = next)
  }
  // Not known to be the same, and so kept apart.
  return Uint32Array.from(types, (_, id) => id)
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
