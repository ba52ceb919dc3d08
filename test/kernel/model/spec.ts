/**
 * A case: plain data that says who calls what, and its two readings, as the model's call and as the
 * executor's step. Absent fields are what a well-formed call has, so that a case shrinks by leaving
 * fields out.
 */
import type { AttachTarget } from '../../../src/model/attach.ts'
import type { BpfCall } from '../../../src/model/decide.ts'
import type { File } from '../../../src/model/file.ts'
import type { ErrnoName } from '../../../src/model/judge.ts'
import type { ModelCommand } from '../../../src/model/kernel.ts'
import { MAP_TYPES } from '../../../src/model/map-types.ts'
import type { TokenChoice } from '../../../src/model/token.ts'
import {
  bpf_attr_btf_load,
  bpf_attr_enable_stats,
  bpf_attr_get_id,
  bpf_attr_link_create,
  bpf_attr_map_create,
  bpf_attr_obj,
  bpf_attr_prog_attach,
  bpf_attr_prog_load,
  bpf_attr_prog_query,
  bpf_attr_task_fd_query,
  bpf_attr_token_create,
  bpf_cmd,
  bpf_map_flags,
} from '../../../src/uapi/bpf.ts'
import { errnoName } from '../../../src/uapi/errno.ts'
import type { Step } from './executor.ts'
import { REFUSAL } from './hooks.ts'
import { capsMask, type Lab, LONG_PROGRAM, type Slot } from './lab.ts'

const { BPF_F_TOKEN_FD, BPF_F_PATH_FD } = bpf_map_flags

interface Caller {
  readonly context: number
  /** Bit n: the capability CAPS[n]. */
  readonly caps: number
  readonly size?: number
  readonly junkAt?: number
  /** Hooks of security modules that refuse: bits of `LSM_HOOKS`. */
  readonly refusing?: number
}

/** Slots are places in the lab's list. */
interface Tokened {
  readonly token?: number
  /** The token's descriptor is there, and its flag is not. */
  readonly unflagged?: true
}

export interface TokenSpec extends Caller {
  readonly op: 'token_create'
  readonly bpffs: number
  readonly flags?: number
}

export interface MapSpec extends Caller, Tokened {
  readonly op: 'map_create'
  readonly type: number
  readonly keySize?: number
  readonly valueSize?: number
  readonly maxEntries?: number
  readonly flags?: number
  readonly extra?: number
  readonly numaNode?: number
  readonly name?: string
  readonly inner?: number
  readonly btf?: number
  readonly keyType?: number
  readonly valueType?: number
  /** A type of the kernel's that is no struct_ops. */
  readonly kernelType?: true
}

export interface ProgSpec extends Caller, Tokened {
  readonly op: 'prog_load'
  readonly type: number
  readonly attach?: number
  readonly instructions?: number
  readonly flags?: number
  readonly name?: string
  readonly target?: number
  readonly targetFile?: number
  /** The target that the lab found in the kernel's BTF for this type. */
  readonly kernelTarget?: true
  readonly unreadable?: true
}

export interface BtfSpec extends Caller, Tokened {
  readonly op: 'btf_load'
  readonly flags?: number
  /** Cut off in its header. */
  readonly cut?: true
}

export interface BtfIdSpec extends Caller, Tokened {
  readonly op: 'btf_get_fd_by_id'
  readonly flags?: number
  readonly missing?: true
}

export interface IdSpec extends Caller {
  readonly op: Extract<ModelCommand, `${'prog' | 'map' | 'link'}_get_fd_by_id` | `${string}_get_next_id`>
  readonly tooHigh?: true
  readonly flags?: number
  /** The object that is asked for; absent: one that is not there. */
  readonly object?: number
}

export interface HostSpec extends Caller {
  readonly op: 'enable_stats' | 'task_fd_query'
}

export interface QuerySpec extends Caller {
  readonly op: 'prog_query'
  readonly attach: number
  readonly flags?: number
}

export interface AttachSpec extends Caller {
  readonly op: 'link_create' | 'prog_attach' | 'prog_detach'
  readonly prog: number
  readonly attach: number
  readonly flags?: number
  /** A slot; absent: a device. */
  readonly target?: number
  readonly ifindex?: number
}

/** A name with a dot, one that is not there, or one that is in some directories. */
export type PinName = 'a.b' | 'new' | 'sub' | 'map' | 'prog' | 'link' | 'cgroup.procs'

export interface PinSpec extends Caller {
  readonly op: 'obj_pin'
  readonly object: number
  readonly directory: number
  readonly name: PinName
  readonly flags?: number
}

export interface GetSpec extends Caller {
  readonly op: 'obj_get'
  readonly directory: number
  readonly name: PinName
  readonly flags?: number
}

