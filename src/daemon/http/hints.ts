/**
 * What to do next, in the words of whoever speaks HTTP with the daemon. Libraries say what went
 * wrong by a reason and its facts; here is which route or field that means.
 */
import type { BpftokenError, ErrorContext, Reason } from '../../errors.ts'

const ASK_FOR_GUARD = 'Ask the administrator of this machine to install the guard'

/** Of its files; mostly it does not even start then. */
const STATE = "Ask the administrator of this machine to look at the daemon's log"

/** Every reason has its words. */
const BY_REASON: Readonly<Record<Reason, (facts: ErrorContext) => string>> = {
  'approval-not-asked': () => 'POST /v1/loans: then somebody can approve it',
  'big-endian': () => 'Compile it for bpfel',
  'confinements-full': () => 'Ask the administrator of this machine to end one first',
  'delegation-unknown': () => 'GET /v1/loans lists those that live',
  'guard-missing': () => ASK_FOR_GUARD,
  'guard-needed': ({ fields }) =>
    fields === undefined
      ? ASK_FOR_GUARD
      : `${ASK_FOR_GUARD}, or ask for a policy without these fields, or with spec.guard: optional`,
  'guard-older': () => 'Ask the administrator of this machine to install the guard of this version',
  'launch-refused': () => 'Ask the administrator of this machine to say spec.launch: allowed in the policy',
  'launcher-missing': () => 'Ask the administrator of this machine to start bpftoken-launchd',
  'may-stand': () => 'End the processes of that user namespace, or unmount it there',
  'more-than-parent': () => 'Ask for less, or leave out "exact" to get what there is',
  'name-ambiguous': () => 'Name one of them by a pid or a pidfd in "recipient"',
  'name-unknown': () => 'Name a process by a pid or a pidfd in "recipient"',
  'names-unavailable': () => 'Name a process by a pid or a pidfd in "recipient"',
  'network-shared': () =>
    'Give the workload a network namespace of its own, or ask for a policy with spec.network: host',
  'no-place': () => 'Name the place to attach to',
  'no-user-namespace': () =>
    'A token works only inside a user namespace of its own: name a process in one as "recipient"',
  'not-confined': () => 'Name a cgroup that is confined',
  'not-delegated': () => 'GET /v1/loans lists what is lent where',
  'not-derivable': ({ why }) =>
    why === 'forbidden'
      ? 'Ask for a loan under a policy with spec.derive.allowed: true and a larger maxDepth'
      : 'Ask for a new loan: POST /v1/loans',
  'nothing-to-derive': () => 'GET /v1/loans/{id} shows what it has',
  'place-taken': () => 'Take back what lies there: POST /v1/revoke; or name another "place"',
  'state-damaged': () => STATE,
  'state-in-use': () => STATE,
  'state-open-to-others': () => STATE,
  'state-schema': () => STATE,
  'subject-refused': () => 'GET /v1/policies lists the policies that you may have',
  'subjects-not-compared': () => 'Name a policy without spec.subjects',
  'subjects-unsupported': () => 'Name a policy whose subjects are users, cgroups, units or labels',
  'tokens-unknown': () => 'Run Linux 6.9 or newer',
}

export function hintOf({ reason, context, hint }: BpftokenError): string | undefined {
  return reason === undefined ? hint : BY_REASON[reason](context)
}
