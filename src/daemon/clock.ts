/** The two times: what people read, and what counts. */
import { readFileSync } from 'node:fs'
import { bootTimeNs } from '../guard/clock.ts'
import { Alarm } from '../sys/alarm.ts'

/** How long a process of others may have us wait by an execve(2) that does not end. */
export const PATIENCE_MS = 1000

export interface Clock {
  /** RFC 3339, in UTC. It may be set, forwards and back: nothing is decided by it. */
  wall(): string
  /** Nanoseconds since boot, sleep included. */
  bootNs(): bigint
  /** One alarm at a time since boot: see src/sys/alarm.ts. The caller disposes of it. */
  alarm(ring: () => void): Pick<Alarm, 'set'> & Disposable
}

export const REAL_CLOCK: Clock = {
  wall: () => new Date().toISOString(),
  bootNs: bootTimeNs,
  alarm: ring => new Alarm(ring),
}

/** Another one with each boot. */
export function bootId(): string {
  return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()
}

const NS_PER_MS = 1_000_000n
export const NS_PER_SEC = 1_000_000_000n

/** What a time since boot is in the calendar of now. */
export function wallOf(clock: Clock, bootNs: bigint): string {
  return new Date(Date.parse(clock.wall()) + Number((bootNs - clock.bootNs()) / NS_PER_MS)).toISOString()
}
