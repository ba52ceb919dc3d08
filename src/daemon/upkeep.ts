/**
 * Keeps the registry true: looks at what there is when we start, when a process that was lent to has
 * exited, and when somebody asks and nobody has looked for long; and takes the steps that follow.
 */

import { inhabitedUserNamespaces } from '../delegation/inhabited.ts'
import { findInstances } from '../delegation/instances.ts'
import { BpftokenError } from '../errors.ts'
import { shareOf, userShare } from '../registry/asker-facts.ts'
import type { EndRecord, LoanRecord } from '../registry/loan-record.ts'
import { orphansGone } from '../sys/executor/orphans.ts'
import { Fd } from '../sys/fd.ts'
import { heldNamespace, uniqueNamespaceId } from '../sys/namespace.ts'
import { inodeOf } from '../sys/open.ts'
import { openProcess, stillAlive } from '../sys/process.ts'
import { adoptedRecord } from './adopted.ts'
import { loanFacts } from './audit-facts.ts'
import type { Expiry } from './expiry.ts'
import { FairTurns } from './fair-turns.ts'
import { loanName } from './loan-view.ts'
import { sharesOf } from './mounts-of.ts'
import type { Parts } from './parts.ts'
import { type Found, reconcile, type Step } from './reconcile.ts'
import { takeBack } from './take-back.ts'

/** Exits come together, as when a machine full of containers is stopped. */
const GATHER_MS = 200
/** Executors of a daemon that died have as long to undo what they had begun. */
const ORPHANS_MS = 30_000
/** So many are ended at one time: each waits for file systems of its own. */
const AT_ONCE = 16
/** So many of one user. */
const AT_ONCE_OF_ONE = 4
const RETRY_MS = 30_000
/** What is seen is told without another look for so long. */
const FRESH_MS = 5000

export class Upkeep {
  readonly #parts: Parts
  readonly #expiry: Expiry
  readonly #turns = new FairTurns(AT_ONCE, AT_ONCE_OF_ONE)
  #first = true
  #lookedAt = Number.NEGATIVE_INFINITY
  #looking: Promise<void> = Promise.resolve()
  #next: Promise<void> | undefined
  #timer: NodeJS.Timeout | undefined
  #due = Number.POSITIVE_INFINITY
  #stopped = false

  constructor(parts: Parts, expiry: Expiry) {
    this.#parts = parts
    this.#expiry = expiry
  }

  /** The first look. Returns when all that was left unfinished is settled. */
  start(): Promise<void> {
    this.#looking = this.#orphansGone()
    return this.look()
  }

