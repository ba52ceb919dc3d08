/** What the page shows, asked of the daemon: bounded, whatever is lent. */
import type { Client, Loan, LoanRequest, RouteAnswer, RouteEvent } from '../client/client.ts'

type GuardEvent = RouteEvent<'events'>

/** The document of `/look`, in which the page finds all that it shows. */
export interface Look {
  readonly status: RouteAnswer<'status'>
  readonly loans: readonly Loan[]
  /** There are more than are shown. */
  readonly moreLoans: boolean
  readonly requests: readonly LoanRequest[]
  /** The newest, the last first. */
  readonly events: readonly GuardEvent[]
  /** Refusals in each of the last minutes, the oldest first; the last one is the one that runs. */
  readonly refusals: readonly number[]
  /** There were more events than were read: the refusals are more than that. */
  readonly moreEvents: boolean
}

const MAX_LOANS = 500
const MAX_REQUESTS = 100
const MAX_EVENTS = 50
const MINUTES = 60
const MINUTE_MS = 60_000
/** Events that are read for one look, and in one answer. */
const MAX_READ = 5000
const PAGE = 1000

export async function look(daemon: Client, nowMs: number): Promise<Look> {
  const [status, { loans }, { requests }, read] = await Promise.all([
    daemon.status(),
    daemon.listLoans({ query: { state: 'live', limit: MAX_LOANS + 1 } }),
    daemon.listRequests({ query: { state: 'waiting', limit: MAX_REQUESTS } }),
    eventsOf(daemon, nowMs),
  ])
  return {
    status,
    loans: loans.slice(0, MAX_LOANS),
    moreLoans: loans.length > MAX_LOANS,
    requests: requests.slice(0, MAX_REQUESTS),
    events: read.events.slice(-MAX_EVENTS).reverse(),
    refusals: refusalsIn(read.events, nowMs),
    moreEvents: read.more,
  }
}

/** Alike events are one that grows, so that what was read before is not what it is now. */
async function eventsOf(daemon: Client, nowMs: number): Promise<{ events: GuardEvent[]; more: boolean }> {
  const since = new Date(nowMs - MINUTES * MINUTE_MS).toISOString()
  const events: GuardEvent[] = []
  let after: number | undefined
  while (events.length < MAX_READ) {
    const page = await daemon.events({ query: { since, after, limit: PAGE } })
    events.push(...page.events)
    if (page.events.length < PAGE) return { events, more: false }
    after = page.next
  }
  return { events, more: true }
}

/** In the minute in which an event was last seen. Pure. */
export function refusalsIn(
  events: readonly Pick<GuardEvent, 'verdict' | 'last' | 'count'>[],
  nowMs: number,
): number[] {
  const refusals = Array.from({ length: MINUTES }, () => 0)
  for (const { verdict, last, count } of events) {
    const ago = Math.max(0, Math.floor((nowMs - Date.parse(last)) / MINUTE_MS))
    if (verdict === 'refused' && ago < MINUTES) refusals[MINUTES - 1 - ago]! += count
  }
  return refusals
}
