/**
 * Types for numbers that must not be confused: those of delegations and of cgroups both have 64
 * bits.
 */
import { DELEGATION_IDS, isWithin } from '../uapi/number-range.ts'

declare const kind: unique symbol

/**
 * The number of a live loan, or of a confined cgroup. The guard gives numbers out by counting up.
 * Those of confined cgroups come from a range of their own and are used again. Never 0.
 */
export type DelegationId = bigint & { readonly [kind]: 'delegation' }

/** The inode number of a cgroup's directory: `bpf_get_current_cgroup_id` has the same. */
export type CgroupId = bigint & { readonly [kind]: 'cgroup' }

/** The number as a delegation's. RangeError: not from 1 to 4294967295, and so nobody's. */
export function delegationId(value: number | bigint): DelegationId {
  if (isWithin(DELEGATION_IDS, Number(value))) return BigInt(value) as DelegationId
  throw new RangeError(
    `A delegation has a number from ${DELEGATION_IDS.min} to ${DELEGATION_IDS.max}, not ${value}`,
  )
}

/** As the guard's records have it, where 0 stands for none. */
export function delegationIn(field: bigint): DelegationId | undefined {
  return field === 0n ? undefined : (field as DelegationId)
}

/** As `delegationIn`. */
export function cgroupIn(field: bigint): CgroupId | undefined {
  return field === 0n ? undefined : (field as CgroupId)
}
