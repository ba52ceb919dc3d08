/**
 * Docker's containers, as the daemon at its socket describes them: root's daemon, or the rootless
 * one of a user. We ask only for fixed paths, and for ids that the daemon gave.
 */
import { lstatSync } from 'node:fs'
import { get } from 'node:http'
import { FormatError, NotSupportedError, TimeoutError } from '../../errors.ts'
import { isWithin, PROCESS_IDS } from '../../uapi/number-range.ts'
import { CONTAINER_ID, type Container, isRecord, jsonFrom, namesFrom, recordsFrom } from './container-list.ts'
import type { Owner } from './found.ts'
import { parseStartTime } from './start-time.ts'
import { runtimeDirectory } from './system-program.ts'

const SOCKETS = ['/run/docker.sock', '/var/run/docker.sock'] as const
/** The time for all questions together: as long as Podman gets. */
const TIMEOUT_MS = 30_000
const MAX_ANSWER_BYTES = 16 << 20

/** Docker's containers. The list does not tell the process of each. */
export interface DockerList {
  readonly containers: readonly Container[]
  /** The container with what Docker says of it beyond the list. */
  details(listed: Container): Promise<Container>
}

/**
 * Undefined: no Docker runs here. All questions together must be answered within `timeoutMs`:
 * TimeoutError. FormatError, NotSupportedError: it answers something else, or nothing.
 */
export async function askDocker(
  owner: Owner | undefined,
  timeoutMs: number = TIMEOUT_MS,
): Promise<DockerList | undefined> {
  const socket = socketOf(owner)
  return socket === undefined ? undefined : askDockerAt(socket, timeoutMs)
}

/** The same, of the daemon at this socket. */
export async function askDockerAt(
  socket: string,
  timeoutMs: number = TIMEOUT_MS,
): Promise<DockerList | undefined> {
  const deadline = AbortSignal.timeout(timeoutMs)
  const list = await request(socket, '/containers/json?all=1', deadline)
  if (list === undefined) return undefined
  return {
    containers: parseDockerList(list),
    details: async listed => {
      const text = await request(socket, `/containers/${listed.id}/json`, deadline)
      return text === undefined ? { ...listed, state: 'gone' } : parseDockerDetails(text, listed)
    },
  }
}

/** A user could put a link to another socket there. */
function socketOf(owner: Owner | undefined): string | undefined {
  if (owner === undefined)
    return SOCKETS.find(path => lstatSync(path, { throwIfNoEntry: false }) !== undefined)
  const directory = runtimeDirectory(owner)
  const path = `${directory}/docker.sock`
  const found = directory === undefined ? undefined : lstatSync(path, { throwIfNoEntry: false })
  return found?.isSocket() === true && found.uid === owner.uid ? path : undefined
}

/** Pure. FormatError: it is no answer of Docker's. */
export function parseDockerList(text: string): Container[] {
  return recordsFrom('Docker', text).map(({ Id: id, Names: names, State: state }) => {
    if (typeof id !== 'string' || !CONTAINER_ID.test(id))
      throw new FormatError('Docker', 'a container has no id')
    return {
      source: 'Docker',
      id,
      names: namesFrom(names),
      pid: undefined,
      state: typeof state === 'string' ? state : 'in an unknown state',
      startedAt: undefined,
    }
  })
}

/**
 * The container with the facts that the list lacks. Pure. FormatError: the answer is of another
 * container.
 */
export function parseDockerDetails(text: string, listed: Container): Container {
  const details = jsonFrom('Docker', text)
  const state = isRecord(details) ? details['State'] : undefined
  if (!isRecord(details) || !isRecord(state) || details['Id'] !== listed.id)
    throw new FormatError('Docker', 'the answer is not of the container that was asked for')
  const { Pid: pid, Running: running, Paused: paused, Status: status, StartedAt: startedAt } = state
  return {
    ...listed,
    pid: isWithin(PROCESS_IDS, pid) && running === true && paused !== true ? pid : undefined,
    state: typeof status === 'string' ? status : listed.state,
    startedAt: parseStartTime(startedAt),
  }
}

/**
 * Undefined: nobody listens, or the container has gone meanwhile. Settles whatever the daemon does.
 */
function request(socketPath: string, path: string, deadline: AbortSignal): Promise<string | undefined> {
  const context = { socket: socketPath }
  return new Promise((resolve, reject) => {
    const options = { socketPath, path, headers: { host: 'docker' }, agent: false, signal: deadline }
    const asked = get(options, response => {
      const parts: Buffer[] = []
      let bytes = 0
      response.on('data', (part: Buffer) => {
        parts.push(part)
        bytes += part.length
        if (bytes > MAX_ANSWER_BYTES) refuse(`it answers with more than ${MAX_ANSWER_BYTES} bytes`)
      })
      response.once('end', () => {
        if (response.statusCode === 200) resolve(Buffer.concat(parts).toString())
        else if (response.statusCode === 404) resolve(undefined)
        else reject(silent(`status ${response.statusCode}`))
      })
      // The request tells why, if it knows.
      response.on('error', () => {})
      response.once('close', () => setImmediate(refuse, 'the answer is cut short'))
    })
    const silent = (why: string, cause?: Error) =>
      new NotSupportedError(`Docker does not answer: ${why}`, {
        context,
        reason: 'names-unavailable',
        ...(cause === undefined ? {} : { cause }),
      })
    /** Nothing once it is settled. */
    const refuse = (why: string): void => {
      reject(new FormatError('Docker', why, { context }))
      asked.destroy()
    }
    // Node then gives neither a response nor an error.
    asked.once('upgrade', (_response, socket) => {
      socket.destroy()
      refuse('it answers in another protocol')
    })
    let answered = false
    asked.once('response', () => {
      answered = true
    })
    asked.once('close', () => {
      if (!answered) setImmediate(() => reject(silent('it closed the connection')))
    })
    asked.on('error', error => {
      const { code } = error as NodeJS.ErrnoException
      if (code === 'ENOENT' || code === 'ECONNREFUSED') resolve(undefined)
      else if (deadline.aborted) reject(new TimeoutError('Docker has not answered in time', { context }))
      else if (code?.startsWith('HPE_')) refuse('the answer is no HTTP')
      else if (code === 'ECONNRESET') reject(silent('it closed the connection', error))
      else reject(silent(error.message, error))
    })
  })
}
