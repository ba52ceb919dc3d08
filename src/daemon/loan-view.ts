/** Loans and requests as whoever asks is shown them. Pure, but for the time of now. */
import type { z } from 'zod'
import type * as schema from '../api/loan.ts'
import type { LoanRecord, RequestRecord } from '../registry/loan-record.ts'
import { type Clock, wallOf } from './clock.ts'

export type LoanView = z.output<typeof schema.loan>
export type RequestView = z.output<typeof schema.approvalRequest>
export type LoanStatus = NonNullable<LoanView['status']>

export function loanName(id: number): string {
  return `loan-${id}`
}

export function requestName(id: number): string {
  return `request-${id}`
}

/** Of `loan-7` and `request-7`. */
export function numberIn(name: string): number {
  return Number(name.slice(name.indexOf('-') + 1))
}

export function loanView(loan: LoanRecord, clock: Clock, status?: LoanStatus): LoanView {
  const { id, kind, state, policy, policyDigest, recipient, made, expires, ended } = loan
  return {
    id: loanName(id),
    kind,
    state,
    policy: policy.name,
    policyDigest,
    spec: specView(loan),
    ...(made === undefined || recipient === undefined
      ? {}
      : {
          record: {
            madeAt: made.at,
            // Where the calendar was set meanwhile, it is another time by now.
            ...(expires === undefined
              ? {}
              : {
                  expiresAt: state === 'ended' ? expires.at : wallOf(clock, BigInt(expires.bootNs)),
                }),
            capabilities: [...policy.rights.capabilities],
            recipient: recipientView(recipient),
            ...mountView(made),
            ...(made.delegation === undefined ? {} : { delegation: made.delegation }),
            boot: loan.boot,
          },
        }),
    ...(state === 'ended' || status === undefined ? {} : { status }),
    ...(state !== 'ended' || ended === undefined ? {} : { ended }),
  }
}

function specView(loan: LoanRecord): LoanView['spec'] {
  const { askedAt, asker, place, parent, cgroup, because, entry, approvedBy, comment } = loan
  return {
    askedAt,
    asker: { ...asker },
    place: { ...place },
    ...(parent === undefined ? {} : { parent: loanName(parent) }),
    ...(cgroup === undefined ? {} : { cgroup }),
    because: entry === undefined ? because : `${because} ${entry}`,
    ...(approvedBy === undefined ? {} : { approvedBy }),
    ...(comment === undefined ? {} : { comment }),
  }
}

function recipientView(recipient: NonNullable<LoanRecord['recipient']>) {
  const { pid, userNamespace, mountNamespace, ownerUid, cgroup, unit, container } = recipient
  return {
    ...{ pid, userNamespace, mountNamespace, ownerUid },
    ...(cgroup === undefined ? {} : { cgroup }),
    ...(unit === undefined ? {} : { unit }),
    ...(container === undefined ? {} : { container }),
  }
}

function mountView({ mountId, device, path, masks, options }: NonNullable<LoanRecord['made']>) {
  if (mountId === undefined || device === undefined || path === undefined || masks === undefined) return {}
  return { mount: { mountId, device, path, masks: { ...masks }, options: [...(options ?? [])] } }
}

export function requestView(request: RequestRecord): RequestView {
  const { id, state, policy, askedAt, until, asker, recipient, place, comment, decided, loan, why } = request
  return {
    id: requestName(id),
    ...{ state, policy, askedAt, until },
    asker: { ...asker },
    recipient: { ...recipient },
    place: { ...place },
    ...(comment === undefined ? {} : { comment }),
    ...(decided === undefined ? {} : { decided }),
    ...(loan === undefined ? {} : { loan: loanName(loan) }),
    ...(why === undefined ? {} : { why }),
  }
}
