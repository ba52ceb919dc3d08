/**
 * The journal of one loan: what src/lending tells of it goes to the registry and the audit. Nothing
 * can be reached before it is on the disk, in both, that it will be lent, and nothing is kept before
 * it is on the disk, in both, that it was made.
 *
 * Disks are slow, so that only what must be is waited for. Before anything is done, that is the
 * registry, by which it is found again; the audit of it is written while the loan is made. At the end
 * both are written at one time: by the registry alone it is made out what stands, and where only the
 * audit was written, a record that it ended follows there.
 */
import type { DelegatedMount } from '../delegation/instances.ts'
import { NotUndoneError } from '../errors.ts'
import type { Journal, LendFacts, Loan, Operation, Outcome } from '../lending/journal.ts'
import { placeOfCgroup } from '../lending/place.ts'
import { hexMasks } from '../policy/mask-text.ts'
import { type Policy, policyToJSON } from '../policy/policy.ts'
import {
  type LoanRecord,
  type MadeRecord,
  policyDigest,
  type RecipientFacts,
  traceText,
} from '../registry/loan-record.ts'
import type { AskerFacts } from './asker.ts'
import { errorFacts, loanFacts } from './audit-facts.ts'
import { NS_PER_SEC, wallOf } from './clock.ts'
import type { EngineWords } from './containers/facts.ts'
import type { Also } from './loan-book.ts'
import type { Parts } from './parts.ts'

/** What is known of a loan besides what src/lending knows. */
export interface Asked {
  readonly id: number
  readonly kind: 'delegate' | 'derive'
  readonly asker: AskerFacts
  readonly askedAt: string
  /** The loan that it is derived from. */
  readonly parent?: number | undefined
  readonly approvedBy?: number | undefined
  readonly comment?: string | undefined
  /** Where the recipient is by its cgroup, as it was when it was asked for. */
  readonly recipientCgroup?: string | undefined
  /** Of its user namespace: `uniqueNamespaceId`. */
  readonly recipientNamespaceId?: bigint | undefined
  /** The container that it is, where its runtime says so: else by its cgroup. */
  readonly container?: ({ readonly id: string } & EngineWords) | undefined
  /** After so long it ends; undefined: it does not. */
  readonly lifetimeSec?: number | undefined
  /** It ends no later than that. */
  readonly noLaterNs?: bigint | undefined
  /** Called once it is in the registry. */
  readonly begun?: (() => void) | undefined
  /** Written together with the loan. */
  readonly also?: ((loan: LoanRecord) => Also) | undefined
}

export class LoanJournal implements Journal {
  readonly #parts: Parts
  readonly #asked: Asked
  #record: LoanRecord | undefined
  /** That of `lend.will`, which may be on its way to the disk. */
  #audited: Promise<unknown> = Promise.resolve()

  constructor(parts: Parts, asked: Asked) {
    this.#parts = parts
    this.#asked = asked
  }

  /** As it is by now; undefined: nothing was done. */
  get record(): LoanRecord | undefined {
    return this.#record
  }

  async will(operation: Operation): Promise<void> {
    if (operation.do !== 'lend') throw new Error('this journal is for loans')
    const { book, audit } = this.#parts
    const record = recordOf(operation, this.#asked, book.registry.boot)
    await book.put(record)
    this.#record = record
    this.#asked.begun?.()
    this.#audited = audit.append({ event: 'lend.will', loan: record.id, facts: loanFacts(record) })
    // Whoever waits for it is told.
    this.#audited.catch(() => {})
  }

  async ready(): Promise<void> {
    await this.#audited
  }

  async did(outcome: Outcome): Promise<void> {
    const { clock, book, audit } = this.#parts
    const record: LoanRecord = {
      ...this.#record!,
      state: 'live',
      made: madeOf(outcome as Loan, clock.wall()),
      ...this.#expiry(),
    }
    const written = await Promise.allSettled([
      book.put(record, this.#asked.also?.(record)).then(() => {
        this.#record = record
      }),
      audit.append({ event: 'lend.did', loan: record.id, facts: loanFacts(record) }),
    ])
    for (const one of written) if (one.status === 'rejected') throw one.reason
  }

