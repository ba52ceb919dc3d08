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

/** Resolves once `fd` is readable; rejects with the signal's reason when it aborts first. */
export function readable(fd: Fd, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason)
    const watch = watchReadable(fd, () => done(resolve))
    const aborted = (): void => done(() => reject(signal?.reason))
    function done(finish: () => void): void {
      watch[Symbol.dispose]()
      signal?.removeEventListener('abort', aborted)
      finish()
    }
    signal?.addEventListener('abort', aborted)
  })
}
