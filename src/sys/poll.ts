/** Waiting for a descriptor to become readable, on Node's event loop and without a thread. */
import type { Fd } from './fd.ts'
import { native } from './native.ts'

export interface Watch extends Disposable {
  /** Whether Node stays alive for it; at first it does. */
  keepAlive(keeps: boolean): void
}

/**
 * Calls `ready` whenever `fd` is readable, until disposed of. Keeps the process alive meanwhile,
 * unless told otherwise.
 */
export function watchReadable(fd: Fd, ready: () => void): Watch {
  let handle: unknown = native().pollStart(fd.number, () => ready())
  return {
    keepAlive(keeps) {
      if (handle !== undefined) native().pollKeepAlive(handle, keeps)
    },
    [Symbol.dispose]() {
      if (handle !== undefined) native().pollStop(handle)
      handle = undefined
    },
  }
}

/** Resolves once `fd` is readable; rejects with the reason of the signal that aborts before. */
export function readable(fd: Fd, ...signals: readonly (AbortSignal | undefined)[]): Promise<void> {
  return new Promise((resolve, reject) => {
    const aborted = signals.find(signal => signal?.aborted)
    if (aborted !== undefined) return reject(aborted.reason)
    const watch = watchReadable(fd, () => done(resolve))
    const abort = (event: Event): void => done(() => reject((event.target as AbortSignal).reason))
    function done(finish: () => void): void {
      watch[Symbol.dispose]()
      for (const signal of signals) signal?.removeEventListener('abort', abort)
      finish()
    }
    for (const signal of signals) signal?.addEventListener('abort', abort)
  })
}
