/**
 * The largest sizes of maps, on paper: what fits, the next one with its errno, and who is told of it.
 * That kernels say the same, test/kernel/model shows by cases at these sizes.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { decide } from '../../../src/model/decide.ts'
import { factsFrom, type MapLimits } from '../../../src/model/kernel.ts'
import { knownShape } from '../../../src/model/machines.ts'
import type { MapCreate } from '../../../src/model/map-create.ts'
import { INITIAL, MODEL_CAPABILITIES, nestedIn, type Task } from '../../../src/model/task.ts'
import { bpf_map_flags, bpf_map_type } from '../../../src/uapi/bpf.ts'

const root: Task = { userNamespace: INITIAL, uid: 0, capabilities: new Set(MODEL_CAPABILITIES) }
const stranger: Task = { ...root, userNamespace: nestedIn(INITIAL, 'inside', 0) }
const BUILD_ID = bpf_map_flags.BPF_F_STACK_BUILD_ID
const MIB4 = 4 << 20

type Sizes = Pick<MapCreate, 'keySize' | 'valueSize' | 'maxEntries' | 'flags' | 'extra'>
type Type = Lowercase<keyof typeof bpf_map_type extends `BPF_MAP_TYPE_${infer T}` ? T : never>

function said(task: Task, word: Type, sizes: Sizes, limits: Partial<MapLimits> = {}): string {
  const type = bpf_map_type[`BPF_MAP_TYPE_${word.toUpperCase()}` as keyof typeof bpf_map_type]
  const kernel = factsFrom('7.3', knownShape('7.3'), {}, limits)
  return (
    decide({ kernel, unprivilegedBpfDisabled: 2 }, task, { op: 'map_create', type, ...sizes }).errno ?? 'ok'
  )
}

/** `early`: also to whom the map is not allowed. */
for (const [word, fits, over, errno, early] of [
  ['hash', { valueSize: MIB4 - 53 }, { valueSize: MIB4 - 52 }, 'E2BIG', true],
  ['hash', { keySize: MIB4 - 53 }, { keySize: 2 ** 31 }, 'E2BIG', true],
  ['hash', { maxEntries: 2 ** 27 }, { maxEntries: 2 ** 27 + 1 }, 'E2BIG', false],
  ['lru_hash', { valueSize: MIB4 - 53 }, { valueSize: 1 << 24 }, 'E2BIG', true],
  ['hash_of_maps', { keySize: MIB4 - 53 }, { keySize: MIB4 - 52 }, 'E2BIG', true],
  ['percpu_hash', { valueSize: 32768 }, { valueSize: 32769 }, 'E2BIG', true],
  ['percpu_array', { valueSize: 32768 }, { valueSize: 32769 }, 'E2BIG', true],
  ['array', { valueSize: 2 ** 31 - 1 }, { valueSize: 2 ** 31 }, 'E2BIG', true],
  ['queue', { valueSize: MIB4 }, { valueSize: MIB4 + 1 }, 'E2BIG', true],
  ['stack', { maxEntries: 2 ** 30 - 2 }, { maxEntries: 2 ** 30 - 1 }, 'E2BIG', true],
  ['bloom_filter', { valueSize: MIB4 }, { valueSize: MIB4 + 1 }, 'E2BIG', true],
  ['bloom_filter', { extra: 15 }, { extra: 16 }, 'EINVAL', false],
  ['percpu_cgroup_storage', { valueSize: 32768 }, { valueSize: 32769 }, 'E2BIG', false],
  ['cgroup_storage', { valueSize: 65407 }, { valueSize: 65408, maxEntries: 1 }, 'E2BIG', false],
  ['stack_trace', { valueSize: 127 * 8 }, { valueSize: 128 * 8 }, 'EINVAL', false],
  [
    'stack_trace',
    { valueSize: 127 * 32, flags: BUILD_ID },
    { valueSize: 128 * 32, flags: BUILD_ID },
    'EINVAL',
    false,
  ],
  ['stack_trace', { maxEntries: 2 ** 31 }, { maxEntries: 2 ** 31 + 1 }, 'E2BIG', false],
  ['lpm_trie', { valueSize: MIB4 - 280 }, { valueSize: MIB4 - 279 }, 'EINVAL', false],
  ['cpumap', { maxEntries: 8192 }, { maxEntries: 8193 }, 'E2BIG', false],
  ['devmap_hash', { maxEntries: 2 ** 31 }, { maxEntries: 2 ** 31 + 1 }, 'EINVAL', true],
  ['sockhash', { keySize: 512 }, { keySize: 513 }, 'E2BIG', false],
  ['sockhash', { maxEntries: 2 ** 27 }, { maxEntries: 2 ** 27 + 1 }, 'EINVAL', false],
  ['arena', { maxEntries: 2 ** 20 }, { maxEntries: 2 ** 20 + 1 }, 'E2BIG', false],
  [
    'arena',
    { maxEntries: 1, extra: 2 ** 32 - 4096 },
    { maxEntries: 2, extra: 2 ** 32 - 4096 },
    'ERANGE',
    false,
  ],
  ['rhash', { keySize: 65535 }, { keySize: 65536, maxEntries: 0 }, 'E2BIG', true],
  ['rhash', { extra: 1 }, { extra: 2 }, 'EINVAL', true],
] as const satisfies readonly (readonly [Type, Sizes, Sizes, string, boolean])[])
  test(`${word}: ${JSON.stringify(over)} is ${errno}, ${early ? 'before the token is looked at' : 'when it is made'}`, () => {
    assert.equal(said(root, word, fits), 'ok')
    assert.equal(said(root, word, over), errno)
    assert.equal(said(stranger, word, fits), 'EPERM')
    assert.equal(said(stranger, word, over), early ? errno : 'EPERM')
  })

for (const word of ['sk_storage', 'inode_storage', 'task_storage', 'cgrp_storage'] as const)
  test(`${word}: a value of more than 65407 bytes is E2BIG before the token is looked at`, () => {
    assert.equal(said(root, word, { valueSize: 65407 }), 'ok')
    assert.equal(said(stranger, word, { valueSize: 65408 }), 'E2BIG')
  })

test('limits of another kernel count where they are given', () => {
  const limits = { stackDepth: 200, processors: 16, perCpuBytes: 65536 }
  assert.equal(said(root, 'stack_trace', { valueSize: 200 * 8 }, limits), 'ok')
  assert.equal(said(root, 'stack_trace', { valueSize: 201 * 8 }, limits), 'EINVAL')
  assert.equal(said(root, 'cpumap', { maxEntries: 17 }, limits), 'E2BIG')
  assert.equal(said(root, 'percpu_array', { valueSize: 65536 }, limits), 'ok')
})
