/**
 * What the maps of an object take of the kernel's memory when it is loaded, about: pure. It is the
 * file that says so, which may be anybody's.
 */
import type { MapDefinition } from '../ebpf/object/map-def.ts'

const NO_PREALLOC = 1n
/** Of each entry beside key and value, at most. */
const OVERHEAD_BYTES = 64
/** Where entries are made when they are written: what holds them. */
const BUCKET_BYTES = 16

export type MapSize = Pick<MapDefinition, 'type' | 'keyBytes' | 'valueBytes' | 'maxEntries' | 'flags'>

export function mapMemory(maps: readonly MapSize[], processors: number): number {
  return maps.reduce((bytes, map) => bytes + memoryOf(map, processors), 0)
}

function memoryOf({ type, keyBytes, valueBytes, maxEntries, flags }: MapSize, processors: number): number {
  switch (type) {
    case 'ringbuf':
    case 'user_ringbuf':
      return maxEntries
    // Its pages come when they are touched.
    case 'arena':
      return 0
    default:
  }
  if ((BigInt(flags) & NO_PREALLOC) !== 0n) return maxEntries * BUCKET_BYTES
  const copies = /percpu/.test(type) ? processors : 1
  return maxEntries * (keyBytes + valueBytes * copies + OVERHEAD_BYTES)
}
