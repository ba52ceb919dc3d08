/** Reads the guard's events, as the only one, into the store where they are kept and asked for. */

import type { GuardEvent } from '../guard/event.ts'
import type { Guard } from '../guard/guard.ts'
import type { EventStore } from '../registry/event-store.ts'
import type { Clock } from './clock.ts'
import type { LoanBook } from './loan-book.ts'
import type { Counters, Log } from './parts.ts'

const NS_PER_MS = 1_000_000n

export interface Watched {
  readonly guard: Guard
  readonly events: EventStore
  readonly book: LoanBook
  readonly clock: Clock
  readonly counters: Counters
  readonly log: Log
}

/** Until the signal is aborted. It does not throw: what goes wrong is logged, and ends it. */
export async function watchGuard(parts: Watched, signal: AbortSignal): Promise<void> {
  try {
    for await (const event of parts.guard.events({ signal })) keep(parts, event)
  } catch (error) {
    if (!signal.aborted) parts.log.error({ error }, "the guard's events are not read any more")
  }
}

function keep({ events, book, clock, counters }: Watched, event: GuardEvent): void {
  const { timeNs, delegation, verdict, point, reason, uid, pid, task, cmd, type, name, cgroup } = event
  const number = delegation === undefined ? undefined : Number(delegation)
  counters.guardEvents(verdict === 'refused' ? 'refused' : 'allowed', 1)
  events.add(
    {
      ...{ verdict, point, reason, uid, pid, task, cmd, type, name },
      cgroup: String(cgroup),
      delegation: number,
      loan: number === undefined ? undefined : book.ofDelegation(number)?.id,
    },
    {
      at: Date.parse(clock.wall()) - Number((clock.bootNs() - timeNs) / NS_PER_MS),
      sinceBootMs: Number(timeNs / NS_PER_MS),
    },
  )
}
