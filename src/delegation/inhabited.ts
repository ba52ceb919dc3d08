/** Which user namespaces some task is in, and how to find that out without holding up the event loop. */
import { allProcesses, userNamespaceOfProcess } from '../sys/tasks.ts'
import { inSlices } from './slices.ts'

/**
 * Each as `user:[INODE]`, with a process that is in it. One that is held by a descriptor alone has no
 * task in it.
 */
export function inhabitedUserNamespaces(): Promise<ReadonlyMap<string, number>> {
  return inSlices(look())
}

function* look(): Generator<undefined, ReadonlyMap<string, number>> {
  const found = new Map<string, number>()
  for (const pid of allProcesses()) {
    const namespace = userNamespaceOfProcess(pid)
    if (namespace !== undefined && !found.has(namespace)) found.set(namespace, pid)
    yield
  }
  return found
}
