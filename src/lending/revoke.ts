/**
 * Revoking: the guard takes a delegation back at once, wherever it is mounted. Then what was loaded
 * under it is undone.
 */
import type { DetachResult } from '../guard/detach.ts'
import type { DelegationId, Guard } from '../guard/guard.ts'
import { type Journaled, journaled } from './journal.ts'

/**
 * Revokes it, with all that is derived from it: the ids, this one first. NotFoundError: there is no
 * such delegation.
 */
export function revoke(
  guard: Guard,
  id: DelegationId,
  how: Journaled = {},
): Promise<readonly DelegationId[]> {
  return journaled(how, { do: 'revoke', delegation: id }, async did => {
    const revoked = guard.revoke(id)
    await did({ revoked })
    return revoked
  })
}

export interface DetachOptions extends Journaled {
  /** Also kill those in its user namespaces, or confined cgroups, that hold any of it. */
  readonly kill?: boolean
  /** Told first: this delegation may have attached programs without links, which are not found. */
  readonly tellUnseen?: (delegation: DelegationId) => void
}

/** Undoes what was loaded under these delegations, which `revoke` gave: see src/guard/detach.ts. */
export async function detach(
  guard: Guard,
  revoked: readonly DelegationId[],
  { kill = false, tellUnseen, ...how }: DetachOptions = {},
): Promise<DetachResult> {
  return await journaled(how, { do: 'detach', delegations: revoked, kill }, async did => {
    // Loaded here: they load all that loads programs, and most revoke without.
    const { Inventory } = await import('../guard/inventory.ts')
    const { detach: detachAll } = await import('../guard/detach.ts')
    using inventory = await Inventory.open(guard)
    for (const { id, terms } of guard.delegations())
      if (revoked.includes(id) && !terms.revocable) tellUnseen?.(id)
    const result = await detachAll(inventory, new Set(revoked), { kill })
    await did(result)
    return result
  })
}

/**
 * Whether all is undone that was to be: nothing stays attached, no program is left that may be
 * attached without a link, and with `kill` nothing at all.
 */
export function isUndone(result: DetachResult, { kill = false }: Pick<DetachOptions, 'kill'>): boolean {
  const { stays, left } = result
  return stays.length === 0 && left.programs.length === 0 && !(kill && countLeft(result) > 0)
}

/** Objects that are still in the kernel. */
export function countLeft({ left }: DetachResult): number {
  return left.programs.length + left.maps.length + left.links.length
}
