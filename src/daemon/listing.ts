/** What of the loans, requests, policies and events whoever asks is shown: root all, others their own. */
import type { RouteAnswer, RouteRequest } from '../api/routes.ts'
import { NotFoundError } from '../errors.ts'
import type { Policy } from '../policy/policy.ts'
import { PolicyIndex } from '../policy/policy-index.ts'
import { knownOf } from '../policy/subject-matcher.ts'
import type { LoanRecord, RequestRecord } from '../registry/loan-record.ts'
import { type Asking, asking } from './lend.ts'
import { loanName, numberIn, requestView } from './loan-view.ts'
import { ownsLoan, ownsRequest, type Who } from './ownership.ts'
import type { Parts } from './parts.ts'
import type { Answered, Call } from './service.ts'
import { viewOf } from './status-of.ts'

const DEFAULT_LIMIT = 1000

/** NotFoundError: there is none of that name, or it is another one's: who may not see it learns no more. */
export function ownLoan({ book, owed }: Parts, who: Who, name: string): LoanRecord {
  const id = numberIn(name)
  const loan = owed.loan(id) ?? book.loan(id)
  if (loan !== undefined && ownsLoan(who, loan)) return loan
  throw new NotFoundError(`There is no ${name}`, { context: { loan: name } })
}

type LoanQuery = RouteRequest<'listLoans'>['query']

function fits(loan: LoanRecord, { state = 'live', uid, policy, container, unit }: LoanQuery): boolean {
  const { recipient, asker } = loan
  if (state !== 'all' && (state === 'ended') !== (loan.state === 'ended')) return false
  return (
    (uid === undefined || (loan.kind !== 'adopted' && asker.uid === uid) || recipient?.ownerUid === uid) &&
    (policy === undefined || loan.policy.name === policy) &&
    (container === undefined || isContainer(loan, container)) &&
    (unit === undefined || recipient?.unit === unit)
  )
}

/** By its id, or so many digits of it as people type. */
export function isContainer({ recipient }: LoanRecord, name: string): boolean {
  const id = recipient?.container
  return id !== undefined && (id === name || (/^[0-9a-f]{12,64}$/.test(name) && id.startsWith(name)))
}

/** The newest that fit, the oldest of these first. */
function loansFor({ book }: Parts, who: Who, query: LoanQuery): LoanRecord[] {
  const all = query.state === 'ended' || query.state === 'all' ? book.registry.loans() : book.open()
  const found: LoanRecord[] = []
  for (const loan of all) if (fits(loan, query) && ownsLoan(who, loan)) found.push(loan)
  return found.sort((a, b) => a.id - b.id).slice(-(query.limit ?? DEFAULT_LIMIT))
}

/** `GET /v1/loans` */
export async function listLoansRoute(
  parts: Parts,
  { asker }: Call,
  { query }: RouteRequest<'listLoans'>,
): Promise<Answered<'listLoans'>> {
  const loans = loansFor(parts, await asking(asker), query)
  return { status: 200, body: { loans: loans.map(loan => viewOf(parts, loan)) } }
}

/** `GET /v1/loans/{id}` */
export async function showLoanRoute(
  parts: Parts,
  { asker }: Call,
  { params }: RouteRequest<'showLoan'>,
): Promise<Answered<'showLoan'>> {
  return { status: 200, body: viewOf(parts, ownLoan(parts, await asking(asker), params.id)) }
}

/** How long changes are gathered before they are told. */
const GATHER_MS = 100

/**
 * All at first, then those that have changed, together where they come together. Who reads slowly
 * gets the newest state of each, and is waited for by nobody.
 */
export async function* followLoans(
  parts: Parts,
  call: Call,
  { query }: RouteRequest<'listLoans'>,
): AsyncGenerator<RouteAnswer<'listLoans'>> {
  const { book } = parts
  const changed = new Set<number>()
  const news = new News(call.signal)
  const stop = book.onChange(({ id }) => {
    changed.add(id)
    news.tell()
  })
  try {
    yield (await listLoansRoute(parts, call, { query })).body
    while (await news.next(GATHER_MS)) {
      const who = await asking(call.asker)
      const ids = [...changed]
      changed.clear()
      const loans = ids.flatMap(id => book.loan(id) ?? [])
      // One that has ended is told of too, to who was shown it as live.
      const own = loans.filter(
        loan =>
          fits(
            { ...loan, state: loan.state === 'ended' && query.state !== 'ended' ? 'ending' : loan.state },
            query,
          ) &&
          (ownsLoan(who, loan) || ownsLoan(who, { ...loan, state: 'ending' })),
      )
      if (own.length > 0) yield { loans: own.map(loan => viewOf(parts, loan)) }
    }
  } finally {
    stop()
  }
}

function requestsFor(
  { book }: Parts,
  who: Who,
  { state = 'waiting', limit = DEFAULT_LIMIT }: RouteRequest<'listRequests'>['query'],
): RequestRecord[] {
  const found: RequestRecord[] = []
  for (const request of book.registry.requests())
    if ((state === 'all' || request.state === state) && ownsRequest(who, request)) found.push(request)
  return found.sort((a, b) => a.id - b.id).slice(-limit)
}

/** `GET /v1/requests` */
export async function listRequestsRoute(
  parts: Parts,
  { asker }: Call,
  { query }: RouteRequest<'listRequests'>,
): Promise<Answered<'listRequests'>> {
  return { status: 200, body: { requests: requestsFor(parts, await asking(asker), query).map(requestView) } }
}

