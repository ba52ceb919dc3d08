/**
 * What is read back from a file, checked field by field. A field that is missing, of another kind,
 * or unknown is refused: whoever wrote it meant something that this version would lose.
 */
import { FormatError } from '../errors.ts'

/** Gives the value back, or throws what is wrong with it. `path` is the last part of where it is. */
export type Field<T> = ((value: unknown, path: string) => T) & { readonly optional?: true }

/** Of an object: one for each of its properties. */
export type Fields<T> = { readonly [K in keyof Required<T>]: Field<T[K]> }

function wrong(path: string, what: string): never {
  throw new FormatError('record', `${path}: ${what}`)
}

export function number(min: number, max: number): Field<number> {
  return (value, path) =>
    typeof value === 'number' && Number.isInteger(value) && value >= min && value <= max
      ? value
      : wrong(path, `is no whole number from ${min} to ${max}`)
}

export const flag: Field<boolean> = (value, path) =>
  typeof value === 'boolean' ? value : wrong(path, 'is neither true nor false')

/** In UTF-16 units. */
export function text(max: number): Field<string> {
  return (value, path) =>
    typeof value === 'string' && value.length <= max ? value : wrong(path, `is no text up to ${max} long`)
}

export function matching(pattern: RegExp, what: string): Field<string> {
  return (value, path) =>
    typeof value === 'string' && pattern.test(value) ? value : wrong(path, `is no ${what}`)
}

export function oneOf<const T extends string>(words: readonly T[]): Field<T> {
  return (value, path) =>
    words.includes(value as T) ? (value as T) : wrong(path, `is none of ${words.join(', ')}`)
}

export function optional<T>(field: Field<T>): Field<T | undefined> {
  const take = (value: unknown, path: string): T | undefined =>
    value === undefined ? undefined : field(value, path)
  return Object.assign(take, { optional: true as const })
}

export function list<T>(field: Field<T>, max: number): Field<readonly T[]> {
  return (value, path) => {
    if (!Array.isArray(value) || value.length > max) wrong(path, `is no list of at most ${max}`)
    return value.map(item => field(item, path))
  }
}

export function object<T>(fields: Fields<T>): Field<T> {
  const all = Object.entries(fields) as [string, Field<unknown>][]
  return (value, path) => {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) wrong(path, 'is no object')
    const out: Record<string, unknown> = {}
    let known = 0
    for (const [name, field] of all) {
      const given = (value as Record<string, unknown>)[name]
      if (given !== undefined || Object.hasOwn(value, name)) known++
      else if (field.optional) continue
      const found = field(given, name)
      if (found !== undefined) out[name] = found
    }
    const names = Object.keys(value)
    if (names.length !== known) {
      const unknown = names.find(name => !Object.hasOwn(fields, name))
      wrong(`${path}.${unknown}`, 'is no field that this version knows')
    }
    return out as T
  }
}

export function either<A, B>(a: Field<A>, b: Field<B>): Field<A | B> {
  return (value, path) => {
    try {
      return a(value, path)
    } catch {
      return b(value, path)
    }
  }
}

/** A path, as long as the kernel takes one. */
export const pathText = text(4095)
export const shortText = text(4096)
export const account = number(0, 0xffff_fffe)
export const processId = number(0, 0x7fff_ffff)
export const recordNumber = number(1, 0xffff_ffff)
export const wallTime = matching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z$/, 'time in UTC')
export const mask = matching(/^0x[0-9a-f]{1,16}$/, 'mask of 64 bits')
/** 64 bits in decimal. */
export const wide = matching(/^(0|[1-9][0-9]{0,19})$/, 'number of 64 bits')
export const digest = matching(/^[0-9a-f]{64}$/, 'SHA-256')
