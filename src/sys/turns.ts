/**
 * Turns: of each name so many at once, and the others in the order in which they came. A turn is
 * over once the event loop has looked at what else has come, whether somebody waits for it or comes
 * before that: so a name that asks for many holds up nobody else.
 */

interface Lane {
  running: number
  /** Who waits, in order. */
  readonly waiting: Set<() => void>
}

export class Turns {
  readonly #lanes = new Map<string, Lane>()
  readonly #width: number

  /** So many at once of one name. */
  constructor(width: number) {
    this.#width = width
  }

  /**
   * Resolves when it is the caller's turn, which ends when it is disposed of. Undefined: the signal
   * came first.
   */
  async take(name: string, signal: AbortSignal): Promise<Disposable | undefined> {
    const lane = this.#lanes.get(name) ?? { running: 0, waiting: new Set() }
    this.#lanes.set(name, lane)
    if (lane.running < this.#width) lane.running++
    else if (!(await called(lane, signal))) return undefined
    return { [Symbol.dispose]: () => void setImmediate(() => this.#pass(name, lane)) }
  }

  /** The turn goes on to the next one who waits. */
  #pass(name: string, lane: Lane): void {
    const [next] = lane.waiting
    if (next !== undefined) next()
    else if (--lane.running === 0) this.#lanes.delete(name)
  }
}

/** False: the signal came first. */
function called({ waiting }: Lane, signal: AbortSignal): Promise<boolean> {
  return new Promise(resolve => {
    const settle = (isCalled: boolean): void => {
      waiting.delete(call)
      signal.removeEventListener('abort', stop)
      resolve(isCalled)
    }
    const call = (): void => settle(true)
    const stop = (): void => settle(false)
    if (signal.aborted) return resolve(false)
    signal.addEventListener('abort', stop)
    waiting.add(call)
  })
}
