/**
 * Many elements of a map in one command: BPF_MAP_{LOOKUP,LOOKUP_AND_DELETE,UPDATE,DELETE}_BATCH.
 * Since Linux 5.6, by map type; ENOTSUPP where a type has none. No capability is needed beyond the
 * map's descriptor.
 */
import { SyscallError } from '../errors.ts'
import { mapBatch, mapLookupAll } from '../sys/bpf.ts'
import type { Fd } from '../sys/fd.ts'

export type Element = [key: Uint8Array, value: Uint8Array]

/**
 * What a batch must know of a map. `valueBytes` is what bpf(2) copies: for a per-CPU map, of all
 * CPUs.
 */
export interface BatchTarget {
  readonly fd: Fd
  readonly keyBytes: number
  readonly valueBytes: number
}

/**
 * All elements, some `chunk` of them at a time; with `remove` they are taken out. The cursor is a
 * bucket, not a key, so what is deleted meanwhile does not disturb the walk over a hash.
 */
export async function* readBatches(
  map: BatchTarget,
  { chunk, remove }: { chunk: number; remove: boolean },
): AsyncGenerator<Element[]> {
  const cmd = remove ? 'BPF_MAP_LOOKUP_AND_DELETE_BATCH' : 'BPF_MAP_LOOKUP_BATCH'
  // Hashes write a u32 bucket number, other types their last key.
  const cursor = new Uint8Array(Math.max(4, map.keyBytes))
  let started = false
  for (let size = chunk; ; ) {
    const keys = new Uint8Array(size * map.keyBytes)
    const values = new Uint8Array(size * map.valueBytes)
    const pointers = { in_batch: started ? cursor : undefined, out_batch: cursor, keys, values }
    let step: { count: number; done: boolean }
    try {
      step = await mapBatch(cmd, { map_fd: map.fd.number, count: size }, pointers)
    } catch (error) {
      // A hash bucket holds more than `size` elements, and a bucket is given whole or not at all.
      if (!(error instanceof SyscallError) || error.errnoName !== 'ENOSPC') throw error
      size *= 2
      continue
    }
    started = true
    const elements = split(map, step.count, keys, values)
    if (elements.length > 0) yield elements
    if (step.done) return
  }
}

function split(map: BatchTarget, count: number, keys: Uint8Array, values: Uint8Array): Element[] {
  return Array.from(
    { length: count },
    (_, i): Element => [
      keys.subarray(i * map.keyBytes, (i + 1) * map.keyBytes),
      values.subarray(i * map.valueBytes, (i + 1) * map.valueBytes),
    ],
  )
}

/** All elements in one command, which copies the whole map while we wait. */
export function readAtOnce(map: BatchTarget & { readonly maxEntries: number }): Element[] {
  const keys = new Uint8Array(map.maxEntries * map.keyBytes)
  const values = new Uint8Array(map.maxEntries * map.valueBytes)
  const out_batch = new Uint8Array(Math.max(4, map.keyBytes))
  return split(map, mapLookupAll(map.fd, map.maxEntries, { out_batch, keys, values }), keys, values)
}

function join(parts: readonly Uint8Array[], bytes: number, what: string): Uint8Array {
  const all = new Uint8Array(parts.length * bytes)
  parts.forEach((part, i) => {
    if (part.length !== bytes) throw new TypeError(`a ${what} is ${bytes} bytes, not ${part.length}`)
    all.set(part, i * bytes)
  })
  return all
}

/** Sets all elements. A failure in the middle leaves those before it set. */
export async function writeBatch(
  map: BatchTarget,
  elements: readonly Element[],
  elementFlags: number,
): Promise<void> {
  if (elements.length === 0) return
  const keys = join(
    elements.map(([key]) => key),
    map.keyBytes,
    'key',
  )
  const values = join(
    elements.map(([, value]) => value),
    map.valueBytes,
    'value',
  )
  const attr = { map_fd: map.fd.number, count: elements.length, elem_flags: BigInt(elementFlags) }
  await mapBatch('BPF_MAP_UPDATE_BATCH', attr, { keys, values })
}

/** Removes all keys, up to the first one that is not there: how many were removed. */
export async function deleteBatch(map: BatchTarget, keys: readonly Uint8Array[]): Promise<number> {
  if (keys.length === 0) return 0
  const attr = { map_fd: map.fd.number, count: keys.length }
  const { count } = await mapBatch('BPF_MAP_DELETE_BATCH', attr, { keys: join(keys, map.keyBytes, 'key') })
  return count
}
