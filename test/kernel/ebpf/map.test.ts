/** BpfMap on the running kernel: every map type it has, and what each type can do. */
import assert from 'node:assert/strict'
import { mkdirSync, readdirSync, readFileSync, rmdirSync, unlinkSync } from 'node:fs'
import path from 'node:path'
import { runningVocabulary } from '../../../src/delegation/vocabulary.ts'
import {
  BpfMap,
  BtfBuilder,
  BtfObject,
  ELEMENT_FLAGS,
  exit,
  MAP_FLAGS,
  MAP_TYPES,
  type MapSpec,
  type MapType,
  mov64,
  Program,
  R0,
} from '../../../src/ebpf/index.ts'
import { misfit } from '../../../src/ebpf/map-shape.ts'
import { possibleCpus } from '../../../src/ebpf/per-cpu.ts'
import { SyscallError } from '../../../src/errors.ts'
import { PAGE_BYTES } from '../../../src/sys/memory.ts'
import { Scratch } from '../../helpers/scratch.ts'
import { boundUdp, errno, kernelTest, loadProgram, makeMap, privateBpffs, u32, u64 } from './fixture.ts'

type Shape = Omit<MapSpec, 'type' | 'token'>
const FOUR: Shape = { keyBytes: 4, valueBytes: 4, maxEntries: 8 }
const STORAGE: Shape = { keyBytes: 4, valueBytes: 4, flags: MAP_FLAGS.BPF_F_NO_PREALLOC }

/** Sizes that each type accepts; types left out need more than sizes and have their own tests. */
const SHAPES: Partial<Record<MapType, Shape>> = {
  hash: FOUR,
  array: FOUR,
  prog_array: FOUR,
  perf_event_array: FOUR,
  percpu_hash: FOUR,
  percpu_array: FOUR,
  stack_trace: { keyBytes: 4, valueBytes: 80, maxEntries: 8 },
  cgroup_array: FOUR,
  lru_hash: FOUR,
  lru_percpu_hash: FOUR,
  lpm_trie: { keyBytes: 8, valueBytes: 4, maxEntries: 8, flags: MAP_FLAGS.BPF_F_NO_PREALLOC },
  devmap: FOUR,
  sockmap: FOUR,
  cpumap: { keyBytes: 4, valueBytes: 4, maxEntries: 2 },
  xskmap: FOUR,
  sockhash: FOUR,
  cgroup_storage_deprecated: { keyBytes: 8, valueBytes: 4 },
  reuseport_sockarray: FOUR,
  percpu_cgroup_storage_deprecated: { keyBytes: 8, valueBytes: 4 },
  queue: { valueBytes: 4, maxEntries: 8 },
  stack: { valueBytes: 4, maxEntries: 8 },
  devmap_hash: FOUR,
  ringbuf: { maxEntries: PAGE_BYTES },
  bloom_filter: { valueBytes: 4, maxEntries: 8 },
  user_ringbuf: { maxEntries: PAGE_BYTES },
  arena: { maxEntries: 4, flags: MAP_FLAGS.BPF_F_MMAPABLE },
  insn_array: { keyBytes: 4, valueBytes: 16, maxEntries: 8 },
  rhash: { ...FOUR, flags: MAP_FLAGS.BPF_F_NO_PREALLOC },
}

const NEEDS_MORE: MapType[] = [
  ...(['unspec', 'array_of_maps', 'hash_of_maps', 'struct_ops'] as const),
  ...(['sk_storage', 'inode_storage', 'task_storage', 'cgrp_storage'] as const),
]

/** Map types that the running kernel says that it has, by number. */
const running = runningVocabulary().maps.nameOfBit

for (const type of MAP_TYPES.words().filter(word => !NEEDS_MORE.includes(word))) {
  kernelTest(`BpfMap.create() makes a ${type} whose info is what was asked for`, () => {
    const shape = SHAPES[type]
    assert.ok(shape !== undefined, `${type} has no shape here: add one`)
    if (!running.has(MAP_TYPES.number(type))) {
      assert.throws(() => makeMap({ type, ...shape }), errno('EINVAL'))
      return
    }
    using map = makeMap({ type, ...shape })
    const info = map.info()
    assert.equal(info.type, type)
    assert.equal(info.keyBytes, shape.keyBytes ?? 0)
    assert.equal(info.valueBytes, shape.valueBytes ?? 0)
    assert.equal(info.maxEntries, map.maxEntries)
    assert.throws(() => makeMap({ type, ...shape, flags: 0x4000_0000 }), errno('EINVAL'))
  })
}

