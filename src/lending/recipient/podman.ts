/**
 * Podman's containers, as `podman ps` lists them: root's, or those of a user. Its own state lies in
 * databases whose form changes between versions; this answer does not.
 */
import { FormatError } from '../../errors.ts'
import { isWithin, PROCESS_IDS } from '../../uapi/number-range.ts'
import { systemProgram } from '../program-path.ts'
import { CONTAINER_ID, type Container, namesFrom, recordsFrom } from './container-list.ts'
import type { Owner } from './found.ts'
import { parseStartTime } from './start-time.ts'
import { ask } from './system-program.ts'

const LIST = ['ps', '--all', '--no-trunc', '--format', 'json'] as const

/** Undefined: there is no Podman here. */
export async function podmanContainers(owner: Owner | undefined): Promise<Container[] | undefined> {
  const podman = systemProgram('podman')
  return podman === undefined ? undefined : parsePodmanList(await ask(podman, LIST, owner))
}

/** Pure. FormatError: it is no answer of Podman's. */
export function parsePodmanList(text: string): Container[] {
  return recordsFrom('podman ps', text).map(one => {
    const { Id: id, Names: names, Pid: pid, State: state, StartedAt: startedAt } = one
    if (typeof id !== 'string' || !CONTAINER_ID.test(id))
      throw new FormatError('podman ps', 'a container has no id')
    return {
      source: 'Podman',
      id,
      names: namesFrom(names),
      pid: isWithin(PROCESS_IDS, pid) && state === 'running' ? pid : undefined,
      state: typeof state === 'string' ? state : 'in an unknown state',
      startedAt: parseStartTime(startedAt),
    }
  })
}
