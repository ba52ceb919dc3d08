/** Types of BTF as values: one shape for each kind. */

// biome-ignore format: a table
/** BTF_KIND_*: the number is in bits 24 and up of a type's info word. */
export const BTF_KIND = {
  int: 1, ptr: 2, array: 3, struct: 4, union: 5, enum: 6, fwd: 7,
  typedef: 8, volatile: 9, const: 10, restrict: 11, func: 12, func_proto: 13, var: 14,
  datasec: 15, float: 16, decl_tag: 17, type_tag: 18, enum64: 19,
} as const

export type BtfKind = keyof typeof BTF_KIND

/** A field of a struct or union. `bitSize` is 0 unless it is a bit field. */
export interface BtfMember {
  readonly name: string
  readonly type: number
  readonly bitOff: number
  readonly bitSize: number
}

interface Head<K extends BtfKind> {
  readonly id: number
  readonly kind: K
  /** Empty for anonymous types. */
  readonly name: string
}

export interface BtfInt extends Head<'int'> {
  readonly size: number
  readonly signed: boolean
  readonly char: boolean
  readonly bool: boolean
  readonly bitOff: number
  readonly bits: number
}
/** Types that only point to, or qualify, another one. Type 0 is void. */
export interface BtfRef
  extends Head<
    'ptr' | 'typedef' | 'volatile' | 'const' | 'restrict' | 'type_tag' | 'func' | 'var' | 'decl_tag'
  > {
  readonly type: number
  /** `func` and `var`: 0 static, 1 global, 2 extern. */
  readonly linkage?: number
  /** `decl_tag`: the member or parameter that is tagged, or -1 for the type itself. */
  readonly component?: number
}
export type BtfArray = Head<'array'> & {
  readonly type: number
  readonly index: number
  readonly count: number
}
export type BtfComposite = Head<'struct' | 'union'> & {
  readonly size: number
  readonly members: readonly BtfMember[]
}
interface Enum<K extends BtfKind, V> extends Head<K> {
  readonly size: number
  readonly signed: boolean
  readonly values: readonly { readonly name: string; readonly value: V }[]
}
export type BtfEnum = Enum<'enum', number>
export type BtfEnum64 = Enum<'enum64', bigint>
export type BtfFwd = Head<'fwd'> & { readonly union: boolean }
/** `type` is the result's. A last parameter without name and with type 0 means "...". */
export interface BtfFuncProto extends Head<'func_proto'> {
  readonly type: number
  readonly params: readonly { readonly name: string; readonly type: number }[]
}
export interface BtfDatasec extends Head<'datasec'> {
  readonly size: number
  readonly vars: readonly { readonly type: number; readonly off: number; readonly size: number }[]
}
export type BtfFloat = Head<'float'> & { readonly size: number }
// biome-ignore format: one line says it
export type BtfType = BtfInt | BtfRef | BtfArray | BtfComposite | BtfEnum | BtfEnum64 | BtfFwd | BtfFuncProto | BtfDatasec | BtfFloat