/** All that fit at first, then each that changes. */
export async function* followRequests(
  parts: Parts,
  call: Call,
  request: RouteRequest<'listRequests'>,
): AsyncGenerator<RouteAnswer<'listRequests'>> {
  const { book, approvals } = parts
  const changed = new Set<number>()
  const news = new News(call.signal)
  const stop = approvals.onChange(({ id }) => {
    changed.add(id)
    news.tell()
  })
  try {
    yield (await listRequestsRoute(parts, call, request)).body
    while (await news.next(GATHER_MS)) {
      const who = await asking(call.asker)
      const ids = [...changed]
      changed.clear()
      const own = ids.flatMap(id => book.registry.request(id) ?? []).filter(one => ownsRequest(who, one))
      if (own.length > 0) yield { requests: own.map(requestView) }
    }
  } finally {
    stop()
  }
}

/** That there is something, for one who waits for it. */
class News {
  readonly #signal: AbortSignal
  #there = false
  #wake: (() => void) | undefined

  constructor(signal: AbortSignal) {
    this.#signal = signal
  }

  tell(): void {
    this.#there = true
    this.#wake?.()
  }

  /** True once there is something, and what comes with it has had so long; false: aborted. */
  async next(gatherMs: number): Promise<boolean> {
    const wait = (ms: number | undefined): Promise<void> =>
      new Promise(resolve => {
        const done = (): void => {
          clearTimeout(timer)
          this.#wake = undefined
          this.#signal.removeEventListener('abort', done)
          resolve()
        }
        const timer = ms === undefined ? undefined : setTimeout(done, ms)
        if (ms === undefined) this.#wake = done
        this.#signal.addEventListener('abort', done)
      })
    if (!this.#there && !this.#signal.aborted) await wait(undefined)
    if (!this.#signal.aborted) await wait(gatherMs)
    this.#there = false
    return !this.#signal.aborted
  }
}

/** Those that whoever asks could have, for some recipient of its own. */
export async function mayHave({ asker, isRoot }: Asking, index: PolicyIndex): Promise<readonly Policy[]> {
  if (isRoot) return index.policies
  return index.matching(knownOf(await asker.subject([index])))
}

/** `GET /v1/policies` */
export async function listPoliciesRoute(parts: Parts, { asker }: Call): Promise<Answered<'listPolicies'>> {
  const { policies, names } = parts
  const { index } = policies
  await names.refresh([index])
  const allowed = await mayHave(await asking(asker), index)
  const shown = allowed
    .map(({ name }) => policies.get(name)!)
    .sort((a, b) => (a.policy.name < b.policy.name ? -1 : 1))
    .map(({ policy: { name, description, approval }, digest, file, risk }) => ({
      name,
      ...(description === undefined ? {} : { description }),
      ...{ digest, file, risk, approval },
      allowed: true,
    }))
  return { status: 200, body: { policies: shown } }
}

/** `GET /v1/policies/{name}`. NotFoundError: there is none, or none for who asks. */
export async function showPolicyRoute(
  parts: Parts,
  { asker }: Call,
  { params: { name } }: RouteRequest<'showPolicy'>,
): Promise<Answered<'showPolicy'>> {
  const { policies, names } = parts
  const found = policies.get(name)
  if (found !== undefined) {
    await names.refresh([found.policy])
    if ((await mayHave(await asking(asker), new PolicyIndex([found.policy]))).length > 0) {
      const { digest, file, text } = found
      return { status: 200, body: { name, digest, file, document: text } }
    }
  }
  throw new NotFoundError(`There is no policy "${name}"`, { context: { policy: name } })
}

type EventQuery = RouteRequest<'events'>['query']

/** `GET /v1/events` */
export async function eventsRoute(
  parts: Parts,
  { asker }: Call,
  { query }: RouteRequest<'events'>,
): Promise<Answered<'events'>> {
  const who = await asking(asker)
  const { events, next } = parts.events.query(storeQuery(query))
  const lost = parts.guard === undefined ? 0 : Number(parts.guard.totals().lostEvents)
  return { status: 200, body: { events: events.filter(ownEvent(parts, who)).map(eventView), lost, next } }
}

export async function* followEvents(
  parts: Parts,
  { asker, signal }: Call,
  { query }: RouteRequest<'events'>,
): AsyncGenerator<ReturnType<typeof eventView>> {
  const isOwn = ownEvent(parts, await asking(asker))
  for await (const { item } of parts.events.follow(storeQuery(query), signal))
    if (isOwn(item)) yield eventView(item)
}

function storeQuery({ since, ...rest }: EventQuery) {
  return { ...rest, since: since === undefined ? undefined : Date.parse(since) }
}

type KeptEvent = ReturnType<Parts['events']['query']>['events'][number]

/** Those of its loans; of what belongs to no loan root alone learns. */
function ownEvent({ book }: Parts, who: Who): (event: KeptEvent) => boolean {
  return ({ loan: id }) => {
    if (who.isRoot) return true
    const loan = id === undefined ? undefined : book.loan(id)
    return loan !== undefined && ownsLoan(who, loan)
  }
}

function eventView({ loan, delegation, cmd, type, ...rest }: KeptEvent) {
  return {
    ...rest,
    ...(delegation === undefined ? {} : { delegation }),
    ...(loan === undefined ? {} : { loan: loanName(loan) }),
    ...(cmd === undefined ? {} : { cmd }),
    ...(type === undefined ? {} : { type }),
  }
}
