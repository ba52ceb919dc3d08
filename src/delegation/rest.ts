/**
 * Where the cgroup of a program can be. native/watch.c makes that cgroup, and kills all processes
 * that the program leaves behind in it.
 */
import { readFileSync, statSync } from 'node:fs'
import path from 'node:path'
import { NotSupportedError } from '../errors.ts'
import { type MountInfo, parseMountInfo } from '../sys/mountinfo.ts'
import { cgroup2Path } from '../sys/proc-file.ts'

/** Whom a program runs as. */
interface User {
  readonly uid: number
  readonly gid: number
}

/**
 * The directory of a cgroup that is to be made for a program of that user. It is below our own, so
 * that our limits hold for it. NotSupportedError: we are in no cgroup2 that is mounted, or in one
 * in which the user can move processes.
 */
export function planCgroup(user: User): string {
  const [mount] = parseMountInfo(readFileSync('/proc/self/mountinfo', 'utf8'), 'cgroup2')
  const own = mount && directoryOf(mount, readFileSync('/proc/self/cgroup', 'utf8'))
  if (own === undefined) throw restUnsupported('our own cgroup is in no mounted cgroup2')
  for (let directory = own; ; directory = path.dirname(directory)) {
    // Fail closed: a user who may write there can move processes out of the cgroup that we make.
    for (const name of ['cgroup.procs', 'cgroup.threads'])
      if (mayWrite(path.join(directory, name), user))
        throw restUnsupported(
          `the program could leave its cgroup, since its user may write to ${name} of ${directory}`,
        )
    if (directory === mount!.path || directory === '/') break
  }
  // It takes long to load, and few programs want such a cgroup.
  const { randomBytes } = process.getBuiltinModule('node:crypto')
  return path.join(own, `bpftoken-run-${process.pid}-${randomBytes(4).toString('hex')}`)
}

/** By the mode bits, and by the owner's right to change them; cgroup2 has no other access lists. */
function mayWrite(file: string, { uid, gid }: User): boolean {
  const stat = statSync(file, { throwIfNoEntry: false })
  if (stat === undefined) return false
  return stat.uid === uid || (stat.gid === gid && (stat.mode & 0o020) !== 0) || (stat.mode & 0o002) !== 0
}

export function restUnsupported(why: string, cause?: unknown): NotSupportedError {
  return new NotSupportedError(`What a program leaves behind cannot be killed here: ${why}`, {
    cause,
    hint: 'Start it in a cgroup2 that root alone can write to (Linux 5.14 or newer)',
  })
}

/**
 * Where the cgroup2 of /proc/PID/cgroup is in this mount; undefined where the mount does not show
 * it.
 */
export function directoryOf(mount: Pick<MountInfo, 'root' | 'path'>, procCgroup: string): string | undefined {
  const own = cgroup2Path(procCgroup)
  if (own === undefined || !own.startsWith('/') || own.endsWith(' (deleted)')) return undefined
  const below = path.posix.relative(mount.root, own)
  if (below === '..' || below.startsWith('../') || own.startsWith('/..')) return undefined
  return path.posix.join(mount.path, below)
}
