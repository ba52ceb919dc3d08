/**
 * Docker's containers, as its daemon tells by its socket: root's, or that of a user's rootless one.
 * Only fixed paths and ids that it gave are asked for.
 */
import { lstatSync } from 'node:fs'
import { get } from 'node:http'
import { FormatError, NotSupportedError, TimeoutError } from '../../errors.ts'
import { isWithin, PROCESS_IDS } from '../../uapi/number-range.ts'
import { CONTAINER_ID, type Container, isRecord, jsonFrom, namesFrom, recordsFrom } from './container-list.ts'
import type { Owner } from './recipient.ts'
import { runtimeDirectory } from './system-program.ts'

const SOCKETS = ['/run/docker.sock', '/var/run/docker.sock'] as const
const TIMEOUT_MS = 30_000
const MAX_ANSWER_BYTES = 16 << 20

/**
 * Those of whom `isMeant` says that it could be them; their details take a question each.
 * Undefined: no Docker runs here.
 */
export async function dockerContainers(
  owner: Owner | undefined,
  isMeant: (one: Container) => boolean,
): Promise<Container[] | undefined> {
  const socket = socketOf(owner)
  const list = socket && (await request(socket, '/containers/json?all=1'))
  if (socket === undefined || list === undefined) return undefined
  const all = parseDockerList(list)
  return Promise.all(
    all.map(async one => {
      const details = isMeant(one) ? await request(socket, `/containers/${one.id}/json`) : undefined
      return details === undefined ? one : parseDockerDetails(details, one)
    }),
  )
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
      startedAt: '',
    }
  })
}

/** What the list does not have. Pure. FormatError: it is of another container. */
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
    startedAt: String(startedAt),
  }
}

/** Undefined: nobody listens, or it has gone meanwhile. */
function request(socketPath: string, path: string): Promise<string | undefined> {
  return new Promise((resolve, reject) => {
    const asked = get({ socketPath, path, headers: { host: 'docker' }, timeout: TIMEOUT_MS }, response => {
      const parts: Buffer[] = []
      let bytes = 0
      response.on('data', (part: Buffer) => {
        parts.push(part)
        bytes += part.length
        if (bytes > MAX_ANSWER_BYTES)
          asked.destroy(new FormatError('Docker', `it answers with more than ${MAX_ANSWER_BYTES} bytes`))
      })
      response.once('error', reject)
      response.once('end', () => {
        const text = Buffer.concat(parts).toString()
        if (response.statusCode === 200) resolve(text)
        else if (response.statusCode === 404) resolve(undefined)
        else
          reject(
            new NotSupportedError(`Docker does not answer: status ${response.statusCode}`, {
              context: { socket: socketPath },
            }),
          )
      })
    })
    asked.once('timeout', () =>
      asked.destroy(new TimeoutError('Docker has not answered', { context: { socket: socketPath } })),
    )
    asked.once('error', error => {
      const { code } = error as NodeJS.ErrnoException
      if (code === 'ENOENT' || code === 'ECONNREFUSED') resolve(undefined)
      else reject(error)
    })
  })
}
