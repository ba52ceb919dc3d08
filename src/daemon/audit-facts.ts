/** What the audit says of things: short, and without what the registry alone needs. Pure. */
import { BpftokenError, NotUndoneError } from '../errors.ts'
import type { LoanRecord } from '../registry/loan-record.ts'
import type { AskerFacts } from './asker.ts'

/** Of a loan, as it is by now. */
export function loanFacts(loan: LoanRecord): Record<string, unknown> {
  const { kind, policy, policyDigest, asker, place, parent, cgroup, because, entry, approvedBy } = loan
  const { recipient, made, expires, ended, trace, comment } = loan
  return {
    kind,
    policy: policy.name,
    policyDigest,
    asker,
    place,
    ...known({ parent, cgroup, because, entry, trace, approvedBy, comment, recipient }),
    ...known({ made, expires: expires?.at, ended }),
  }
}

/** Of a failure: nothing that a client chose but what the message says. */
export function errorFacts(error: unknown): Record<string, unknown> {
  if (!(error instanceof BpftokenError))
    return { code: 'BPFTOKEN_INTERNAL', message: String(error).slice(0, 1000) }
  const { code, reason, message } = error
  const trace = (error as { trace?: unknown }).trace
  return {
    code,
    message: message.slice(0, 4000),
    ...known({ reason, trace }),
    ...(error instanceof NotUndoneError ? { stands: true } : {}),
  }
}

export function askerFacts(asker: AskerFacts, also: Record<string, unknown> = {}): Record<string, unknown> {
  return { asker, ...known(also) }
}

function known(fields: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined))
}
