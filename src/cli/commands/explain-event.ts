/**
 * bpftoken explain --event and --last: what the guard refused, why, and the smallest change. The
 * events are those of the daemon where it answers, else the newest in the guard's own ring.
 */
import type { Client, Loan } from '../../client/client.ts'
import { BpftokenError, EXIT, NotFoundError } from '../../errors.ts'
import { type DelegationId, delegationId, Guard, type GuardDelegation } from '../../guard/guard.ts'
import {
  type EventExplanation,
  explainEvent,
  type JudgedEvent,
  type KnownDelegation,
} from '../../lending/explain-event.ts'
import { inhabitantOf } from '../../lending/inhabitant.ts'
import { wallTime } from '../../lending/view.ts'
import { DEFAULT_LIMITS } from '../../policy/policy.ts'
import { requireAgreement } from '../agreed.ts'
import { lendAnew } from '../daemon/lend-anew.ts'
import { delegationIn, reachDaemon } from '../daemon/reach.ts'
import { eventChangeText } from '../event-change-text.ts'
import { type Fixed, fix, fixedLines } from '../fix.ts'
import { print, printJson, word } from '../output.ts'
import { loadVocabulary } from '../policy-file.ts'
import { lastRefusal, type RecordedRefusal } from '../recorded-refusals.ts'
import type { LoanName } from '../tree/options.ts'
import type { ExplainOptions } from './explain.ts'
import { documentLines } from './explain-call.ts'
import { fileOf, OLDER, statusOf } from './explain-fix.ts'

/** An event, whoever has kept it. */
interface Kept extends JudgedEvent {
  readonly seq: number
  /** When it was, the last time. */
  readonly at: string
  readonly delegation?: number | undefined
  readonly loan?: string | undefined
}

/** What is known besides. */
interface Background {
  readonly known: KnownDelegation | undefined
  readonly policy: string | undefined
  /** A process that it is lent to; undefined: there is none, or it is not known. */
  readonly pid: () => number | undefined
  readonly cgroup: string | undefined
  readonly loan: Loan | undefined
}

/** Where events are, and what is known of delegations. */
interface Source extends Disposable {
  readonly daemon: Client | undefined
  event(seq: number): Promise<Kept>
  last(filter: Filter): Promise<Kept>
  background(event: Kept): Promise<Background>
}

interface Filter {
  readonly pid?: number | undefined
  readonly uid?: number | undefined
  readonly delegation?: LoanName | undefined
}

/** Exit 0: nothing was refused, or with --fix it would be allowed now; 3: it was refused. */
export async function explainEvents(options: ExplainOptions): Promise<number> {
  if (options.fix === true) requireAgreement(options)
  // A change is made by what the guard has recorded.
  const recorded =
    options.last === true && options.fix !== true && options.delegation === undefined
      ? lastRefusal(options)
      : undefined
  const client = await reachDaemon(options, 'bpftoken explain')
  using source = recorded === undefined ? sourceOf(client) : sourceIfAny(client)
  const event =
    options.event !== undefined
      ? await source!.event(options.event)
      : recorded === undefined
        ? await source!.last(options)
        : await lastIfAny(source, options)
  if (event === undefined || (recorded !== undefined && recorded.at > event.at))
    return tellRecorded(recorded!, options)
  if (source === undefined) throw new RangeError('an event without a source')
  const background = await source.background(event)
  const explained = explainEvent(event, background.known)
  if (options.json !== true) print(...lines(event, background, explained))
  const fixed =
    options.fix === true && explained.cause !== 'none'
      ? await fixEvent(source.daemon, event, background, explained, options)
      : undefined
  if (options.json === true) printJson(document(event, background, explained, fixed))
  else if (fixed !== undefined) print(...fixedLines(fixed))
  if (fixed !== undefined) return statusOf(fixed)
  return explained.cause === 'none' ? EXIT.ok : EXIT.denied
}

function sourceOf(client: Client | undefined): Source {
  return client === undefined ? ofGuard() : ofDaemon(client)
}

/** Undefined: there is no guard. */
function sourceIfAny(client: Client | undefined): Source | undefined {
  try {
    return sourceOf(client)
  } catch (error) {
    if (error instanceof BpftokenError) return undefined
    throw error
  }
}

/** Undefined: there is none, or it is not for us to see. */
async function lastIfAny(source: Source | undefined, options: ExplainOptions): Promise<Kept | undefined> {
  try {
    return await source?.last(options)
  } catch (error) {
    if (error instanceof BpftokenError) return undefined
    throw error
  }
}

/** What bpftoken record has seen, which was explained then. */
function tellRecorded({ explained, ...of }: RecordedRefusal, { json }: ExplainOptions): number {
  if (json === true) printJson({ ...explained, recorded: of })
  else {
    const [first, ...rest] = documentLines(explained)
    const { task, pid, uid, times, at } = of
    const often = times === 1 ? 'once' : `${times} times`
    print(`recorded: ${first}`, `  who     ${word(task)} ${pid} uid ${uid}, ${often}, last at ${at}`, ...rest)
  }
  return EXIT.denied
}

