/**
 * Limits in words, for people: the stated ones, and the defaults that the guard holds to in place
 * of others.
 */
import { DEFAULT_LIMITS, type Limits } from './policy.ts'
import { formatDuration, formatSize } from './quantity.ts'

export function describeLimits(limits: Limits): string {
  const { mapBytes, lifetimeSec, instructions } = limits
  const counts = Object.entries(DEFAULT_LIMITS).map(([field, byDefault]) => {
    const stated = limits[field as keyof typeof DEFAULT_LIMITS]
    return `${stated ?? byDefault} ${field}${stated === undefined ? ' (default)' : ''}`
  })
  return [
    ...counts,
    ...(instructions === undefined ? [] : [`${instructions} instructions`]),
    ...(mapBytes === undefined ? [] : [`${formatSize(mapBytes)} of maps`]),
    ...(lifetimeSec === undefined ? [] : [`lifetime ${formatDuration(lifetimeSec)}`]),
  ].join(', ')
}
