/**
 * Types of one BTF as CO-RE sees them: behind typedefs and qualifiers, each decoded once. Pure.
 */
import { FormatError } from '../../errors.ts'
import type { Btf, BtfComposite, BtfEnum, BtfEnum64, BtfInt, BtfType } from '../btf/btf.ts'
import { essentialName } from '../btf/names.ts'

/** Sizes and offsets are 32-bit numbers. */
const MAX_BYTES = 0xffff_ffff
/**
 * Members that are looked at for the relocations of one object, a candidate counting for as many as
 * it takes time: far more than the largest known objects take.
 */
const MAX_WORK = 1 << 24
export const CANDIDATE_WORK = 64

export class CoreTypes {
  readonly btf: Btf
  readonly #resolved = new Map<number, BtfType | undefined>()
  readonly #byName = new Map<number, Map<string, number[]>>()
  #work = 0

  constructor(btf: Btf) {
    this.btf = btf
  }

  /** Counts what is looked at. FormatError: it takes too long. */
  work(steps: number): void {
    this.#work += steps
    if (this.#work > MAX_WORK) throw coreError('relocations are about too many members of too many types')
  }

  /** The type behind typedefs and qualifiers; undefined: void. */
  resolve(id: number): BtfType | undefined {
    const known = this.#resolved.get(id)
    if (known !== undefined || this.#resolved.has(id)) return known
    const type = this.btf.resolve(id)
    this.#resolved.set(id, type)
    return type
  }

  sizeof(id: number): number {
    const size = this.btf.sizeof(id)
    if (size > MAX_BYTES) throw coreError(`type id ${id} takes ${size} bytes`)
    return size
  }

  /** Places of the members or values of a type, by name without flavour. */
  places(type: BtfComposite | BtfEnum | BtfEnum64): ReadonlyMap<string, readonly number[]> {
    const known = this.#byName.get(type.id)
    if (known !== undefined) return known
    const places = new Map<string, number[]>()
    for (const [at, { name }] of namedParts(type).entries()) {
      const essential = essentialName(name)
      const list = places.get(essential)
      if (list === undefined) places.set(essential, [at])
      else list.push(at)
    }
    this.#byName.set(type.id, places)
    return places
  }
}

export function namedParts(type: BtfComposite | BtfEnum | BtfEnum64): readonly { readonly name: string }[] {
  return isComposite(type) ? type.members : type.values
}

export function isComposite(type: BtfType | undefined): type is BtfComposite {
  return type?.kind === 'struct' || type?.kind === 'union'
}

export function isEnum(type: BtfType | undefined): type is BtfEnum | BtfEnum64 {
  return type?.kind === 'enum' || type?.kind === 'enum64'
}

/** Whether two kinds may stand for each other at all. Undefined is void. */
export function kindsFit(local: BtfType | undefined, target: BtfType | undefined): boolean {
  return local?.kind === target?.kind || (isEnum(local) && isEnum(target))
}

/** Neither is one of the old integers that were bit fields by themselves. */
export function wholeInts(local: BtfInt, target: BtfInt): boolean {
  return local.bitOff === 0 && target.bitOff === 0
}

export function coreError(message: string): FormatError {
  return new FormatError('CO-RE', message)
}
