/**
 * What the registry holds in memory: pure, and the same whether it was put or read back. Loans that
 * live are all kept; of what is over, so many of each owner (`shareOf`) and in all.
 */
import { ConflictError } from '../errors.ts'
import { shareOf } from './asker-facts.ts'
import type { Change, Policies } from './change.ts'
import { type AnswerRecord, type LoanRecord, mayFollow, type RequestRecord } from './loan-record.ts'
import { Shares } from './shares.ts'

/** What is kept of what is over. An owner is whose share of the limits it was. */
export interface Bounds {
  readonly endedLoans: number
  readonly endedLoansPerOwner: number
  readonly decidedRequests: number
  readonly decidedRequestsPerOwner: number
  readonly answers: number
  readonly answersPerOwner: number
  readonly answerLifeMs: number
}

export const DEFAULT_BOUNDS: Bounds = {
  endedLoans: 10_000,
  endedLoansPerOwner: 2000,
  decidedRequests: 1000,
  decidedRequestsPerOwner: 200,
  answers: 20_000,
  answersPerOwner: 1000,
  answerLifeMs: 24 * 60 * 60 * 1000,
}

export class Records {
  readonly bounds: Bounds
  readonly policies: Policies = new Map()
  readonly #loans = new Map<number, LoanRecord>()
  readonly #requests = new Map<number, RequestRecord>()
  /** In the order in which they ended. */
  readonly #ended: Shares<number>
  readonly #decided: Shares<number>
  /** By `UID KEY`, the oldest first. */
  readonly #answers = new Map<string, AnswerRecord>()
  readonly #answered: Shares<string>

  constructor(bounds: Bounds = DEFAULT_BOUNDS) {
    this.bounds = bounds
    this.#ended = new Shares(bounds.endedLoansPerOwner, bounds.endedLoans)
    this.#decided = new Shares(bounds.decidedRequestsPerOwner, bounds.decidedRequests)
    this.#answered = new Shares(bounds.answersPerOwner, bounds.answers)
  }

  loan(id: number): LoanRecord | undefined {
    return this.#loans.get(id)
  }

  request(id: number): RequestRecord | undefined {
    return this.#requests.get(id)
  }

  /** `now`: what is older than answers live is not there. A clock that went back makes none older. */
  answer(uid: number, key: string, now: number): AnswerRecord | undefined {
    const found = this.#answers.get(`${uid} ${key}`)
    if (found === undefined || now - Date.parse(found.at) >= this.bounds.answerLifeMs) return undefined
    return found
  }

  loans(): IterableIterator<LoanRecord> {
    return this.#loans.values()
  }

  requests(): IterableIterator<RequestRecord> {
    return this.#requests.values()
  }

  get size(): number {
    return this.#loans.size + this.#requests.size + this.#answers.size
  }

  get ended(): number {
    return this.#ended.size
  }

  /** Why the change must not be made after what is here; undefined: it may. */
  objection({ loan, request }: Change): ConflictError | undefined {
    const before = loan && this.#loans.get(loan.id)
    if (loan !== undefined && before !== undefined && !mayFollow(before.state, loan.state))
      return new ConflictError(`loan-${loan.id} is ${before.state}, and cannot be ${loan.state}`, {
        context: { loan: loan.id, state: before.state },
      })
    const asked = request && this.#requests.get(request.id)
    if (request !== undefined && asked !== undefined && !requestMayFollow(asked, request))
      return new ConflictError(`request-${request.id} is ${asked.state}, and cannot be ${request.state}`, {
        context: { request: request.id, state: asked.state },
      })
    return undefined
  }

  apply({ loan, request, answer }: Change): void {
    if (loan !== undefined) this.#applyLoan(loan)
    if (request !== undefined) this.#applyRequest(request)
    if (answer !== undefined) this.#applyAnswer(answer)
  }

  /** Changes that make the same records, in an order that keeps which is the oldest. */
  *changes(): Generator<Change> {
    for (const id of this.#ended.keys()) yield { loan: this.#loans.get(id)! }
    for (const loan of this.#loans.values()) if (loan.state !== 'ended') yield { loan }
    for (const id of this.#decided.keys()) yield { request: this.#requests.get(id)! }
    for (const request of this.#requests.values()) if (request.state === 'waiting') yield { request }
    for (const answer of this.#answers.values()) yield { answer }
  }

  /** Forgets answers that are too old, and policies that no loan has. */
  prune(now: number): void {
    for (const [name, { at }] of this.#answers)
      if (now - Date.parse(at) >= this.bounds.answerLifeMs) this.#dropAnswer(name)
    const used = new Set([...this.#loans.values()].map(({ policyDigest }) => policyDigest))
    for (const digest of this.policies.keys()) if (!used.has(digest)) this.policies.delete(digest)
  }

  #applyLoan(loan: LoanRecord): void {
    const { policyDigest } = loan
    const policy = this.policies.get(policyDigest) ?? loan.policy
    this.policies.set(policyDigest, policy)
    this.#loans.set(loan.id, policy === loan.policy ? loan : { ...loan, policy })
    if (loan.state !== 'ended') return
    for (const id of this.#ended.add(loan.id, shareOf(loan.asker))) this.#loans.delete(id)
  }

  #applyRequest(request: RequestRecord): void {
    this.#requests.set(request.id, request)
    if (request.state === 'waiting') return
    for (const id of this.#decided.add(request.id, shareOf(request.asker))) this.#requests.delete(id)
  }

  #applyAnswer(answer: AnswerRecord): void {
    const name = `${answer.uid} ${answer.key}`
    this.#dropAnswer(name)
    this.#answers.set(name, answer)
    for (const old of this.#answered.add(name, shareOf(answer))) this.#answers.delete(old)
  }

  #dropAnswer(name: string): void {
    this.#answers.delete(name)
    this.#answered.delete(name)
  }
}

/** An approved request still learns which loan came of it, or that none did. */
function requestMayFollow(now: RequestRecord, next: RequestRecord): boolean {
  if (now.state === 'waiting') return true
  return now.state === 'approved' && now.loan === undefined && ['approved', 'failed'].includes(next.state)
}
