/** Options of `events`, with the daemon and without. */
import type { DaemonOptions } from './daemon/reach.ts'
import type { LoanName } from './tree/options.ts'

export interface EventsOptions extends DaemonOptions {
  follow?: boolean
  since?: string
  delegation?: LoanName
  uid?: number
  reason?: string
  suggest?: boolean
  json?: boolean
}
