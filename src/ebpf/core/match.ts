/**
 * Whether two types, one of a program and one of a kernel, mean the same to CO-RE. Pure.
 *
 * Three relations, from loose to strict: fields may stand for each other; types are compatible
 * (`bpf_core_type_exists`); types match (`bpf_core_type_matches`). The rules are those of libbpf's
 * `src/relo_core.c` (LGPL-2.1 or BSD-2-Clause), whose comments explain them; the code is not.
 */
import type { BtfComposite, BtfEnum, BtfEnum64, BtfFwd, BtfType } from '../btf/btf.ts'
import { essentialName } from '../btf/names.ts'
import { type CoreTypes, coreError, isComposite, isEnum, kindsFit, namedParts, wholeInts } from './types.ts'

/** As libbpf: types nested deeper are an error. */
const MAX_DEPTH = 32

type FuncProto = Extract<BtfType, { kind: 'func_proto' }>

/**
 * Whether a field of one type can be read as the other: sizes may differ, kinds may not. Typedefs
 * are looked through.
 */
export function fieldsCompatible(
  local: CoreTypes,
  localId: number,
  target: CoreTypes,
  targetId: number,
): boolean {
  for (let depth = 0; depth < MAX_DEPTH; depth++) {
    const a = local.resolve(localId)
    const b = target.resolve(targetId)
    if (isComposite(a) && isComposite(b)) return true
    if (a === undefined || b === undefined || !kindsFit(a, b)) return false
    switch (a.kind) {
      case 'ptr':
      case 'float':
        return true
      case 'fwd':
      case 'enum':
      case 'enum64':
        return a.name === '' || b.name === '' || essentialName(a.name) === essentialName(b.name)
      case 'int':
        return b.kind === 'int' && wholeInts(a, b)
      case 'array':
        if (b.kind !== 'array') return false
        localId = a.type
        targetId = b.type
        break
      default:
        return false
    }
  }
  throw tooDeep()
}

/** Compares the types of one program with those of one kernel; remembers what it found. */
export class CoreMatcher {
  readonly #local: CoreTypes
  readonly #target: CoreTypes
  readonly #known = new Map<string, boolean>()

  constructor(local: CoreTypes, target: CoreTypes) {
    this.#local = local
    this.#target = target
  }

  /**
   * The names have been compared by the caller; typedefs are types of their own at the root only.
   */
  compatible(localId: number, targetId: number): boolean {
    const a = this.#local.btf
    const b = this.#target.btf
    if (localId !== 0 && targetId !== 0 && !kindsFit(a.type(localId), b.type(targetId))) return false
    return this.#compatible(localId, targetId, MAX_DEPTH)
  }

  #compatible(localId: number, targetId: number, level: number): boolean {
    return this.#once(`compatible ${localId} ${targetId}`, () => {
      let [a, b] = [this.#local.resolve(localId), this.#target.resolve(targetId)]
      for (let depth = 0; depth < MAX_DEPTH; depth++) {
        if (!kindsFit(a, b)) return false
        if (a === undefined || b === undefined) return true
        switch (a.kind) {
          case 'struct':
          case 'union':
          case 'enum':
          case 'enum64':
          case 'fwd':
            return true
          case 'int':
            return b.kind === 'int' && wholeInts(a, b)
          case 'func_proto':
            if (!this.#sameParams(a, b as FuncProto, level, this.#compatible)) return false
        }
        if (!leadsOn(a) || !leadsOn(b)) return false
        a = this.#local.resolve(a.type)
        b = this.#target.resolve(b.type)
      }
      throw tooDeep()
    })
  }

  #sameParams(
    a: FuncProto,
    b: FuncProto,
    level: number,
    same: (localId: number, targetId: number, level: number) => boolean,
  ): boolean {
    if (a.params.length !== b.params.length) return false
    if (a.params.length > 0 && level <= 0) throw tooDeep()
    this.#target.work(a.params.length)
    return a.params.every(({ type }, i) => same.call(this, type, b.params[i]!.type, level - 1))
  }

  /**
   * Structs by their members' names and types, enums by their values' names, the rest by shape.
   * Behind a pointer only kind and name of a struct count.
   */
  matches(localId: number, targetId: number): boolean {
    return this.#matches(localId, targetId, false, MAX_DEPTH)
  }

  #matches(localId: number, targetId: number, behindPointer: boolean, level: number): boolean {
    if (level <= 0) throw tooDeep()
    return this.#once(`matches ${localId} ${targetId} ${behindPointer}`, () => {
      let behind = behindPointer
      let [a, b] = [this.#local.resolve(localId), this.#target.resolve(targetId)]
      for (let depth = 0; depth < MAX_DEPTH; depth++) {
        if (essentialName(a?.name ?? '') !== essentialName(b?.name ?? '')) return false
        if (a === undefined || b === undefined) return a === b
        switch (a.kind) {
          case 'fwd':
            return sameForward(a, b, behind)
          case 'enum':
          case 'enum64':
            return isEnum(b) && a.size === b.size && this.#hasValues(a, b)
          case 'struct':
          case 'union':
            if (behind) return a.kind === b.kind || (b.kind === 'fwd' && (a.kind === 'union') === b.union)
            return a.kind === b.kind && this.#hasMembers(a, b as BtfComposite, level)
          case 'int':
            return b.kind === 'int' && a.size === b.size && a.signed === b.signed
          case 'ptr':
            behind = true
            break
          case 'array':
            if (b.kind !== 'array' || a.count !== b.count) return false
            break
          case 'func_proto': {
            const pointed = behind
            const same = (from: number, to: number, left: number) => this.#matches(from, to, pointed, left)
            if (b.kind !== 'func_proto' || !this.#sameParams(a, b, level, same)) return false
          }
        }
        if (a.kind !== b.kind || !leadsOn(a) || !leadsOn(b)) return false
        a = this.#local.resolve(a.type)
        b = this.#target.resolve(b.type)
      }
      throw tooDeep()
    })
  }

  #hasMembers(a: BtfComposite, b: BtfComposite, level: number): boolean {
    if (a.members.length > b.members.length) return false
    const places = this.#target.places(b)
    this.#target.work(a.members.length)
    return a.members.every(({ name, type }) =>
      (places.get(essentialName(name)) ?? []).some(at =>
        this.#matches(type, b.members[at]!.type, false, level - 1),
      ),
    )
  }

  #hasValues(a: BtfEnum | BtfEnum64, b: BtfEnum | BtfEnum64): boolean {
    if (a.values.length > b.values.length) return false
    const places = this.#target.places(b)
    this.#target.work(a.values.length)
    return namedParts(a).every(({ name }) => places.has(essentialName(name)))
  }

  /**
   * A pair is compared once, however many ways lead to it: types that share parts would take
   * exponential time.
   */
  #once(key: string, compare: () => boolean): boolean {
    const known = this.#known.get(key)
    if (known !== undefined) return known
    const found = compare()
    this.#known.set(key, found)
    return found
  }
}

/** Behind a pointer, a declaration stands for the type that it declares. */
function sameForward(a: BtfFwd, b: BtfType, behindPointer: boolean): boolean {
  if (b.kind === 'fwd') return a.union === b.union
  return behindPointer && b.kind === (a.union ? 'union' : 'struct')
}

/** Whether the comparison goes on with the type that it refers to. */
function leadsOn(type: BtfType): type is Extract<BtfType, { kind: 'ptr' | 'array' | 'func_proto' }> {
  return type.kind === 'ptr' || type.kind === 'array' || type.kind === 'func_proto'
}

function tooDeep() {
  return coreError(`types are nested deeper than ${MAX_DEPTH}`)
}
