/** How the daemon is, and what is not as it should be. */
import type { RouteRequest } from '../api/routes.ts'
import { asking } from './lend.ts'
import type { Parts } from './parts.ts'
import type { Answered, Call } from './service.ts'

/** What does not change while it runs. */
export interface StatusFacts {
  readonly version: string
  readonly startedAt: string
  /** Why there is no guard. */
  readonly noGuard: string | undefined
}

/** `GET /v1/status` */
export async function statusRoute(
  parts: Parts,
  { version, startedAt, noGuard }: StatusFacts,
  { asker }: Call,
  _: RouteRequest<'status'>,
): Promise<Answered<'status'>> {
  const { book, guard, policies, approvals, audit } = parts
  const { isRoot } = await asking(asker)
  const { registry, counts } = book
  const faults = policies.faults.map(({ file, message }) => ({ file, message }))
  return {
    status: 200,
    body: {
      version,
      pid: process.pid,
      startedAt,
      boot: registry.boot,
      guard:
        guard === undefined
          ? { installed: false, why: noGuard ?? 'none is installed' }
          : { installed: true, mode: guard.config().mode },
      // What is in a file of root's is root's to know.
      policies: {
        loaded: policies.count,
        loadedAt: policies.loadedAt.toISOString(),
        faults: isRoot ? faults : [],
      },
      loans: counts,
      requests: { waiting: approvals.waiting },
      registry: {
        schema: registry.schema,
        writable: registry.fault === undefined,
        ...(registry.fault === undefined ? {} : { fault: registry.fault }),
      },
      audit: { records: audit.head.seq, head: audit.head.hash },
      concerns: isRoot ? concernsOf(parts) : [],
    },
  }
}

const MAX_CONCERNS = 100
const SLOW_MS = 5000

const seconds = (ms: number): string => `${Math.floor(ms / 1000)} s`

function concernsOf({ book, guard, policies, sight, events, audit, owed, forward }: Parts): string[] {
  const { registry } = book
  const concerns: string[] = []
  for (const [what, { writingMs }] of Object.entries({ registry, audit }))
    if (writingMs > SLOW_MS) concerns.push(`The ${what} has waited for the disk for ${seconds(writingMs)}`)
  if (registry.fault !== undefined) concerns.push(`Nothing can be lent: ${registry.fault}`)
  if (audit.fault !== undefined)
    concerns.push(`Nothing can be lent: the audit cannot be written: ${audit.fault}`)
  if (owed.concern !== undefined) concerns.push(owed.concern)
  if (forward?.concern !== undefined) concerns.push(forward.concern)
  if (events.fault !== undefined) concerns.push(`Events of the guard are not on the disk: ${events.fault}`)
  if (guard === undefined)
    concerns.push('There is no guard: what is taken back leaves tokens that were made before')
  else if (guard.config().mode === 'permissive')
    concerns.push('The guard is permissive: it refuses nothing that belongs to no loan')
  for (const { file, message } of policies.faults) concerns.push(`${file}: ${message}`)
  for (const { id, state, ended } of book.open()) {
    const drift = sight.of(id)?.drift ?? []
    if (state === 'ending')
      concerns.push(`loan-${id} is to end, and stays: ${ended?.detail ?? 'it is still mounted'}`)
    else if (drift.length > 0) concerns.push(`loan-${id} is not as it was made: ${drift.join('; ')}`)
    if (concerns.length >= MAX_CONCERNS) return [...concerns, 'and more']
  }
  return concerns
}
