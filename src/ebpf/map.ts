/**
 * BPF maps. Start at `BpfMap.create`; types go by the kernel's words, keys and values are bytes.
 *
 * A map is checked for capabilities once, when it is made; who holds its descriptor may do all the
 * rest. Lengths of keys and values are checked here before every call, because the kernel reads and
 * writes as many bytes as the map says, whatever was given.
 */
import { ConflictError } from '../errors.ts'
import {
  getFdById,
  mapCreate,
  mapDeleteElem,
  mapFreeze,
  mapGetNextKey,
  mapLookupAndDeleteElem,
  mapLookupElem,
  mapUpdateElem,
  objGet,
  objGetInfoByFd,
} from '../sys/bpf.ts'
import type { Fd } from '../sys/fd.ts'
import { type Mapping, mapShared, PAGE_BYTES } from '../sys/memory.ts'
import { bpf_elem_flags, bpf_map_flags, bpf_map_info } from '../uapi/bpf.ts'
import { deleteBatch, type Element, readAtOnce, readBatches, writeBatch } from './map-batch.ts'
import { misfit } from './map-shape.ts'
import { expectKind } from './object-kind.ts'
import { nameFrom, objectName } from './object-name.ts'
import { joinPerCpu, possibleCpus, slotBytes, splitPerCpu } from './per-cpu.ts'
import { pin } from './pin.ts'
import { explain } from './refusal.ts'
import type { Need } from './rights.ts'
import { chooseToken, type TokenChoice } from './token.ts'
import { MAP_TYPES, type MapType } from './type-names.ts'

export const MAP_FLAGS = bpf_map_flags
/**
 * For `update` and `push`: any, only a new key, only an existing one; and under the value's spin
 * lock.
 */
export const ELEMENT_FLAGS = {
  any: bpf_elem_flags.BPF_ANY,
  noExist: bpf_elem_flags.BPF_NOEXIST,
  exist: bpf_elem_flags.BPF_EXIST,
  lock: bpf_elem_flags.BPF_F_LOCK,
} as const

/** A key: its bytes or, where keys are 4 bytes (arrays), a number. */
export type Key = Uint8Array | number

export interface MapSpec {
  type: MapType | number
  /** 0, the default, for types without keys. */
  keyBytes?: number
  /** Of one CPU, for per-CPU types. 0, the default, for types without values. */
  valueBytes?: number
  /**
   * For ring buffers: bytes of data, a power of two times the page size. 0, the default, where the
   * type wants that.
   */
  maxEntries?: number
  /** `MAP_FLAGS` */
  flags?: number
  name?: string
  /** The pattern for the maps in an `array_of_maps` or `hash_of_maps`. */
  innerMap?: BpfMap
  /** Types of key and value; storage maps must have them. */
  btf?: { object: { readonly fd: Fd }; keyTypeId: number; valueTypeId: number }
  /** For `struct_ops`: the type in the kernel's BTF, or in a module's. */
  vmlinuxValueTypeId?: number
  /** The module's BTF that `vmlinuxValueTypeId` is of. Since Linux 6.9. */
  vmlinuxValueTypeBtf?: { readonly fd: Fd }
  /** Type-dependent: hash functions of a `bloom_filter`, address of an `arena`. */
  extra?: bigint
  numaNode?: number
  ifindex?: number
  /** Undefined: the token that `defaultToken` finds; null: none. */
  token?: TokenChoice
}

/** What the kernel says of a map. */
export interface MapInfo {
  id: number
  type: MapType
  name: string
  keyBytes: number
  valueBytes: number
  maxEntries: number
  flags: number
  extra: bigint
  ifindex: number
  /** 0: none. */
  btfId: number
  btfKeyTypeId: number
  btfValueTypeId: number
}

const PER_CPU: readonly MapType[] = [
  'percpu_hash',
  'percpu_array',
  'lru_percpu_hash',
  'percpu_cgroup_storage_deprecated',
]
/** Types whose keys are the numbers below maxEntries and never go away. */
const INDEXED: readonly MapType[] = [
  ...(['array', 'percpu_array', 'prog_array', 'perf_event_array', 'cgroup_array', 'array_of_maps'] as const),
  ...(['devmap', 'cpumap', 'xskmap', 'sockmap', 'reuseport_sockarray'] as const),
]

/**
 * A map, by an open descriptor. Whoever made the object closes it; the map lives as long as
 * anything refers to it.
 */
