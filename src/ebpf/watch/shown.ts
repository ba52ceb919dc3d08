/**
 * Values of maps, variables and records as people and JSON read them: numbers as numbers, text as
 * text, enumerators by name. Pure.
 *
 * | C                               | shown as                                                      |
 * |---|---|
 * | integers                        | number; beyond 2^53 its decimal digits as text                |
 * | enum                            | the name of the value, else the number                        |
 * | pointer                         | hexadecimal text                                              |
 * | array of char                   | text up to the first zero, where that is valid UTF-8; else hex |
 * | other bytes, and what has no type | hexadecimal text, two digits a byte                         |
 */
import type { Btf, BtfMember } from '../btf/btf.ts'
import { isChar, readValue, type TypedValue } from '../btf/typed-value.ts'

export type Shown = number | string | boolean | readonly Shown[] | { readonly [member: string]: Shown }

/** A type in the BTF of an object; undefined: bytes without one. */
export interface TypeOf {
  readonly types: Btf
  readonly id: number
}

/** The value of that type in these bytes. Errors are those of `readValue`. */
export function showBytes(type: TypeOf | undefined, bytes: Uint8Array, off = 0): Shown {
  if (type === undefined) return hex(bytes)
  return showValue(type.types, type.id, readValue(type.types, type.id, bytes, off))
}

/** What `readValue` gave for this type. */
export function showValue(types: Btf, id: number, value: TypedValue): Shown {
  const type = types.resolve(id)
  switch (type?.kind) {
    case 'var':
      return showValue(types, type.type, value)
    case 'ptr':
      return `0x${(value as bigint).toString(16)}`
    case 'enum':
    case 'enum64':
      return type.values.find(one => BigInt(one.value) === BigInt(value as bigint))?.name ?? plain(value)
    case 'array':
      if (value instanceof Uint8Array) return isChar(types, type.type) ? text(value) : hex(value)
      return (value as readonly TypedValue[]).map(one => showValue(types, type.type, one))
    case 'struct':
    case 'union':
      return Object.fromEntries(shownMembers(types, type.members, value as Members))
    default:
      return plain(value)
  }
}

type Members = { readonly [member: string]: TypedValue }

/** Members of anonymous structs and unions stand beside the others, as in `readValue`. */
function shownMembers(types: Btf, members: readonly BtfMember[], value: Members): [string, Shown][] {
  return members.flatMap(({ name, type }) => {
    if (name !== '') return [[name, showValue(types, type, value[name]!)] as [string, Shown]]
    const inner = types.resolve(type)
    return inner?.kind === 'struct' || inner?.kind === 'union'
      ? shownMembers(types, inner.members, value)
      : []
  })
}

function plain(value: TypedValue): Shown {
  if (typeof value === 'bigint') {
    const number = Number(value)
    return Number.isSafeInteger(number) ? number : value.toString()
  }
  // JSON has no other numbers.
  if (typeof value === 'number') return Number.isFinite(value) ? value : String(value)
  return value as Shown
}

/** Clang names it so; a byte that is a number is `unsigned char`. */
function text(bytes: Uint8Array): string {
  const end = bytes.indexOf(0)
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(end === -1 ? bytes : bytes.subarray(0, end))
  } catch {
    return hex(bytes)
  }
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex')
}

/**
 * The sum over CPUs: of numbers, and of structs and arrays of them. Undefined: something in it is
 * no number.
 */
export function sumOf(values: readonly TypedValue[]): TypedValue | undefined {
  const [first] = values
  if (values.every(value => typeof value === 'bigint')) return values.reduce((sum, one) => sum + one, 0n)
  if (values.every(value => typeof value === 'number')) return values.reduce((sum, one) => sum + one, 0)
  if (first === undefined || typeof first !== 'object' || first instanceof Uint8Array) return undefined
  const sums = Object.keys(first).map(key => [key, sumOf(values.map(one => (one as Members)[key]!))] as const)
  if (sums.some(([, sum]) => sum === undefined)) return undefined
  return Array.isArray(first)
    ? sums.map(([, sum]) => sum as TypedValue)
    : (Object.fromEntries(sums) as Members)
}

/** The first number in it, by which rows of a hash are put in order; 0 where there is none. */
export function weightOf(value: Shown): number {
  if (typeof value === 'number') return value
  if (typeof value !== 'object') return 0
  for (const one of Object.values(value)) {
    const weight = weightOf(one)
    if (weight !== 0) return weight
  }
  return 0
}