/** BTF with an int, which is all that a storage map asks for. */
function intBtf(): { bytes: Uint8Array; id: number } {
  const builder = new BtfBuilder()
  const id = builder.int('int', 4, { signed: true })
  return { bytes: builder.build(), id }
}

for (const type of ['sk_storage', 'inode_storage', 'task_storage', 'cgrp_storage'] as const) {
  kernelTest(`BpfMap.create() makes a ${type} when given BTF, and says EINVAL without`, async () => {
    const { bytes, id } = intBtf()
    using object = await BtfObject.load(bytes)
    using map = makeMap({ type, ...STORAGE, btf: { object, keyTypeId: id, valueTypeId: id } })
    assert.equal(map.info().btfId, object.info().id)
    assert.throws(() => makeMap({ type, ...STORAGE }), errno('EINVAL'))
  })
}

for (const type of ['hash', 'lru_hash', 'array', 'lpm_trie'] as const) {
  kernelTest(`lookup(), update() and delete() work on a ${type} as on any map of its kind`, () => {
    using map = makeMap({ type, ...SHAPES[type]! })
    const key = type === 'lpm_trie' ? new Uint8Array([32, 0, 0, 0, 10, 0, 0, 1]) : u32(3)
    if (type !== 'array') assert.equal(map.lookup(key), undefined)
    map.update(key, u32(7))
    assert.deepEqual(map.lookup(key), u32(7))
    if (type === 'array') assert.throws(() => map.delete(key), errno('EINVAL'))
    else {
      assert.equal(map.delete(key), true)
      assert.equal(map.delete(key), false)
      assert.equal(map.lookup(key), undefined)
    }
  })
}

kernelTest('update() keeps to its flags when the key is there and when it is not', () => {
  using map = makeMap({ type: 'hash', ...FOUR })
  assert.throws(() => map.update(1, u32(1), ELEMENT_FLAGS.exist), errno('ENOENT'))
  map.update(1, u32(1), ELEMENT_FLAGS.noExist)
  assert.throws(() => map.update(1, u32(2), ELEMENT_FLAGS.noExist), errno('EEXIST'))
  map.update(1, u32(3), ELEMENT_FLAGS.exist)
  assert.deepEqual(map.lookup(1), u32(3))
})

kernelTest('update() fails with E2BIG when the map is full, and an lru_hash makes room', () => {
  using hash = makeMap({ type: 'hash', ...FOUR })
  for (let i = 0; i < 8; i++) hash.update(i, u32(i))
  assert.throws(() => hash.update(8, u32(8)), errno('E2BIG'))
  using lru = makeMap({ type: 'lru_hash', ...FOUR })
  for (let i = 0; i < 100; i++) lru.update(i, u32(i))
  assert.deepEqual(lru.lookup(99), u32(99))
})

kernelTest('keys and values of the wrong length never reach the kernel', () => {
  using map = makeMap({ type: 'hash', ...FOUR })
  assert.throws(() => map.lookup(new Uint8Array(3)), /a key of this map is 4 bytes, not 3/)
  assert.throws(() => map.lookup(u32(0), new Uint8Array(3)), TypeError)
  assert.throws(() => map.update(u32(0), new Uint8Array(5)), TypeError)
  assert.throws(() => map.delete(u64(0)), TypeError)
  assert.throws(() => map.push(new Uint8Array(5)), TypeError)
  using wide = makeMap({ type: 'hash', keyBytes: 8, valueBytes: 4, maxEntries: 1 })
  assert.throws(() => wide.lookup(1), /not a number/)
})

kernelTest('lookup() writes into the caller’s array when given one', () => {
  using map = makeMap({ type: 'array', ...FOUR })
  const into = new Uint8Array(4)
  map.update(2, u32(9))
  assert.equal(map.lookup(2, into), into)
  assert.deepEqual(into, u32(9))
})

kernelTest('keys() gives every key once when each is deleted as it comes', () => {
  using map = makeMap({ type: 'hash', keyBytes: 4, valueBytes: 4, maxEntries: 1000 })
  for (let i = 0; i < 1000; i++) map.update(i, u32(i))
  const seen = new Set<number>()
  for (const key of map.keys()) {
    assert.equal(map.delete(key), true)
    seen.add(new Uint32Array(key.buffer)[0]!)
  }
  assert.equal(seen.size, 1000)
  assert.deepEqual([...map.keys()], [])
})

