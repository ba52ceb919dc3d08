/** What stands in the way of a call, as one of these files says it. Pure. */
import type { ErrnoName } from '../../model/judge.ts'
import type { PolicyEdit } from '../../policy/edit.ts'
import type { Cause } from '../explain.ts'

export interface Finding {
  readonly cause: Cause
  /** With what the call fails. */
  readonly errno: ErrnoName
  readonly needed: string
  readonly found: string
  /** What a policy would have to say, where that can be told. */
  readonly edit?: PolicyEdit
}
