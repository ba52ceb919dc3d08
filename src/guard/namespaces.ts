/**
 * What tasks of user namespaces may attach. Programs make these records and count in them; we
 * remove those that count nothing.
 */
import { rawDelegations, waitForPrograms } from './delegations.ts'
import { GUARD_FLAGS, GUARD_NETWORK_PROGS_LOW, guard_namespace } from './layout.ts'
import type { GuardMaps } from './maps.ts'

type RawNamespace = Parameters<typeof guard_namespace.encode>[0]

/**
 * As GUARD_NETWORK_PROGS of bpf/guard/abi.h: the types below 32 that are named there, and all
 * above.
 */
const NETWORK_PROGS = (0xffff_ffffn << 32n) | BigInt(GUARD_NETWORK_PROGS_LOW)

/**
 * Makes room once the map is half full: one record stays behind for each user namespace that was
 * ever lent to.
 */
export function sweepNamespaces(maps: GuardMaps): void {
  const namespaces = maps.map('namespaces')
  const all = namespaces.readAll()
  if (all.length < namespaces.maxEntries / 2) return
  const removed = all.filter(([, value]) => isIdle(guard_namespace.decode(value))).map(([key]) => key)
  for (const key of removed) namespaces.delete(key)
  // A delegation that was being made meanwhile may have been counted in a record that we removed.
  waitForPrograms()
  const delegations = rawDelegations(maps)
  for (const key of removed) {
    const inode = Number(new DataView(key.buffer, key.byteOffset).getBigUint64(0, true))
    const there = delegations.filter(one => one.ruled === 1 && one.user_namespace === inode)
    if (there.length > 0) namespaces.update(key, guard_namespace.encode(recount(there)))
  }
}

function isIdle({ enforced, watched }: RawNamespace): boolean {
  return [enforced, watched].every(rules => rules?.own_network === 0 && rules.revocable === 0)
}

/** As rules_of() in bpf/guard/state.h. */
function recount(delegations: ReturnType<typeof rawDelegations>): RawNamespace {
  const rules = (mode: number) => {
    const counted = delegations.filter(({ terms }) => Math.min(terms!.mode!, 1) === mode)
    const without = (flag: number) => counted.filter(({ terms }) => (terms!.flags! & flag) === 0)
    return {
      own_network: without(GUARD_FLAGS.hostNetwork).filter(
        ({ terms }) => (terms!.masks!.progs! & NETWORK_PROGS) !== 0n,
      ).length,
      revocable: without(GUARD_FLAGS.irrevocable).length,
    }
  }
  return { delegation: delegations.at(-1)!.id!, enforced: rules(1), watched: rules(0) }
}
