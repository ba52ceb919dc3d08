/**
 * What a loaded object has counted so far: its global variables by name, and what is in its maps,
 * for those who watch it run. Bounded, however large the maps are.
 */
import { ConflictError } from '../../errors.ts'
import { readValue, type TypedValue } from '../btf/typed-value.ts'
import type { LoadedObject } from '../load/object.ts'
import type { BpfMap } from '../map.ts'
import { GlobalVariables } from '../object/global-variables.ts'
import type { ObjectMap } from '../object/spec.ts'
import { splitPerCpu } from '../per-cpu.ts'
import { type Shown, showBytes, showValue, sumOf, type TypeOf, weightOf } from './shown.ts'

export interface Row {
  /** Of a variable its name, of an array its index. */
  readonly key: Shown
  readonly value: Shown
}

export interface Reading {
  readonly map: string
  readonly kind: 'variables' | 'array' | 'hash'
  /** Values of per-CPU maps are sums over all CPUs, where they are numbers. */
  readonly perCpu: boolean
  /** Of arrays by index, of hashes the largest values first. */
  readonly rows: readonly Row[]
  /** Elements that are there and not among the rows; of arrays only those that are not zero. */
  readonly more: number
  /** The map has more elements than are looked at. */
  readonly cut: boolean
}

const HASHES = ['hash', 'lru_hash', 'percpu_hash', 'lru_percpu_hash']
const ARRAYS = ['array', 'percpu_array']
const MAX_ROWS = 20
/** An array as small as this is shown with its zeros. */
const SMALL_ARRAY = 4
/** Elements that are looked at, each with a system call or two. */
const MAX_ELEMENTS = 1024
/** Of a longer value only its length is shown. */
const MAX_VALUE_BYTES = 4096

/** Whether there is something to read in it: counters and data, not constants. */
export function isCounter({ kind, type }: Pick<ObjectMap, 'kind' | 'type'>): boolean {
  if (kind === 'data' || kind === 'bss') return true
  return kind === 'declared' && (HASHES.includes(type) || ARRAYS.includes(type))
}

/** All counters of the object as they are now. */
export function readCounters(object: LoadedObject): Reading[] {
  return object.spec.maps.flatMap(facts => {
    const map = object.maps.get(facts.name)
    if (map === undefined || !isCounter(facts)) return []
    if (facts.kind !== 'declared') return readVariables(object, facts, map)
    return [ARRAYS.includes(facts.type) ? readArray(object, facts, map) : readHash(object, facts, map)]
  })
}

/** Pointers are of no use here, and libbpf's users have them to keep a type: see event-type.ts. */
function readVariables({ spec }: LoadedObject, facts: ObjectMap, map: BpfMap): Reading[] {
  const types = spec.btf?.types
  const bytes = map.lookup(0)
  if (types === undefined || facts.valueTypeId === 0 || bytes === undefined) return []
  const { all } = new GlobalVariables(types, facts.valueTypeId)
  const rows = [...all]
    .filter(([, { typeId }]) => types.resolve(typeId)?.kind !== 'ptr')
    .map(([key, { typeId, off, sizeBytes }]) => ({
      key,
      value: lengthOf(sizeBytes) ?? showBytes({ types, id: typeId }, bytes, off),
    }))
  if (rows.length === 0) return []
  return [{ map: facts.name, kind: 'variables', perCpu: false, rows, more: 0, cut: false }]
}

function readArray({ spec }: LoadedObject, facts: ObjectMap, map: BpfMap): Reading {
  const type = typeOf(spec.btf?.types, facts.valueTypeId)
  const count = Math.min(map.maxEntries, MAX_ELEMENTS)
  const found: Row[] = []
  for (let key = 0; key < count; key++) {
    const bytes = map.lookup(key)
    if (bytes === undefined) continue
    if (count > SMALL_ARRAY && bytes.every(byte => byte === 0)) continue
    found.push({ key, value: showElement(map, type, bytes) })
  }
  return {
    map: facts.name,
    kind: 'array',
    perCpu: isPerCpu(map),
    rows: found.slice(0, MAX_ROWS),
    more: Math.max(0, found.length - MAX_ROWS),
    cut: count < map.maxEntries,
  }
}

function readHash({ spec }: LoadedObject, facts: ObjectMap, map: BpfMap): Reading {
  const keyType = typeOf(spec.btf?.types, facts.keyTypeId)
  const type = typeOf(spec.btf?.types, facts.valueTypeId)
  const found: Row[] = []
  let cut = false
  try {
    for (const [key, bytes] of map.entries()) {
      if (found.length === MAX_ELEMENTS) {
        cut = true
        break
      }
      found.push({ key: showBytes(keyType, key), value: showElement(map, type, bytes) })
    }
  } catch (error) {
    // It changes faster than it is read: what was found is true, and not all.
    if (!(error instanceof ConflictError)) throw error
    cut = true
  }
  found.sort((a, b) => weightOf(b.value) - weightOf(a.value))
  return {
    map: facts.name,
    kind: 'hash',
    perCpu: isPerCpu(map),
    rows: found.slice(0, MAX_ROWS),
    more: Math.max(0, found.length - MAX_ROWS),
    cut,
  }
}

function isPerCpu(map: BpfMap): boolean {
  return map.type.includes('percpu')
}

function typeOf(types: TypeOf['types'] | undefined, id: number): TypeOf | undefined {
  return types === undefined || id === 0 ? undefined : { types, id }
}

/** Of per-CPU maps the sum; where there is none, what each CPU has. */
function showElement(map: BpfMap, type: TypeOf | undefined, bytes: Uint8Array): Shown {
  const long = lengthOf(bytes.length)
  if (long !== undefined || !isPerCpu(map)) return long ?? showBytes(type, bytes)
  const perCpu = splitPerCpu(bytes, map.valueBytes)
  if (type === undefined) return perCpu.map(one => showBytes(undefined, one))
  const values: TypedValue[] = perCpu.map(one => readValue(type.types, type.id, one))
  const sum = sumOf(values)
  if (sum !== undefined) return showValue(type.types, type.id, sum)
  return values.map(one => showValue(type.types, type.id, one))
}

function lengthOf(bytes: number): string | undefined {
  return bytes > MAX_VALUE_BYTES ? `(${bytes} bytes)` : undefined
}
