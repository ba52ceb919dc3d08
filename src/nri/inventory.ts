/**
 * The containers of the runtime, and what the daemon has still to be told of them. It is told in
 * requests of a bounded length, one after the other: the first of all containers says that these are
 * all, and what came before is forgotten.
 */
import { MAX_CONTAINERS } from '../api/container-words.ts'
import type { RouteInput } from '../api/routes.ts'
import { type Facts, withDigest } from './facts.ts'

export type Announcement = RouteInput<'announceContainers'>['body']

/** What the daemon is told that we are. */
const RUNTIME = 'nri'
/** The daemon takes bodies of 300 KiB. */
const MAX_REQUEST_BYTES = 200 * 1024

export class Inventory {
  readonly #containers = new Map<string, Facts>()
  /** Undefined: they are gone. */
  #changed = new Map<string, Facts | undefined>()
  /** What the daemon knows is not what we had told: another daemon, or none. */
  #startsAnew = true

  get size(): number {
    return this.#containers.size
  }

  /** Whether the daemon has still to be told something. */
  get hasNews(): boolean {
    return this.#startsAnew || this.#changed.size > 0
  }

  /** False: there are too many, and it is not remembered. */
  add(facts: Facts): boolean {
    if (!this.#containers.has(facts.id) && this.#containers.size >= MAX_CONTAINERS) return false
    this.#containers.set(facts.id, facts)
    this.#changed.set(facts.id, facts)
    return true
  }

  /** False: that container is not remembered, or has no room for it. */
  addDigest(id: string, imageDigest: string): boolean {
    const facts = this.#containers.get(id)
    const all = facts === undefined ? undefined : withDigest(facts, imageDigest)
    return all !== undefined && this.add(all)
  }

  remove(id: string): void {
    if (this.#containers.delete(id)) this.#changed.set(id, undefined)
  }

  /** The runtime has said which there are. */
  replace(all: Iterable<Facts>): void {
    this.#containers.clear()
    for (const facts of all) this.add(facts)
    this.startAnew()
  }

  /** The next announcements tell of all. */
  startAnew(): void {
    this.#startsAnew = true
  }

  /**
   * What is to be said, in this order. From then on it counts as said: whoever cannot say it calls
   * `startAnew`.
   */
  takeNews(): Announcement[] {
    const whole = this.#startsAnew
    const changes: ReadonlyMap<string, Facts | undefined> = whole ? this.#containers : this.#changed
    this.#startsAnew = false
    this.#changed = new Map()
    return announcementsOf(changes, whole)
  }
}

/** Pure. At least one if they are all. */
export function announcementsOf(
  changes: ReadonlyMap<string, Facts | undefined>,
  whole: boolean,
): Announcement[] {
  const parts: { containers: Facts[]; gone: string[] }[] = []
  let left = 0
  for (const [id, facts] of changes) {
    const bytes = facts === undefined ? id.length + 3 : Buffer.byteLength(JSON.stringify(facts)) + 1
    if (bytes > left) {
      parts.push({ containers: [], gone: [] })
      left = MAX_REQUEST_BYTES
    }
    left -= bytes
    const part = parts.at(-1)!
    if (facts === undefined) part.gone.push(id)
    else part.containers.push(facts)
  }
  if (whole && parts.length === 0) parts.push({ containers: [], gone: [] })
  return parts.map((part, index) => ({ runtime: RUNTIME, whole: whole && index === 0, ...part }))
}
