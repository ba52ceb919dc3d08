/** Which user namespaces some task is in, and how to find that out without holding up the event loop. */
import { allProcesses, userNamespaceOfProcess } from '../sys/tasks.ts'
import { inSlices } from './slices.ts'

/** Each as `user:[INODE]`. One that is held by a descriptor alone has no task in it. */
export function inhabitedUserNamespaces(): Promise<ReadonlySet<string>> {
  return inSlices(look())
}

function* look(): Generator<undefined, ReadonlySet<string>> {
  const found = new Set<string>()
  for (const pid of allProcesses()) {
    const namespace = userNamespaceOfProcess(pid)
    if (namespace !== undefined) found.add(namespace)
    yield
  }
  return found
}
