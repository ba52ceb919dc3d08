/**
 * Of which type the records of a ring buffer or a perf event array are. Pure.
 *
 * Neither has a type. Compilers leave out types that no map, variable or function names, so
 * programs for bpf2go and others keep the one of their records with a variable that nobody uses:
 *
 *     const struct event *unused_event __attribute__((unused));
 *
 * That is what is looked for. Where several structs are kept so, the one that the map is called
 * after is meant: `events` holds `struct event`. A guess by size alone would be wrong too often.
 */
import type { BtfComposite } from '../btf/btf.ts'
import type { ObjectSpec } from '../object/spec.ts'
import { type Shown, showBytes, type TypeOf } from './shown.ts'

/** Undefined: the object does not say. */
export function eventType(spec: ObjectSpec, map: string): TypeOf | undefined {
  const types = spec.btf?.types
  if (types === undefined) return undefined
  const { all, byName } = keptStructs(spec)
  const named = byName.get(map) ?? byName.get(map.replace(/s$/, ''))
  const found = named ?? (all.length === 1 && eventMaps(spec) === 1 ? all[0] : undefined)
  return found === undefined ? undefined : { types, id: found.id }
}

function eventMaps({ maps }: ObjectSpec): number {
  return maps.filter(({ type }) => type === 'ringbuf' || type === 'perf_event_array').length
}

interface Kept {
  readonly all: readonly BtfComposite[]
  /** The first one of each name, without `_t` behind it. */
  readonly byName: ReadonlyMap<string, BtfComposite>
}

const kept = new WeakMap<ObjectSpec, Kept>()

/** Structs that a global variable points to. */
function keptStructs(spec: ObjectSpec): Kept {
  let known = kept.get(spec)
  if (known === undefined) {
    const all = findKept(spec)
    // Backwards, so that the first one stays.
    const named = all.map(one => [one.name.replace(/_t$/, ''), one] as const).reverse()
    known = { all, byName: new Map(named) }
    kept.set(spec, known)
  }
  return known
}

function findKept({ maps, btf }: ObjectSpec): BtfComposite[] {
  const types = btf!.types
  const found = new Map<number, BtfComposite>()
  for (const { kind, valueTypeId } of maps) {
    if ((kind !== 'bss' && kind !== 'data') || valueTypeId === 0) continue
    const section = types.type(valueTypeId)
    if (section.kind !== 'datasec') continue
    for (const { type } of section.vars) {
      const variable = types.type(type)
      const pointer = variable.kind === 'var' ? types.resolve(variable.type) : undefined
      const struct = pointer?.kind === 'ptr' ? types.resolve(pointer.type) : undefined
      if (struct?.kind === 'struct') found.set(struct.id, struct)
    }
  }
  return [...found.values()]
}

/**
 * The kernel pads records of perf event arrays, so that they and a u32 are a multiple of 8 bytes.
 */
function paddedBytes(bytes: number): number {
  return Math.ceil((bytes + 4) / 8) * 8 - 4
}

/** A record by that type, where it is as long as one; `padded`: of a perf event array. */
export function showRecord(type: TypeOf | undefined, record: Uint8Array, padded = false): Shown {
  if (type === undefined) return showBytes(undefined, record)
  const bytes = type.types.sizeof(type.id)
  const fits = record.length === (padded ? paddedBytes(bytes) : bytes)
  return fits ? showBytes(type, record.subarray(0, bytes)) : showBytes(undefined, record)
}