export type BpfSpec =
  | PinSpec
  | GetSpec
  | TokenSpec
  | MapSpec
  | ProgSpec
  | BtfSpec
  | BtfIdSpec
  | IdSpec
  | HostSpec
  | QuerySpec
  | AttachSpec

/** A number that no object has. */
const NO_ID = 0x7fff_fff0

function fileAt(lab: Lab, slot: number): File {
  return slotAt(lab, slot).file
}

export function slotAt(lab: Lab, slot: number): Slot {
  return lab.slots[slot % lab.slots.length]!
}

function tokenOf(lab: Lab, { token, unflagged }: Tokened): { token: TokenChoice } | undefined {
  return token === undefined ? undefined : { token: { flag: unflagged !== true, file: fileAt(lab, token) } }
}

const STANDARD_INPUT: File = { kind: 'other' }

function given<T extends object>(fields: T): { [K in keyof T]: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as never
}

/** The sizes of a map of the type where a case says nothing. */
function sampleOf(lab: Lab, type: number) {
  const word = lab.kernel.vocabulary.maps.nameOfBit.get(type)?.replace(/_deprecated$/, '') ?? ''
  return MAP_TYPES[word]
}

/** What the model is asked. */
export function callOf(lab: Lab, spec: BpfSpec): BpfCall {
  const attr = given({ size: spec.size, junkAt: spec.junkAt })
  const own = { attr, standardInput: STANDARD_INPUT }
  switch (spec.op) {
    case 'token_create':
      return { op: spec.op, bpffs: fileAt(lab, spec.bpffs), flags: spec.flags ?? 0, ...own }
    case 'map_create':
      return mapCall(lab, spec, own)
    case 'prog_load':
      return progCall(lab, spec, own)
    case 'btf_load':
      return {
        op: spec.op,
        flags: spec.flags ?? 0,
        ...tokenOf(lab, spec),
        ...(spec.cut === true ? { parser: 'EINVAL' as const } : {}),
        attr,
      }
    case 'btf_get_fd_by_id':
      return {
        op: spec.op,
        exists: spec.missing !== true,
        flags: spec.flags ?? 0,
        ...tokenOf(lab, spec),
        attr,
      }
    case 'obj_pin':
      return {
        op: spec.op,
        object: fileAt(lab, spec.object),
        directory: fileAt(lab, spec.directory),
        dotted: spec.name === 'a.b',
        exists: slotAt(lab, spec.directory).pins?.[spec.name] !== undefined,
        flags: spec.flags ?? 0,
        attr,
      }
    case 'obj_get': {
      const { file, pins } = slotAt(lab, spec.directory)
      const flags = spec.flags ?? 0
      return {
        op: spec.op,
        directory: file,
        dotted: spec.name === 'a.b',
        flags,
        ...given({ pin: pins?.[spec.name] }),
        attr,
      }
    }
    case 'enable_stats':
    case 'task_fd_query':
      return { op: spec.op, known: false, attr }
    case 'prog_query':
      return { op: spec.op, attach: spec.attach, flags: spec.flags ?? 0, missing: true, attr }
    case 'link_create':
    case 'prog_attach':
    case 'prog_detach': {
      const target: AttachTarget =
        spec.target === undefined
          ? { kind: 'device', exists: spec.ifindex === 1, isNetkit: false }
          : { kind: 'file', file: fileAt(lab, spec.target) }
      return {
        op: spec.op,
        prog: fileAt(lab, spec.prog),
        target,
        attach: spec.attach,
        flags: spec.flags ?? 0,
        attr,
      }
    }
    default:
      return {
        op: spec.op,
        exists:
          spec.object !== undefined ||
          (spec.op.endsWith('next_id') && spec.tooHigh !== true && spec.op !== 'link_get_next_id'),
        tooHigh: spec.tooHigh === true,
        flags: spec.flags ?? 0,
        attr,
      }
  }
}

function mapCall(lab: Lab, spec: MapSpec, own: object): BpfCall {
  const named = given({
    keySize: spec.keySize,
    valueSize: spec.valueSize,
    maxEntries: spec.maxEntries,
    flags: spec.flags,
    extra: spec.extra,
    name: spec.name,
    numaNode: spec.numaNode,
  })
  const types = typesOf(lab, spec)
  return {
    op: 'map_create',
    type: spec.type,
    ...named,
    ...tokenOf(lab, spec),
    ...(spec.inner === undefined ? {} : { inner: fileAt(lab, spec.inner) }),
    ...(types === undefined
      ? {}
      : {
          types: {
            btf: types.slot.file,
            key: types.key,
            value: types.value,
            keyBytes: 4,
            valueBytes: 4,
            ...(types.kernelType ? { kernelType: 'unknown' as const } : {}),
          },
        }),
    ...own,
  }
}

