/** The words of its events: where something was judged, and what was wrong with it. */
import type { POINTS, REASONS } from '../../guard/layout.ts'

export type GuardPoint = (typeof POINTS)[keyof typeof POINTS]
export type GuardReason = (typeof REASONS)[keyof typeof REASONS]
