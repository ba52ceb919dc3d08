/** BPF_MAP_CREATE. */
import { hasBit } from '../policy/vocabulary.ts'
import { bpf_attr_map_create, bpf_map_flags } from '../uapi/bpf.ts'
import { type AttrBytes, callFails, capable, fieldOf, initialText, lsmText, tailFails } from './bpf-call.ts'
import { type File, fileText, isOpen } from './file.ts'
import type { ErrnoName, Judge, Rule } from './judge.ts'
import type { KernelFacts } from './kernel.ts'
import type { Machine } from './machine.ts'
import {
  MAP_TYPES,
  type MapSizes,
  type MapType,
  NETWORK_MAPS,
  SEEDED_MAPS,
  UNPRIVILEGED_MAPS,
  ZERO_SEED,
} from './map-types.ts'
import { nameFails } from './names.ts'
import type { Task } from './task.ts'
import { foundText, neededText, resolveToken, type TokenChoice, tokenCapable } from './token.ts'

export interface MapCreate extends Partial<MapSizes> {
  readonly op: 'map_create'
  /** enum bpf_map_type. What is not given of the sizes is what the type takes: see `MAP_TYPES`. */
  readonly type: number
  readonly name?: string
  /** With BPF_F_NUMA_NODE. */
  readonly numaNode?: number
  readonly token?: TokenChoice
  /** What the token's field names if the attributes are cut before it: descriptor 0. */
  readonly standardInput?: File
  /** The map that an outer map copies its shape from. Absent: a fitting one, if the type needs it. */
  readonly inner?: File
  /** Types of key and value. Absent: fitting ones, if the type needs them. */
  readonly types?: MapTypesChoice
  readonly attr?: AttrBytes
}

export interface MapTypesChoice {
  /** The BTF object that the types are of. */
  readonly btf: File
  /** Numbers of the types; 0: none. */
  readonly key: number
  readonly value: number
  /** Bytes of these types; absent: what the map has. */
  readonly keyBytes?: number
  readonly valueBytes?: number
  /** The type of the kernel's that a struct_ops map holds; `unknown` to it, or known. Absent: none. */
  readonly kernelType?: 'unknown' | 'known'
}

