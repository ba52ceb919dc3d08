/**
 * Whether two objects say the same of a symbol: an extern of its definition, a weak definition of
 * the strong one. Pure. Rules: libbpf, src/linker.c, glob_sym_btf_matches and map_defs_match.
 */
import type { Btf, BtfType } from '../btf/btf.ts'
import { type MapDefinition, mapDefinition } from '../object/map-def.ts'

const LINKAGE_STATIC = 0
const MAX_DEPTH = 64

interface Pair {
  readonly a: Btf
  readonly b: Btf
  /**
   * What was or is being compared: a difference ends all of it. Structs that share parts would take
   * exponential time.
   */
  readonly seen: Set<string>
}

/**
 * Compares what two objects say, symbol by symbol, until they differ: then it is over, since what led
 * there is taken for compared.
 */
export class Declarations {
  readonly #pair: Pair

  constructor(a: Btf, b: Btf) {
    this.#pair = { a, b, seen: new Set() }
  }

  /** Undefined: they agree; else how they differ. Variables and functions by their ids. */
  difference(idA: number, idB: number): string | undefined {
    return compare(this.#pair, idA, idB, true, 0)
  }

  /** The same for two variables that define a map. */
  mapDifference(idA: number, idB: number, name: string): string | undefined {
    const { a, b } = this.#pair
    const [varA, varB] = [a.type(idA), b.type(idB)]
    if (varA.kind !== 'var' || varB.kind !== 'var') return 'it is no variable'
    const [mapA, mapB] = [mapDefinition(a, name, varA.type), mapDefinition(b, name, varB.type)]
    return definitionDifference(this.#pair, mapA, mapB)
  }
}

function definitionDifference(pair: Pair, a: MapDefinition, b: MapDefinition): string | undefined {
  for (const what of [
    'type',
    'keyBytes',
    'valueBytes',
    'maxEntries',
    'flags',
    'numaNode',
    'pinByName',
  ] as const)
    if (a[what] !== b[what]) return `${what} is ${String(a[what])} and ${String(b[what])}`
  for (const what of ['keyTypeId', 'valueTypeId'] as const) {
    if ((a[what] !== 0) !== (b[what] !== 0)) return `${what.replace('TypeId', '')} has a type in one of them`
    const difference = a[what] === 0 ? undefined : compare(pair, a[what], b[what], true, 0)
    if (difference !== undefined) return `${what.replace('TypeId', '')}: ${difference}`
  }
  if ((a.inner === undefined) !== (b.inner === undefined)) return 'one has a pattern for the maps in it'
  if (a.inner === undefined || b.inner === undefined) return undefined
  const inner = definitionDifference(pair, a.inner, b.inner)
  return inner && `the maps in it: ${inner}`
}

/** `exact`: structs are compared by their members; behind pointers their names are enough. */
function compare(pair: Pair, idA: number, idB: number, exact: boolean, depth: number): string | undefined {
  const { a, b, seen } = pair
  const key = `${idA} ${idB} ${exact}`
  if (seen.has(key)) return undefined
  seen.add(key)
  if (depth > MAX_DEPTH) return 'it is nested too deeply to be compared'
  const [x, y] = [a.resolve(idA), b.resolve(idB)]
  if (x === undefined || y === undefined) return x === y ? undefined : `it is ${said(x)} and ${said(y)}`
  if (!exact && (x.kind === 'fwd') !== (y.kind === 'fwd')) return forwardDifference(x, y)
  if (x.kind !== y.kind) return `it is ${said(x)} and ${said(y)}`
  const below = (typeA: number, typeB: number, isExact = exact) =>
    compare(pair, typeA, typeB, isExact, depth + 1)
  if (NAMED.has(x.kind) && x.name !== y.name) return `it is ${said(x)} and ${said(y)}`
  switch (x.kind) {
    case 'int':
    case 'float':
    case 'enum':
    case 'enum64': {
      const size = (y as typeof x).size
      return x.size === size ? undefined : `it is of ${x.size} and ${size} bytes`
    }
    case 'ptr':
      return below(x.type, (y as typeof x).type, false)
    case 'array':
      return below(x.type, (y as typeof x).type)
    case 'func':
    case 'var':
      if ((x.linkage === LINKAGE_STATIC) !== ((y as typeof x).linkage === LINKAGE_STATIC))
        return 'one of them is static'
      return below(x.type, (y as typeof x).type)
    case 'struct':
    case 'union': {
      if (!exact) return undefined
      const others = (y as typeof x).members
      if (x.members.length !== others.length)
        return `${said(x)} has ${x.members.length} and ${others.length} members`
      for (const [i, member] of x.members.entries()) {
        const other = others[i]!
        if (member.name !== other.name)
          return `member ${i} of ${said(x)} is "${member.name}" and "${other.name}"`
        if (member.bitOff !== other.bitOff || member.bitSize !== other.bitSize)
          return `member "${member.name}" of ${said(x)} is at another place`
        const difference = below(member.type, other.type)
        if (difference !== undefined) return `member "${member.name}" of ${said(x)}: ${difference}`
      }
      return undefined
    }
    case 'func_proto': {
      const others = (y as typeof x).params
      if (x.params.length !== others.length)
        return `it has ${x.params.length} and ${others.length} parameters`
      for (const [i, { type }] of x.params.entries()) {
        const difference = below(type, others[i]!.type)
        if (difference !== undefined) return `parameter ${i + 1}: ${difference}`
      }
      const result = below(x.type, (y as typeof x).type)
      return result && `its result: ${result}`
    }
    default:
      return undefined
  }
}

const NAMED = new Set<BtfType['kind']>(['struct', 'union', 'enum', 'enum64', 'fwd', 'func', 'var'])

function forwardDifference(x: BtfType, y: BtfType): string | undefined {
  const [forward, whole] = x.kind === 'fwd' ? [x, y] : [y, x]
  const kind = forward.kind === 'fwd' && forward.union ? 'union' : 'struct'
  return forward.name === whole.name && whole.kind === kind ? undefined : `it is ${said(x)} and ${said(y)}`
}

function said(type: BtfType | undefined): string {
  if (type === undefined) return 'void'
  return type.name === '' ? `a ${type.kind}` : `${type.kind} "${type.name}"`
}
