/**
 * Whether a file lies in a file system that always answers. One that another mount namespace has of
 * its own may be served by whoever made it (FUSE, or an overlay on it). Who uses it may wait for ever
 * then, and SIGKILL does not help.
 */
import { constants, readFileSync } from 'node:fs'
import type { SyscallError } from '../../errors.ts'
import type { Fd } from '../../sys/fd.ts'
import { heldMountId, open } from '../../sys/open.ts'
import { O_CLOEXEC, O_DIRECTORY, O_PATH, RESOLVE_CACHED } from '../../uapi/constants.ts'

/** The kernel serves these itself, whoever has mounted them. */
const KERNELS: ReadonlySet<string> = new Set([
  ...['bpf', 'cgroup', 'cgroup2', 'debugfs', 'devpts', 'mqueue', 'proc', 'ramfs', 'securityfs', 'sysfs'],
  ...['tmpfs', 'tracefs'],
])

/** `mountinfo`: of a process in whose mount namespace the file is; elsewhere it counts as not answering. */
export function answers(file: Fd, mountinfo: string): boolean {
  const mount = mountOf(file, mountinfo)
  if (mount === undefined) return false
  const type = typeOf(mount)
  if (KERNELS.has(type)) return true
  // Of a device that is mounted here, too, root is answerable.
  const [, , device] = fieldsOf(mount)
  const ours = readFileSync('/proc/self/mountinfo', 'latin1').split('\n')
  return !type.startsWith('fuse') && ours.some(line => fieldsOf(line)[2] === device)
}

/** The type of the file system that it is in: `bpf`. Undefined: that is mounted elsewhere. */
export function fileSystemOf(file: Fd, mountinfo: string): string | undefined {
  const mount = mountOf(file, mountinfo)
  return mount === undefined ? undefined : typeOf(mount)
}

function mountOf(file: Fd, mountinfo: string): string | undefined {
  const id = String(heldMountId(file))
  return mountinfo.split('\n').find(line => fieldsOf(line)[0] === id)
}

function typeOf(mount: string): string {
  return mount.slice(mount.indexOf(' - ') + 3).split(' ')[0]!
}

/** Mount, parent, device. */
function fieldsOf(line: string): string[] {
  return line.split(' ', 3)
}

/**
 * The directory at a path without symbolic links, O_PATH, as mountinfo has it. No file system is
 * asked for a name but those that answer: where something is mounted, the kernel knows the way by
 * itself. The caller closes it. `passes`: each directory on the way. EAGAIN: it cannot be reached so;
 * ENOENT: it is not there.
 */
export function openAnswering(
  root: Fd,
  path: string,
  mountinfo: string,
  passes: (directory: Fd, path: string) => void = () => {},
): Fd {
  let at = open('.', FLAGS, RESOLVE_CACHED, root)
  let passed = ''
  for (const name of path.split('/').filter(one => one !== '')) {
    using from = at
    passes(from, passed === '' ? '/' : passed)
    passed += `/${name}`
    at = openNext(from, name, mountinfo)
  }
  return at
}

const FLAGS = O_PATH | O_DIRECTORY | O_CLOEXEC | constants.O_NOFOLLOW

function openNext(from: Fd, name: string, mountinfo: string): Fd {
  try {
    return open(name, FLAGS, RESOLVE_CACHED, from)
  } catch (error) {
    if ((error as SyscallError).errnoName !== 'EAGAIN' || !answers(from, mountinfo)) throw error
    return open(name, FLAGS, 0, from)
  }
}
