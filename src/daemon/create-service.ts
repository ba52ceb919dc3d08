/** The daemon's parts, put together, and its use cases by the names of their routes. */

import { MAX_CONTAINERS } from '../api/container-words.ts'
import type { RouteAnswer } from '../api/routes.ts'
import type { Guard } from '../guard/guard.ts'
import { lend } from '../lending/lend.ts'
import type { Vocabulary } from '../policy/vocabulary.ts'
import type { Audit } from '../registry/audit.ts'
import type { EventStore } from '../registry/event-store.ts'
import type { Registry } from '../registry/registry.ts'
import { Approvals } from './approvals.ts'
import { type Clock, REAL_CLOCK } from './clock.ts'
import { announceContainersRoute, listContainersRoute } from './containers/announce.ts'
import { ociHookRoute } from './containers/hook.ts'
import { KnownContainers } from './containers/known.ts'
import { decideRoute } from './decide.ts'
import { deriveRoute } from './derive.ts'
import { Expiry } from './expiry.ts'
import { watchGuard } from './guard-watch.ts'
import { Idempotency } from './idempotency.ts'
import { Launches } from './launches.ts'
import { asking, lendRoute } from './lend.ts'
import { DEFAULT_LIMITS, type Limits, Rate, Slots } from './limits.ts'
import {
  eventsRoute,
  followEvents,
  followLoans,
  followRequests,
  listLoansRoute,
  listPoliciesRoute,
  listRequestsRoute,
  showLoanRoute,
  showPolicyRoute,
} from './listing.ts'
import { LoanBook } from './loan-book.ts'
import { numberIn } from './loan-view.ts'
import type { Gauges } from './meter.ts'
import type { Names } from './names.ts'
import { Owed } from './owed.ts'
import type { Counters, Log, Parts } from './parts.ts'
import type { PolicyFiles } from './policies.ts'
import { Recipients } from './recipients.ts'
import { auditRoute, reloadPolicies, requireRoot, verifyAuditRoute } from './records.ts'
import { renewRoute } from './renew.ts'
import { revokeRoute } from './revoke.ts'
import type { Service } from './service.ts'
import { Sight } from './sight.ts'
import { type StatusFacts, statusRoute } from './status.ts'
import { Upkeep } from './upkeep.ts'

export interface ServiceOptions {
  readonly version: string
  readonly registry: Registry
  readonly audit: Audit
  readonly events: EventStore
  /** Undefined: none is installed, and `why`. It stays the caller's. */
  readonly guard: Guard | undefined
  readonly noGuard?: string | undefined
  /** Undefined: the audit is handed on to nobody. It stays the caller's. */
  readonly forward?: Parts['forward']
  readonly policies: PolicyFiles
  readonly names: Names
  readonly vocabulary: Vocabulary
  readonly log: Log
  readonly counters?: Counters | undefined
  readonly clock?: Clock | undefined
  readonly limits?: Partial<Limits> | undefined
  /** Where bpftoken-launchd answers; undefined: at its usual place. */
  readonly launcher?: string | undefined
  /** Told each time when they were read, whoever wanted it. */
  readonly policiesRead?: ((what: RouteAnswer<'reload'>) => void) | undefined
  /** Tests put faults in its place. */
  readonly lend?: Parts['lend'] | undefined
}

/** What the daemon's main program has of it. */
export interface RunningService extends Service {
  /** Numbers for `metrics`. */
  gauges(): Gauges
  /**
   * Whether what is to be written gets an answer from the disk, be it a refusal. False: a write has
   * had none for so long, and all that wait for it hang with it.
   */
  isHealthy(patienceMs?: number): boolean
  /** Reads the policies again: on SIGHUP, and when their directory has changed. */
  reload(): Promise<void>
  /**
   * Begins to look after loans: ends what expires, and settles, beside the requests that come, what
   * an earlier daemon left unfinished. `settle` waits for that.
   */
  start(): Promise<void>
  /** Looks at what there is from now on, and returns when what follows from it is done. */
  settle(): Promise<void>
  /** Ends that. What is lent goes on. */
  stop(): Promise<void>
}

/** A disk that is only busy answers before that. */
const WRITE_PATIENCE_MS = 60_000

const COUNTS_NOTHING: Counters = { decided() {}, loanEnded() {}, guardEvents() {} }

