/**
 * What tasks of each user namespace may attach. The guard's programs make these records and count
 * in them; we remove records that count nothing.
 */
import { type RawDelegation, waitForPrograms } from './delegations.ts'
import { GUARD_FLAGS, GUARD_NETWORK_PROGS_LOW, type guard_namespace } from './layout.ts'
import type { GuardMaps } from './maps.ts'
import type { Row } from './table.ts'

type RawNamespace = Row<typeof guard_namespace.fields>

/**
 * As GUARD_NETWORK_PROGS of bpf/guard/abi.h: the types below 32 that are named there, and all
 * above.
 */
const NETWORK_PROGS = (0xffff_ffffn << 32n) | BigInt(GUARD_NETWORK_PROGS_LOW)

/**
 * Makes room once the map is half full. Each user namespace that was ever lent to leaves one record
 * behind.
 */
export function sweepNamespaces(maps: GuardMaps): void {
  const { namespaces, delegations } = maps.tables
  const all = namespaces.readAll()
  if (all.length < namespaces.map.maxEntries / 2) return
  const removed = all.filter(([, counts]) => isIdle(counts)).map(([inode]) => inode)
  for (const inode of removed) namespaces.delete(inode)
  // A delegation that was being made meanwhile may have been counted in a record that we removed.
  waitForPrograms()
  const records = delegations.all()
  for (const inode of removed) {
    const there = records.filter(one => one.ruled === 1 && one.user_namespace === inode)
    if (there.length > 0) namespaces.set(inode, recount(there))
  }
}

function isIdle({ enforced, watched }: RawNamespace): boolean {
  return [enforced, watched].every(rules => rules.own_network === 0 && rules.revocable === 0)
}

/** As rules_of() in bpf/guard/state.h. */
function recount(delegations: readonly RawDelegation[]): RawNamespace {
  const rules = (mode: number) => {
    const counted = delegations.filter(({ terms }) => Math.min(terms.mode, 1) === mode)
    const without = (flag: number) => counted.filter(({ terms }) => (terms.flags & flag) === 0)
    return {
      own_network: without(GUARD_FLAGS.hostNetwork).filter(
        ({ terms }) => (terms.masks.progs & NETWORK_PROGS) !== 0n,
      ).length,
      revocable: without(GUARD_FLAGS.irrevocable).length,
    }
  }
  return { delegation: delegations.at(-1)!.id, enforced: rules(1), watched: rules(0) }
}
