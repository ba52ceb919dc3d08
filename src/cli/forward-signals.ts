/** Signals that come while a command runs: they are the command's. */

/** From a terminal these reach the command without us. */
const TYPED: readonly NodeJS.Signals[] = ['SIGINT', 'SIGQUIT']
const FORWARDED: readonly NodeJS.Signals[] = [...TYPED, 'SIGTERM', 'SIGHUP', 'SIGUSR1', 'SIGUSR2']

/**
 * Gives signals to us to the command, until this is disposed of: it ends, or goes on, and what is
 * known of it by then is told. So it is never left behind.
 */
export function forwardSignals(send: (signal: NodeJS.Signals) => void): Disposable {
  const isShared = process.stdin.isTTY === true
  const handlers = FORWARDED.map(signal => {
    const handler = (): void => {
      if (!isShared || !TYPED.includes(signal)) send(signal)
    }
    process.on(signal, handler)
    return () => process.off(signal, handler)
  })
  return {
    [Symbol.dispose]: () => {
      for (const remove of handlers) remove()
    },
  }
}
