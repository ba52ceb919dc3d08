/**
 * One alarm at a time since boot, sleep included: it does not depend on what the calendar is set
 * to. timerfd_create(2) with CLOCK_BOOTTIME, since Linux 3.15.
 */
import { check } from './failure.ts'
import { Fd } from './fd.ts'
import { native } from './native.ts'
import { type Watch, watchReadable } from './poll.ts'

const CLOCK_BOOTTIME = 7
const TFD_CLOEXEC = 0o2000000
const TFD_NONBLOCK = 0o4000
const TFD_TIMER_ABSTIME = 1
const NS_PER_SEC = 1_000_000_000n

export class Alarm implements Disposable {
  readonly #timer: Fd
  readonly #watch: Watch

  /** `ring` is called when the time has come. It does not keep Node alive. */
  constructor(ring: () => void) {
    const flags = TFD_CLOEXEC | TFD_NONBLOCK
    this.#timer = new Fd(
      check('timerfd_create', 'timerfd_create', native().timerfd_create(CLOCK_BOOTTIME, flags)),
    )
    this.#watch = watchReadable(this.#timer, () => {
      this.set(undefined) // Or it would ring for ever.
      ring()
    })
    this.#watch.keepAlive(false)
  }

  /** Nanoseconds since boot, perhaps past; undefined: never. What was set before counts no more. */
  set(atNs: bigint | undefined): void {
    // struct itimerspec, 32 bytes: interval @0, value @16, each seconds and nanoseconds.
    const time = new DataView(new ArrayBuffer(32))
    if (atNs !== undefined) {
      const due = atNs > 0n ? atNs : 1n // All zero is never.
      time.setBigInt64(16, due / NS_PER_SEC, true)
      time.setBigInt64(24, due % NS_PER_SEC, true)
    }
    const result = native().timerfd_settime(
      this.#timer.number,
      TFD_TIMER_ABSTIME,
      new Uint8Array(time.buffer),
      null,
    )
    check('timerfd_settime', 'timerfd_settime', result)
  }

  [Symbol.dispose](): void {
    this.#watch[Symbol.dispose]()
    this.#timer.close()
  }
}
