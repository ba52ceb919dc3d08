/**
 * Digests of what types look like in memory, so that a file of bindings and an object that were not
 * made for each other are told apart. Pure.
 *
 * Two types have the same digest if they have the same bytes by the same names: kinds, sizes,
 * places, members, values of enums. Names of typedefs, and what pointers lead to, do not count.
 */
import { createHash } from 'node:crypto'
import { FormatError } from '../../errors.ts'
import type { Btf } from '../btf/btf.ts'
import type { ObjectSpec } from '../object/spec.ts'

const MAX_DEPTH = 64
const DIGEST_CHARS = 32

/** Of types in one BTF; each is looked at once. */
class Shapes {
  readonly #btf: Btf
  readonly #known = new Map<number, string>()

  constructor(btf: Btf) {
    this.#btf = btf
  }

  of(id: number, depth = 0): string {
    const behind = this.#behind(id)
    const known = this.#known.get(behind)
    if (known !== undefined) return known
    if (depth > MAX_DEPTH) throw new FormatError('BTF', `type id ${id} is more than ${MAX_DEPTH} types deep`)
    const shape = digest(this.#describe(behind, depth))
    this.#known.set(behind, shape)
    return shape
  }

  /** What a variable is of, too, so that it is looked at once for all of them. */
  #behind(id: number): number {
    const behind = this.#btf.behind(id)
    const type = behind === 0 || this.#btf.kind(behind) !== 'var' ? undefined : this.#btf.type(behind)
    return type?.kind === 'var' ? this.#btf.behind(type.type) : behind
  }

  #describe(id: number, depth: number): unknown {
    const type = this.#btf.resolve(id)
    switch (type?.kind) {
      case 'int':
        return ['int', type.size, type.signed, type.bool, type.name === 'char', type.bits, type.bitOff]
      case 'enum':
      case 'enum64':
        return ['enum', type.size, type.signed, type.values.map(({ name, value }) => [name, `${value}`])]
      case 'ptr':
        return ['pointer']
      case 'float':
        return ['float', type.size]
      case 'array':
        return ['array', type.count, this.of(type.type, depth + 1)]
      case 'struct':
      case 'union': {
        const members = type.members.map(({ name, bitOff, bitSize, type: member }) => [
          name,
          bitOff,
          bitSize,
          this.of(member, depth + 1),
        ])
        return [type.kind, type.size, members]
      }
      default:
        return ['nothing']
    }
  }
}

function digest(what: unknown): string {
  return createHash('sha256').update(JSON.stringify(what)).digest('hex').slice(0, DIGEST_CHARS)
}

/**
 * The digest of an object's maps, global variables and programs. `typeIds` are further types that
 * the bindings name: those of events, and those in its arena. FormatError: types that no compiler makes.
 */
export function shapeOf(spec: ObjectSpec, typeIds: Iterable<number> = []): string {
  const types = spec.btf?.types
  const shapes = types && new Shapes(types)
  const shape = (id: number): string => (id === 0 || shapes === undefined ? '' : shapes.of(id))
  /** Undefined: it is no data section. */
  const variables = (id: number): unknown[] | undefined => {
    const section = id === 0 ? undefined : types?.type(id)
    if (section?.kind !== 'datasec') return undefined
    return section.vars.map(({ type, off, size }) => [types!.name(type), off, size, shape(type)])
  }
  const maps = spec.maps.map(({ name, kind, type, keyBytes, valueBytes, keyTypeId, valueTypeId }) => {
    const vars = variables(valueTypeId)
    return vars === undefined
      ? [name, kind, type, keyBytes, valueBytes, shape(keyTypeId), shape(valueTypeId)]
      : [name, kind, vars]
  })
  const arena = spec.arena?.typeId ? [variables(spec.arena.typeId)] : []
  return digest([maps, spec.programs.map(({ name }) => name), [...typeIds].map(shape), ...arena])
}
