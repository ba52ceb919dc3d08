/**
 * Requests that wait until root approves. Who asked, and who is to be lent to, are held as long as
 * they wait: what is approved is lent to them or to nobody. A daemon that starts takes up those that
 * still wait, where these processes live on as they were; the others are withdrawn.
 */
import type { Target } from '../delegation/target.ts'
import { openTargetInTime } from '../delegation/target.ts'
import { Owned } from '../ebpf/owned.ts'
import { BpftokenError, ConflictError, DeniedError, NotFoundError } from '../errors.ts'
import type { Policy } from '../policy/policy.ts'
import { shareOf } from '../registry/asker-facts.ts'
import type { RequestRecord } from '../registry/loan-record.ts'
import { openProcess, openProcessOf, type ProcessHandle, uniqueIdOf } from '../sys/process.ts'
import type { Asker } from './asker.ts'
import { errorFacts } from './audit-facts.ts'
import { NS_PER_SEC, PATIENCE_MS } from './clock.ts'
import type { Keep } from './idempotency.ts'
import { type Asking, type LendInput, lifetimeOf, make, prepareFor } from './lend.ts'
import { Slots, WAITING_REQUESTS } from './limits.ts'
import { termsOf } from './loan-journal.ts'
import { numberIn, type RequestView, requestName, requestView } from './loan-view.ts'
import { LongTimer } from './long-timer.ts'
import { ownsRequest, type Who } from './ownership.ts'
import type { Parts } from './parts.ts'
import { Peer } from './peer.ts'
import type { Call } from './service.ts'

const NS_PER_MS = 1_000_000n
/** Whoever waits for the daemon to be ready waits no longer for that. */
const TAKE_UP_MS = 5_000

interface Wanted {
  readonly who: Asking
  readonly policy: Policy
  readonly target: Target
  readonly input: LendInput
  readonly askedAt: string
  readonly keep: Keep
}

/** What is to be lent; its policy is the one of now, if that is as it was. */
type Terms = Pick<LendInput, 'place' | 'cgroup' | 'strict' | 'lifetimeSec' | 'comment'>

interface Waiting extends Disposable {
  /** Whose share of the limits it takes: `shareOf`. */
  readonly owner: string
  readonly asker: Asker
  readonly target: Target
  readonly terms: Terms
  /** After that it is over: what is given back is waited for as long as it would have been. */
  readonly endsAtMs: number
  timer?: LongTimer | undefined
}

export class Approvals implements Disposable {
  readonly #parts: () => Parts
  readonly #waiting = new Map<number, Waiting>()
  readonly #listeners = new Set<(request: RequestRecord) => void>()
  #slots: Slots | undefined
  #stopped = false

  /** `parts` is called once they are all there. */
  constructor(parts: () => Parts) {
    this.#parts = parts
  }

  get waiting(): number {
    return this.#waiting.size
  }

  #waitingOf(owner: string): number {
    let count = 0
    for (const one of this.#waiting.values()) if (one.owner === owner) count++
    return count
  }

