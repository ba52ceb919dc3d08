/**
 * Since when a process runs, and since when its engine says that it does.
 *
 * An engine's record outlives the process where nobody was left to correct it (conmon was killed),
 * and the number may be another process's by then. That one began after the first had ended, so
 * later than the record says. Milliseconds since the epoch, by the machine's clock of now: where
 * that was set since, these times say less (set back) or too much (set forward).
 */
import { bootTimeNs, ticksFrom } from '../../guard/clock.ts'
import { LOOK_MS, readInTime } from '../../sys/in-time.ts'
import type { ProcessHandle } from '../../sys/process.ts'

const MS_PER_SEC = 1000
const NS_PER_MS = 1_000_000n
/** USER_HZ, which is 100 for all programs of all machines that Node runs on. */
const MS_PER_TICK = 10
/**
 * Podman notes the time once the process runs, in whole seconds; today's Docker before it makes
 * the process, which takes a busy machine some seconds.
 */
const SLACK_MS = 10_000

/** Pure. Podman: seconds since the epoch; Docker: RFC 3339. Undefined: it is neither. */
export function parseStartTime(said: unknown): number | undefined {
  if (typeof said === 'number') return Number.isSafeInteger(said) ? said * MS_PER_SEC : undefined
  if (typeof said !== 'string' || !/^\d{4}-\d\d-\d\dT[\d:.]{1,32}(?:Z|[+-]\d\d:\d\d)$/.test(said))
    return undefined
  const time = Date.parse(said)
  return Number.isNaN(time) ? undefined : time
}

/** NotFoundError: it has exited. TimeoutError, ConflictError: as src/sys/in-time.ts has them. */
export async function processStartTime(process: ProcessHandle): Promise<number> {
  const ticks = ticksFrom(await readInTime(process, 'stat', LOOK_MS))
  return Date.now() - Number(bootTimeNs() / NS_PER_MS) + Number(ticks) * MS_PER_TICK
}

/** Pure. Whether a process that began then can be one that had begun by `startedAt`. */
export function hadBegun(began: number, startedAt: number): boolean {
  return began <= startedAt + SLACK_MS
}