export function createService(options: ServiceOptions): RunningService {
  const { version, registry, audit, events, guard, policies, names, vocabulary, log } = options
  const clock = options.clock ?? REAL_CLOCK
  const limits: Limits = { ...DEFAULT_LIMITS, ...options.limits }
  const book = new LoanBook(registry)
  const stopped = new AbortController()
  const owed = new Owed(book, audit, () => clock.wall(), log)
  const parts: Parts = {
    forward: options.forward,
    ...{ book, audit, owed, events, guard, policies, names, vocabulary, clock, limits, log },
    rate: new Rate(limits.requestsPerMinute),
    slots: new Slots(limits.openLoans, uid => book.openOf(uid)),
    idempotency: new Idempotency(registry, clock),
    approvals: new Approvals(() => parts),
    recipients: new Recipients(() => upkeep.soon()),
    launches: new Launches(options.launcher),
    sight: new Sight(),
    lookWithin: ms => upkeep.soon(ms),
    containers: new KnownContainers(MAX_CONTAINERS),
    counters: options.counters ?? COUNTS_NOTHING,
    lend: options.lend ?? lend,
  }
  const alarm = clock.alarm(() => void upkeep.expire())
  const expiry = new Expiry(alarm)
  const upkeep = new Upkeep(parts, expiry)
  const facts: StatusFacts = { version, startedAt: clock.wall(), noGuard: options.noGuard }
  book.onChange(loan => {
    expiry.follow(loan)
    if (owed.concern !== undefined) void owed.settle()
    if (loan.state !== 'ended') return
    parts.recipients.forget(loan.id)
    parts.sight.forget(loan.id)
  })
  let watching: Promise<void> | undefined
  const { approvals } = parts
  const readPolicies = async (): Promise<RouteAnswer<'reload'>> => {
    const what = await reloadPolicies(parts)
    options.policiesRead?.(what)
    return what
  }
  return {
    handlers: {
      status: (call, request) => statusRoute(parts, facts, call, request),
      listPolicies: call => listPoliciesRoute(parts, call),
      showPolicy: (call, request) => showPolicyRoute(parts, call, request),
      reload: async ({ asker }) => {
        requireRoot(await asking(asker))
        return { status: 200, body: await readPolicies() }
      },
      decide: (call, request) => decideRoute(parts, call, request),
      lend: (call, request) => lendRoute(parts, call, request),
      listLoans: (call, request) => {
        upkeep.wanted()
        return listLoansRoute(parts, call, request)
      },
      showLoan: (call, request) => {
        upkeep.wanted()
        return showLoanRoute(parts, call, request)
      },
      derive: (call, request) => deriveRoute(parts, call, request),
      renew: (call, request) => renewRoute(parts, call, request),
      revoke: (call, request) => revokeRoute(parts, call, request),
      listRequests: (call, request) => listRequestsRoute(parts, call, request),
      showRequest: async ({ asker, signal, waits }, { params, query }) => ({
        status: 200,
        body: await approvals.decided(await asking(asker), numberIn(params.id), {
          ...{ waitSec: query.wait ?? 0, signal, waits },
        }),
      }),
      approve: async ({ asker }, { params, body }) => ({
        status: 200,
        body: await approvals.approve(requireRoot(await asking(asker)), params.id, body.comment),
      }),
      deny: async ({ asker }, { params, body }) => ({
        status: 200,
        body: await approvals.deny(requireRoot(await asking(asker)), params.id, body.comment),
      }),
      withdraw: async ({ asker }, { params }) => ({
        status: 200,
        body: await approvals.withdraw(await asking(asker), params.id),
      }),
      events: (call, request) => eventsRoute(parts, call, request),
      audit: (call, request) => auditRoute(parts, call, request),
      verifyAudit: call => verifyAuditRoute(parts, call),
      ociHook: (call, request) => ociHookRoute(parts, call, request),
      announceContainers: (call, request) => announceContainersRoute(parts, call, request),
      listContainers: call => listContainersRoute(parts, call),
    },
    streams: {
      listLoans: (call, request) => followLoans(parts, call, request),
      listRequests: (call, request) => followRequests(parts, call, request),
      events: (call, request) => followEvents(parts, call, request),
    },
    gauges: () => ({
      liveLoans: book.counts.live,
      waitingRequests: approvals.waiting,
      policyFaults: policies.faults.length,
      lostEvents: guard === undefined ? 0 : Number(guard.totals().lostEvents),
    }),
    isHealthy: (patienceMs = WRITE_PATIENCE_MS) =>
      registry.writingMs < patienceMs && audit.writingMs < patienceMs,
    reload: async () => {
      await readPolicies()
    },
    async start() {
      for (const loan of book.open()) expiry.follow(loan)
      if (guard !== undefined)
        watching = watchGuard({ guard, events, book, clock, counters: parts.counters, log }, stopped.signal)
      await owed.note({
        event: 'daemon.started',
        facts: { version, boot: registry.boot, guard: guard !== undefined },
      })
      await approvals.takeUp()
      upkeep.start().catch(error => log.error({ error }, 'what was left unfinished could not be settled'))
    },
    async settle() {
      await upkeep.look()
      await owed.settle()
    },
    async stop() {
      stopped.abort()
      alarm[Symbol.dispose]()
      await upkeep.stop()
      approvals[Symbol.dispose]()
      parts.launches[Symbol.dispose]()
      parts.recipients[Symbol.dispose]()
      await watching
      await owed.settle()
      owed[Symbol.dispose]()
      await audit.append({ event: 'daemon.stopped', facts: {} }).catch(() => {})
    },
  }
}
