/**
 * What kernels differ in, as far as the model asks: the words of its enums, the shape of its bpf(2)
 * attributes, and a few behaviours. Read from BTF and found by trying; a version is never compared.
 */
import { type KernelEnums, type Vocabulary, vocabularyFrom } from '../policy/vocabulary.ts'

/** The commands of bpf(2) that the model knows, in the kernel's mount-option words. */
export const MODEL_COMMANDS = [
  'map_create',
  'prog_load',
  'obj_pin',
  'obj_get',
  'prog_attach',
  'prog_detach',
  'prog_get_next_id',
  'map_get_next_id',
  'btf_get_next_id',
  'link_get_next_id',
  'prog_get_fd_by_id',
  'map_get_fd_by_id',
  'btf_get_fd_by_id',
  'link_get_fd_by_id',
  'prog_query',
  'btf_load',
  'task_fd_query',
  'link_create',
  'enable_stats',
  'token_create',
] as const
export type ModelCommand = (typeof MODEL_COMMANDS)[number]

/** Attaching to many kernel functions at once; infrared remotes; the device netkit. */
export type KernelPart = 'multi' | 'lirc' | 'netkit'

/** How large the parts of a map may be. What is not read are the constants of kernels with pages of 4 KiB. */
export interface MapLimits {
  /** Bytes of one object: KMALLOC_MAX_SIZE. */
  readonly objectBytes: number
  /** Bytes of a value that each processor has its own of: PCPU_MIN_UNIT_SIZE. */
  readonly perCpuBytes: number
  /** Processors that the kernel was built for: NR_CPUS, by /sys/devices/system/cpu/kernel_max. */
  readonly processors: number
  /** Frames of a stack: sysctl kernel.perf_event_max_stack. */
  readonly stackDepth: number
}

/** x86-64, as Debian builds it. */
export const USUAL_LIMITS: MapLimits = {
  objectBytes: 4 << 20,
  perCpuBytes: 32 << 10,
  processors: 8192,
  stackDepth: 127,
}

export interface KernelFacts {
  /** For people: `6.12`, `running`. */
  readonly name: string
  readonly vocabulary: Vocabulary
  /** Bytes of its union bpf_attr. */
  readonly attrBytes: number
  /** Where the last field ends that a command knows; a byte behind that must be zero. */
  readonly attrEnds: Readonly<Record<ModelCommand, number>>
  /** Whether it has BPF tokens, and bpffs the delegation options. */
  readonly hasTokens: boolean
  /** Whether BPF_BTF_GET_FD_BY_ID asks a token (since 6.15). */
  readonly btfByIdTakesToken: boolean
  /** Whether maps that are neither readable nor writable are refused at once (up to 7.1), or at last. */
  readonly refusesClosedMaps: boolean
  /** Whether ring buffers may overwrite what was not read (since 6.19). */
  readonly ringsOverwrite: boolean
  /** Whether to detach from a device without naming a program asks CAP_NET_ADMIN of the host (6.18, not 6.12). */
  readonly unnamedDetachAsks: boolean
  /** Whether links to a cgroup may have flags (since 6.17). */
  readonly cgroupLinksTakeFlags: boolean
  /** Whether queues and stacks of more than 32 bits of bytes are refused at once (7.3, not 6.18). */
  readonly boundsQueues: boolean
  /** Bytes of struct lpm_trie_node, without its data (24 since 6.13, 40 before). */
  readonly lpmNodeBytes: number
  readonly limits: MapLimits
  /** What it was built without, beside types. */
  readonly lacks: ReadonlySet<KernelPart>
  /** Program types that this kernel refuses to everybody with EPERM: `type`, or `type/attach type`, in words. */
  readonly refusedProgs: ReadonlySet<string>
  /** Map types that have a word and that this kernel was built without. */
  readonly absentMaps: ReadonlySet<string>
  /** The same of program types. */
  readonly absentProgs: ReadonlySet<string>
}

/** What is read of a kernel's BTF. */
export interface KernelShape {
  readonly enums: KernelEnums
  readonly attrBytes: number
  /** Names of all fields in union bpf_attr, those of its unnamed parts included. */
  readonly attrFields: ReadonlySet<string>
}

/** Ends of the last fields that never changed. */
const ENDS = {
  prog_get_next_id: 8,
  map_get_next_id: 8,
  btf_get_next_id: 8,
  link_get_next_id: 8,
  prog_get_fd_by_id: 4,
  map_get_fd_by_id: 12,
  link_get_fd_by_id: 4,
  task_fd_query: 48,
  enable_stats: 4,
  token_create: 8,
} as const

/** The facts that BTF gives. What was found by trying is added by `tried`. */
export function factsFrom(
  name: string,
  { enums, attrBytes, attrFields }: KernelShape,
  tried: Partial<Pick<KernelFacts, 'absentMaps' | 'absentProgs' | 'lacks' | 'refusedProgs'>> = {},
  limits: Partial<MapLimits> = {},
): KernelFacts {
  const vocabulary = vocabularyFrom(enums)
  const has = (field: string): boolean => attrFields.has(field)
  const hasTokens = vocabulary.cmds.bitOfName.has('token_create')
  const btfByIdTakesToken = has('fd_by_id_token_fd')
  return {
    name,
    vocabulary,
    attrBytes,
    attrEnds: {
      ...ENDS,
      obj_pin: has('path_fd') ? 20 : 16,
      obj_get: has('path_fd') ? 20 : 16,
      prog_attach: has('expected_revision') ? 32 : 20,
      prog_detach: has('expected_revision') ? 32 : 12,
      prog_query: has('revision') ? 64 : 40,
      map_create: has('excl_prog_hash_size') ? 92 : has('map_token_fd') ? 80 : 72,
      prog_load: has('keyring_id') ? 168 : has('fd_array_cnt') ? 152 : has('prog_token_fd') ? 148 : 140,
      btf_load: has('btf_token_fd') ? 40 : has('btf_log_true_size') ? 32 : 28,
      btf_get_fd_by_id: btfByIdTakesToken ? 16 : 4,
      // uprobe_multi.path_fd came in the same release.
      link_create: has('tracing_multi') ? 64 : 60,
    },
    hasTokens,
    btfByIdTakesToken,
    // rhash came in the same release as the other order.
    refusesClosedMaps: !vocabulary.maps.bitOfName.has('rhash'),
    // insn_array came with the same release.
    ringsOverwrite: vocabulary.maps.bitOfName.has('insn_array'),
    unnamedDetachAsks: vocabulary.cmds.bitOfName.has('prog_stream_read_by_fd'),
    cgroupLinksTakeFlags: vocabulary.cmds.bitOfName.has('prog_stream_read_by_fd'),
    boundsQueues: vocabulary.maps.bitOfName.has('rhash'),
    // The number of descriptors came in 6.14.
    lpmNodeBytes: has('fd_array_cnt') ? 24 : 40,
    limits: { ...USUAL_LIMITS, ...limits },
    lacks: tried.lacks ?? new Set(),
    refusedProgs: tried.refusedProgs ?? new Set(),
    absentMaps: tried.absentMaps ?? new Set(),
    absentProgs: tried.absentProgs ?? new Set(),
  }
}
