/**
 * The loans by what is asked of them all the time: those that are open, and how many each user has.
 * It is the one way to the registry for loans, so that both agree.
 */
import { shareOf } from '../registry/asker-facts.ts'
import type { AnswerRecord, LoanRecord, RequestRecord } from '../registry/loan-record.ts'
import type { Registry } from '../registry/registry.ts'

/** What is written together with a loan, or not at all. */
export interface Also {
  readonly request?: RequestRecord | undefined
  readonly answer?: AnswerRecord | undefined
}

/** So many can live in the guard at one time; the others have ended. */
const MAX_DELEGATIONS = 16_384

export class LoanBook {
  readonly registry: Registry
  readonly #open = new Map<number, LoanRecord>()
  readonly #openOf = new Map<string, number>()
  /** By the guard's number. */
  readonly #delegations = new Map<number, number>()
  readonly #children = new Map<number, Set<number>>()
  /** Those that are open, by the superblock that they say. */
  readonly #ofDevice = new Map<string, Set<number>>()
  /** Loans that are being made by this process: nobody else touches them. */
  readonly #making = new Set<number>()
  readonly #turns = new Map<number, Promise<unknown>>()
  readonly #listeners = new Set<(loan: LoanRecord) => void>()
  #ended = 0
  #adopted = 0

  constructor(registry: Registry) {
    this.registry = registry
    for (const loan of registry.loans()) this.#count(undefined, loan)
  }

  loan(id: number): LoanRecord | undefined {
    return this.registry.loan(id)
  }

  /** Those that have not ended, by number. */
  open(): IterableIterator<LoanRecord> {
    return this.#open.values()
  }

  get counts(): { readonly live: number; readonly ended: number; readonly adopted: number } {
    return { live: this.#open.size - this.#adopted, ended: this.#ended, adopted: this.#adopted }
  }

  /** How many loans this owner (`shareOf`) has that have not ended, with those that are being made. */
  openOf(owner: string): number {
    return this.#openOf.get(owner) ?? 0
  }

  /** The loan of that number in the guard. */
  ofDelegation(delegation: number): LoanRecord | undefined {
    const id = this.#delegations.get(delegation)
    return id === undefined ? undefined : this.loan(id)
  }

  /** Those that have not ended and say this superblock (`made.device`). */
  ofDevice(device: string): LoanRecord[] {
    return [...(this.#ofDevice.get(device) ?? [])].map(id => this.#open.get(id)!)
  }

  /** This loan and all that is derived from it, it first; those that have not ended. */
  treeOf(id: number): LoanRecord[] {
    const ids = [id]
    for (const one of ids) ids.push(...(this.#children.get(one) ?? []))
    return ids.flatMap(one => this.#open.get(one) ?? [])
  }

  /** Returns when it is on the disk. Throws as `Registry.put`; nothing has changed then. */
  async put(loan: LoanRecord, also: Also = {}): Promise<LoanRecord> {
    const before = this.registry.loan(loan.id)
    await this.registry.put({ loan, ...also })
    // As the registry keeps it.
    const kept = this.registry.loan(loan.id) ?? loan
    this.#count(before, kept)
    for (const listener of this.#listeners) listener(kept)
    return kept
  }

  /** One after the other for each loan. */
  async inTurn<T>(id: number, act: () => Promise<T>): Promise<T> {
    const before = this.#turns.get(id) ?? Promise.resolve()
    const turn = before.then(act, act)
    const settled = turn.catch(() => {})
    this.#turns.set(id, settled)
    try {
      return await turn
    } finally {
      if (this.#turns.get(id) === settled) this.#turns.delete(id)
    }
  }

  /** While `act` makes it, nobody else takes it for one that was left unfinished. */
  async making<T>(id: number, act: () => Promise<T>): Promise<T> {
    this.#making.add(id)
    try {
      return await act()
    } finally {
      this.#making.delete(id)
    }
  }

  isBeingMade(id: number): boolean {
    return this.#making.has(id)
  }

  /** Told of each change until the function that this gives is called. */
  onChange(listener: (loan: LoanRecord) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  #forgetEnded(): void {
    for (const [delegation, id] of this.#delegations)
      if (!this.#open.has(id)) this.#delegations.delete(delegation)
  }

  #count(before: LoanRecord | undefined, now: LoanRecord): void {
    const wasOpen = before !== undefined && before.state !== 'ended'
    const isOpen = now.state !== 'ended'
    if (isOpen) this.#open.set(now.id, now)
    else this.#open.delete(now.id)
    if (wasOpen) forget(this.#ofDevice, before.made?.device, now.id)
    if (isOpen) note(this.#ofDevice, now.made?.device, now.id)
    const { delegation } = now.made ?? {}
    // Events of one that has just ended still come.
    if (delegation !== undefined) this.#delegations.set(delegation, now.id)
    if (this.#delegations.size > MAX_DELEGATIONS) this.#forgetEnded()
    if (isOpen === wasOpen) {
      if (!isOpen && before === undefined) this.#ended++
      return
    }
    const change = isOpen ? 1 : -1
    if (!isOpen) this.#ended++
    if (now.kind === 'adopted') this.#adopted += change
    else {
      const owner = shareOf(now.asker)
      const count = this.openOf(owner) + change
      if (count > 0) this.#openOf.set(owner, count)
      else this.#openOf.delete(owner)
    }
    if (isOpen) note(this.#children, now.parent, now.id)
    else forget(this.#children, now.parent, now.id)
  }
}

/** Adds it to the set of that key; undefined: it is in none. */
function note<K>(sets: Map<K, Set<number>>, key: K | undefined, id: number): void {
  if (key === undefined) return
  const set = sets.get(key)
  if (set === undefined) sets.set(key, new Set([id]))
  else set.add(id)
}

function forget<K>(sets: Map<K, Set<number>>, key: K | undefined, id: number): void {
  const set = key === undefined ? undefined : sets.get(key)
  if (set?.delete(id) === true && set.size === 0) sets.delete(key!)
}
