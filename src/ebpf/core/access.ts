/**
 * What a CO-RE relocation is about: a path of fields and array elements, a value of an enum, or a
 * whole type. Pure.
 *
 * The compiler writes places: `0:1:2` of `struct s` is the third part of what the second member of
 * `s` is. Read with the program's types that becomes names, `s::b.c`, and with a kernel's types
 * places and an offset again.
 *
 *   struct s { int a; struct { int b; int c[4]; }; };      0:1:1:2  =  s::c[2]  =  bit 128
 *
 * Rules: libbpf `src/relo_core.c` (LGPL-2.1 or BSD-2-Clause), bpf_core_parse_spec and
 * bpf_core_spec_match.
 */
import { bpf_core_relo_kind as KIND } from '../../uapi/bpf.ts'
import type { BtfArray } from '../btf/btf.ts'
import { essentialName } from '../btf/names.ts'
import type { CoreRelo } from '../object/ext-info.ts'
import { fieldsCompatible } from './match.ts'
import { type CoreTypes, coreError, isComposite, isEnum, namedParts } from './types.ts'

/** A step with a meaning: a named field of `type`, or an element; then `type` is the element's. */
export interface CoreStep {
  readonly type: number
  readonly at: number
  /** Undefined: an element. */
  readonly name: string | undefined
}

/** A relocation's subject in the types of one BTF. */
export interface CoreAccess {
  readonly types: CoreTypes
  /** Type id as it was written or found, before typedefs are looked through. */
  readonly root: number
  /**
   * Of fields all of them, of enums the value, of types none. The first one is the element of a
   * pointed array.
   */
  readonly steps: readonly CoreStep[]
  readonly bitOff: number
}

export type Subject = 'field' | 'type' | 'value'

const SUBJECTS: ReadonlyMap<number, Subject> = new Map([
  [KIND.BPF_CORE_FIELD_BYTE_OFFSET, 'field'],
  [KIND.BPF_CORE_FIELD_BYTE_SIZE, 'field'],
  [KIND.BPF_CORE_FIELD_EXISTS, 'field'],
  [KIND.BPF_CORE_FIELD_SIGNED, 'field'],
  [KIND.BPF_CORE_FIELD_LSHIFT_U64, 'field'],
  [KIND.BPF_CORE_FIELD_RSHIFT_U64, 'field'],
  [KIND.BPF_CORE_TYPE_ID_LOCAL, 'type'],
  [KIND.BPF_CORE_TYPE_ID_TARGET, 'type'],
  [KIND.BPF_CORE_TYPE_EXISTS, 'type'],
  [KIND.BPF_CORE_TYPE_SIZE, 'type'],
  [KIND.BPF_CORE_TYPE_MATCHES, 'type'],
  [KIND.BPF_CORE_ENUMVAL_EXISTS, 'value'],
  [KIND.BPF_CORE_ENUMVAL_VALUE, 'value'],
])

/**
 * As libbpf: longer paths are refused, of the program and through the kernel's anonymous members.
 */
const MAX_PLACES = 64
const MAX_PLACE = 0x7fff_ffff
const MAX_BITS = 0xffff_ffff
const PATH = /^\d+(:\d+)*$/

export function subjectOf(kind: number): Subject {
  const subject = SUBJECTS.get(kind)
  if (subject === undefined) throw coreError(`kind ${kind} of relocation is not known`)
  return subject
}

function parsePath(path: string): number[] {
  if (!PATH.test(path)) throw coreError(`"${path}" is no path of places`)
  const places = path.split(':').map(Number)
  if (places.length > MAX_PLACES) throw coreError(`path has ${places.length} places, at most ${MAX_PLACES}`)
  if (places.some(place => place > MAX_PLACE)) throw coreError(`path "${path}" leaves 31 bits`)
  return places
}

/** Reads a relocation with the types of its program. */
export function parseAccess(types: CoreTypes, { kind, typeId, access }: CoreRelo): CoreAccess {
  const subject = subjectOf(kind)
  if (subject === 'type') {
    if (access !== '0') throw coreError(`a type has no path, and this is "${access}"`)
    if (typeId !== 0) types.btf.kind(typeId)
    return { types, root: typeId, steps: [], bitOff: 0 }
  }
  const [first, ...places] = parsePath(access) as [number, ...number[]]
  const root = types.resolve(typeId)
  if (subject === 'value') {
    const value = isEnum(root) && places.length === 0 ? root.values[first] : undefined
    if (root === undefined || value === undefined)
      throw coreError(`type id ${typeId} has no value at "${access}"`)
    return { types, root: typeId, steps: [{ type: root.id, at: first, name: value.name }], bitOff: 0 }
  }
  const path = new Path(types, root?.id ?? 0, first)
  for (const place of places) path.descend(place)
  return path.done(typeId)
}

/** Descends through the types of a program, place by place. */
class Path {
  readonly #types: CoreTypes
  readonly #steps: CoreStep[] = []
  #bitOff = 0
  #id: number

  constructor(types: CoreTypes, root: number, first: number) {
    this.#types = types
    this.#id = root
    this.#element(root, first)
  }

