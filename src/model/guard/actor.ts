/** Who calls, as the guard sees a task. */
import { INITIAL, type Task, type UserNamespace } from '../task.ts'

/** A cgroup by its place; the root has no parent. */
export interface Cgroup {
  readonly name: string
  readonly parent?: Cgroup
}

export const ROOT_CGROUP: Cgroup = { name: '/' }

export interface Actor {
  /** One process: marks of a context are its own. */
  readonly process: string
  readonly task: Task
  readonly cgroup: Cgroup
  /** Whether its network namespace is the host's. */
  readonly inHostNetwork: boolean
  /** Whether its table of descriptors is also another task's, such as a thread's of its own. */
  readonly sharesDescriptors?: boolean
}

/** CAP_SYS_ADMIN over the machine. */
export function isHostAdmin({ task }: Actor): boolean {
  return task.userNamespace === INITIAL && task.capabilities.has('sys_admin')
}

/** The host's root, for bpf(2): who may load and attach on the machine without anybody's token. */
export function isHostRoot({ task }: Actor): boolean {
  const { capabilities, userNamespace } = task
  return userNamespace === INITIAL && (capabilities.has('sys_admin') || capabilities.has('bpf'))
}

/** Whether the task is in a user namespace, or in one below it. */
export function isInside({ task }: Actor, ns: UserNamespace): boolean {
  for (let at: UserNamespace | undefined = task.userNamespace; at !== undefined; at = at.parent)
    if (at === ns) return true
  return false
}

/** Whether a cgroup is another one, or below it. */
export function isBelow(cgroup: Cgroup, other: Cgroup): boolean {
  for (let at: Cgroup | undefined = cgroup; at !== undefined; at = at.parent) if (at === other) return true
  return false
}
