/** The record of what somebody else has lent: what is seen of it, and nothing that is not. Pure. */
import type { DelegatedInstance } from '../delegation/instances.ts'
import type { GuardDelegation } from '../guard/guard.ts'
import { DEFAULT_TERMS, type Policy } from '../policy/policy.ts'
import type { LoanRecord } from '../registry/loan-record.ts'
import { INITIAL_USER_NAMESPACE } from '../sys/self.ts'
import { mountRecord, termsOf } from './loan-journal.ts'

/** Nobody asked us. */
const NOBODY = { pid: 0, uid: 0, gid: 0, userNamespace: INITIAL_USER_NAMESPACE }
const NO_MASKS = { cmds: 0n, maps: 0n, progs: 0n, attachs: 0n }

export function adoptedRecord(
  { id, boot, at }: { readonly id: number; readonly boot: string; readonly at: string },
  mounts: readonly DelegatedInstance[],
  delegation: GuardDelegation | undefined,
): LoanRecord {
  const [mount] = mounts
  const userNamespace = mount?.userNamespace ?? `user:[${delegation?.userNamespace ?? 0}]`
  return {
    id,
    kind: 'adopted',
    state: 'live',
    boot,
    ...termsOf(termsSeen(mount, delegation)),
    asker: NOBODY,
    askedAt: at,
    place: { path: mount?.path ?? '/' },
    because: 'not lent by this daemon',
    recipient: {
      pid: mount?.pids[0] ?? 0,
      userNamespace,
      mountNamespace: mount?.mountNamespace ?? '',
      ownerUid: mount?.ownerUid ?? 0,
    },
    made: {
      at,
      ...(mount && mountRecord(mount)),
      delegation: delegation && Number(delegation.id),
    },
  }
}

function termsSeen(mount: DelegatedInstance | undefined, delegation: GuardDelegation | undefined): Policy {
  const unnamed = { name: 'unknown', approval: 'none' } as const
  if (delegation !== undefined) {
    const { policy, terms } = delegation
    return { ...unnamed, ...(policy === '' ? {} : { name: policy }), ...terms, guard: 'required' }
  }
  return { ...unnamed, ...DEFAULT_TERMS, rights: { masks: mount?.masks ?? NO_MASKS, capabilities: [] } }
}