export class BpfMap implements Disposable {
  readonly fd: Fd
  readonly type: MapType
  readonly keyBytes: number
  /** As declared: of one CPU for per-CPU types. */
  readonly valueBytes: number
  readonly maxEntries: number
  /**
   * Bytes that lookups give and updates take: for per-CPU types, one slot for each possible CPU.
   */
  readonly transferBytes: number
  readonly #number = new Uint8Array(4)
  readonly #numberView = new DataView(this.#number.buffer)

  private constructor(fd: Fd, of: Pick<MapInfo, 'type' | 'keyBytes' | 'valueBytes' | 'maxEntries'>) {
    this.fd = fd
    this.type = of.type
    this.keyBytes = of.keyBytes
    this.valueBytes = of.valueBytes
    this.maxEntries = of.maxEntries
    this.transferBytes = PER_CPU.includes(of.type) ? slotBytes(of.valueBytes) * possibleCpus() : of.valueBytes
  }

  /**
   * Makes a map: BPF_MAP_CREATE. Needs CAP_BPF, for some types CAP_NET_ADMIN, in the token's user
   * namespace or, without a token, in the initial one. EPERM names the missing right or capability
   * as hint. EINVAL: sizes or flags do not fit the type; the hint says which. E2BIG: a size is over
   * the kernel's limit. ENOMEM: too big. The caller disposes of it. Memory counts for the caller's
   * memory cgroup; RLIMIT_MEMLOCK plays no part since Linux 5.11.
   */
  static create(spec: MapSpec): BpfMap {
    const type = MAP_TYPES.number(spec.type)
    const word = MAP_TYPES.word(type)
    const token = chooseToken(spec.token)
    const { keyBytes = 0, valueBytes = 0, maxEntries = 0, btf } = spec
    let flags = spec.flags ?? 0
    if (token !== undefined) flags |= bpf_map_flags.BPF_F_TOKEN_FD
    if (spec.numaNode !== undefined) flags |= bpf_map_flags.BPF_F_NUMA_NODE
    if (spec.vmlinuxValueTypeBtf !== undefined) flags |= bpf_map_flags.BPF_F_VTYPE_BTF_OBJ_FD
    try {
      const fd = mapCreate({
        map_type: type,
        key_size: keyBytes,
        value_size: valueBytes,
        max_entries: maxEntries,
        map_flags: flags,
        map_name: objectName(spec.name ?? ''),
        inner_map_fd: spec.innerMap?.fd.number ?? 0,
        numa_node: spec.numaNode ?? 0,
        map_ifindex: spec.ifindex ?? 0,
        btf_fd: btf?.object.fd.number ?? 0,
        btf_key_type_id: btf?.keyTypeId ?? 0,
        btf_value_type_id: btf?.valueTypeId ?? 0,
        btf_vmlinux_value_type_id: spec.vmlinuxValueTypeId ?? 0,
        value_type_btf_obj_fd: spec.vmlinuxValueTypeBtf?.fd.number ?? 0,
        map_extra: spec.extra ?? 0n,
        map_token_fd: token?.fd.number ?? 0,
      })
      // A ring buffer's and a storage map's sizes are as given; the kernel rounds none of them.
      return new BpfMap(fd, { type: word, keyBytes, valueBytes, maxEntries })
    } catch (error) {
      const need: Need = { cmd: 'map_create', mapType: type }
      const wrong = misfit(word, { keyBytes, valueBytes, maxEntries, flags: spec.flags ?? 0 })
      throw explain(error, `map "${spec.name ?? ''}" (${word})`, need, token, wrong)
    }
  }

  /** Takes ownership of a map's descriptor. TypeError: it is something else. */
  static fromFd(fd: Fd): BpfMap {
    return new BpfMap(expectKind(fd, 'map'), readInfo(fd))
  }

  /**
   * Opens a pinned map: BPF_OBJ_GET. Needs read and write permission on the file. The caller
   * disposes of it.
   */
  static open(path: string): BpfMap {
    return BpfMap.fromFd(objGet(path))
  }

  /**
   * Opens a map by id. Needs CAP_SYS_ADMIN in the initial user namespace. ENOENT: no such map. The
   * caller disposes of it.
   */
  static fromId(id: number): BpfMap {
    return BpfMap.fromFd(getFdById('BPF_MAP_GET_FD_BY_ID', id))
  }

  /** BPF_OBJ_GET_INFO_BY_FD; needs no capability. */
  info(): MapInfo {
    return readInfo(this.fd)
  }

