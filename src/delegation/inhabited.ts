/** Which user namespaces some task is in, and how to find that out without holding up the event loop. */
import { readlinkSync } from 'node:fs'
import { allTasks, unlessGone } from '../sys/tasks.ts'
import { inSlices } from './slices.ts'

/** Each as `user:[INODE]`. One that is held by a descriptor alone has no task in it. */
export function inhabitedUserNamespaces(): Promise<ReadonlySet<string>> {
  return inSlices(look())
}

function* look(): Generator<undefined, ReadonlySet<string>> {
  const found = new Set<string>()
  for (const { directory } of allTasks()) {
    const namespace = unlessGone(() => readlinkSync(`${directory}/ns/user`))
    if (namespace !== undefined) found.add(namespace)
    yield
  }
  return found
}