  /** Where something may stand, the loan stays to be taken back: see reconcile.ts. */
  async failed(error: unknown): Promise<void> {
    const record = this.#record
    if (record === undefined) return
    const { clock, book, audit, counters } = this.#parts
    const stands = error instanceof NotUndoneError
    const ended = { at: clock.wall(), why: 'failed', detail: errorFacts(error)['message'] as string } as const
    this.#record = { ...record, state: stands ? 'ending' : 'ended', ended }
    await book.put(this.#record)
    if (!stands) counters.loanEnded('failed')
    await audit.append({
      event: 'lend.failed',
      loan: record.id,
      facts: { ...loanFacts(record), error: errorFacts(error) },
    })
  }

  #expiry(): Pick<LoanRecord, 'expires'> {
    const { lifetimeSec, noLaterNs } = this.#asked
    const { clock } = this.#parts
    const own = lifetimeSec === undefined ? undefined : clock.bootNs() + BigInt(lifetimeSec) * NS_PER_SEC
    const bootNs = own === undefined || (noLaterNs !== undefined && noLaterNs < own) ? noLaterNs : own
    return bootNs === undefined ? {} : { expires: { at: wallOf(clock, bootNs), bootNs: String(bootNs) } }
  }
}

function recordOf(lend: LendFacts, asked: Asked, boot: string): LoanRecord {
  const { id, kind, asker, askedAt, parent, approvedBy, comment } = asked
  const { place, policy, verdict, cgroup } = lend
  return {
    id,
    kind,
    state: 'making',
    boot,
    ...termsOf(policy),
    asker,
    askedAt,
    place,
    parent,
    cgroup,
    because: verdict.because,
    entry: verdict.entry,
    trace: traceText(verdict.trace),
    approvedBy,
    comment,
    recipient: recipientOf(lend, asked),
  }
}

function recipientOf(
  { target }: LendFacts,
  { recipientCgroup: cgroup, recipientNamespaceId: id, container }: Asked,
): RecipientFacts {
  const { pid, userNamespace, mountNamespace, ownerUid, rootUid, rootGid, unmappedUid } = target
  const where = cgroup === undefined ? undefined : placeOfCgroup(cgroup)
  return {
    ...{ pid, userNamespace, mountNamespace, ownerUid, rootUid, rootGid, unmappedUid, cgroup },
    userNamespaceId: id === undefined ? undefined : String(id),
    unit: where?.kind === 'unit' ? where.name : undefined,
    container: container?.id ?? (where?.kind === 'container' ? where.id : undefined),
    told: container === undefined ? undefined : { name: container.name, image: container.image },
  }
}

/** What the record of a loan has of its mount. */
export function mountRecord({
  mountId,
  device,
  path,
  masks,
  options,
}: DelegatedMount): Omit<MadeRecord, 'at' | 'delegation'> {
  return { mountId, device, path, masks: hexMasks(masks), options }
}

function madeOf({ mount, delegation }: Loan, at: string): MadeRecord {
  return {
    at,
    ...(mount && mountRecord(mount)),
    delegation: delegation === undefined ? undefined : Number(delegation),
  }
}

type KeptTerms = Pick<LoanRecord, 'policy' | 'policyDigest'>
const terms = new WeakMap<Policy, KeptTerms>()

/** Of a policy that many loans have the same object is kept. */
export function termsOf(policy: Policy): KeptTerms {
  const known = terms.get(policy)
  if (known !== undefined) return known
  const json = policyToJSON(policy)
  const made = { policy: json, policyDigest: policyDigest(json) }
  terms.set(policy, made)
  return made
}