export const MAP_RULES = {
  kernelType: {
    name: 'MAP_CREATE: type of the kernel’s for struct_ops only',
    needs: 'btf_vmlinux_value_type_id for struct_ops alone, and without types of one’s own',
    source: 'map_create',
    errno: 'EINVAL',
  },
  keyType: {
    name: 'MAP_CREATE: a key’s type comes with a value’s',
    needs: 'btf_value_type_id beside btf_key_type_id',
    source: 'map_create',
    errno: 'EINVAL',
  },
  extra: {
    name: 'MAP_CREATE: map_extra',
    needs: 'map_extra 0, but for bloom_filter, arena and rhash',
    source: 'map_create',
    errno: 'EINVAL',
  },
  fileFlags: {
    name: 'MAP_CREATE: read-only and write-only at once',
    needs: 'not both BPF_F_RDONLY and BPF_F_WRONLY',
    source: 'bpf_get_file_flag',
    errno: 'EINVAL',
  },
  numa: {
    name: 'MAP_CREATE: NUMA node',
    needs: 'a NUMA node that is online',
    source: 'map_create',
    errno: 'EINVAL',
  },
  type: {
    name: 'MAP_CREATE: map type',
    needs: 'a map type that this kernel has',
    source: 'map_create',
    errno: 'EINVAL',
  },
  zeroSeed: {
    name: 'MAP_CREATE: BPF_F_ZERO_SEED',
    needs: 'CAP_SYS_ADMIN in the initial user namespace for BPF_F_ZERO_SEED',
    source: 'htab_map_alloc_check',
    errno: 'EPERM',
  },
  allocCheck: {
    name: 'MAP_CREATE: sizes and flags, before the token',
    needs: 'sizes and flags that the type takes',
    source: 'map_alloc_check',
    errno: 'EINVAL',
  },
  allocCheckLimit: {
    name: 'MAP_CREATE: limits of sizes, before the token',
    needs: 'sizes that the kernel can hold',
    source: 'map_alloc_check',
    errno: 'E2BIG',
  },
  covers: {
    name: 'token: allows the map type',
    needs: 'a token that allows the map type; without, it is ignored',
    source: 'bpf_token_allow_map_type',
  },
  unprivileged: {
    name: 'MAP_CREATE: unprivileged_bpf_disabled',
    needs: 'CAP_BPF, or kernel.unprivileged_bpf_disabled=0',
    source: 'map_create',
    errno: 'EPERM',
  },
  bpf: {
    name: 'MAP_CREATE: CAP_BPF for the type',
    needs: 'CAP_BPF',
    source: 'map_create',
    errno: 'EPERM',
  },
  network: {
    name: 'MAP_CREATE: CAP_NET_ADMIN for the type',
    needs: 'CAP_NET_ADMIN',
    source: 'map_create',
    errno: 'EPERM',
  },
  alloc: {
    name: 'MAP_CREATE: sizes and flags, when it is made',
    needs: 'sizes and flags that the type takes',
    source: 'map_alloc',
    errno: 'EINVAL',
  },
  allocLimit: {
    name: 'MAP_CREATE: limits of sizes, when it is made',
    needs: 'sizes that the kernel can hold',
    source: 'map_alloc',
    errno: 'E2BIG',
  },
  inner: {
    name: 'MAP_CREATE: inner map',
    needs: 'the descriptor of a map to copy the shape from',
    source: 'bpf_map_meta_alloc',
    errno: 'EBADF',
  },
  kernelTypeKnown: {
    name: 'MAP_CREATE: struct_ops type',
    needs: 'a type that the kernel registers as struct_ops',
    source: 'bpf_struct_ops_map_alloc',
    errno: 'ENOTSUPP',
  },
  name: {
    name: 'MAP_CREATE: name',
    needs: 'a name of at most 15 letters, digits, "_" and "."',
    source: 'bpf_obj_name_cpy',
    errno: 'EINVAL',
  },
  btfFile: {
    name: 'MAP_CREATE: BTF descriptor',
    needs: 'an open descriptor of a BTF object',
    source: 'btf_get_by_fd',
    errno: 'EBADF',
  },
  btfKind: {
    name: 'MAP_CREATE: BTF object',
    needs: 'a descriptor of a BTF object',
    source: 'btf_get_by_fd',
    errno: 'EINVAL',
  },
  btfOwn: {
    name: 'MAP_CREATE: not the kernel’s BTF',
    needs: 'BTF that is not the kernel’s own',
    source: 'map_create',
    errno: 'EACCES',
  },
  typeSizes: {
    name: 'MAP_CREATE: sizes of the types',
    needs: 'types as large as key and value',
    source: 'map_check_btf',
    errno: 'EINVAL',
  },
  lsmCreate: {
    name: 'LSM bpf_map_create',
    needs: 'security modules that allow the map',
    source: 'security_bpf_map_create',
  },
  lsmMap: {
    name: 'LSM bpf_map',
    needs: 'security modules that allow a descriptor of the map',
    source: 'security_bpf_map',
  },
} as const satisfies Record<string, Rule>

const AT = bpf_attr_map_create.fields
const { BPF_F_RDONLY, BPF_F_WRONLY, BPF_F_NUMA_NODE } = bpf_map_flags
const NO_TYPE = { keySize: 0, valueSize: 0, maxEntries: 0, flags: 0, extra: 0 }
const FITTING: MapTypesChoice = { btf: { kind: 'btf', isKernel: false }, key: 1, value: 1 }
const FITTING_KERNEL: MapTypesChoice = { ...FITTING, key: 0, value: 0, kernelType: 'known' }

/** The word of a map type, without `_deprecated`; undefined: this kernel has none of that number. */
export function mapWord(kernel: KernelFacts, type: number): string | undefined {
  const named = kernel.vocabulary.maps.nameOfBit.get(type)
  const word = named?.endsWith('_deprecated') ? named.slice(0, -'_deprecated'.length) : named
  return word === undefined || word === 'unspec' || kernel.absentMaps.has(word) ? undefined : word
}

/** What is asked for, with what is not named as the type takes it. */
function sizesOf(call: MapCreate, type: MapType | undefined, attr: AttrBytes): MapSizes {
  const sample = type?.sample ?? NO_TYPE
  return {
    keySize: call.keySize ?? sample.keySize,
    valueSize: call.valueSize ?? sample.valueSize,
    maxEntries: call.maxEntries ?? sample.maxEntries,
    flags: call.flags ?? sample.flags,
    extra: fieldOf(attr, AT.map_extra.off + 4, call.extra ?? sample.extra),
  }
}

