/** What the service manager is told: sd_notify(3) and sd_watchdog_enabled(3), without systemd's library. */
import { printable } from '../ebpf/printable.ts'
import { DatagramSender } from '../sys/datagram.ts'
import { type NumberRange, PROCESS_IDS, parseWithin } from '../uapi/number-range.ts'

/** Of the environment. The service's main reads it, and removes what is here. */
export interface NotifyVariables {
  readonly NOTIFY_SOCKET?: string | undefined
  readonly WATCHDOG_USEC?: string | undefined
  readonly WATCHDOG_PID?: string | undefined
}

const MAX_STATUS_CHARS = 256
const USEC_PER_MS = 1000
/** From a millisecond to less than an hour, which fits a timer of Node. */
const WATCHDOG_USEC: NumberRange = { min: 2 * USEC_PER_MS, max: 3_600_000_000 }

/** Tells nobody anything where no socket was given. */
export class Notifier implements Disposable {
  readonly #sender: DatagramSender | undefined
  readonly #watchdogMs: number | undefined
  #watchdog: NodeJS.Timeout | undefined

  /** InputError: the socket is no address. */
  constructor(variables: NotifyVariables, pid: number) {
    const { NOTIFY_SOCKET: socket } = variables
    this.#sender = socket === undefined || socket === '' ? undefined : new DatagramSender(socket)
    this.#watchdogMs = watchdogMs(variables, pid)
  }

  /** It answers from now on. */
  ready(status: string): void {
    this.#tell('READY=1', statusLine(status))
  }

  /** One line for people. */
  status(text: string): void {
    this.#tell(statusLine(text))
  }

  /** It reads its configuration again: `ready` follows, also where that has failed. */
  reloading(): void {
    // CLOCK_MONOTONIC, which systemd compares with the time of its own request.
    this.#tell('RELOADING=1', `MONOTONIC_USEC=${process.hrtime.bigint() / 1000n}`)
  }

  /** It is about to end. */
  stopping(): void {
    this.#tell('STOPPING=1')
  }

  /**
   * Tells twice in each period that all is well, as long as it is: the event loop turns, or this is
   * not called, and `isHealthy` says so. When it does not, or throws, the manager restarts us. Where
   * the manager does not watch, there is no timer.
   */
  watch(isHealthy: () => boolean): void {
    if (this.#watchdogMs === undefined || this.#sender === undefined || this.#watchdog !== undefined) return
    const tell = (): void => {
      let healthy = false
      try {
        healthy = isHealthy()
      } catch {
        // Fail closed: what cannot say that it is well is not.
      }
      if (healthy) this.#tell('WATCHDOG=1')
    }
    tell()
    this.#watchdog = setInterval(tell, this.#watchdogMs).unref()
  }

  /** A manager that does not listen is no reason to stop. */
  #tell(...lines: string[]): void {
    this.#sender?.send(Buffer.from(lines.join('\n')))
  }

  [Symbol.dispose](): void {
    clearInterval(this.#watchdog)
    this.#sender?.[Symbol.dispose]()
  }
}

/** Pure. Half of the period; undefined: it is not ours, or none that makes sense. */
export function watchdogMs(
  { WATCHDOG_USEC: usec, WATCHDOG_PID: whose }: NotifyVariables,
  pid: number,
): number | undefined {
  if (whose !== undefined && parseWithin(PROCESS_IDS, whose) !== pid) return undefined
  const period = parseWithin(WATCHDOG_USEC, usec ?? '')
  return period === undefined ? undefined : Math.max(1, Math.floor(period / 2 / USEC_PER_MS))
}

/** Pure. A line break would begin another variable: it is escaped. */
export function statusLine(text: string): string {
  return `STATUS=${printable(text).slice(0, MAX_STATUS_CHARS)}`
}
