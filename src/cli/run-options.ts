/** Options of `run`, for root and for ordinary users. */
import type { AdmissionOptions } from './admission.ts'

export interface RunOptions extends AdmissionOptions {
  policy: string
  user?: string
  hostNet?: boolean
  path: string
  cap?: string[]
  identity?: boolean
  apart?: boolean
  env?: string[]
  keepEnv?: boolean
  socket?: string
  killRest?: boolean
  dryRun?: boolean
  json?: boolean
}
