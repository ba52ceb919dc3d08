/**
 * Global variables of an object by name, in the bytes of their section: before loading its initial
 * contents, and afterwards the value of its map. Pure.
 */
import { ConflictError, NotFoundError } from '../../errors.ts'
import type { Btf } from '../btf/btf.ts'
import { readValue, type TypedValue, writeValue } from '../btf/typed-value.ts'

export interface GlobalVariable {
  /** In the object's BTF. */
  readonly typeId: number
  /** Byte offset into the section. */
  readonly off: number
  readonly sizeBytes: number
}

export class GlobalVariables {
  readonly section: string
  /**
   * By name, in order of their places. Of statics with one name in several functions, the first.
   */
  readonly all: ReadonlyMap<string, GlobalVariable>
  readonly #btf: Btf
  readonly #ambiguous: ReadonlySet<string>

  /**
   * `datasecId` is a data section of the object's corrected BTF: `valueTypeId` of the section's
   * map.
   */
  constructor(btf: Btf, datasecId: number) {
    const section = btf.type(datasecId)
    if (section.kind !== 'datasec')
      throw new TypeError(`type id ${datasecId} is a ${section.kind}, not a data section`)
    const all = new Map<string, GlobalVariable>()
    const ambiguous = new Set<string>()
    for (const { type, off, size } of section.vars) {
      const variable = btf.type(type)
      // Functions are among those of .ksyms.
      if (variable.kind !== 'var') continue
      if (all.has(variable.name)) ambiguous.add(variable.name)
      else all.set(variable.name, { typeId: variable.type, off, sizeBytes: size })
    }
    this.section = section.name
    this.all = all
    this.#btf = btf
    this.#ambiguous = ambiguous
  }

  /**
   * What the variable is in `bytes`, as `readValue`. NotFoundError: there is none of that name.
   * ConflictError: there are several.
   */
  get(bytes: Uint8Array, name: string): TypedValue {
    const { typeId, off } = this.find(name)
    return readValue(this.#btf, typeId, bytes, off)
  }

  /**
   * Sets the variable in `bytes`, as `writeValue`. RangeError and TypeError name it. Otherwise as
   * `get`.
   */
  set(bytes: Uint8Array, name: string, value: TypedValue): void {
    const { typeId, off } = this.find(name)
    try {
      writeValue(this.#btf, typeId, bytes, off, value)
    } catch (error) {
      const Kind =
        error instanceof RangeError ? RangeError : error instanceof TypeError ? TypeError : undefined
      if (Kind === undefined) throw error
      throw new Kind(`Cannot set "${name}": ${(error as Error).message}`, { cause: error })
    }
  }

  /** Its place. NotFoundError: there is none of that name. ConflictError: there are several. */
  find(name: string): GlobalVariable {
    const found = this.all.get(name)
    const context = { variable: name, section: this.section }
    if (found === undefined)
      throw new NotFoundError(`Section "${this.section}" has no variable "${name}"`, {
        context,
        hint: `It has: ${[...this.all.keys()].join(', ') || 'none'}`,
      })
    // Fail closed: neither is known to be the one that is meant.
    if (this.#ambiguous.has(name))
      throw new ConflictError(`Section "${this.section}" has several variables "${name}"`, { context })
    return found
  }
}
