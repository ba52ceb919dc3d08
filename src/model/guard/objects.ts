/** Tokens, maps, programs and links, as the guard has them on record. */
import type { UserNamespace } from '../task.ts'
import type { Delegation } from './delegation.ts'

/** A token; without a delegation the guard did not see it made. */
export interface GuardToken {
  readonly userNamespace: UserNamespace
  readonly delegation?: Delegation
  /** Capabilities for which an event said that they are not lent, by their numbers. */
  readonly told: Set<number>
}

export interface GuardMap {
  /** Of enum bpf_map_type. */
  readonly type: number
  readonly delegation?: Delegation
  readonly bytes: bigint
}

export interface GuardProgram {
  /** What it was loaded with; absent: with none. */
  readonly token?: GuardToken
  /** Absent: the guard has no record of it. */
  readonly delegation?: Delegation
  /** Words of a policy that name it: `tag:...`, `sha256:...`. */
  readonly digests: readonly string[]
  /** Its digest is known and allowed. */
  admitted: boolean
}

/** Of a program, or of a struct_ops map, which it has not any more when it is detached. */
export type GuardLink =
  | { readonly program: GuardProgram }
  | { readonly map: GuardMap }
  | { readonly isDetached: true }

/** What a descriptor is. */
export type GuardObject =
  | { readonly kind: 'program'; readonly program: GuardProgram }
  | { readonly kind: 'map'; readonly map: GuardMap }
  | { readonly kind: 'link'; readonly link: GuardLink }
  /** Something else, or nothing. */
  | { readonly kind: 'other' }

export const NOTHING: GuardObject = { kind: 'other' }