kernelTest('keys() gives what stays exactly once when the key ahead is deleted', () => {
  using map = makeMap({ type: 'hash', keyBytes: 4, valueBytes: 4, maxEntries: 64 })
  for (let i = 0; i < 64; i++) map.update(i, u32(i))
  const order = [...map.keys()]
  const doomed = order.filter((_, i) => i % 5 === 1)
  const seen: string[] = []
  for (const key of map.keys()) {
    seen.push(Buffer.from(key).toString('hex'))
    // The one that the walk has already fetched: the kernel starts over from here.
    const at = order.findIndex(other => Buffer.compare(other, key) === 0)
    const next = order[at + 1]
    if (next !== undefined && doomed.includes(next)) map.delete(next)
  }
  assert.equal(new Set(seen).size, seen.length, 'a key came twice')
  const kept = order.filter(key => !doomed.includes(key)).map(key => Buffer.from(key).toString('hex'))
  assert.deepEqual(
    kept.filter(key => !seen.includes(key)),
    [],
  )
})

kernelTest('entries() gives keys with values, and all of an array', () => {
  using map = makeMap({ type: 'array', ...FOUR })
  for (let i = 0; i < 8; i++) map.update(i, u32(i * i))
  assert.deepEqual(
    [...map.entries()].map(([key, value]) => [
      new Uint32Array(key.buffer)[0],
      new Uint32Array(value.buffer)[0],
    ]),
    Array.from({ length: 8 }, (_, i) => [i, i * i]),
  )
})

kernelTest('keys() fails with ENOTSUPP or EINVAL when the type has no keys', () => {
  using map = makeMap({ type: 'queue', valueBytes: 4, maxEntries: 4 })
  assert.throws(() => [...map.keys()], errno('EINVAL'))
})

for (const type of ['hash', 'array', 'lru_hash', 'percpu_hash', 'percpu_array', 'lpm_trie'] as const) {
  kernelTest(`batches(), updateBatch() and deleteBatch() carry all elements of a ${type}`, async () => {
    const isTrie = type === 'lpm_trie'
    // A full lru_hash would let some go; an array always has as many as it says.
    const entries = type === 'lru_hash' ? 4000 : 1000
    const flags = isTrie ? MAP_FLAGS.BPF_F_NO_PREALLOC : 0
    using map = makeMap({ type, keyBytes: isTrie ? 8 : 4, valueBytes: 4, maxEntries: entries, flags })
    const keys = Array.from({ length: 1000 }, (_, i) =>
      isTrie ? new Uint8Array([...u32(32), ...u32(i)]) : u32(i),
    )
    const wide = map.transferBytes
    await map.updateBatch(keys.map((key, i) => [key, new Uint8Array(wide).fill(i & 0xff)]))
    const seen = new Map<string, number>()
    for await (const chunk of map.batches({ chunk: 64 }))
      for (const [key, value] of chunk) seen.set(Buffer.from(key).toString('hex'), value[0]!)
    assert.equal(seen.size, 1000)
    keys.forEach((key, i) => {
      assert.equal(seen.get(Buffer.from(key).toString('hex')), i & 0xff)
    })
    if (type.endsWith('array')) await assert.rejects(map.deleteBatch(keys), errno('ENOTSUPP'))
    else {
      assert.equal(await map.deleteBatch(keys.slice(0, 400)), 400)
      assert.equal([...map.keys()].length, 600)
    }
  })
}

kernelTest('batches() takes elements out when told to, and grows a chunk that is too small', async () => {
  using map = makeMap({ type: 'hash', keyBytes: 4, valueBytes: 4, maxEntries: 4096 })
  await map.updateBatch(Array.from({ length: 4096 }, (_, i) => [u32(i), u32(i)]))
  let taken = 0
  for await (const chunk of map.batches({ chunk: 1, remove: true })) taken += chunk.length
  assert.equal(taken, 4096)
  assert.deepEqual([...map.keys()], [])
})

kernelTest('batches() of an empty map ends at once', async () => {
  using map = makeMap({ type: 'hash', ...FOUR })
  for await (const chunk of map.batches()) assert.fail(`got ${chunk.length} elements`)
  await map.updateBatch([])
  assert.equal(await map.deleteBatch([]), 0)
})

