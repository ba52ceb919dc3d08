/** A command that a signal ended before it was done; all it had begun is undone. */
import { constants } from 'node:os'

export class Interrupted extends Error {
  readonly exitStatus: number

  constructor(signal: NodeJS.Signals) {
    super(`interrupted by ${signal}`)
    this.name = 'Interrupted'
    this.exitStatus = 128 + constants.signals[signal]
  }
}

/**
 * Aborted by SIGINT, SIGTERM or SIGHUP, which from here on end this process no other way. Once all
 * is done they change nothing: a status that says "interrupted" would be wrong.
 */
export function interruption(): AbortSignal {
  const abort = new AbortController()
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
    process.on(signal, () => abort.abort(new Interrupted(signal)))
  // While Node takes itself down, signals get back their default action. To exit in this event
  // leaves that out.
  process.once('exit', status => process.exit(status))
  return abort.signal
}
