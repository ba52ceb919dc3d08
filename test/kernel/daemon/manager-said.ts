/**
 * In a process that was started with a socket: what src/daemon/activation.ts makes of it, as JSON.
 */
import { readFileSync } from 'node:fs'
import { takeActivationSockets } from '../../../src/daemon/activation.ts'

function said(): object {
  try {
    const sockets = takeActivationSockets(process.env, process.pid)
    const flags = sockets.map(
      ({ descriptor }) =>
        /^flags:\t0*(\d+)$/m.exec(readFileSync(`/proc/self/fdinfo/${descriptor}`, 'utf8'))?.[1],
    )
    return { sockets, closesOnExec: flags.map(octal => (Number.parseInt(octal!, 8) & 0o2000000) !== 0) }
  } catch (error) {
    return { refused: (error as Error).message }
  }
}
const before = said()
const left = Object.keys(process.env).filter(name => name.startsWith('LISTEN_'))
process.stdout.write(JSON.stringify({ ...before, left }))