kernelTest('lookupPerCpu() gives what updatePerCpu() set for each CPU', () => {
  const cpus = possibleCpus()
  for (const type of ['percpu_array', 'percpu_hash', 'lru_percpu_hash'] as const) {
    perCpuRoundTrip(type, cpus)
  }
})

// A function of its own: esbuild's `using` in a loop body carries an error over to the next round.
function perCpuRoundTrip(type: MapType, cpus: number): void {
  using map = makeMap({ type, keyBytes: 4, valueBytes: 12, maxEntries: 2 })
  assert.equal(map.transferBytes, 16 * cpus)
  const values = Array.from({ length: cpus }, (_, cpu) => new Uint8Array(12).fill(cpu + 1))
  map.updatePerCpu(1, values)
  assert.deepEqual(map.lookupPerCpu(1), values)
  assert.throws(() => map.updatePerCpu(1, values.slice(1)), TypeError)
  assert.throws(() => map.lookup(1, new Uint8Array(12)), TypeError)
}

kernelTest('push(), peek() and pop() are first in first out on a queue, last in first out on a stack', () => {
  using queue = makeMap({ type: 'queue', valueBytes: 4, maxEntries: 3 })
  using stack = makeMap({ type: 'stack', valueBytes: 4, maxEntries: 3 })
  for (const map of [queue, stack]) {
    assert.equal(map.peek(), undefined)
    assert.equal(map.pop(), undefined)
    for (let i = 1; i <= 3; i++) map.push(u32(i))
    assert.throws(() => map.push(u32(4)), errno('E2BIG'))
    map.push(u32(4), ELEMENT_FLAGS.exist)
  }
  assert.deepEqual(
    [queue.peek(), queue.pop(), queue.pop(), queue.pop(), queue.pop()],
    [...[u32(2), u32(2), u32(3), u32(4), undefined]],
  )
  assert.deepEqual(
    [stack.peek(), stack.pop(), stack.pop(), stack.pop(), stack.pop()],
    [...[u32(4), u32(4), u32(3), u32(2), undefined]],
  )
})

kernelTest('mayContain() is true for what was pushed and false for a value that never was', () => {
  using map = makeMap({ type: 'bloom_filter', valueBytes: 4, maxEntries: 100, extra: 5n })
  map.push(u32(42))
  assert.equal(map.mayContain(u32(42)), true)
  assert.equal(map.mayContain(u32(43)), false)
})

kernelTest('lookupAndDelete() takes a value out of a hash', () => {
  using map = makeMap({ type: 'hash', ...FOUR })
  map.update(1, u32(5))
  assert.deepEqual(map.lookupAndDelete(1), u32(5))
  assert.equal(map.lookupAndDelete(1), undefined)
})

for (const type of ['array_of_maps', 'hash_of_maps'] as const) {
  kernelTest(`updateFd() puts maps into a ${type}, and lookupId() names them`, () => {
    using inner = makeMap({ type: 'array', ...FOUR })
    using misfit = makeMap({ type: 'hash', ...FOUR })
    using outer = makeMap({ type, ...FOUR, innerMap: inner, name: 'outer' })
    outer.updateFd(1, inner)
    assert.equal(outer.lookupId(1), inner.info().id)
    assert.throws(() => outer.updateFd(2, misfit), errno('EINVAL'))
    assert.equal(outer.lookupId(2), undefined)
  })
}

kernelTest('updateFd() puts a program into a prog_array, and delete() takes it out', async () => {
  using map = makeMap({ type: 'prog_array', ...FOUR })
  using program = await loadProgram({ type: 'socket_filter', insns: [mov64(R0, 0), exit()] })
  map.updateFd(1, program)
  assert.equal(map.lookupId(1), program.info().id)
  assert.equal(map.delete(1), true)
  assert.equal(map.lookupId(1), undefined)
})

kernelTest('updateFd() puts a bound socket into a sockhash, and refuses what is none', async () => {
  using map = makeMap({ type: 'sockhash', ...FOUR })
  using udp = await boundUdp()
  map.updateFd(3, { fd: udp.fd })
  assert.equal(map.delete(3), true)
  assert.equal(map.delete(3), false)
  assert.throws(() => map.updateFd(3, map), errno('ENOTSOCK'))
})

