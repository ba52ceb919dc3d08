/**
 * What becomes of what was lent, in words that the registry keeps and the API tells. A word may be
 * added; one that was kept once is never taken away.
 */

export const LOAN_KINDS = ['delegate', 'derive', 'adopted'] as const
/** In this order: a loan never goes back. */
export const LOAN_STATES = ['making', 'live', 'ending', 'ended'] as const
/** Why it has ended, or ends. */
export const LOAN_ENDS = [
  'failed',
  'revoked',
  'expired',
  'undelegated',
  'origin-ended',
  'processes-gone',
  'reboot',
  'lost',
] as const

export type LoanState = (typeof LOAN_STATES)[number]
