/**
 * Numbers that come from outside, as text or from a caller of the library: bounded before they are
 * used.
 *
 * The kernel cuts what it is given to the width of its own types: user 4294967296 is user 0. Pure.
 */

export interface NumberRange {
  readonly min: number
  readonly max: number
}

/** User and group ids. The next number, (uid_t)-1, is no id. */
export const USER_IDS: NumberRange = { min: 0, max: 0xffff_fffe }
/** Up to PID_MAX_LIMIT of 64-bit kernels. */
export const PROCESS_IDS: NumberRange = { min: 1, max: 4_194_304 }
export const DESCRIPTORS: NumberRange = { min: 0, max: 0x7fff_ffff }
/** The guard's numbers of delegations. */
export const DELEGATION_IDS: NumberRange = { min: 1, max: 0xffff_ffff }
/** Of the guard's events. */
export const EVENT_NUMBERS: NumberRange = { min: 1, max: 9_999_999_999 }

/** Whether `value` is a whole number in the range. */
export function isWithin(range: NumberRange, value: unknown): value is number {
  return Number.isInteger(value) && (value as number) >= range.min && (value as number) <= range.max
}

/**
 * The number that `text` is, in plain decimal digits; undefined for all else: signs, blanks, `0x1`,
 * `1e3`, `007`.
 */
export function parseWithin(range: NumberRange, text: string): number | undefined {
  const value = /^(0|[1-9][0-9]{0,9})$/.test(text) ? Number(text) : undefined
  return isWithin(range, value) ? value : undefined
}

/** Of mounts, as mountinfo numbers them. */
export const MOUNT_IDS: NumberRange = { min: 1, max: 0x7fff_ffff }
