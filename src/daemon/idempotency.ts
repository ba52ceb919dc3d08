/**
 * A request that bears a key is done once: who asks again with the key gets what came of it. The
 * answer is kept with the loan, in one line of the registry, so that a client that lost it, or a
 * daemon that died, makes no second loan.
 */
import { createHash } from 'node:crypto'
import { ConflictError } from '../errors.ts'
import type { AskerFacts } from '../registry/asker-facts.ts'
import type { AnswerRecord } from '../registry/loan-record.ts'
import type { Registry } from '../registry/registry.ts'
import { INITIAL_USER_NAMESPACE } from '../sys/self.ts'
import type { Clock } from './clock.ts'

/** What is kept with what was made. */
export type Keep = (answer: {
  readonly status: number
  readonly body?: string | undefined
  readonly loan?: number | undefined
  readonly request?: number | undefined
}) => AnswerRecord | undefined

export interface Bearing {
  readonly who: Pick<AskerFacts, 'uid' | 'owner' | 'userNamespace'>
  readonly key: string | undefined
  readonly asked: unknown
}

interface InFlight {
  readonly asked: string
  readonly answer: Promise<unknown>
}

export class Idempotency {
  readonly #registry: Registry
  readonly #clock: Pick<Clock, 'wall'>
  readonly #inFlight = new Map<string, InFlight>()

  constructor(registry: Registry, clock: Pick<Clock, 'wall'>) {
    this.#registry = registry
    this.#clock = clock
  }

  /**
   * What `act` gives, or what `again` makes of what was kept, unless that is of no use any more.
   * Nothing is kept of a failure: who asks again tries again. ConflictError: the key was used for
   * something else.
   */
  async once<T>(
    { who, key: given, asked: what }: Bearing,
    act: (keep: Keep) => Promise<T>,
    again: (answer: AnswerRecord) => T | undefined,
  ): Promise<T> {
    if (given === undefined) return act(() => undefined)
    const { uid, owner } = who
    const key = keyOf(who, given)
    const asked = createHash('sha256').update(canonical(what)).digest('hex')
    const kept = this.#registry.answer(uid, key)
    if (kept !== undefined) {
      requireSame(kept.asked, asked, given)
      const told = again(kept)
      if (told !== undefined) return told
    }
    const name = `${uid} ${key}`
    const before = this.#inFlight.get(name)
    if (before !== undefined) {
      requireSame(before.asked, asked, given)
      return (await before.answer) as T
    }
    const keep: Keep = answer => ({ uid, owner, key, at: this.#clock.wall(), asked, ...answer })
    const answer = act(keep)
    this.#inFlight.set(name, { asked, answer })
    try {
      return await answer
    } finally {
      this.#inFlight.delete(name)
    }
  }
}

/**
 * The number of a user of another user namespace may be another's: so it counts there alone. A key
 * that is given has no space.
 */
function keyOf({ userNamespace }: Bearing['who'], key: string): string {
  if (userNamespace === INITIAL_USER_NAMESPACE) return key
  return `${userNamespace} ${createHash('sha256').update(key).digest('hex')}`
}

function requireSame(kept: string, asked: string, key: string): void {
  if (kept === asked) return
  throw new ConflictError('This Idempotency-Key was given with another request', {
    context: { key },
    hint: 'Give each request a key of its own',
  })
}

/** The same text for the same values, in whatever order their names are. */
export function canonical(value: unknown): string {
  return JSON.stringify(value, (_, item: unknown) =>
    typeof item === 'object' && item !== null && !Array.isArray(item)
      ? Object.fromEntries(Object.entries(item).sort(([a], [b]) => (a < b ? -1 : 1)))
      : item,
  )
}
