/**
 * Raw attributes of bpf(2) for small objects of every kind, so that a test depends on nothing above
 * the kernel.
 */
import { readFileSync } from 'node:fs'
import { runningVocabulary } from '../../../src/delegation/vocabulary.ts'
import { Btf } from '../../../src/ebpf/btf/btf.ts'
import type { MaskDomain } from '../../../src/policy/vocabulary.ts'
import { Fd } from '../../../src/sys/fd.ts'
import { native } from '../../../src/sys/native.ts'
import {
  bpf_attr_btf_load,
  bpf_attr_map_create,
  bpf_attr_prog_load,
  bpf_attr_token_create,
  bpf_cmd,
  bpf_map_flags,
} from '../../../src/uapi/bpf.ts'
import { BPF_F_SLEEPABLE } from '../../../src/uapi/constants.ts'
import { errnoName } from '../../../src/uapi/errno.ts'

export const {
  BPF_TOKEN_CREATE,
  BPF_MAP_CREATE,
  BPF_PROG_LOAD,
  BPF_BTF_LOAD,
  BPF_BTF_GET_FD_BY_ID,
  BPF_OBJ_PIN,
} = bpf_cmd
const vocabulary = runningVocabulary()

/** By the running kernel, which may know more than our constants. */
function numberOf(domain: MaskDomain, word: string): number {
  const bit = vocabulary[domain].bitOfName.get(word)
  if (bit === undefined) throw new Error(`this kernel has no ${domain} "${word}"`)
  return bit
}

const { BPF_F_TOKEN_FD, BPF_F_NO_PREALLOC, BPF_F_MMAPABLE } = bpf_map_flags

/** A command ready to run; `refs` as the addon takes them. */
export interface Command {
  readonly cmd: number
  readonly attr: Uint8Array
  readonly refs: (Uint8Array | number)[]
}

/** As the host's root, with all capabilities and no token: `ok` or the errno's name. */
export function asHostRoot({ cmd, attr, refs }: Command): string {
  const result = native().bpf(cmd, attr, ...refs)
  if (result < 0) return errnoName(result)
  new Fd(result).close()
  return 'ok'
}

export function tokenAttr(root: number, flags = 0): Uint8Array {
  return bpf_attr_token_create.encode({ flags, bpffs_fd: root })
}

type MapShape = Parameters<typeof bpf_attr_map_create.encode>[0]

const LOCAL_STORAGE: MapShape = {
  max_entries: 0,
  map_flags: BPF_F_NO_PREALLOC,
  btf_key_type_id: 1,
  btf_value_type_id: 1,
}
const CGROUP_STORAGE: MapShape = { key_size: 8, max_entries: 0 }
const RING: MapShape = { key_size: 0, value_size: 0, max_entries: 4096 }

/** What differs from key 4, value 4, one element. */
const SHAPES: Readonly<Record<string, MapShape>> = {
  stack_trace: { value_size: 8 },
  lpm_trie: { key_size: 8, map_flags: BPF_F_NO_PREALLOC },
  cgroup_storage: CGROUP_STORAGE,
  cgroup_storage_deprecated: CGROUP_STORAGE,
  percpu_cgroup_storage: CGROUP_STORAGE,
  percpu_cgroup_storage_deprecated: CGROUP_STORAGE,
  queue: { key_size: 0 },
  stack: { key_size: 0 },
  bloom_filter: { key_size: 0 },
  sk_storage: LOCAL_STORAGE,
  inode_storage: LOCAL_STORAGE,
  task_storage: LOCAL_STORAGE,
  cgrp_storage: LOCAL_STORAGE,
  ringbuf: RING,
  user_ringbuf: RING,
  insn_array: { value_size: 16 },
  rhash: { map_flags: BPF_F_NO_PREALLOC },
  arena: { key_size: 0, value_size: 0, max_entries: 1, map_flags: BPF_F_MMAPABLE },
}

/**
 * The attribute for a map of the type with this mount-option word, with more fields set by `also`.
 */
export function mapAttr(type: string, token?: number, also: MapShape = {}): Uint8Array {
  const shape = { key_size: 4, value_size: 4, max_entries: 1, ...SHAPES[type], ...also }
  const flags = (shape.map_flags ?? 0) | BPF_F_TOKEN_FD
  return bpf_attr_map_create.encode({
    map_type: numberOf('maps', type),
    ...shape,
    ...(token === undefined ? {} : { map_flags: flags, map_token_fd: token }),
  })
}

