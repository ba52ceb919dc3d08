/**
 * What the registry holds in memory: pure, and the same whether it was put or read back. Loans that
 * live are all kept; of what is over, so many, and the oldest go first.
 */
import { ConflictError } from '../errors.ts'
import type { Change, Policies } from './change.ts'
import { type AnswerRecord, type LoanRecord, mayFollow, type RequestRecord } from './loan-record.ts'

export interface Bounds {
  readonly endedLoans: number
  readonly decidedRequests: number
  readonly answersPerUid: number
  readonly answers: number
  readonly answerLifeMs: number
}

export const DEFAULT_BOUNDS: Bounds = {
  endedLoans: 10_000,
  decidedRequests: 1000,
  answersPerUid: 1000,
  answers: 20_000,
  answerLifeMs: 24 * 60 * 60 * 1000,
}

export class Records {
  readonly bounds: Bounds
  readonly policies: Policies = new Map()
  readonly #loans = new Map<number, LoanRecord>()
  readonly #requests = new Map<number, RequestRecord>()
  /** In the order in which they ended. */
  readonly #ended = new Set<number>()
  readonly #decided = new Set<number>()
  /** By `UID KEY`, the oldest first. */
  readonly #answers = new Map<string, AnswerRecord>()
  readonly #answersOf = new Map<number, Set<string>>()

  constructor(bounds: Bounds = DEFAULT_BOUNDS) {
    this.bounds = bounds
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
    for (const id of this.#ended) yield { loan: this.#loans.get(id)! }
    for (const loan of this.#loans.values()) if (loan.state !== 'ended') yield { loan }
    for (const id of this.#decided) yield { request: this.#requests.get(id)! }
    for (const request of this.#requests.values()) if (request.state === 'waiting') yield { request }
    for (const answer of this.#answers.values()) yield { answer }
  }

  /** Forgets answers that are too old, and policies that no loan has. */
  prune(now: number): void {
    for (const [name, { uid, at }] of this.#answers)
      if (now - Date.parse(at) >= this.bounds.answerLifeMs) this.#dropAnswer(name, uid)
    const used = new Set([...this.#loans.values()].map(({ policyDigest }) => policyDigest))
    for (const digest of this.policies.keys()) if (!used.has(digest)) this.policies.delete(digest)
  }

  #applyLoan(loan: LoanRecord): void {
    const { policyDigest } = loan
    const policy = this.policies.get(policyDigest) ?? loan.policy
    this.policies.set(policyDigest, policy)
    this.#loans.set(loan.id, policy === loan.policy ? loan : { ...loan, policy })
    if (loan.state === 'ended') this.#ended.add(loan.id)
    dropOldest(this.#ended, this.bounds.endedLoans, id => this.#loans.delete(id))
  }

  #applyRequest(request: RequestRecord): void {
    this.#requests.set(request.id, request)
    if (request.state !== 'waiting') this.#decided.add(request.id)
    dropOldest(this.#decided, this.bounds.decidedRequests, id => this.#requests.delete(id))
  }

  #applyAnswer(answer: AnswerRecord): void {
    const { uid } = answer
    const name = `${uid} ${answer.key}`
    this.#dropAnswer(name, uid)
    this.#answers.set(name, answer)
    const own = this.#answersOf.get(uid) ?? new Set()
    this.#answersOf.set(uid, own.add(name))
    if (own.size > this.bounds.answersPerUid) this.#dropAnswer(first(own), uid)
    if (this.#answers.size > this.bounds.answers) {
      const oldest = first(this.#answers.keys())
      this.#dropAnswer(oldest, this.#answers.get(oldest)!.uid)
    }
  }

  #dropAnswer(name: string, uid: number): void {
    if (!this.#answers.delete(name)) return
    const own = this.#answersOf.get(uid)
    own?.delete(name)
    if (own?.size === 0) this.#answersOf.delete(uid)
  }
}

/** An approved request still learns which loan came of it, or that none did. */
function requestMayFollow(now: RequestRecord, next: RequestRecord): boolean {
  if (now.state === 'waiting') return true
  return now.state === 'approved' && now.loan === undefined && ['approved', 'failed'].includes(next.state)
}

function dropOldest(ids: Set<number>, keep: number, drop: (id: number) => void): void {
  while (ids.size > keep) {
    const id = first(ids)
    ids.delete(id)
    drop(id)
  }
}

function first<T>(items: Iterable<T>): T {
  for (const item of items) return item
  throw new RangeError('there is none')
}
