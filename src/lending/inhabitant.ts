/** Who is in a user namespace. */
import { allProcesses, userNamespaceOfProcess } from '../sys/tasks.ts'

/** A process in the user namespace `user:[INODE]`; undefined: there is none. */
export function inhabitantOf(userNamespace: string): number | undefined {
  for (const pid of allProcesses()) if (inhabits(pid, userNamespace)) return pid
  return undefined
}

/** False: it is in another, or there is no such process. */
export function inhabits(pid: number, userNamespace: string): boolean {
  return userNamespaceOfProcess(pid) === userNamespace
}
