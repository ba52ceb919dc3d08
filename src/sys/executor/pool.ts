/**
 * The executors that this process has: borrowed for one plan each, or kept by who the guard knows
 * by one.
 */
import { Executor } from './executor.ts'

/** So many are started as they are asked for, and kept. They keep a few processors busy. */
const FEW = 4
/** Who finds them all busy waits so long for one before another is started: some may hang. */
const PATIENCE_MS = 50
/** More plans than this at once wait for one that ends. */
const MOST = 32

interface Queued {
  readonly give: (executor: Executor) => void
  readonly timer: NodeJS.Timeout
}

const idle: Executor[] = []
/** They were given back, and let go of their last plan still. */
const cleaning = new Set<Executor>()
const queue: Queued[] = []
let busy = 0

/** One for the caller alone, until it is given back. */
export async function borrowExecutor(): Promise<Executor> {
  // Waiting for one that is nearly free takes less time than starting one.
  if (idle.length > 0 || (busy < FEW && queue.length >= cleaning.size)) return takeExecutor()
  return new Promise(give => {
    const queued: Queued = {
      give,
      timer: setTimeout(() => {
        if (busy >= MOST) return
        queue.splice(queue.indexOf(queued), 1)
        give(takeExecutor())
      }, PATIENCE_MS),
    }
    queue.push(queued)
  })
}

/** As `borrowExecutor`, at once, and beyond the limit. */
export function takeExecutor(): Executor {
  busy++
  for (let one = idle.pop(); one !== undefined; one = idle.pop()) {
    if (one.alive) return one
    one[Symbol.dispose]()
  }
  return Executor.start()
}

/**
 * Gives it back. It has no plan. The next one gets it when it has let go of the last: that may
 * touch what a target made.
 */
export function returnExecutor(executor: Executor): void {
  busy--
  cleaning.add(executor)
  executor.whenFree(() => {
    cleaning.delete(executor)
    handOn(executor)
  })
}

function handOn(executor: Executor): void {
  if (!executor.alive) executor[Symbol.dispose]()
  const next = queue.shift()
  if (next !== undefined) {
    busy++
    clearTimeout(next.timer)
    next.give(executor.alive ? executor : Executor.start())
  } else if (executor.alive) {
    if (idle.length < FEW) idle.push(executor)
    else executor[Symbol.dispose]()
  }
}

/** Ends those that nobody uses, and waits until they are gone. */
export async function endExecutors(): Promise<void> {
  const unused = [...idle.splice(0), ...cleaning]
  cleaning.clear()
  await Promise.all(
    unused.map(executor => {
      executor[Symbol.dispose]()
      return executor.ended()
    }),
  )
}