kernelTest('freeze() stops writing from here, and reading goes on', () => {
  using map = makeMap({ type: 'array', ...FOUR })
  map.update(0, u32(1))
  map.freeze()
  assert.throws(() => map.update(0, u32(2)), errno('EPERM'))
  assert.deepEqual(map.lookup(0), u32(1))
  assert.throws(() => map.freeze(), errno('EPERM'))
})

kernelTest('mmap() shows what update() wrote when the array is mmapable, and fails when it is not', () => {
  using map = makeMap({ type: 'array', ...FOUR, flags: MAP_FLAGS.BPF_F_MMAPABLE })
  map.update(1, u32(77))
  {
    using memory = map.mmap({ writable: true })
    const words = new Uint32Array(memory.buffer)
    assert.equal(words[2], 77)
    words[4] = 78
    assert.deepEqual(map.lookup(2), u32(78))
  }
  using plain = makeMap({ type: 'array', ...FOUR })
  assert.throws(() => plain.mmap({ writable: false }), errno('EINVAL'))
  using queue = makeMap({ type: 'queue', valueBytes: 4, maxEntries: 4 })
  assert.throws(() => queue.mmap({ writable: false }), errno('ENOTSUPP'))
})

kernelTest('open() gives the pinned map back, until the name is removed', () => {
  using bpffs = privateBpffs()
  const at = path.join(bpffs.path, 'map')
  using map = makeMap({ type: 'hash', ...FOUR })
  map.update(1, u32(6))
  map.pin(at)
  assert.throws(() => map.pin(at), errno('EEXIST'))
  {
    using again = BpfMap.open(at)
    assert.equal(again.info().id, map.info().id)
    assert.deepEqual(again.lookup(1), u32(6))
    assert.throws(() => Program.open(at), /not a BPF program, but anon_inode:bpf-map/)
  }
  unlinkSync(at)
  assert.throws(() => BpfMap.open(at), errno('ENOENT'))
})

kernelTest('pin() says what about the place is wrong, and leaves nothing there', () => {
  using map = makeMap({ type: 'hash', ...FOUR })
  using bpffs = privateBpffs()
  using scratch = new Scratch()
  const refused = (at: string, name: string, hint: RegExp): void =>
    assert.throws(
      () => map.pin(at),
      (error: unknown) =>
        errno(name)(error) && assert.match((error as SyscallError).hint ?? '', hint) === undefined,
      at,
    )
  const inside = (name: string): string => `${bpffs.path}/${name}`
  refused(inside('a/b/pin'), 'ENOENT', /^Make the directory ".*\/a\/b" first$/)
  refused(
    `${scratch.path}/a/pin`,
    'ENOENT',
    /^There is no directory ".*\/a", and ".*" lies in no bpffs: name/,
  )
  refused(`${scratch.path}/pin`, 'EPERM', /^".*" lies in no bpffs: name a path in one/)
  refused(inside('a.pin'), 'EPERM', /without a dot/)
  refused(inside('pin/'), 'ENOENT', /slash at the end/)
  const left = readdirSync(bpffs.path).filter(name => !name.endsWith('.debug'))
  assert.deepEqual([left, readdirSync(scratch.path)], [[], []])
  mkdirSync(inside('a'))
  map.pin(inside('a/pin'))
  unlinkSync(inside('a/pin'))
  rmdirSync(inside('a'))
})

kernelTest('fromId() opens a map that lives and fails with ENOENT for one that does not', () => {
  using map = makeMap({ type: 'percpu_hash', ...FOUR })
  using same = BpfMap.fromId(map.info().id)
  assert.equal(same.transferBytes, map.transferBytes)
  assert.throws(() => BpfMap.fromId(0x7fff_ffff), errno('ENOENT'))
})

kernelTest('create() makes a name acceptable instead of failing on it', () => {
  using map = BpfMap.create({ type: 'array', ...FOUR, name: 'a map-with.ünicode' })
  assert.equal(map.info().name, 'a_map_with._nic')
})

kernelTest('create() names the map and its type when it fails, and TypeError for an unknown word', () => {
  assert.throws(
    () => BpfMap.create({ type: 'hash', maxEntries: 1, name: 'flows' }),
    /bpf\(BPF_MAP_CREATE\) on map "flows" \(hash\) failed with EINVAL/,
  )
  assert.throws(() => BpfMap.create({ type: 'hsah' as MapType, ...FOUR }), /there is no map type "hsah"/)
})