  /**
   * Those of before this daemon. Of one owner one after the other: a look at some may take long.
   * Returns when that is done, or has taken so long that it goes on beside the requests that come:
   * until it is its turn one of them cannot be decided.
   */
  async takeUp(): Promise<void> {
    const byOwner = new Map<string, RequestRecord[]>()
    for (const request of this.#parts().book.registry.requests()) {
      if (request.state !== 'waiting') continue
      const owner = shareOf(request.asker)
      byOwner.set(owner, [...(byOwner.get(owner) ?? []), request])
    }
    const takeUpAll = async (requests: readonly RequestRecord[]): Promise<void> => {
      for (const request of requests) if (!this.#stopped) await this.#takeUpOne(request)
    }
    const all = Promise.all([...byOwner.values()].map(takeUpAll))
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<void>(resolve => {
      timer = setTimeout(resolve, TAKE_UP_MS)
    })
    await Promise.race([all, late])
    clearTimeout(timer)
    all.catch(error => this.#parts().log.error({ error }, 'what waits for approval could not be taken up'))
  }

  async #takeUpOne(request: RequestRecord): Promise<void> {
    const { names, clock, book } = this.#parts()
    const { id, asker, recipient, held, place, comment } = request
    try {
      if (held === undefined) throw new NotFoundError('It was asked for of an older version of the daemon')
      const { boot, cgroup, strict, lifetimeSec } = held
      if (boot !== book.registry.boot)
        throw new NotFoundError('The machine was started anew since it was asked for')
      const leftMs = Number((BigInt(held.untilBootNs) - clock.bootNs()) / NS_PER_MS)
      if (leftMs <= 0) return await this.#end({ ...request, state: 'expired' })
      using begun = new Owned()
      const peer = begun.add(Peer.again(asker, BigInt(held.asker), names.accounts))
      const target = begun.add(
        await targetIn(openProcessOf(recipient.pid, BigInt(held.recipient)), {
          userNamespace: recipient.userNamespace,
          mountNamespace: held.mountNamespace,
        }),
      )
      if (this.#stopped) return
      const terms = { place, comment, cgroup, strict, lifetimeSec }
      const waiting = this.#waits(id, begun, { owner: shareOf(asker), asker: peer, target, terms }, leftMs)
      this.#startTimer(id, waiting)
    } catch (error) {
      if (!(error instanceof BpftokenError)) throw error
      if (this.#stopped) return
      await this.#end({ ...request, state: 'withdrawn', why: error.message.slice(0, 4000) })
    }
  }

  /** Lets it wait. BusyError: the user has as many that wait as it may. */
  async wait({ who, policy, target, input, askedAt, keep }: Wanted): Promise<{ request: RequestView }> {
    const parts = this.#parts()
    const { book, limits, owed, counters, clock } = parts
    const owner = shareOf(who.facts)
    this.#slots ??= new Slots(limits.waitingRequests, one => this.#waitingOf(one), WAITING_REQUESTS)
    using slot = this.#slots.reserve(owner)
    const id = book.registry.nextRequestId()
    const request: RequestRecord = {
      id,
      state: 'waiting',
      policy: policy.name,
      policyDigest: termsOf(policy).policyDigest,
      askedAt,
      until: new Date(Date.parse(askedAt) + limits.approvalSec * 1000).toISOString(),
      asker: who.facts,
      recipient: { pid: target.facts.pid, userNamespace: target.facts.userNamespace },
      place: input.place,
      comment: input.comment,
      held: {
        boot: book.registry.boot,
        asker: String(who.asker.uniqueId),
        recipient: String(uniqueIdOf(target.process)),
        mountNamespace: target.facts.mountNamespace,
        untilBootNs: String(clock.bootNs() + BigInt(limits.approvalSec) * NS_PER_SEC),
        ...{ cgroup: input.cgroup, strict: input.strict, lifetimeSec: input.lifetimeSec },
      },
    }
    using begun = new Owned()
    const asker = begun.add(who.asker.hold())
    const again = begun.add(await targetIn(openProcess(target.facts.pid), target.facts))
    begun.add(parts.launches.hold(target))
    const held = this.#waits(
      id,
      begun,
      { owner, asker, target: again, terms: input },
      limits.approvalSec * 1000,
    )
    slot.taken()
    try {
      await book.registry.put({ request, answer: keep({ status: 202, request: id }) })
    } catch (error) {
      held[Symbol.dispose]()
      throw error
    }
    // It is known by now: before, there would be nothing to end.
    this.#startTimer(id, held)
    counters.decided('waiting')
    this.#tell(request)
    await owed.note({ event: 'request.waits', request: id, facts: requestFacts(request) })
    return { request: requestView(request) }
  }

  /** What is known of it now. NotFoundError: nothing is, or it is another one's. */
  again(who: Who, id: number): { request: RequestView } {
    return { request: requestView(this.#known(who, id)) }
  }

  /** Resolves when it is decided, or after so many seconds, or when the signal is aborted. */
  async decided(
    who: Who,
    id: number,
    { waitSec, signal, waits }: { waitSec: number } & Pick<Call, 'signal' | 'waits'>,
  ): Promise<RequestView> {
    const request = this.#known(who, id)
    if (request.state !== 'waiting' || waitSec === 0 || signal.aborted) return requestView(request)
    waits?.()
    await new Promise<void>(resolve => {
      const done = (): void => {
        clearTimeout(timer)
        signal.removeEventListener('abort', done)
        stop()
        resolve()
      }
      const timer = setTimeout(done, waitSec * 1000)
      signal.addEventListener('abort', done)
      const stop = this.onChange(changed => {
        if (changed.id === id && changed.state !== 'waiting') done()
      })
    })
    return requestView(this.#known(who, id))
  }

  /**
   * Lends, if who asked is still there and may still have it; else the request is over too, which
   * the answer says. ConflictError: it does not wait any more, or the policy is not as it was.
   */
  async approve(approver: Who, name: string, comment?: string): Promise<RequestView> {
    const parts = this.#parts()
    const { book, policies, audit, clock, names } = parts
    const id = numberIn(name)
    const request = this.#requireWaiting(approver, id)
    const policy = policies.get(request.policy)?.policy
    if (policy === undefined || termsOf(policy).policyDigest !== request.policyDigest)
      throw new ConflictError(`Policy "${request.policy}" is not what it was when it was asked for`, {
        context: { request: id, policy: request.policy },
        hint: 'Deny the request, and let it be asked for again',
      })
    await names.refresh([policy])
    // Decided at the same time, one of the two is first.
    this.#requireWaiting(approver, id)
    const decided = { at: clock.wall(), by: approver.facts.uid, comment }
    const approved: RequestRecord = { ...request, state: 'approved', decided }
    using held = await this.#takeOnce(id, () =>
      audit.append({
        event: 'request.approved',
        request: id,
        facts: { ...requestFacts(approved), approver: approver.facts },
      }),
    )
    try {
      const { asker, target, terms } = held
      const who: Asking = { asker, isRoot: false, facts: (await asker.who()).facts }
      using prepared = await prepareFor(parts, who, { policy, target, input: terms })
      await make(parts, prepared, {
        kind: 'delegate',
        who,
        askedAt: request.askedAt,
        lifetimeSec: lifetimeOf(policy, terms.lifetimeSec),
        approvedBy: approver.facts.uid,
        comment: terms.comment,
        also: loan => ({ request: { ...approved, loan: loan.id } }),
      })
      const made = book.registry.request(id)!
      this.#tell(made)
      return requestView(made)
    } catch (error) {
      const now = book.registry.request(id)
      if (now !== undefined && now.state !== 'waiting') {
        // It was lent, and that was undone: the loan says so.
        this.#tell(now)
        throw error
      }
      // Who asked has gone, or is not who may have it any more.
      const state = error instanceof DeniedError || error instanceof NotFoundError ? 'expired' : 'failed'
      const why = error instanceof BpftokenError ? error.message.slice(0, 4000) : undefined
      const over: RequestRecord = { ...approved, state, why }
      await this.#end(over, { error: errorFacts(error) })
      if (!(error instanceof BpftokenError)) throw error
      return requestView(over)
    }
  }

  async deny(approver: Who, name: string, comment?: string): Promise<RequestView> {
    const { clock } = this.#parts()
    const id = numberIn(name)
    const request = this.#requireWaiting(approver, id)
    const decided = { at: clock.wall(), by: approver.facts.uid, comment }
    const denied: RequestRecord = { ...request, state: 'denied', decided }
    await this.#decide(denied, { approver: approver.facts })
    return requestView(denied)
  }

  async withdraw(who: Who, name: string): Promise<RequestView> {
    const id = numberIn(name)
    const request = this.#requireWaiting(who, id)
    const withdrawn: RequestRecord = { ...request, state: 'withdrawn' }
    await this.#decide(withdrawn, { by: who.facts })
    return requestView(withdrawn)
  }

  onChange(listener: (request: RequestRecord) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  [Symbol.dispose](): void {
    this.#stopped = true
    for (const id of [...this.#waiting.keys()]) this.#take(id)?.[Symbol.dispose]()
  }

  /** From now on it waits. Takes over what `begun` holds: its asker and its target. */
  #waits(
    id: number,
    begun: Owned,
    what: Pick<Waiting, 'owner' | 'asker' | 'target' | 'terms'>,
    forMs: number,
  ): Waiting {
    const owned = new Owned()
    begun.moveTo(owned)
    const held: Waiting = {
      ...what,
      endsAtMs: performance.now() + forMs,
      [Symbol.dispose]: () => {
        held.timer?.[Symbol.dispose]()
        this.#waiting.delete(id)
        owned[Symbol.dispose]()
      },
    }
    this.#waiting.set(id, held)
    return held
  }

  /** From now on nobody else decides it. */
  #take(id: number): Waiting | undefined {
    const held = this.#waiting.get(id)
    this.#waiting.delete(id)
    held?.timer?.[Symbol.dispose]()
    return held
  }

  /** Nobody else decides it while `write` says that it is decided; where that fails it waits on. */
  async #takeOnce(id: number, write: () => Promise<unknown>): Promise<Waiting> {
    const held = this.#take(id)!
    try {
      await write()
      return held
    } catch (error) {
      if (this.#stopped) held[Symbol.dispose]()
      else {
        this.#waiting.set(id, held)
        this.#startTimer(id, held)
      }
      throw error
    }
  }

  #startTimer(id: number, held: Waiting): void {
    if (this.#waiting.get(id) !== held) return
    held.timer = new LongTimer(held.endsAtMs - performance.now(), () => void this.#expire(id))
  }

  async #expire(id: number): Promise<void> {
    const { book, log } = this.#parts()
    const request = book.registry.request(id)
    if (request === undefined) return
    const held = this.#take(id)
    if (held === undefined) return
    held[Symbol.dispose]()
    try {
      await this.#end({ ...request, state: 'expired' })
    } catch (error) {
      log.error({ error, request: requestName(id) }, 'a request that has expired could not be ended')
    }
  }

  /** Where it cannot be written it waits on. */
  async #decide(request: RequestRecord, also: Record<string, unknown>): Promise<void> {
    const { book } = this.#parts()
    const held = await this.#takeOnce(request.id, () => book.registry.put({ request }))
    held[Symbol.dispose]()
    await this.#told(request, also)
  }

  /** It is over, whether that can be written or not. */
  async #end(request: RequestRecord, also: Record<string, unknown> = {}): Promise<void> {
    await this.#parts().owed.putRequest(request)
    await this.#told(request, also)
  }

  async #told(request: RequestRecord, also: Record<string, unknown>): Promise<void> {
    const { owed } = this.#parts()
    this.#tell(request)
    const facts = { ...requestFacts(request), ...also }
    await owed.note({ event: `request.${request.state}`, request: request.id, facts })
  }

  #known(who: Who, id: number): RequestRecord {
    const { book, owed } = this.#parts()
    const request = owed.request(id) ?? book.registry.request(id)
    if (request !== undefined && ownsRequest(who, request)) return request
    throw new NotFoundError(`There is no request-${id}`, { context: { request: id } })
  }

  #requireWaiting(who: Who, id: number): RequestRecord {
    const request = this.#known(who, id)
    if (request.state === 'waiting' && this.#waiting.has(id)) return request
    const what = request.state === 'waiting' ? 'being decided' : request.state
    throw new ConflictError(`request-${id} is ${what}`, { context: { request: id, state: request.state } })
  }

  #tell(request: RequestRecord): void {
    for (const listener of this.#listeners) listener(request)
  }
}

/**
 * Takes over the process, and holds on to it where it is: it must be in these namespaces.
 * NotFoundError: it is not.
 */
async function targetIn(
  process: ProcessHandle,
  { userNamespace, mountNamespace }: Pick<Target['facts'], 'userNamespace' | 'mountNamespace'>,
): Promise<Target> {
  const { pid } = process
  const held = await openTargetInTime(process, PATIENCE_MS)
  if (held.facts.userNamespace === userNamespace && held.facts.mountNamespace === mountNamespace) return held
  held[Symbol.dispose]()
  throw new NotFoundError(`Process ${pid} has left its namespaces`, { context: { pid } })
}

function requestFacts({
  policy,
  policyDigest,
  asker,
  recipient,
  place,
  comment,
  decided,
  loan,
  state,
  why,
}: RequestRecord) {
  const facts = { state, policy, policyDigest, asker, recipient, place, comment, decided, loan, why }
  return Object.fromEntries(Object.entries(facts).filter(([, value]) => value !== undefined))
}
