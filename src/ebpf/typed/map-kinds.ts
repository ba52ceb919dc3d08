/** As what maps of each type are seen in bindings. Pure. */
import type { MapType } from '../type-names.ts'

/** `raw`: no values of their own, but descriptors, sockets, programs: they stay plain maps. */
export type MapKind = 'keyed' | 'per-cpu' | 'queue' | 'events' | 'perf-events' | 'raw'

const KINDS: { readonly [type in MapType]?: MapKind } = {
  hash: 'keyed',
  array: 'keyed',
  lru_hash: 'keyed',
  lpm_trie: 'keyed',
  sk_storage: 'keyed',
  task_storage: 'keyed',
  inode_storage: 'keyed',
  cgrp_storage: 'keyed',
  percpu_hash: 'per-cpu',
  percpu_array: 'per-cpu',
  lru_percpu_hash: 'per-cpu',
  queue: 'queue',
  stack: 'queue',
  ringbuf: 'events',
  perf_event_array: 'perf-events',
}

export function mapKind(type: MapType): MapKind {
  return KINDS[type] ?? 'raw'
}