/** r0 = value; exit. The verifier wants 1 of some cgroup hooks, and takes it from all of them. */
const returning = (value: number) =>
  new Uint8Array([0xb7, 0, 0, 0, value, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0])
const RETURN_0 = returning(0)
const RETURN_1 = returning(1)
const LICENSE = new TextEncoder().encode('GPL\0')

export function progCommand(type: string, attach: string, token?: number, targets?: Targets): Command {
  const attr = bpf_attr_prog_load.encode({
    prog_type: numberOf('progs', type),
    insn_cnt: 2,
    expected_attach_type: numberOf('attachs', attach),
    attach_btf_id: targets?.of(type, attach) ?? 0,
    prog_flags: (type === 'syscall' ? BPF_F_SLEEPABLE : 0) | (token === undefined ? 0 : BPF_F_TOKEN_FD),
    ...(token === undefined ? {} : { prog_token_fd: token }),
  })
  const { insns, license } = bpf_attr_prog_load.fields
  return {
    cmd: BPF_PROG_LOAD,
    attr,
    refs: [attr, insns.off, type.startsWith('cgroup') ? RETURN_1 : RETURN_0, attr, license.off, LICENSE],
  }
}

/** A BTF blob with one type, a signed int. Header 24 bytes, then types, then strings. */
const BTF_INT = (() => {
  const strings = Buffer.from('\0int\0')
  const words = new Uint32Array([0x0001_eb9f, 24, 0, 16, 16, strings.length, 1, 1 << 24, 4, (1 << 24) | 32])
  return new Uint8Array(Buffer.concat([Buffer.from(words.buffer), strings]))
})()

export function btfCommand(token?: number): Command {
  const attr = bpf_attr_btf_load.encode({
    btf_size: BTF_INT.length,
    ...(token === undefined ? {} : { btf_flags: BPF_F_TOKEN_FD, btf_token_fd: token }),
  })
  return { cmd: BPF_BTF_LOAD, attr, refs: [attr, bpf_attr_btf_load.fields.btf.off, BTF_INT] }
}

/** What programs and maps of some types refer to in the kernel's own BTF. */
export class Targets {
  readonly #btf = Btf.parse(readFileSync('/sys/kernel/btf/vmlinux'))

  #id(kind: 'func' | 'struct' | 'typedef', name: string): number {
    return this.#btf.find(name, kind)[0] ?? 0
  }

  /** attach_btf_id for a program of this type, 0 where it has none. */
  of(type: string, attach: string): number {
    if (type === 'struct_ops') return this.#id('struct', 'tcp_congestion_ops')
    if (type === 'lsm')
      return this.#id('func', attach === 'lsm_cgroup' ? 'bpf_lsm_socket_bind' : 'bpf_lsm_file_open')
    if (type !== 'tracing') return 0
    if (attach === 'trace_raw_tp') return this.#id('typedef', 'btf_trace_sched_switch')
    if (attach === 'trace_iter') return this.#id('func', 'bpf_iter_task')
    return this.#id('func', attach === 'modify_return' ? 'bpf_modify_return_test' : 'bpf_fentry_test1')
  }

  structOps(): MapShape {
    const id = this.#id('struct', 'bpf_struct_ops_tcp_congestion_ops')
    return { btf_vmlinux_value_type_id: id, value_size: this.#btf.sizeof(id) }
  }
}

/**
 * Objects of the host's root that maps of some types refer to; a token is not asked about those.
 */
export class MapParts implements Disposable {
  readonly #btf: Fd
  readonly #inner: Fd
  readonly #targets: Targets

  constructor(targets: Targets) {
    const btf = btfCommand()
    this.#btf = new Fd(native().bpf(btf.cmd, btf.attr, ...btf.refs))
    this.#inner = new Fd(native().bpf(BPF_MAP_CREATE, mapAttr('array')))
    this.#targets = targets
  }

  command(type: string, token?: number): Command {
    return { cmd: BPF_MAP_CREATE, attr: mapAttr(type, token, this.#also(type)), refs: [] }
  }

  #also(type: string): MapShape {
    // Its value is a type of the kernel's BTF, and yet the map must come with BTF of its own.
    if (type === 'struct_ops') return { ...this.#targets.structOps(), btf_fd: this.#btf.number }
    if (type === 'array_of_maps' || type === 'hash_of_maps') return { inner_map_fd: this.#inner.number }
    if (SHAPES[type] === LOCAL_STORAGE) return { btf_fd: this.#btf.number }
    return {}
  }

  [Symbol.dispose](): void {
    this.#btf.close()
    this.#inner.close()
  }
}