/** What nobody knows from the sizes alone: what this kernel has, and what depends on two flags. */
const NOT_BY_SHAPE = MAP_FLAGS.BPF_F_RB_OVERWRITE | MAP_FLAGS.BPF_F_STACK_BUILD_ID

/** What is wrong with one field, by the hint; undefined: the kernel makes such a map. */
function refusal(type: MapType, shape: Shape): string | undefined {
  try {
    makeMap({ type, ...shape }).close()
    return undefined
  } catch (error) {
    assert.ok(error instanceof SyscallError, String(error))
    return error.errnoName === 'EINVAL' ? (error.hint ?? 'no hint') : error.errnoName
  }
}

kernelTest('create() says of each field that a type does not take what it has to be', () => {
  const wrong: string[] = []
  let refused = 0
  let made = 0
  for (const [word, fits] of Object.entries(SHAPES)) {
    const type = word as MapType
    if (!running.has(MAP_TYPES.number(type))) continue
    const attempts: [field: string, shape: Shape][] = [
      ...[0, 3, 4, 8, 16, 300].map((n): [string, Shape] => ['keyBytes', { ...fits, keyBytes: n }]),
      ...[0, 3, 4, 8, 16, 32].map((n): [string, Shape] => ['valueBytes', { ...fits, valueBytes: n }]),
      ...[0, 1, PAGE_BYTES - 1, PAGE_BYTES, 3 * PAGE_BYTES].map((n): [string, Shape] => [
        'maxEntries',
        { ...fits, maxEntries: n },
      ]),
      ...[...Object.values(MAP_FLAGS), MAP_FLAGS.BPF_F_RDONLY_PROG | MAP_FLAGS.BPF_F_WRONLY_PROG]
        .filter(flag => (flag & (MAP_FLAGS.BPF_F_TOKEN_FD | NOT_BY_SHAPE)) === 0)
        .map((flag): [string, Shape] => ['flags', { ...fits, flags: (fits.flags ?? 0) ^ flag }]),
    ]
    for (const [field, shape] of attempts) {
      const said = refusal(type, shape)
      if (said === undefined) made++
      else if (/^E[A-Z0-9]+$/.test(said)) continue
      else refused++
      const sizes = { keyBytes: 0, valueBytes: 0, maxEntries: 0, flags: 0, ...shape }
      const ours = misfit(type, sizes)
      // One field alone is named, and none where the kernel takes all.
      const right = said === undefined ? ours === undefined : new RegExp(`^[^;]* ${field} [^;]*$`).test(said)
      if (!right) wrong.push(`${type} ${field} ${JSON.stringify(shape)}: kernel ${said}, we ${ours}`)
    }
  }
  assert.deepEqual(wrong, [])
  assert.ok(refused > 200 && made > 200, `${refused} refused, ${made} made`)
})

kernelTest('create() says what a size or flag has to be, in words', () => {
  const hint = (type: MapType, shape: Shape): string => refusal(type, shape) ?? 'made'
  assert.equal(
    hint('array', { keyBytes: 4, valueBytes: 4 }),
    'For the type array maxEntries must be 1 or more, not 0',
  )
  assert.equal(
    hint('ringbuf', { maxEntries: 5000 }),
    'For the type ringbuf maxEntries must be bytes of data: a power of two, and whole pages of 4096, not 5000',
  )
  assert.equal(
    hint('lpm_trie', { keyBytes: 4, valueBytes: 4, maxEntries: 1 }),
    'For the type lpm_trie keyBytes must be 5 to 260, not 4; flags must have BPF_F_NO_PREALLOC',
  )
  assert.equal(
    hint('hash', { ...FOUR, flags: MAP_FLAGS.BPF_F_MMAPABLE | 0x4000_0000 }),
    'For the type hash flags cannot have BPF_F_MMAPABLE, 0x40000000',
  )
  assert.equal(hint('array', FOUR), 'made')
})

kernelTest('a closed map throws instead of using another descriptor', () => {
  const map = makeMap({ type: 'hash', ...FOUR })
  map.close()
  map.close()
  assert.throws(() => map.lookup(1), /closed/)
})

kernelTest('possibleCpus() is as many as the kernel’s own list says', () => {
  assert.ok(possibleCpus() >= readFileSync('/proc/cpuinfo', 'utf8').split(/^processor/m).length - 1)
})