/** Types that the case names, or that its map type needs. */
function typesOf(lab: Lab, spec: MapSpec) {
  const needs = sampleOf(lab, spec.type)?.needsTypes
  const named = spec.keyType !== undefined || spec.valueType !== undefined || spec.kernelType !== undefined
  if (!named && needs === undefined) return undefined
  const own = needs === 'own' ? 1 : 0
  return {
    slot: spec.btf === undefined ? lab.of('btf').find(isOwn)! : slotAt(lab, spec.btf),
    key: spec.keyType ?? own,
    value: spec.valueType ?? own,
    kernelType: spec.kernelType === true || (needs === 'kernel' && !named),
  }
}

const isOwn = ({ file }: Slot): boolean => file.kind === 'btf' && !file.isKernel

function progCall(lab: Lab, spec: ProgSpec, own: object): BpfCall {
  const named = given({
    attach: spec.attach,
    instructions: spec.instructions,
    flags: spec.flags,
    name: spec.name,
    target: spec.target,
    unreadable: spec.unreadable,
  })
  const kernelTarget = spec.kernelTarget === true ? lab.target(spec.type) : undefined
  const said =
    kernelTarget?.said ??
    lab.verifier.get(`${spec.type}/${spec.attach ?? 0}`) ??
    lab.verifier.get(`${spec.type}/0`)
  return {
    op: 'prog_load',
    type: spec.type,
    ...named,
    ...(kernelTarget === undefined ? {} : { target: kernelTarget.id }),
    ...tokenOf(lab, spec),
    ...(spec.targetFile === undefined ? {} : { targetFile: fileAt(lab, spec.targetFile) }),
    ...(said === undefined || said === 0 ? {} : { verifier: errnoName(said) as ErrnoName }),
    ...own,
  }
}

/** What the executor does. A result that is a descriptor is closed. */
export function stepOf(lab: Lab, spec: BpfSpec): Step {
  const { attr, givesFd } = attrOf(lab, spec)
  // A kernel that does not know the flags is given them, too.
  const end = spec.op === 'btf_get_fd_by_id' ? 16 : lab.kernel.attrEnds[spec.op]
  const open = spec.op.endsWith('_get_fd_by_id') && 'flags' in spec && spec.flags !== undefined ? 12 : 0
  const least = Math.max(end, open)
  const size = spec.size ?? (spec.junkAt === undefined ? least : Math.max(least, spec.junkAt + 1))
  const bytes = new Uint8Array(192)
  bytes.set(attr.subarray(0, Math.min(attr.length, size)))
  if (spec.junkAt !== undefined && spec.junkAt < bytes.length) bytes[spec.junkAt] = 1
  return {
    context: spec.context,
    op: 'bpf',
    capabilities: capsMask(spec.caps),
    cmd: bpf_cmd[`BPF_${spec.op.toUpperCase()}` as keyof typeof bpf_cmd],
    attr: bytes,
    size,
    givesFd,
    ...(spec.refusing === undefined ? {} : { refusing: { hooks: spec.refusing, errno: REFUSAL.number } }),
  }
}

function tokenFields<Flags extends string, Fd extends string>(
  lab: Lab,
  { token, unflagged }: Tokened,
  flags: number,
  flagField: Flags,
  fdField: Fd,
): Record<string, number> {
  const flag = token === undefined || unflagged === true ? 0 : BPF_F_TOKEN_FD
  return {
    [flagField]: (flags | flag) >>> 0,
    ...(token === undefined ? {} : { [fdField]: slotAt(lab, token).number }),
  }
}

