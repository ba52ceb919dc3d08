/** What the guard has on record of renewals: renew.ts writes it. */
import { SyscallError } from '../errors.ts'
import type { DelegationId } from './id.ts'
import type { GuardMaps, Tables } from './maps.ts'
import { NO_LIMIT64 } from './terms.ts'

export type RenewalTables = Pick<Tables, 'renewals' | 'expired'>

/** Undefined: the guard was installed by a version that knows no renewals. */
export function renewalTables({ tables }: GuardMaps): RenewalTables | undefined {
  try {
    const { renewals, expired } = tables
    return { renewals, expired }
  } catch (error) {
    if (error instanceof SyscallError && error.errnoName === 'ENOENT') return undefined
    throw error
  }
}

/** When a delegation ends, by its record and the last renewal; undefined: never. */
export function endOf(
  maps: GuardMaps,
  { id, expires_ns }: { readonly id: bigint; readonly expires_ns: bigint },
): bigint | undefined {
  if (expires_ns === NO_LIMIT64) return undefined
  const renewed = renewalTables(maps)?.renewals.get(id as DelegationId) ?? 0n
  return renewed > expires_ns ? renewed : expires_ns
}

/** The number is to be another one's, as those of confined cgroups are. */
export function forgetRenewal(maps: GuardMaps, id: DelegationId): void {
  const tables = renewalTables(maps)
  tables?.renewals.delete(id)
  tables?.expired.clear(id)
}
