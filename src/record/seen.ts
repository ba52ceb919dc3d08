/** Calls as they come in, equal ones once: a run that goes on for days needs no more room. Pure. */
import type { SeenCall } from './call.ts'

export interface SeenOften extends SeenCall {
  readonly times: number
}

/** Different calls. */
const MOST = 50_000

export class Seen {
  readonly #calls = new Map<string, SeenCall & { times: number }>()
  #dropped = 0

  /** The time and thread of equal calls are those of the first. */
  add(call: SeenCall): void {
    const { pid, innerPid, userNamespace, task, command, errno, reached, name, attachType, need, withToken } =
      call
    const key = JSON.stringify([
      pid,
      innerPid,
      userNamespace,
      task,
      command,
      errno,
      reached,
      name,
      attachType,
      need,
      withToken,
      call.objectFlags,
    ])
    const known = this.#calls.get(key)
    if (known !== undefined) known.times++
    else if (this.#calls.size < MOST) this.#calls.set(key, { ...call, times: 1 })
    else this.#dropped++
  }

  /** In the order in which the first of each came. */
  get calls(): readonly SeenOften[] {
    return [...this.#calls.values()]
  }

  /** Calls for which there was no room. */
  get dropped(): number {
    return this.#dropped
  }
}