export function mapCreate(judge: Judge, machine: Machine, task: Task, call: MapCreate): void {
  const attr = call.attr ?? {}
  const { kernel } = machine
  if (callFails(judge, machine, task, 'map_create', attr)) return
  if (tailFails(judge, machine, 'map_create', attr)) return
  const word = mapWord(kernel, call.type)
  const type = word === undefined ? undefined : MAP_TYPES[word]
  const sizes = sizesOf(call, type, attr)
  const types = typesOf(call, type)
  if (formFails(judge, machine, call, word, sizes, types)) return
  const seeded =
    word !== undefined &&
    judge.isOn(SEEDED_MAPS, word) &&
    // Of what an outer map holds the kernel asks first.
    (word !== 'hash_of_maps' || sizes.valueSize === 4) &&
    (sizes.flags & ZERO_SEED) !== 0
  if (
    judge.fails(MAP_RULES.zeroSeed, !seeded || capable(judge, task, 'sys_admin'), () =>
      seeded ? initialText(task, 'sys_admin') : 'not asked for',
    )
  )
    return
  if (sizesFail(judge, 'check', kernel, sizes, types, type)) return
  privileged(judge, machine, task, call, word!, sizes, types, type)
}

/** What is wrong with the form, whoever calls. */
function formFails(
  judge: Judge,
  { kernel }: Machine,
  call: MapCreate,
  word: string | undefined,
  sizes: MapSizes,
  types: MapTypesChoice | undefined,
): boolean {
  const fromKernel = types?.kernelType !== undefined
  const mixed = fromKernel && (word !== 'struct_ops' || types.key !== 0 || types.value !== 0)
  if (judge.fails(MAP_RULES.kernelType, !mixed, fromKernel ? `for ${word}` : 'none')) return true
  const alone = !fromKernel && types !== undefined && types.key !== 0 && types.value === 0
  if (judge.fails(MAP_RULES.keyType, !alone, alone ? 'a type of the key alone' : 'none alone')) return true
  const takesExtra = word === 'bloom_filter' || word === 'arena' || word === 'rhash'
  if (judge.fails(MAP_RULES.extra, sizes.extra === 0 || takesExtra, `${sizes.extra}`)) return true
  if (kernel.refusesClosedMaps && fileFlagsFail(judge, sizes)) return true
  const node = (sizes.flags & BPF_F_NUMA_NODE) === 0 ? undefined : (call.numaNode ?? 0)
  // Every machine has node 0; of others the model knows nothing.
  if (judge.fails(MAP_RULES.numa, node === undefined || node === 0, node === undefined ? 'none' : `${node}`))
    return true
  return judge.fails(MAP_RULES.type, word !== undefined, word ?? `no type ${call.type}`)
}

function fileFlagsFail(judge: Judge, { flags }: MapSizes): boolean {
  const both = (flags & BPF_F_RDONLY) !== 0 && (flags & BPF_F_WRONLY) !== 0
  return judge.fails(MAP_RULES.fileFlags, !both, both ? 'both' : 'not both')
}

function typesOf(call: MapCreate, type: MapType | undefined): MapTypesChoice | undefined {
  if (call.types !== undefined) return call.types
  if (type?.needsTypes === 'kernel') return FITTING_KERNEL
  return type?.needsTypes === 'own' ? FITTING : undefined
}

const SIZE_RULES = {
  check: { shape: MAP_RULES.allocCheck, limit: MAP_RULES.allocCheckLimit },
  alloc: { shape: MAP_RULES.alloc, limit: MAP_RULES.allocLimit },
} as const

function sizesFail(
  judge: Judge,
  stage: 'check' | 'alloc',
  kernel: KernelFacts,
  sizes: MapSizes,
  types: MapTypesChoice | undefined,
  type: MapType | undefined,
): boolean {
  for (const { kind, refuses } of type?.[stage] ?? []) {
    const missing = kind === 'shape' ? typesMissing(type!, types) : undefined
    const refusal = refuses(sizes, kernel) ?? missing
    const rule = SIZE_RULES[stage][kind]
    if (judge.fails(rule, refusal === undefined, () => sizesText(sizes), undefined, refusal)) return true
  }
  return false
}

function typesMissing(type: MapType, types: MapTypesChoice | undefined): ErrnoName | undefined {
  if (type.needsTypes === 'own')
    return types === undefined || types.key === 0 || types.value === 0 ? 'EINVAL' : undefined
  return type.needsTypes === 'kernel' && types?.kernelType === undefined ? 'EINVAL' : undefined
}

function sizesText({ keySize, valueSize, maxEntries, flags }: MapSizes): string {
  return `key ${keySize}, value ${valueSize}, ${maxEntries} entries, flags ${flags}`
}

