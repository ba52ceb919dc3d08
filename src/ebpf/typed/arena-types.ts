/** The types that an object has in its arena, for its bindings. Pure. */
import { BpftokenError, NotFoundError } from '../../errors.ts'
import type { Btf, BtfDatasec } from '../btf/btf.ts'
import type { ObjectSpec } from '../object/spec.ts'
import { typeNamed } from './event-types.ts'

/**
 * Type ids by the names in C: what the pointers in global variables of the arena lead to, what the
 * pointers in that lead to, and what is `named`. NotFoundError: a named one is not there.
 */
export function arenaTypes(spec: ObjectSpec, named: readonly string[] = []): Map<string, number> {
  const found = new Map<string, number>()
  const types = spec.btf?.types
  if (spec.arena === undefined) return found
  if (types === undefined) {
    if (named.length === 0) return found
    throw new NotFoundError(`The object has no types, so none is called "${named[0]}"`, {
      hint: 'Compile it with -g',
    })
  }
  const walk = new Pointers(types, found)
  const { typeId } = spec.arena
  if (typeId !== 0) for (const { type } of (types.type(typeId) as BtfDatasec).vars) walk.under(type)
  for (const name of named) {
    const id = typeNamed(types, name)
    found.set(name, id)
    walk.under(id)
  }
  return found
}

/** Follows pointers; each type is looked at once. */
class Pointers {
  readonly #types: Btf
  readonly #found: Map<string, number>
  readonly #seen = new Set<number>()

  constructor(types: Btf, found: Map<string, number>) {
    this.#types = types
    this.#found = found
  }

  under(start: number): void {
    // Not by calls: a list of types may be as long as there are types.
    const left = [start]
    for (let id = left.pop(); id !== undefined; id = left.pop()) {
      const type = this.#types.resolve(id)
      if (type === undefined || this.#seen.has(type.id)) continue
      this.#seen.add(type.id)
      if (type.kind === 'ptr') {
        this.#pointee(type.type)
        left.push(type.type)
      } else if (type.kind === 'array' || type.kind === 'var') left.push(type.type)
      else if (type.kind === 'struct' || type.kind === 'union')
        for (const { type: member } of type.members) left.push(member)
    }
  }

  /** By its first name that means it. */
  #pointee(start: number): void {
    const end = this.#types.resolve(start)?.id
    if (end === undefined) return
    for (let id = start; ; ) {
      const type = this.#types.type(id)
      const { name } = type
      if (name !== '' && this.#means(name, end)) {
        if (!this.#found.has(name)) this.#found.set(name, typeNamed(this.#types, name))
        return
      }
      if (id === end || !('type' in type)) return
      id = type.type
    }
  }

  #means(name: string, end: number): boolean {
    try {
      return this.#types.resolve(typeNamed(this.#types, name))?.id === end
    } catch (error) {
      if (error instanceof BpftokenError) return false
      throw error
    }
  }
}
