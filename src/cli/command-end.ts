/** Waits for a command that is run for its answer, and gives it the signals that are for it. */
import type { HeldCommand } from '../record/held-command.ts'

/** From a terminal these reach the command without us. */
const TYPED: readonly NodeJS.Signals[] = ['SIGINT', 'SIGQUIT']
const FORWARDED: readonly NodeJS.Signals[] = [...TYPED, 'SIGTERM', 'SIGHUP', 'SIGUSR1', 'SIGUSR2']

/**
 * The command's exit status. Signals to us are the command's meanwhile: it ends, or goes on, and what
 * is known of it by then is told. So it is never left behind.
 */
export async function endOf(command: HeldCommand): Promise<number> {
  const isShared = process.stdin.isTTY === true
  const handlers = FORWARDED.map(signal => {
    const handler = (): void => {
      if (!isShared || !TYPED.includes(signal)) command.signal(signal)
    }
    process.on(signal, handler)
    return () => process.off(signal, handler)
  })
  try {
    return await command.ended
  } finally {
    for (const remove of handlers) remove()
  }
}
