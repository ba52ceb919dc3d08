/** Sockets that the service manager opened for us: sd_listen_fds(3), without systemd's library. */
import { InputError } from '../errors.ts'
import { markCloseOnExec } from '../sys/inheritance.ts'
import { isListeningUnixStream } from '../sys/socket.ts'
import { type NumberRange, PROCESS_IDS, parseWithin } from '../uapi/number-range.ts'

/** Of the environment. */
export type ActivationVariables = Record<string, string | undefined>

export interface ActivationSocket {
  readonly descriptor: number
  /** `FileDescriptorName=` of the unit; undefined: it gives none. */
  readonly name: string | undefined
}

const FIRST = 3
const COUNTS: NumberRange = { min: 0, max: 16 }
const VARIABLES = ['LISTEN_FDS', 'LISTEN_PID', 'LISTEN_FDNAMES', 'LISTEN_PIDFDID']
const MAX_NAMES = 16 * 256

/**
 * Pure: which descriptors the environment says are sockets for the process `pid`. InputError: what
 * it says makes no sense. None: it says nothing, or says it to another process.
 */
export function activationSockets(variables: ActivationVariables, pid: number): ActivationSocket[] {
  const { LISTEN_FDS: fds, LISTEN_PID: whose, LISTEN_FDNAMES: named } = variables
  if (fds === undefined || whose === undefined) return []
  const to = parseWithin(PROCESS_IDS, whose)
  const count = parseWithin(COUNTS, fds)
  if (to === undefined) throw new InputError('LISTEN_PID is not the number of a process')
  if (to !== pid) return []
  if (count === undefined) throw new InputError(`LISTEN_FDS is not a number up to ${COUNTS.max}`)
  if (named !== undefined && (named.length > MAX_NAMES || !/^[\x20-\x7e]*$/.test(named)))
    throw new InputError('LISTEN_FDNAMES is too long, or not of printable characters')
  const names = named?.split(':')
  if (names !== undefined && count > 0 && names.length !== count)
    throw new InputError(`LISTEN_FDNAMES has ${names.length} names, and LISTEN_FDS says ${count}`)
  return Array.from({ length: count }, (_, i) => ({ descriptor: FIRST + i, name: names?.[i] }))
}

/**
 * The sockets that are meant for us, not to be inherited by what we start. What the environment
 * says of them is removed from `variables`, so that no child believes it. InputError: it makes no
 * sense, or one of them is not a Unix stream socket that listens.
 */
export function takeActivationSockets(variables: ActivationVariables, pid: number): ActivationSocket[] {
  try {
    const sockets = activationSockets(variables, pid)
    if (sockets.length > 0) markCloseOnExec(FIRST, FIRST + sockets.length - 1)
    for (const { descriptor } of sockets)
      if (!isListeningUnixStream(descriptor))
        throw new InputError(`Descriptor ${descriptor} is no Unix stream socket that listens`, {
          context: { descriptor },
          hint: 'Use ListenStream= with a path in the socket unit, and Accept=no',
        })
    return sockets
  } finally {
    for (const name of VARIABLES) delete variables[name]
  }
}