function attrOf(lab: Lab, spec: BpfSpec): { attr: Uint8Array; givesFd: boolean } {
  switch (spec.op) {
    case 'token_create':
      return {
        attr: bpf_attr_token_create.encode({
          flags: spec.flags ?? 0,
          bpffs_fd: slotAt(lab, spec.bpffs).number,
        }),
        givesFd: true,
      }
    case 'map_create':
      return { attr: mapAttr(lab, spec), givesFd: true }
    case 'prog_load':
      return { attr: progAttr(lab, spec), givesFd: true }
    case 'btf_load':
      return {
        attr: bpf_attr_btf_load.encode({
          btf: lab.btf.address,
          btf_size: spec.cut === true ? 10 : lab.btf.size,
          ...tokenFields(lab, spec, spec.flags ?? 0, 'btf_flags', 'btf_token_fd'),
        }),
        givesFd: true,
      }
    case 'btf_get_fd_by_id':
      return {
        attr: bpf_attr_get_id.encode({
          btf_id: spec.missing === true ? NO_ID : 1,
          ...tokenFields(lab, spec, spec.flags ?? 0, 'open_flags', 'fd_by_id_token_fd'),
        }),
        givesFd: true,
      }
    case 'obj_pin':
      return {
        attr: bpf_attr_obj.encode({
          bpf_fd: slotAt(lab, spec.object).number,
          pathname: lab.executor.address(lab.executor.text(spec.name)),
          file_flags: (BPF_F_PATH_FD | (spec.flags ?? 0)) >>> 0,
          path_fd: slotAt(lab, spec.directory).number,
        }),
        givesFd: false,
      }
    case 'obj_get':
      return {
        attr: bpf_attr_obj.encode({
          pathname: lab.executor.address(lab.executor.text(spec.name)),
          file_flags: (BPF_F_PATH_FD | (spec.flags ?? 0)) >>> 0,
          path_fd: slotAt(lab, spec.directory).number,
        }),
        givesFd: true,
      }
    case 'enable_stats':
      return { attr: bpf_attr_enable_stats.encode({ type: 77 }), givesFd: true }
    case 'task_fd_query':
      return { attr: bpf_attr_task_fd_query.encode({ pid: NO_ID }), givesFd: false }
    case 'prog_query':
      return {
        attr: bpf_attr_prog_query.encode({
          target_fd: 0xffff_ffff,
          attach_type: spec.attach,
          query_flags: spec.flags ?? 0,
        }),
        givesFd: false,
      }
    case 'link_create':
      return {
        attr: bpf_attr_link_create.encode({
          prog_fd: slotAt(lab, spec.prog).number,
          target_fd: spec.target === undefined ? spec.ifindex! : slotAt(lab, spec.target).number,
          attach_type: spec.attach,
          flags: spec.flags ?? 0,
        }),
        givesFd: true,
      }
    case 'prog_attach':
    case 'prog_detach':
      return {
        attr: bpf_attr_prog_attach.encode({
          target_fd: spec.target === undefined ? spec.ifindex! : slotAt(lab, spec.target).number,
          ...(spec.op === 'prog_attach' ? { attach_bpf_fd: slotAt(lab, spec.prog).number } : {}),
          attach_type: spec.attach,
          attach_flags: spec.flags ?? 0,
        }),
        givesFd: false,
      }
    default:
      return {
        attr: bpf_attr_get_id.encode({
          start_id:
            spec.object !== undefined
              ? lab.idOf(slotAt(lab, spec.object))
              : spec.tooHigh === true
                ? 0x7fff_ffff
                : spec.op.endsWith('next_id')
                  ? 0
                  : NO_ID,
          ...(spec.flags === undefined ? {} : { open_flags: spec.flags }),
        }),
        givesFd: spec.op.endsWith('fd_by_id'),
      }
  }
}

function mapAttr(lab: Lab, spec: MapSpec): Uint8Array {
  const shape = sampleOf(lab, spec.type)
  const sample = shape?.sample ?? { keySize: 0, valueSize: 0, maxEntries: 0, flags: 0, extra: 0 }
  const types = typesOf(lab, spec)
  return bpf_attr_map_create.encode({
    map_type: spec.type,
    key_size: spec.keySize ?? sample.keySize,
    value_size: spec.valueSize ?? sample.valueSize,
    max_entries: spec.maxEntries ?? sample.maxEntries,
    map_extra: BigInt(spec.extra ?? sample.extra),
    numa_node: spec.numaNode ?? 0,
    map_name: Buffer.from((spec.name ?? '').slice(0, 16)),
    ...(shape?.needsInner === true || spec.inner !== undefined
      ? { inner_map_fd: (spec.inner === undefined ? lab.of('map')[0]! : slotAt(lab, spec.inner)).number }
      : {}),
    ...(types === undefined
      ? {}
      : {
          btf_fd: types.slot.number,
          btf_key_type_id: types.key,
          btf_value_type_id: types.value,
          btf_vmlinux_value_type_id: types.kernelType ? 1 : 0,
        }),
    ...tokenFields(lab, spec, spec.flags ?? sample.flags, 'map_flags', 'map_token_fd'),
  })
}

function progAttr(lab: Lab, spec: ProgSpec): Uint8Array {
  const count = spec.instructions ?? 2
  return bpf_attr_prog_load.encode({
    prog_type: spec.type,
    expected_attach_type: spec.attach ?? 0,
    insns:
      spec.unreadable === true
        ? lab.insns.bad
        : count === LONG_PROGRAM
          ? lab.insns.long
          : lab.insnsFor(spec.type),
    insn_cnt: count,
    license: lab.license,
    prog_name: Buffer.from((spec.name ?? '').slice(0, 16)),
    attach_btf_id: spec.kernelTarget === true ? lab.target(spec.type).id : (spec.target ?? 0),
    ...(spec.targetFile === undefined ? {} : { attach_prog_fd: slotAt(lab, spec.targetFile).number }),
    ...tokenFields(lab, spec, (spec.flags ?? 0) | lab.flagsFor(spec.type), 'prog_flags', 'prog_token_fd'),
  })
}
