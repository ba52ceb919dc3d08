/**
 * The executors that this process has. One is borrowed for each plan; a lender whom the guard knows
 * by its executor keeps one.
 */
import { Executor } from './executor.ts'

/**
 * Up to this many are started when they are asked for, and kept. They keep a few processors busy.
 */
const FEW = 4
/** If all are busy, the caller waits this long before another is started, because some may hang. */
const PATIENCE_MS = 50
/** More plans than this at once wait for one that ends. */
const MOST = 32
/** More than a few that are idle are kept for so long, since they are mostly wanted again. */
const REST_MS = 5000

interface Queued {
  readonly give: (executor: Executor) => void
  readonly timer: NodeJS.Timeout
}

const idle: Executor[] = []
/** Executors that were given back and are still letting go of their last plan. */
const cleaning = new Set<Executor>()
const queue: Queued[] = []
let busy = 0
let hasSurplus = false

/** One for the caller alone, until it is given back. */
export async function borrowExecutor(): Promise<Executor> {
  // Waiting for one that is nearly free takes less time than starting one.
  if (idle.length > 0 || (busy < FEW && queue.length >= cleaning.size)) return takeExecutor()
  return new Promise(give => {
    const startAnother = (): void => {
      if (busy >= MOST || !queue.includes(queued)) return
      queue.splice(queue.indexOf(queued), 1)
      give(takeExecutor())
    }
    const queued: Queued = {
      give,
      // Where it was we that were busy, their answers are there by now, and are heard first.
      timer: setTimeout(() => setImmediate(startAnother), PATIENCE_MS),
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
 * Gives the executor back, without a plan. The next caller gets it when it has let go of the last
 * plan, because that may touch files that a target made.
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
    idle.push(executor)
    if (idle.length > FEW && !hasSurplus) {
      hasSurplus = true
      setTimeout(endSurplus, REST_MS).unref()
    }
  }
}

function endSurplus(): void {
  hasSurplus = false
  for (const executor of idle.splice(FEW)) executor[Symbol.dispose]()
}

/** Ends the executors that nobody uses, and waits until they are gone. */
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
