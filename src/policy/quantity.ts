/** Durations and sizes as people write them. */

const DURATION_UNITS_SEC: Readonly<Record<string, number>> = { d: 86400, h: 3600, m: 60, s: 1 }
const SIZE_UNITS: Readonly<Record<string, bigint>> = {
  '': 1n,
  B: 1n,
  KiB: 1n << 10n,
  MiB: 1n << 20n,
  GiB: 1n << 30n,
  TiB: 1n << 40n,
}

/**
 * `1h30m`: whole numbers with units, largest unit first, each at most once. Up to nine digits each.
 */
export const DURATION_PATTERN = /^(?=.)(\d{1,9}d)?(\d{1,9}h)?(\d{1,9}m)?(\d{1,9}s)?$/

/** `64MiB`: one whole number with a binary unit, or plain bytes. */
export const SIZE_PATTERN = /^\d{1,18}(B|KiB|MiB|GiB|TiB)?$/

/**
 * A hundred years. Times are counted in 64 bits of nanoseconds since boot, and the end of a loan
 * must be such a time: a longer lifetime would wrap around to a time that has passed, or to no
 * limit at all.
 */
export const MAX_DURATION_SEC = 36_500 * 86_400
/** What is counted up to a limit must not wrap around on its way. */
const MAX_SIZE_BYTES = (1n << 63n) - 1n

/**
 * Seconds in a duration such as `8h` or `1h30m`; undefined if it is none or longer than
 * `MAX_DURATION_SEC`. Zero is a duration.
 */
export function parseDuration(text: string): number | undefined {
  if (!DURATION_PATTERN.test(text)) return undefined
  let seconds = 0
  for (const [, count, unit] of text.matchAll(/(\d+)([dhms])/g)) {
    seconds += Number(count) * DURATION_UNITS_SEC[unit!]!
  }
  return seconds <= MAX_DURATION_SEC ? seconds : undefined
}

/**
 * Bytes in a size such as `64MiB` or `4096`; undefined if it is none or larger than
 * `MAX_SIZE_BYTES`.
 */
export function parseSize(text: string): bigint | undefined {
  if (!SIZE_PATTERN.test(text)) return undefined
  const unit = text.replace(/^\d+/, '')
  const bytes = BigInt(text.slice(0, text.length - unit.length)) * SIZE_UNITS[unit]!
  return bytes <= MAX_SIZE_BYTES ? bytes : undefined
}

/** `5400` as `1h30m`. */
export function formatDuration(seconds: number): string {
  let rest = seconds
  let text = ''
  for (const [unit, length] of Object.entries(DURATION_UNITS_SEC)) {
    const count = Math.floor(rest / length)
    if (count > 0) text += `${count}${unit}`
    rest -= count * length
  }
  return text === '' ? '0s' : text
}

/** The size in the largest unit that divides it: `67108864` as `64MiB`. */
export function formatSize(bytes: bigint): string {
  const units = Object.entries(SIZE_UNITS).filter(([unit]) => unit !== '' && unit !== 'B')
  for (const [unit, length] of units.reverse()) {
    if (bytes !== 0n && bytes % length === 0n) return `${bytes / length}${unit}`
  }
  return bytes.toString()
}
