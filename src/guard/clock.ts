/** The guard's clock, and when processes began. */
import { readFileSync } from 'node:fs'

const NS_PER_SEC = 1e9

/** Nanoseconds since boot, sleep included, to a hundredth of a second. */
export function bootTimeNs(): bigint {
  const [seconds = '0'] = readFileSync('/proc/uptime', 'utf8').split(' ')
  return BigInt(Math.round(Number(seconds) * NS_PER_SEC))
}

/** When the process began, in clock ticks since boot; undefined: there is no such process. */
export function startTicks(pid: number): bigint | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    // Field 22. The second may hold blanks and brackets of its own.
    return BigInt(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19]!)
  } catch (error) {
    if (['ENOENT', 'ESRCH'].includes((error as NodeJS.ErrnoException).code ?? '')) return undefined
    throw error
  }
}
