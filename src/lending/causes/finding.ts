/** What stands in the way of a call, as one of these files says it. Pure. */
import type { ErrnoName } from '../../model/judge.ts'
import type { Cause } from '../explain.ts'

/** A field of a policy that is not a list: it would have to have this value, or another one. */
export interface PolicySetting {
  /** `spec.limits.maps` */
  readonly path: string
  /** Undefined: which one, the caller has to know. */
  readonly value: string | boolean | undefined
}

export interface Finding {
  readonly cause: Cause
  /** With what the call fails. */
  readonly errno: ErrnoName
  readonly needed: string
  readonly found: string
  readonly setting?: PolicySetting
}
