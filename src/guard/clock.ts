/** The guard's clock, and when processes began. */
import { readFileSync } from 'node:fs'

const NS_PER_SEC = 1e9

/** Nanoseconds since boot, sleep included, to a hundredth of a second. */
export function bootTimeNs(): bigint {
  const [seconds = '0'] = readFileSync('/proc/uptime', 'utf8').split(' ')
  return BigInt(Math.round(Number(seconds) * NS_PER_SEC))
}

/**
 * When the process began, in clock ticks since boot; undefined: there is no such process. It must be
 * of our own user: any other could have us wait (src/sys/in-time.ts).
 */
export function startTicks(pid: number): bigint | undefined {
  try {
    return ticksFrom(readFileSync(`/proc/${pid}/stat`, 'utf8'))
  } catch (error) {
    if (['ENOENT', 'ESRCH'].includes((error as NodeJS.ErrnoException).code ?? '')) return undefined
    throw error
  }
}

/** Of /proc/PID/stat. Pure. */
export function ticksFrom(stat: string): bigint {
  // Field 22. The second may hold blanks and brackets of its own.
  return BigInt(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19]!)
}