  #element(type: number, at: number): void {
    this.#steps.push({ type, at, name: undefined })
    this.#bitOff = addBits(this.#bitOff, at * this.#types.sizeof(type) * 8)
    this.#id = type
  }

  descend(place: number): void {
    const type = this.#types.resolve(this.#id)
    if (isComposite(type)) {
      const member = type.members[place]
      if (member === undefined) throw coreError(`${type.kind} "${type.name}" has no member ${place}`)
      this.#bitOff = addBits(this.#bitOff, member.bitOff)
      if (member.name !== '') this.#steps.push({ type: type.id, at: place, name: member.name })
      this.#id = member.type
    } else if (type?.kind === 'array') {
      if (place >= type.count && !isFlexible(this.#types, this.#steps.at(-1)!, type))
        throw coreError(`array of ${type.count} has no element ${place}`)
      this.#element(this.#types.resolve(type.type)?.id ?? 0, place)
    } else throw coreError(`path leads into a ${type?.kind ?? 'void'}, which has no parts`)
  }

  done(root: number): CoreAccess {
    return { types: this.#types, root, steps: this.#steps, bitOff: this.#bitOff }
  }
}

function addBits(a: number, b: number): number {
  if (a + b > MAX_BITS) throw coreError(`offset of ${a + b} bits leaves 32 bits`)
  return a + b
}

/**
 * An array without length that is the last member of its struct, `reached` by that member's name.
 */
function isFlexible(types: CoreTypes, reached: CoreStep, array: BtfArray): boolean {
  if (reached.name === undefined || array.count > 0) return false
  const holder = types.resolve(reached.type)
  return isComposite(holder) && reached.at === holder.members.length - 1
}

/** The same fields in a kernel's type; undefined: it has them not, or other ones by these names. */
export function matchFields(local: CoreAccess, types: CoreTypes, root: number): CoreAccess | undefined {
  const steps: CoreStep[] = []
  let id = root
  let bitOff = 0
  let places = 0
  for (const step of local.steps) {
    const type = types.resolve(id)
    if (step.name !== undefined) {
      const found = findMember(types, id, step.name, MAX_PLACES - places, new Set())
      if (found === undefined) return undefined
      const holder = local.types.resolve(step.type)
      const wanted = isComposite(holder) ? holder.members[step.at] : undefined
      if (wanted === undefined || !fieldsCompatible(local.types, wanted.type, types, found.member))
        return undefined
      steps.push({ type: found.type, at: found.at, name: step.name })
      places += found.places
      bitOff = addBits(bitOff, found.bitOff)
      id = found.member
      continue
    }
    if (steps.length > 0) {
      if (type?.kind !== 'array') return undefined
      if (step.at >= type.count && !isFlexible(types, steps.at(-1)!, type)) return undefined
      id = type.type
    }
    if (places++ === MAX_PLACES) throw coreError(`fields are nested deeper than ${MAX_PLACES}`)
    id = types.resolve(id)?.id ?? 0
    steps.push({ type: id, at: step.at, name: undefined })
    bitOff = addBits(bitOff, step.at * types.sizeof(id) * 8)
  }
  return { types, root, steps, bitOff }
}

interface FoundMember {
  /** The struct or union that has it. */
  readonly type: number
  readonly at: number
  /** The member's own type. */
  readonly member: number
  readonly bitOff: number
  /** How deep it lies: 1 without anonymous members on the way. */
  readonly places: number
}

/**
 * A member by name, also within anonymous members. `seen`: types that have it not, so that shared
 * ones cost once.
 */
function findMember(
  types: CoreTypes,
  id: number,
  name: string,
  depth: number,
  seen: Set<number>,
): FoundMember | undefined {
  const type = types.resolve(id)
  if (!isComposite(type) || seen.has(type.id)) return undefined
  if (depth === 0 && type.members.length > 0) throw coreError(`fields are nested deeper than ${MAX_PLACES}`)
  types.work(type.members.length)
  for (const [at, member] of type.members.entries()) {
    if (member.name === name)
      return { type: type.id, at, member: member.type, bitOff: member.bitOff, places: 1 }
    if (member.name !== '') continue
    const found = findMember(types, member.type, name, depth - 1, seen)
    if (found !== undefined)
      return { ...found, bitOff: found.bitOff + member.bitOff, places: found.places + 1 }
  }
  seen.add(type.id)
  return undefined
}

/** The value of the same name, without flavour, in a kernel's enum. */
export function matchValue(local: CoreAccess, types: CoreTypes, root: number): CoreAccess | undefined {
  const type = types.resolve(root)
  if (!isEnum(type)) return undefined
  const at = types.places(type).get(essentialName(local.steps[0]!.name!))?.[0]
  if (at === undefined) return undefined
  const step = { type: type.id, at, name: namedParts(type)[at]!.name }
  return { types, root, steps: [step], bitOff: 0 }
}

/** `struct sk_buff::cb[3]`, `enum bpf_cmd::BPF_PROG_LOAD`, `struct task_struct`. */
export function describeAccess({ types, root, steps }: CoreAccess): string {
  const type = root === 0 ? undefined : types.btf.type(root)
  const name = type === undefined ? 'void' : type.name === '' ? '<anonymous>' : type.name
  const kind = type?.kind === 'enum64' ? 'enum' : type?.kind
  const said = kind === 'struct' || kind === 'union' || kind === 'enum' ? `${kind} ${name}` : name
  const path = steps.map(({ at, name }, i) =>
    name !== undefined ? `.${name}` : i === 0 && at === 0 ? '' : `[${at}]`,
  )
  return said + path.join('').replace(/^(\[\d+\])?\./, '$1::')
}
