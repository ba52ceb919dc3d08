/**
 * Undelegating: a loan is unmounted. With a guard the tokens that were made of it are revoked, too.
 */
import { undelegate as takeAway, type Undelegated } from '../delegation/delegate.ts'
import { openTargetInTime, type Target, type TargetFacts } from '../delegation/target.ts'
import { Owned } from '../ebpf/owned.ts'
import type { DelegationId, Guard } from '../guard/guard.ts'
import type { Vocabulary } from '../policy/vocabulary.ts'
import { openProcess } from '../sys/process.ts'
import { type Journaled, journaled } from './journal.ts'

export interface UndelegateRequest {
  /** A process that has it mounted: its number, or as the caller holds it. */
  readonly recipient: number | Target
  readonly path: string
  /** By its id instead, which the kernel's table of mounts has. */
  readonly mount?: number | undefined
  /** Of its superblock, `major:minor`: an id of a mount may be another one's by now. */
  readonly device?: string | undefined
  readonly vocabulary: Vocabulary
  /** Undefined: none is installed. */
  readonly guard: Guard | undefined
}

export interface TakenBack {
  readonly target: TargetFacts
  readonly unmounted: Undelegated
}

/** Errors are those of `undelegate` in src/delegation/delegate.ts, and of `openTargetInTime`. */
export async function undelegate(request: UndelegateRequest, how: Journaled = {}): Promise<TakenBack> {
  const { recipient, path, mount, device, vocabulary, guard } = request
  using held = new Owned()
  const target =
    typeof recipient === 'number' ? held.add(await openTargetInTime(openProcess(recipient))) : recipient
  // Awaited here, or the target would be disposed of while it is in use.
  return await journaled(how, { do: 'undelegate', target: target.facts, path, mount }, async did => {
    const unmounted = await takeAway(target, vocabulary, {
      path,
      mount,
      device,
      ...(guard && revoking(guard)),
    })
    const taken = { target: target.facts, unmounted }
    await did(taken)
    return taken
  })
}

/** By the root directory of the mount, or where that is not reached, all of the user namespace. */
function revoking(guard: Guard): Pick<Parameters<typeof takeAway>[2] & object, 'revoke' | 'revokeIn'> {
  return {
    revoke: root => revokeAll(guard, [guard.delegationAt(root)]),
    revokeIn: userNamespace =>
      revokeAll(
        guard,
        guard.delegations().map(one => (one.userNamespace === userNamespace ? one.id : undefined)),
      ),
  }
}

/** Those that there are, with all that is derived from them. */
function revokeAll(guard: Guard, ids: readonly (DelegationId | undefined)[]): DelegationId[] {
  return ids.flatMap(id => (id === undefined ? [] : guard.revoke(id)))
}
