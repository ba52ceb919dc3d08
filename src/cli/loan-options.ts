/** Options of the commands that lend and take back, with the daemon and without. */
import type { AdmissionOptions } from './admission.ts'
import type { DaemonOptions } from './daemon/reach.ts'
import type { RecipientOptions } from './recipient.ts'

export interface DelegateOptions extends AdmissionOptions, RecipientOptions, DaemonOptions {
  policy: string
  contextFd?: number
  onlyCgroup?: string
  strict?: boolean
  /** In seconds. */
  lifetime?: number
  comment?: string
  wait: boolean
  dryRun?: boolean
  json?: boolean
}

export interface DeriveOptions extends AdmissionOptions, RecipientOptions, DaemonOptions {
  policy: string
  strict?: boolean
  /** In seconds. */
  lifetime?: number
  json?: boolean
}

export interface UndelegateOptions extends RecipientOptions, DaemonOptions {
  mount?: number
  json?: boolean
}

export interface RevokeOptions extends DaemonOptions {
  container?: string
  unit?: string
  user?: string
  policy?: string
  all?: boolean
  detach?: boolean
  kill?: boolean
  dryRun?: boolean
  comment?: string
  json?: boolean
}