  /**
   * Gives the map a name in a bpffs: BPF_OBJ_PIN. ENOENT, EPERM: not at this place; the hint says
   * why. EEXIST: taken. unlink(2) removes it.
   */
  pin(path: string): void {
    pin(this.fd, path)
  }

  /**
   * From now on bpf(2) refuses to change the map (EPERM); programs still may. EBUSY: mapped
   * writable. EPERM: frozen already.
   */
  freeze(): void {
    mapFreeze(this.fd)
  }

  /** The value of `key`, in a new array or in `into`; undefined where there is none. */
  lookup(key: Key, into?: Uint8Array, flags = 0): Uint8Array | undefined {
    const value = into ?? new Uint8Array(this.transferBytes)
    if (value.length !== this.transferBytes) throw wrongLength('value', value, this.transferBytes)
    return mapLookupElem(this.fd, this.#key(key), value, flags) ? value : undefined
  }

  /**
   * Sets the value of `key`. E2BIG: full. EEXIST, ENOENT: by the flags. EPERM: frozen or opened
   * read-only.
   */
  update(key: Key, value: Uint8Array, flags: number = ELEMENT_FLAGS.any): void {
    if (value.length !== this.transferBytes) throw wrongLength('value', value, this.transferBytes)
    mapUpdateElem(this.fd, this.#key(key), value, flags)
  }

  /** Removes `key`; false: it was not there. EINVAL for arrays, whose elements stay. */
  delete(key: Key): boolean {
    return mapDeleteElem(this.fd, this.#key(key))
  }

  /** Takes the value out. Hashes since Linux 5.14. */
  lookupAndDelete(key: Key): Uint8Array | undefined {
    const value = new Uint8Array(this.transferBytes)
    return mapLookupAndDeleteElem(this.fd, this.#key(key), value) ? value : undefined
  }

  /** The value of `key` for each possible CPU. */
  lookupPerCpu(key: Key): Uint8Array[] | undefined {
    const value = this.lookup(key)
    return value === undefined ? undefined : splitPerCpu(value, this.valueBytes)
  }

  /** Sets the value of `key` for each possible CPU. */
  updatePerCpu(key: Key, values: readonly Uint8Array[], flags: number = ELEMENT_FLAGS.any): void {
    this.update(key, joinPerCpu(values, this.valueBytes), flags)
  }

  /**
   * Puts an object into a map of descriptors: programs (`prog_array`), maps (`array_of_maps`),
   * cgroups, perf events, sockets. The map then holds its own reference. Such a map, when looked
   * up, gives ids: `lookupId`.
   */
  updateFd(key: Key, object: { readonly fd: Fd }, flags: number = ELEMENT_FLAGS.any): void {
    const value = new Uint8Array(this.transferBytes)
    new DataView(value.buffer).setUint32(0, object.fd.number, true)
    this.update(key, value, flags)
  }

  /** The id of the program or map that was put there; undefined: nothing. */
  lookupId(key: Key): number | undefined {
    const value = this.lookup(key)
    return value && new DataView(value.buffer).getUint32(0, true)
  }

  /**
   * Adds to a queue, a stack or a bloom filter. E2BIG: full, unless ELEMENT_FLAGS.exist lets the
   * oldest go.
   */
  push(value: Uint8Array, flags: number = ELEMENT_FLAGS.any): void {
    if (value.length !== this.transferBytes) throw wrongLength('value', value, this.transferBytes)
    mapUpdateElem(this.fd, null, value, flags)
  }

  /** Takes the next value out of a queue or a stack; undefined: empty. */
  pop(): Uint8Array | undefined {
    const value = new Uint8Array(this.transferBytes)
    return mapLookupAndDeleteElem(this.fd, null, value) ? value : undefined
  }

  /** The next value of a queue or a stack, which stays; undefined: empty. */
  peek(): Uint8Array | undefined {
    const value = new Uint8Array(this.transferBytes)
    return mapLookupElem(this.fd, null, value) ? value : undefined
  }

  /** Whether a bloom filter may have seen the value; false is certain. */
  mayContain(value: Uint8Array): boolean {
    if (value.length !== this.transferBytes) throw wrongLength('value', value, this.transferBytes)
    return mapLookupElem(this.fd, null, value)
  }

  /**
   * All keys: BPF_MAP_GET_NEXT_KEY. A key that is there the whole time comes exactly once, whatever
   * is deleted or added meanwhile, by us or by others. ConflictError: it changes too fast to be
   * read.
   */
  *keys(): Generator<Uint8Array> {
    // When the key we stand on was deleted, the kernel starts over; so what was seen is remembered.
    const seen = INDEXED.includes(this.type) ? undefined : new Set<string>()
    let again = 0
    let next: Uint8Array | undefined = this.#keyAfter(null)
    while (next !== undefined) {
      const key: Uint8Array = next
      const text = seen === undefined ? '' : Buffer.from(key).toString('latin1')
      const isNew = seen === undefined || !seen.has(text)
      again = isNew ? 0 : again + 1
      if (again > this.maxEntries)
        throw new ConflictError('The map changes too fast to be walked key by key', {
          context: { type: this.type, maxEntries: this.maxEntries },
          hint: 'Read it in batches',
        })
      // Fetched before the caller gets the key and, often, deletes it.
      next = this.#keyAfter(key)
      seen?.add(text)
      if (isNew) yield key
    }
  }

  /** All keys with their values, as `keys()`; what vanished between the two calls is left out. */
  *entries(): Generator<Element> {
    for (const key of this.keys()) {
      const value = this.lookup(key)
      if (value !== undefined) yield [key, value]
    }
  }

  /**
   * All elements in one command, for maps of some megabytes at most. Since Linux 5.6; not every
   * type.
   */
  readAll(): Element[] {
    return readAtOnce({ ...this.#batchTarget(), maxEntries: this.maxEntries })
  }

  /**
   * All elements in few commands, `chunk` at a time; with `remove` they are taken out. Since Linux
   * 5.6; not every type.
   */
  batches(options: { chunk?: number; remove?: boolean } = {}): AsyncGenerator<Element[]> {
    const { chunk = Math.min(this.maxEntries, 1024), remove = false } = options
    return readBatches(this.#batchTarget(), { chunk, remove })
  }

  /** Sets many elements in one command. A failure in the middle leaves those before it set. */
  updateBatch(elements: readonly Element[], flags: number = ELEMENT_FLAGS.any): Promise<void> {
    return writeBatch(this.#batchTarget(), elements, flags)
  }

  /**
   * Removes many keys in one command, up to the first one that is not there: how many were removed.
   */
  deleteBatch(keys: readonly Uint8Array[]): Promise<number> {
    return deleteBatch(this.#batchTarget(), keys)
  }

  /**
   * The values of an `array` made with BPF_F_MMAPABLE as memory, each in a slot of a multiple of 8
   * bytes.
   */
  mmap(options: { writable: boolean }): Mapping {
    const bytes = this.maxEntries * slotBytes(this.valueBytes)
    return mapShared(this.fd, Math.ceil(bytes / PAGE_BYTES) * PAGE_BYTES, 0, options.writable)
  }

  close(): void {
    this.fd.close()
  }

  [Symbol.dispose](): void {
    this.close()
  }

  #key(key: Key): Uint8Array {
    if (typeof key === 'number') {
      if (this.keyBytes !== 4) throw new TypeError(`a key is ${this.keyBytes} bytes, not a number`)
      this.#numberView.setUint32(0, key, true)
      return this.#number
    }
    if (key.length !== this.keyBytes) throw wrongLength('key', key, this.keyBytes)
    return key
  }

  #keyAfter(key: Uint8Array | null): Uint8Array | undefined {
    const next = new Uint8Array(this.keyBytes)
    return mapGetNextKey(this.fd, key, next) ? next : undefined
  }

  #batchTarget(): { fd: Fd; keyBytes: number; valueBytes: number } {
    return { fd: this.fd, keyBytes: this.keyBytes, valueBytes: this.transferBytes }
  }
}

function wrongLength(what: string, given: Uint8Array, wanted: number): TypeError {
  return new TypeError(`a ${what} of this map is ${wanted} bytes, not ${given.length}`)
}

function readInfo(fd: Fd): MapInfo {
  const bytes = new Uint8Array(bpf_map_info.size)
  objGetInfoByFd(fd, bytes)
  const info = bpf_map_info.decode(bytes)
  return {
    id: info.id!,
    type: MAP_TYPES.word(info.type!),
    name: nameFrom(info.name),
    keyBytes: info.key_size!,
    valueBytes: info.value_size!,
    maxEntries: info.max_entries!,
    flags: info.map_flags!,
    extra: info.map_extra!,
    ifindex: info.ifindex!,
    btfId: info.btf_id!,
    btfKeyTypeId: info.btf_key_type_id!,
    btfValueTypeId: info.btf_value_type_id!,
  }
}
