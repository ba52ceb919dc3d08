/** Cgroups (version 2) as the guard knows them: by id, which is the inode number, and depth. */
import {
  closeSync,
  constants,
  openSync,
  readdirSync,
  readFileSync,
  realpathSync,
  type StatsFs,
  statfsSync,
  statSync,
} from 'node:fs'
import path from 'node:path'
import { InputError, NotFoundError, NotSupportedError } from '../errors.ts'
import { procFields } from '../sys/proc-file.ts'
import { CGROUP2_SUPER_MAGIC } from '../uapi/constants.ts'
import { CGROUP_ROOT } from '../uapi/kernel-paths.ts'
import type { CgroupId } from './id.ts'
import { GUARD_CGROUP_LEVELS } from './layout.ts'

/** Of the root of all cgroups. */
export const ROOT_CGROUP_ID = 1n as CgroupId

export interface Cgroup {
  readonly id: CgroupId
  /** 0: the root. */
  readonly level: number
}

/**
 * Finds a cgroup by any path to it. The guard looks for a cgroup at its level only. So the level is
 * counted on the kernel's own path: `.`, `..`, links and bind mounts in the given path would count
 * as levels that do not exist. NotFoundError: there is no such directory. InputError: not one of
 * cgroup2, mounted there from elsewhere, or too deep for the guard.
 */
export function findCgroup(directory: string): Cgroup {
  if (!path.isAbsolute(directory)) throw new InputError(`The cgroup ${directory} is not an absolute path`)
  if (isOther(directory))
    throw new InputError(`${directory} is no cgroup`, {
      context: { cgroup: directory },
      hint: `Name a directory below ${CGROUP_ROOT}, in cgroup version 2`,
    })
  const real = realPath(directory)
  const id = inodeOf(real)
  let level = 0
  let at = real
  for (; inodeOf(at) !== ROOT_CGROUP_ID; at = path.dirname(at)) {
    // The root of a cgroup namespace: what is above cannot be seen.
    if (isOther(path.dirname(at)))
      throw new NotSupportedError(`${at} is not the root of the machine's cgroups`, {
        context: { cgroup: directory },
        hint: 'Run this outside of any container',
      })
    level++
  }
  // On one mount there is one path from the root to it.
  if (mountOf(real) !== mountOf(at))
    throw new InputError(`${directory} is a cgroup that is mounted there from elsewhere`, {
      context: { cgroup: directory },
      hint: `Name it by its own path below ${CGROUP_ROOT}`,
    })
  if (level >= GUARD_CGROUP_LEVELS)
    throw new InputError(
      `${directory} is ${level} levels deep, and the guard knows ${GUARD_CGROUP_LEVELS - 1}`,
      {
        context: { cgroup: directory, level },
      },
    )
  return { id, level }
}

/** The directories of these cgroups; a cgroup that is gone is left out. */
export function cgroupPaths(ids: ReadonlySet<CgroupId>, root: string = CGROUP_ROOT): Map<CgroupId, string> {
  const found = new Map<CgroupId, string>()
  const walk = (directory: string): void => {
    const id = inodeOrNull(directory)
    if (id === undefined) return
    if (ids.has(id)) found.set(id, directory)
    for (const child of subdirectories(directory)) if (found.size < ids.size) walk(child)
  }
  if (ids.size > 0) walk(root)
  return found
}

/** The first cgroup of this name; undefined: there is none. */
export function cgroupNamed(name: string, root: string = CGROUP_ROOT): string | undefined {
  for (const child of subdirectories(root)) {
    const found = path.basename(child) === name ? child : cgroupNamed(name, child)
    if (found !== undefined) return found
  }
  return undefined
}

function isOther(directory: string): boolean {
  return typeOf(directory).type >>> 0 !== CGROUP2_SUPER_MAGIC
}

function typeOf(directory: string): StatsFs {
  try {
    return statfsSync(directory)
  } catch (error) {
    throw notThere(directory, error)
  }
}

function realPath(directory: string): string {
  try {
    return realpathSync(directory)
  } catch (error) {
    throw notThere(directory, error)
  }
}

/** The id of the mount that the directory is on. */
function mountOf(directory: string): string | undefined {
  const fd = openSync(directory, constants.O_RDONLY | constants.O_DIRECTORY)
  try {
    return procFields(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8')).get('mnt_id')
  } finally {
    closeSync(fd)
  }
}

function inodeOf(directory: string): CgroupId {
  try {
    return statSync(directory, { bigint: true }).ino as CgroupId
  } catch (error) {
    throw notThere(directory, error)
  }
}

function notThere(directory: string, error: unknown): unknown {
  if ((error as NodeJS.ErrnoException).code !== 'ENOENT') return error
  return new NotFoundError(`There is no cgroup ${directory}`, {
    context: { cgroup: directory },
    cause: error,
  })
}

/** Cgroups may be removed while we look. */
function inodeOrNull(directory: string): CgroupId | undefined {
  return statSync(directory, { bigint: true, throwIfNoEntry: false })?.ino as CgroupId | undefined
}

function subdirectories(directory: string): string[] {
  try {
    return readdirSync(directory, { withFileTypes: true })
      .filter(entry => entry.isDirectory())
      .map(({ name }) => path.join(directory, name))
  } catch (error) {
    if (['ENOENT', 'ENODEV'].includes((error as NodeJS.ErrnoException).code ?? '')) return []
    throw error
  }
}
