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
 * Aborted by SIGINT, SIGTERM or SIGHUP. From here on these signals end this process in no other
 * way. Once everything is done they change nothing, because a status that says "interrupted" would
 * be wrong.
 */
export function interruption(): AbortSignal {
  const abort = new AbortController()
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
    process.on(signal, () => abort.abort(new Interrupted(signal)))
  // While Node shuts down, signals get back their default action. Exiting in this event skips that.
  process.once('exit', status => process.exit(status))
  return abort.signal
}