async function fixEvent(
  daemon: Client | undefined,
  event: Kept,
  { known, policy, pid, cgroup, loan }: Background,
  explained: EventExplanation,
  options: ExplainOptions,
): Promise<Fixed> {
  const { edit, call, cause } = explained
  if (cause === 'guard-expired' && daemon !== undefined && loan !== undefined) {
    const lent = await lendAnew(daemon, loan, options)
    if (lent !== undefined) return lent
  }
  const vocabulary = await loadVocabulary()
  return await fix(
    {
      ...{ edit, change: eventChangeText(event, explained), otherwise: OLDER },
      file: () => fileOf(daemon, options.policy, policy),
      run: file => {
        if (edit === undefined && cause !== 'guard-expired') return []
        // The daemon has it by its name, unless another file was named.
        const name = loan !== undefined && options.policy === undefined ? policy : file
        const under = `--policy ${name === undefined ? 'POLICY' : word(name)}`
        if (cgroup !== undefined) return [`bpftoken confine --cgroup ${word(cgroup)} ${under}`]
        const target = `--pid ${pid() ?? 'PID'}`
        const isLive = known?.state === 'live'
        return [
          ...(isLive ? [`bpftoken revoke ${loan?.id ?? event.delegation}`] : []),
          // The guard revokes, and the mount stays; the daemon unmounts, too.
          ...(loan === undefined && (isLive || known?.state === 'revoked')
            ? [`bpftoken undelegate ${target}`]
            : []),
          `bpftoken delegate ${target} ${under}`,
        ]
      },
      // What the guard would say is known; of a program's attach type events say nothing.
      again: async () =>
        cause === 'guard-rights' && event.point === 'prog_load'
          ? undefined
          : { when: 'once it is lent anew', call, verdict: 'ok', cause: 'none', change: 'none' },
    },
    daemon,
    vocabulary,
    options,
  )
}

function lines(event: Kept, { policy }: Background, explained: EventExplanation): string[] {
  const { seq, at, task, pid, uid, delegation, loan, count } = event
  const { call, verdict, errno, cause, needed, found } = explained
  const of = loan ?? (delegation === undefined ? undefined : `delegation ${delegation}`)
  const how = verdict === 'refused' ? `refused${errno === undefined ? '' : ` (${errno})`}` : verdict
  return [
    `event ${seq}: ${call}: ${how}${cause === 'none' ? '' : `: ${cause}`}`,
    `  who     ${word(task)} ${pid} uid ${uid}, ${count === 1 ? 'once' : `${count} times`}, last at ${at}`,
    ...(of === undefined ? [] : [`  of      ${of}${policy === undefined ? '' : `, policy ${word(policy)}`}`]),
    `  needed  ${needed}`,
    `  found   ${found}`,
    `  change  ${eventChangeText(event, explained)}`,
  ]
}

function document(
  event: Kept,
  { policy, known }: Background,
  { edit, ...explained }: EventExplanation,
  fixed: Fixed | undefined,
) {
  const { seq, at, task, pid, uid, delegation, loan, count, point, reason } = event
  return {
    event: { seq, at, point, reason, task, pid, uid, count },
    ...(delegation === undefined ? {} : { delegation }),
    ...(loan === undefined ? {} : { loan }),
    ...(known === undefined ? {} : { state: known.state }),
    ...(policy === undefined ? {} : { policy }),
    ...explained,
    ...(edit === undefined ? {} : { edit }),
    change: eventChangeText(event, { ...explained, edit }),
    ...(fixed === undefined ? {} : { fix: fixed }),
  }
}

const isRefusal = ({ verdict }: { readonly verdict: string }): boolean => verdict !== 'allowed'

/** NotFoundError: nothing such was refused. */
function newest(found: Kept | undefined, filter: Filter, isEmpty: boolean): Kept {
  if (found !== undefined) return found
  const { pid, uid, delegation } = filter
  const named = [pid, uid, delegation].some(one => one !== undefined)
  throw new NotFoundError(
    isEmpty
      ? 'The guard has no events'
      : `Of the events that are kept none is a refusal${named ? ' of those that are named' : ''}`,
    { hint: 'See bpftoken events; without the guard nothing is recorded: bpftoken guard status' },
  )
}

const NOTHING: Background = {
  ...{ known: undefined, policy: undefined, pid: () => undefined, cgroup: undefined, loan: undefined },
}

/** In one answer. */
const PAGE = 1000

