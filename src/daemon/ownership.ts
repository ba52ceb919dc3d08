/** Whose a loan is: who sees it, and may give it back. Pure. */
import type { LoanRecord, RequestRecord } from '../registry/loan-record.ts'
import { INITIAL_USER_NAMESPACE } from '../sys/self.ts'
import type { AskerFacts } from './asker.ts'

export interface Who {
  readonly isRoot: boolean
  readonly facts: AskerFacts
}

/**
 * It asked for it, or it is lent to its own user namespace. A user's number counts from the initial
 * user namespace alone: in another one a process that is held to that may have it too.
 */
export function ownsLoan({ isRoot, facts }: Who, loan: LoanRecord): boolean {
  const { kind, state, asker, recipient } = loan
  const { uid, userNamespace } = facts
  if (isRoot) return true
  if (kind !== 'adopted' && isSame(asker, facts)) return true
  if (userNamespace === INITIAL_USER_NAMESPACE) return recipient?.ownerUid === uid
  // The number of one that is gone may be another one's.
  return state !== 'ended' && recipient?.userNamespace === userNamespace
}

/** It has asked. */
export function ownsRequest({ isRoot, facts }: Who, { asker }: RequestRecord): boolean {
  return isRoot || isSame(asker, facts)
}

/** The same user of the same namespace: one that is gone may have had the inode of another one. */
function isSame(asker: AskerFacts, now: AskerFacts): boolean {
  return (
    asker.uid === now.uid &&
    asker.userNamespace === now.userNamespace &&
    asker.userNamespaceId === now.userNamespaceId
  )
}
