/** Which cgroup is to be watched, by its id; or which PID namespace where there is none. */
import { readFileSync, readlinkSync, statfsSync, statSync } from 'node:fs'
import { ConflictError, InputError, NotFoundError } from '../errors.ts'
import { cgroup2Path } from '../sys/proc-file.ts'
import { ownNamespace } from '../sys/self.ts'
import { CGROUP2_SUPER_MAGIC } from '../uapi/constants.ts'
import { CGROUP_ROOT } from '../uapi/kernel-paths.ts'

/** InputError: it is no directory of cgroup2. */
export function cgroupIdOf(directory: string): bigint {
  let inode: bigint
  try {
    if (statfsSync(directory).type === CGROUP2_SUPER_MAGIC) {
      inode = statSync(directory, { bigint: true }).ino
      return inode
    }
  } catch (cause) {
    throw new NotFoundError(`There is no cgroup ${directory}`, {
      cause,
      context: { cgroup: directory },
      hint: `Name a directory below ${CGROUP_ROOT}`,
    })
  }
  throw new InputError(`${directory} is no cgroup`, {
    context: { cgroup: directory },
    hint: `Name a directory below ${CGROUP_ROOT}, in cgroup version 2`,
  })
}

/**
 * Where a process runs: for a container, all of it. ConflictError: that is the root of all cgroups,
 * in which anything else may run, too.
 */
export function cgroupOfProcess(pid: number): string {
  const path = cgroup2Path(readFileSync(`/proc/${pid}/cgroup`, 'utf8'))
  if (path !== undefined && path !== '/' && !path.startsWith('/..')) return CGROUP_ROOT + path
  throw new ConflictError(`Process ${pid} has no cgroup of its own`, {
    context: { pid },
    hint: 'Name the process by its number instead',
  })
}

/** The inode number of the PID namespace that a process is in; undefined: it is in ours. */
export function otherPidNamespace(pid: number): number | undefined {
  const name = readlinkSync(`/proc/${pid}/ns/pid`)
  return name === ownNamespace('pid') ? undefined : Number(/\d+/.exec(name)![0])
}