/** Token and capabilities, then the map itself. */
function privileged(
  judge: Judge,
  machine: Machine,
  task: Task,
  call: MapCreate,
  word: string,
  sizes: MapSizes,
  types: MapTypesChoice | undefined,
  type: MapType | undefined,
): void {
  const resolved = resolveToken(judge, machine, choiceOf(call), 'map_create', token =>
    judge.holds(MAP_RULES.covers, hasBit(token.masks.maps, call.type), word),
  )
  if (resolved.refused) return
  const { token } = resolved
  const has = (capability: 'bpf' | 'net_admin'): boolean =>
    tokenCapable(judge, machine, task, token, capability)
  const found = (): string => foundText(machine, task, token)
  const sysctl = machine.unprivilegedBpfDisabled
  if (
    judge.fails(
      MAP_RULES.unprivileged,
      sysctl === 0 || has('bpf'),
      () => `kernel.unprivileged_bpf_disabled=${sysctl}; ${found()}`,
      () => neededText(token, 'bpf'),
    )
  )
    return
  const free = judge.isOn(UNPRIVILEGED_MAPS, word)
  const network = judge.isOn(NETWORK_MAPS, word)
  if (!free && !network && judge.fails(MAP_RULES.bpf, has('bpf'), found, () => neededText(token, 'bpf')))
    return
  if (
    network &&
    judge.fails(MAP_RULES.network, has('net_admin'), found, () => neededText(token, 'net_admin'))
  )
    return
  making(judge, machine, call, sizes, types, type)
}

/** What the flag of the map names; attributes that are cut name descriptor 0. */
function choiceOf(call: MapCreate): TokenChoice | undefined {
  const { token, attr } = call
  if (token === undefined || attr?.size === undefined || attr.size >= AT.map_token_fd.off + 4) return token
  return { flag: token.flag, file: call.standardInput ?? { kind: 'other' } }
}

function making(
  judge: Judge,
  machine: Machine,
  call: MapCreate,
  sizes: MapSizes,
  types: MapTypesChoice | undefined,
  type: MapType | undefined,
): void {
  if (type?.needsInner === true) {
    const inner = call.inner ?? { kind: 'map' }
    const errno = isOpen(inner) ? 'EINVAL' : 'EBADF'
    if (judge.fails(MAP_RULES.inner, inner.kind === 'map', fileText(inner), undefined, errno)) return
  }
  if (sizesFail(judge, 'alloc', machine.kernel, sizes, types, type)) return
  if (type?.needsTypes === 'kernel') {
    const known = types?.kernelType === 'known'
    if (judge.fails(MAP_RULES.kernelTypeKnown, known, known ? 'known' : 'not known')) return
  }
  if (nameFails(judge, MAP_RULES.name, call.name)) return
  if (types !== undefined && (types.key !== 0 || types.value !== 0 || types.kernelType !== undefined)) {
    if (btfFails(judge, types.btf)) return
    if (types.value !== 0 && typeSizesFail(judge, types, sizes)) return
  }
  if (!machine.kernel.refusesClosedMaps && fileFlagsFail(judge, sizes)) return
  const { lsm } = machine
  if (
    judge.fails(
      MAP_RULES.lsmCreate,
      lsm?.bpf_map_create === undefined,
      lsmText(lsm?.bpf_map_create),
      undefined,
      lsm?.bpf_map_create,
    )
  )
    return
  judge.fails(MAP_RULES.lsmMap, lsm?.bpf_map === undefined, lsmText(lsm?.bpf_map), undefined, lsm?.bpf_map)
}

function typeSizesFail(judge: Judge, types: MapTypesChoice, { keySize, valueSize }: MapSizes): boolean {
  const { keyBytes = keySize, valueBytes = valueSize } = types
  const fit = (types.key === 0 || keyBytes === keySize) && valueBytes === valueSize
  return judge.fails(MAP_RULES.typeSizes, fit, `types of ${keyBytes} and ${valueBytes} bytes`)
}

function btfFails(judge: Judge, file: File): boolean {
  const open = isOpen(file)
  if (judge.fails(MAP_RULES.btfFile, open, fileText(file))) return true
  if (judge.fails(MAP_RULES.btfKind, file.kind === 'btf', fileText(file))) return true
  const isKernel = file.kind === 'btf' && file.isKernel
  return judge.fails(MAP_RULES.btfOwn, !isKernel, isKernel ? 'the kernel’s' : 'another one')
}
