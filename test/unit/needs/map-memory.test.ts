import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type MapSize, mapMemory } from '../../../src/needs/map-memory.ts'

const map = (more: Partial<MapSize>): MapSize => ({
  type: 'array',
  keyBytes: 4,
  valueBytes: 12,
  maxEntries: 10,
  flags: 0,
  ...more,
})

test('mapMemory() counts entries, copies for each processor, rings, and no entries that are not there', () => {
  assert.equal(mapMemory([], 2), 0)
  assert.equal(mapMemory([map({})], 2), 10 * (4 + 12 + 64))
  assert.equal(mapMemory([map({ type: 'percpu_array' })], 2), 10 * (4 + 24 + 64))
  assert.equal(mapMemory([map({ type: 'hash', flags: 1 })], 2), 160)
  assert.equal(mapMemory([map({ type: 'ringbuf', keyBytes: 0, valueBytes: 0, maxEntries: 4096 })], 2), 4096)
  assert.equal(mapMemory([map({ type: 'arena', maxEntries: 2 ** 32 - 1 })], 2), 0)
  // The largest numbers of a file are still told apart from small ones.
  const all = 2 ** 32 - 1
  assert.ok(mapMemory([map({ keyBytes: all, valueBytes: all, maxEntries: all })], 512) > 2 ** 64)
})
