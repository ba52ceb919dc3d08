/**
 * The number that a CO-RE relocation stands for, by the types of a program or of a kernel. Pure.
 * Rules: libbpf `src/relo_core.c` (LGPL-2.1 or BSD-2-Clause), bpf_core_calc_field_relo and its
 * neighbours.
 */
import { bpf_core_relo_kind as KIND } from '../../uapi/bpf.ts'
import { type CoreAccess, subjectOf } from './access.ts'
import { coreError, isComposite, isEnum } from './types.ts'

export interface CoreValue {
  /** 64 bits, unsigned. */
  readonly value: bigint
  /**
   * Offsets of whole fields: bytes that a load or store of the field takes, and its type. Else 0.
   */
  readonly accessBytes: number
  readonly accessType: number
  /** Whether the compiler is sure to have written the same number for the program's own types. */
  readonly certain: boolean
}

/** The answer to a relocation: the numbers for the program's own types and for the kernel's. */
export interface CoreAnswer {
  readonly what: string
  readonly local: CoreValue
  /** Undefined: the kernel has no such thing, and there is no number for that. */
  readonly target: CoreValue | undefined
  /** Whether loads and stores may take the target's size. */
  readonly resizable: boolean
}

const MAX_LOAD_BYTES = 8

const plain = (value: number | bigint, certain = true): CoreValue => ({
  value: BigInt.asUintN(64, BigInt(value)),
  accessBytes: 0,
  accessType: 0,
  certain,
})

/**
 * `access` is undefined where a kernel has no such thing; then undefined means that there is no
 * number either.
 */
export function coreValue(kind: number, access: CoreAccess | undefined): CoreValue | undefined {
  switch (subjectOf(kind)) {
    case 'type':
      return typeValue(kind, access)
    case 'value':
      if (kind === KIND.BPF_CORE_ENUMVAL_EXISTS) return plain(access === undefined ? 0 : 1)
      return access && enumValue(access)
    case 'field':
      if (kind === KIND.BPF_CORE_FIELD_EXISTS) return plain(access === undefined ? 0 : 1)
      return access && fieldValue(kind, access)
  }
}

function typeValue(kind: number, access: CoreAccess | undefined): CoreValue {
  if (access === undefined) return plain(0)
  switch (kind) {
    case KIND.BPF_CORE_TYPE_SIZE:
      return plain(access.types.sizeof(access.root))
    case KIND.BPF_CORE_TYPE_ID_LOCAL:
    case KIND.BPF_CORE_TYPE_ID_TARGET:
      // Linkers move types, and leave the instruction as it is.
      return plain(access.root, false)
    default:
      return plain(1)
  }
}

function enumValue({ types, steps }: CoreAccess): CoreValue {
  const { type: id, at } = steps[0]!
  const type = types.resolve(id)
  if (!isEnum(type)) throw coreError(`type id ${id} is no enum`)
  // As libbpf: 32-bit values count as signed ones, also in enums without negative values.
  return plain(type.kind === 'enum' ? type.values[at]!.value | 0 : type.values[at]!.value)
}

function fieldValue(kind: number, access: CoreAccess): CoreValue {
  const { types, steps, bitOff } = access
  const last = steps.at(-1)!
  if (last.name === undefined) {
    const bytes = types.sizeof(last.type)
    if (kind === KIND.BPF_CORE_FIELD_BYTE_SIZE) return plain(bytes)
    if (kind !== KIND.BPF_CORE_FIELD_BYTE_OFFSET)
      throw coreError('only offset, size and existence of an array element can be asked for')
    return { value: BigInt(Math.floor(bitOff / 8)), accessBytes: bytes, accessType: last.type, certain: true }
  }
  const holder = types.resolve(last.type)
  const member = isComposite(holder) ? holder.members[last.at] : undefined
  if (member === undefined) throw coreError(`type id ${last.type} has no member ${last.at}`)
  const type = types.resolve(member.type)
  const isBitField = member.bitSize > 0
  const span = isBitField
    ? bitFieldSpan(bitOff, member.bitSize, type !== undefined && 'size' in type ? type.size : 0)
    : { bytes: types.sizeof(member.type), off: Math.floor(bitOff / 8) }
  const bits = isBitField ? member.bitSize : span.bytes * 8
  // A bit field may be read in several ways, and the compiler chose one: only sign and width are
  // certain.
  switch (kind) {
    case KIND.BPF_CORE_FIELD_BYTE_OFFSET:
      if (isBitField) return plain(span.off, false)
      return { value: BigInt(span.off), accessBytes: span.bytes, accessType: type?.id ?? 0, certain: true }
    case KIND.BPF_CORE_FIELD_BYTE_SIZE:
      return plain(span.bytes, !isBitField)
    case KIND.BPF_CORE_FIELD_SIGNED:
      return plain((isEnum(type) || type?.kind === 'int') && type.signed ? 1 : 0)
    case KIND.BPF_CORE_FIELD_LSHIFT_U64:
      return plain((64 - (bitOff + bits - span.off * 8)) >>> 0, !isBitField)
    default:
      return plain((64 - bits) >>> 0)
  }
}

/** The smallest aligned integer that holds all bits of a bit field. */
function bitFieldSpan(bitOff: number, bits: number, typeBytes: number): { bytes: number; off: number } {
  if (typeBytes === 0) throw coreError('a bit field is of a type without size')
  for (let bytes = typeBytes; ; bytes *= 2) {
    const off = Math.floor(bitOff / 8 / bytes) * bytes
    if (bitOff + bits - off * 8 <= bytes * 8) return { bytes, off }
    if (bytes >= MAX_LOAD_BYTES) throw coreError('a bit field does not fit a load of 64 bits')
  }
}