  /** Until then they may do what a daemon before us asked of them last. */
  async #orphansGone(): Promise<void> {
    const { book, log } = this.#parts
    if (![...book.open()].some(({ boot }) => boot === book.registry.boot)) return
    if (!(await orphansGone(ORPHANS_MS, () => this.#stopped)))
      log.warn({}, 'an executor of another daemon is still there: what it does is found at the next look')
  }

  /** Looks before long, once for all who say so until then. */
  soon(withinMs = GATHER_MS): void {
    if (this.#stopped) return
    const at = performance.now() + withinMs
    if (at >= this.#due) return
    clearTimeout(this.#timer)
    this.#due = at
    this.#timer = setTimeout(() => {
      this.#due = Number.POSITIVE_INFINITY
      this.look().catch(error => this.#parts.log.error({ error }, 'loans could not be looked after'))
    }, withinMs)
    this.#timer.unref()
  }

  /** Somebody is shown what was seen: the next one shall be shown something newer. */
  wanted(): void {
    if (performance.now() - this.#lookedAt > FRESH_MS) this.soon()
  }

  /** Looks at what there is from now on, and settles it. */
  look(): Promise<void> {
    this.#next ??= this.#looking.then(() => {
      this.#next = undefined
      const look = this.#lookOnce()
      this.#looking = look.catch(() => {})
      return look
    })
    return this.#next
  }

  async stop(): Promise<void> {
    this.#stopped = true
    clearTimeout(this.#timer)
    await this.#next?.catch(() => {})
    await this.#looking
  }

  /** Ends those whose time has come. */
  async expire(): Promise<void> {
    const due = this.#expiry.take(this.#parts.clock.bootNs())
    await Promise.all(due.map(id => this.#turns.run(this.#ownerOf(id), () => this.#expireOne(id))))
  }

  /** One that cannot be ended now, as when the disk is full, is tried again. */
  async #expireOne(id: number): Promise<void> {
    const { book, log } = this.#parts
    try {
      // Who renews it at this moment is waited for. Later it is refused: the time is over.
      if (await book.inTurn(id, async () => this.#isDue(id)))
        await takeBack(this.#parts, id, { why: 'expired' })
    } catch (error) {
      log.error({ error, loan: loanName(id) }, 'a loan that has expired could not be ended')
      const again = (): void => {
        const loan = book.loan(id)
        if (loan !== undefined && !this.#stopped) this.#expiry.follow(loan)
      }
      setTimeout(again, RETRY_MS).unref()
    }
  }

  #isDue(id: number): boolean {
    const expires = this.#parts.book.loan(id)?.expires
    return expires !== undefined && BigInt(expires.bootNs) <= this.#parts.clock.bootNs()
  }

  async #lookOnce(): Promise<void> {
    if (this.#stopped) return
    const { book, vocabulary, guard } = this.#parts
    // What ends, or is made, while we look is in what we find, or not.
    const touched = new Set<string>()
    const stop = book.onChange(({ recipient }) => {
      if (recipient !== undefined) touched.add(recipient.userNamespace)
    })
    let steps: Step[]
    try {
      const before = [...book.open()].filter(({ id }) => !book.isBeingMade(id))
      for (const { id, recipient } of book.open())
        if (book.isBeingMade(id) && recipient !== undefined) touched.add(recipient.userNamespace)
      const mounts = await findInstances(vocabulary)
      const delegations = guard?.delegations()
      const isMissing = [...sharesOf(before, mounts).values()].some(share => share.length === 0)
      const unsure = before.filter(({ id, recipient }) => this.#isUnsure(id, recipient))
      const inhabited =
        isMissing || unsure.length > 0 ? await inhabitedUserNamespaces() : new Map<string, number>()
      const reused = new Set(unsure.filter(loan => isReused(loan, inhabited)).map(({ id }) => id))
      const { boot } = book.registry
      const found: Found = { boot, first: this.#first, mounts, delegations, inhabited, reused }
      steps = reconcile(before, found)
    } finally {
      stop()
    }
    this.#first = false
    this.#lookedAt = performance.now()
    const takeOne = async (step: Step): Promise<void> => {
      if (this.#stopped) return
      if (touchedBy(step, book.loan.bind(book), touched)) {
        if (step.do !== 'see') this.soon(FRESH_MS)
        return
      }
      try {
        await this.#take(step)
      } catch (error) {
        this.#parts.log.error({ error, step: step.do }, 'a step of the upkeep failed')
      }
    }
    // What only looks is done at once; what ends loans may wait for file systems of others.
    const ends = steps.flatMap(step => (step.do === 'takeBack' || step.do === 'end' ? [step] : []))
    const ending = ends.map(step => this.#turns.run(this.#ownerOf(step.loan), () => takeOne(step)))
    for (const step of steps) if (step.do === 'see' || step.do === 'adopt') await takeOne(step)
    await Promise.all(ending)
  }

  /** Whether its namespace, which we do not hold, may have gone, and another one have its number. */
  #isUnsure(id: number, recipient: LoanRecord['recipient']): boolean {
    return recipient?.userNamespaceId !== undefined && !this.#parts.recipients.isHeld(id)
  }

  /**
   * Whose file systems are waited for: whose share of the limits it took, however many numbers that
   * user has; of what root has lent, who made the user namespace, or where root made it, that itself.
   */
  #ownerOf(id: number): string {
    const loan = this.#parts.book.loan(id)
    if (loan === undefined) return userShare(0)
    const { asker, recipient } = loan
    if (asker.uid !== 0 || asker.owner !== undefined || recipient === undefined) return shareOf(asker)
    return recipient.ownerUid === 0 ? recipient.userNamespace : userShare(recipient.ownerUid)
  }

  async #take(step: Step): Promise<void> {
    const { book, sight, owed, clock } = this.#parts
    switch (step.do) {
      case 'end':
        await this.#end(step.loan, { at: clock.wall(), why: step.why, detail: step.detail })
        break
      case 'takeBack': {
        const { loan: id, why, detail, delegation } = step
        const loan = owed.loan(id) ?? book.loan(id)
        if (loan === undefined) break
        // So that it is revoked, whatever becomes of us.
        if (delegation !== undefined && loan.made?.delegation === undefined)
          await owed.putLoan({
            ...loan,
            state: 'ending',
            made: { ...loan.made, at: clock.wall(), delegation },
            ended: { at: clock.wall(), why, detail },
          })
        await takeBack(this.#parts, id, { why, detail })
        break
      }
      case 'see': {
        const { loan, seen, pids } = step
        const record = book.loan(loan)
        if (record === undefined || record.state === 'ended') break
        sight.set(loan, seen)
        this.#watch(record, pids)
        break
      }
      case 'adopt': {
        const { mounts, delegation } = step
        const id = book.registry.nextLoanId()
        const { boot } = book.registry
        const loan = await book.put(adoptedRecord({ id, boot, at: clock.wall() }, mounts, delegation))
        const pids = mounts.flatMap(mount => mount.pids)
        sight.set(id, { mounted: mounts.length > 0, processes: new Set(pids).size, drift: [] })
        this.#watch(loan, pids)
        await owed.note({ event: 'loan.adopted', loan: id, facts: loanFacts(loan) })
      }
    }
  }

  async #end(id: number, ended: EndRecord): Promise<void> {
    const { book, owed, counters } = this.#parts
    await book.inTurn(id, async () => {
      const loan = owed.loan(id) ?? book.loan(id)
      if (loan === undefined || loan.state === 'ended') return
      const over = await owed.putLoan({ ...loan, state: 'ended', ended: loan.ended ?? ended })
      counters.loanEnded(over.ended!.why)
      await owed.note({ event: 'loan.ended', loan: id, facts: loanFacts(over) })
    })
  }

  /** One that is in the namespace now: when it exits we look again. */
  #watch({ id, recipient }: LoanRecord, pids: readonly number[]): void {
    const { recipients } = this.#parts
    if (recipients.isWatched(id) || recipient === undefined) return
    for (const pid of [recipient.pid, ...pids.slice(0, 16)]) {
      const held = heldIn(pid, recipient)
      if (held === undefined) continue
      recipients.watch(id, held.pidfd, held.namespace)
      return
    }
  }
}

type InNamespace = Pick<NonNullable<LoanRecord['recipient']>, 'userNamespace' | 'userNamespaceId'>

/** Undefined: no such process is in that user namespace. The caller closes both. */
function heldIn(pid: number, there: InNamespace): { pidfd: Fd; namespace: Fd } | undefined {
  if (pid === 0) return undefined
  try {
    using process = openProcess(pid)
    using namespace = heldNamespace(process, 'user')
    if (!isThat(namespace, there)) return undefined
    stillAlive(process)
    return { pidfd: new Fd(process.pidfd.release()), namespace: new Fd(namespace.release()) }
  } catch (error) {
    if (error instanceof BpftokenError) return undefined
    throw error
  }
}

function isThat(namespace: Fd, { userNamespace, userNamespaceId }: InNamespace): boolean {
  if (`user:[${inodeOf(namespace)}]` !== userNamespace) return false
  const id = uniqueNamespaceId(namespace)
  return id === undefined || userNamespaceId === undefined || String(id) === userNamespaceId
}

/** Whether a process is in another user namespace that has the number of this loan's. */
function isReused({ recipient }: LoanRecord, inhabited: ReadonlyMap<string, number>): boolean {
  const pid = recipient && inhabited.get(recipient.userNamespace)
  if (pid === undefined) return false
  try {
    using process = openProcess(pid)
    using namespace = heldNamespace(process, 'user')
    const { userNamespace } = recipient!
    return isThat(namespace, { userNamespace }) && !isThat(namespace, recipient!)
  } catch (error) {
    // It has exited: the next look knows more.
    if (error instanceof BpftokenError) return false
    throw error
  }
}

/** Whether what the step says of a loan may not be so any more. */
function touchedBy(
  step: Step,
  loanOf: (id: number) => LoanRecord | undefined,
  touched: ReadonlySet<string>,
): boolean {
  if (step.do === 'adopt') {
    const namespace = step.mounts[0]?.userNamespace ?? `user:[${step.delegation?.userNamespace}]`
    return touched.has(namespace)
  }
  const namespace = loanOf(step.loan)?.recipient?.userNamespace
  return namespace !== undefined && touched.has(namespace)
}
