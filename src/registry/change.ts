/**
 * One line of the registry: records that take effect together, or not at all. Pure.
 *
 * A policy is in the file once, in the line of the first loan that has it; loans name it by digest.
 */
import { FormatError } from '../errors.ts'
import type { PolicyJSON } from '../policy/policy.ts'
import { digest, object, optional } from './fields.ts'
import { asciiJson } from './line.ts'
import {
  type AnswerRecord,
  answerRecord,
  type LoanRecord,
  type RequestRecord,
  requestRecord,
  type StoredLoan,
  storedLoan,
} from './loan-record.ts'

export interface Change {
  readonly loan?: LoanRecord | undefined
  readonly request?: RequestRecord | undefined
  readonly answer?: AnswerRecord | undefined
}

/** Policies by digest. */
export type Policies = Map<string, PolicyJSON>

interface StoredChange {
  readonly policy?: { readonly digest: string; readonly terms: PolicyJSON } | undefined
  readonly loan?: StoredLoan | undefined
  readonly request?: RequestRecord | undefined
  readonly answer?: AnswerRecord | undefined
}

const storedChange = object<StoredChange>({
  policy: optional(object({ digest, terms: policyTerms })),
  loan: optional(storedLoan),
  request: optional(requestRecord),
  answer: optional(answerRecord),
})

/** Whoever lends by it reads it by `policyFromJSON`, which knows its format. */
function policyTerms(value: unknown, path: string): PolicyJSON {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as PolicyJSON
  throw new FormatError('record', `${path}: is no policy`)
}

/** The change with nothing in it that cannot be read back. FormatError: it has. */
export function checkedChange({ loan, request, answer }: Change): Change {
  return {
    ...(loan === undefined
      ? {}
      : { loan: { ...storedLoan(withoutPolicy(loan), 'loan'), policy: loan.policy } }),
    ...(request === undefined ? {} : { request: requestRecord(request, 'request') }),
    ...(answer === undefined ? {} : { answer: answerRecord(answer, 'answer') }),
  }
}

function withoutPolicy({ policy: _, ...rest }: LoanRecord): StoredLoan {
  return rest
}

/** JSON of a change. `known` has the policies that the file has, and gets the one that is new. */
export function encodeChange({ loan, request, answer }: Change, known: Set<string>): string {
  const stored: StoredChange = {
    ...(loan === undefined || known.has(loan.policyDigest)
      ? {}
      : { policy: { digest: loan.policyDigest, terms: loan.policy } }),
    loan: loan === undefined ? undefined : withoutPolicy(loan),
    request,
    answer,
  }
  if (stored.policy !== undefined) known.add(stored.policy.digest)
  return asciiJson(stored)
}

/** The inverse. `policies` has those of the lines before, and gets the one that is new. */
export function decodeChange(body: string, policies: Policies): Change {
  const { policy, loan, request, answer } = storedChange(JSON.parse(body), 'line')
  if (policy !== undefined) policies.set(policy.digest, policy.terms)
  if (loan === undefined) return { request, answer }
  const terms = policies.get(loan.policyDigest)
  if (terms === undefined) throw new FormatError('record', 'line.loan.policyDigest: no such policy before it')
  return { loan: { ...loan, policy: terms }, request, answer }
}