function ofDaemon(daemon: Client): Source {
  return {
    daemon,
    async event(seq) {
      const { events } = await daemon.events({ query: { after: seq - 1, limit: 1 } })
      const [event] = events
      if (event?.seq === seq) return keptOf(event)
      throw new NotFoundError(`The daemon has no event ${seq} that you may see`, {
        context: { event: seq },
        hint: 'See bpftoken events: the oldest are forgotten when there are too many',
      })
    },
    async last(filter) {
      const { pid, uid, delegation } = filter
      const number =
        delegation === undefined || 'delegation' in delegation
          ? delegation?.delegation
          : // Zero is no delegation.
            ((await daemon.showLoan({ params: { id: delegation.loan } })).record?.delegation ?? 0)
      let after = 0
      let seen = 0
      let found: Kept | undefined
      for (;;) {
        const page = await daemon.events({ query: { uid, delegation: number, after, limit: PAGE } })
        seen += page.events.length
        // A folded one may have come again after later ones.
        for (const event of page.events)
          if (isRefusal(event) && (pid === undefined || event.pid === pid) && (found?.at ?? '') <= event.last)
            found = keptOf(event)
        if (page.events.length === 0 || page.next === after) break
        after = page.next
      }
      return newest(found, filter, seen === 0 && uid === undefined && number === undefined)
    },
    async background({ loan: id }) {
      if (id === undefined) return NOTHING
      const loan = await daemon.showLoan({ params: { id } })
      const { record, status, policy, state, ended } = loan
      const limits = status?.limits
      return {
        known: {
          state: state === 'live' ? 'live' : ended?.why === 'expired' ? 'expired' : 'ended',
          ...(record === undefined ? {} : { capabilities: record.capabilities }),
          ...(limits === undefined ? {} : { limits: statedLimits(limits) }),
          ...(status?.live === undefined
            ? {}
            : { live: status.live, mapBytes: BigInt(status.live.mapBytes) }),
        },
        ...{ policy, pid: () => record?.recipient.pid, cgroup: undefined, loan },
      }
    },
    [Symbol.dispose]: () => daemon[Symbol.dispose](),
  }
}

type LoanLimits = NonNullable<NonNullable<Loan['status']>['limits']>

/** The daemon tells defaults like those that were stated. */
function statedLimits({ mapBytes, ...counts }: LoanLimits) {
  const stated = Object.entries(counts).filter(
    ([field, value]) => value !== DEFAULT_LIMITS[field as keyof typeof DEFAULT_LIMITS],
  )
  return {
    ...Object.fromEntries(stated),
    ...(mapBytes === undefined ? {} : { mapBytes: BigInt(mapBytes) }),
  }
}

type DaemonEvent = Awaited<ReturnType<Client['events']>>['events'][number]

function keptOf({ last, ...event }: DaemonEvent): Kept {
  return { ...event, at: last }
}

function ofGuard(): Source {
  const guard = Guard.open()
  const remembered = (): Kept[] =>
    guard.rememberedEvents().map(({ timeNs, delegation, holder, ...event }) => ({
      ...event,
      at: wallTime(timeNs),
      count: 1,
      ...(delegation === undefined ? {} : { delegation: Number(delegation) }),
      ...(holder === undefined ? {} : { holder: Number(holder) }),
    }))
  return {
    daemon: undefined,
    async event(seq) {
      const all = remembered()
      const found = all.find(one => one.seq === seq)
      if (found !== undefined) return found
      const [oldest, newest] = [all[0]?.seq, all.at(-1)?.seq]
      throw new NotFoundError(
        oldest === undefined
          ? 'The guard has no events'
          : `The guard has no event ${seq}: it has those from ${oldest} to ${newest}`,
        { context: { event: seq }, hint: 'See bpftoken events; the daemon keeps more: bpftokend' },
      )
    },
    async last(filter) {
      const { pid, uid } = filter
      const number = filter.delegation === undefined ? undefined : delegationIn(filter.delegation)
      const all = remembered()
      const found = all.findLast(
        event =>
          isRefusal(event) &&
          (pid === undefined || event.pid === pid) &&
          (uid === undefined || event.uid === uid) &&
          (number === undefined || event.delegation === number),
      )
      return newest(found, filter, all.length === 0)
    },
    background: async ({ delegation }) => {
      if (delegation === undefined) return NOTHING
      const found = delegationIfAny(guard, delegationId(delegation))
      if (found === undefined) return { ...NOTHING, known: { state: 'ended' } }
      const { kind, terms, live, policy, revoked, cgroup, userNamespace } = found
      const { mapBytes, ...counts } = live
      return {
        known: {
          state: revoked ? 'revoked' : 'live',
          ...{ capabilities: terms.rights.capabilities, limits: terms.limits, live: counts, mapBytes },
        },
        ...{
          policy: policy || undefined,
          pid: () => inhabitantOf(`user:[${userNamespace}]`),
          loan: undefined,
        },
        cgroup: kind === 'cgroup' ? cgroup?.path : undefined,
      }
    },
    [Symbol.dispose]: () => guard[Symbol.dispose](),
  }
}

/** Undefined: it has ended. */
function delegationIfAny(guard: Guard, id: DelegationId): GuardDelegation | undefined {
  try {
    return guard.delegation(id)
  } catch (error) {
    if (error instanceof NotFoundError) return undefined
    throw error
  }
}
