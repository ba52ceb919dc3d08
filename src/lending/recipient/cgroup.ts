/**
 * The process of a cgroup that can be lent to: one in another user namespace than ours. If such
 * processes are in several user or mount namespaces, the recipient is ambiguous.
 */
import { readdirSync, readFileSync, type StatsFs, statfsSync } from 'node:fs'
import { isAbsolute, join } from 'node:path'
import { ConflictError, InputError, NotFoundError } from '../../errors.ts'
import { namespaceOfTask } from '../../sys/namespace.ts'
import { procNumbers } from '../../sys/proc-file.ts'
import { requireOwnProc } from '../../sys/process.ts'
import { ownNamespace } from '../../sys/self.ts'
import { unlessGone } from '../../sys/tasks.ts'
import { CGROUP2_SUPER_MAGIC } from '../../uapi/constants.ts'
import { CGROUP_ROOT } from '../../uapi/kernel-paths.ts'
import type { Found } from './found.ts'

/** Where version 2 is mounted: alone, or beside version 1. */
const ROOTS = [CGROUP_ROOT, `${CGROUP_ROOT}/unified`] as const

/** Undefined: this machine has no cgroups of version 2. */
export function cgroupRoot(): string | undefined {
  return ROOTS.find(root => unlessGone(() => isCgroup2(root)) === true)
}

export function processOfCgroup(directory: string): Found {
  if (!isAbsolute(directory) || unlessMissing(directory, () => isCgroup2(directory)) === false)
    throw new InputError(`${JSON.stringify(directory)} is no cgroup`, {
      context: { cgroup: directory },
      hint: `Name a directory in cgroup version 2${cgroupRoot() === undefined ? '' : `, below ${cgroupRoot()}`}`,
    })
  return processWithin(directory, `cgroup ${directory}`)
}

/**
 * The process of this cgroup or of one below it. `what` names the cgroup in messages. `main` is
 * taken before the others if it can be lent to.
 */
export function processWithin(directory: string, what: string, main?: number): Found {
  const members = unlessMissing(directory, () => membersOf(directory))
  const ours = ownNamespace('user')
  const leader = members.filter(({ pid, userNamespace }) => pid === main && userNamespace !== ours)
  return chooseMember(leader.length > 0 ? leader : members, ours, what, { cgroup: directory })
}

export interface Member {
  readonly pid: number
  /** What it calls itself. */
  readonly name: string
  /** `user:[N]`. */
  readonly userNamespace: string
  readonly mountNamespace: string
}

/**
 * Pure. The first process outside of the namespace `ours`, if all processes outside are in the same
 * namespaces.
 */
export function chooseMember(
  members: readonly Member[],
  ours: string,
  what: string,
  context: Readonly<Record<string, string>>,
): Found {
  const others = members.filter(({ userNamespace }) => userNamespace !== ours)
  const firsts = new Map<string, Member>()
  for (const one of others) {
    const key = `${one.userNamespace} ${one.mountNamespace}`
    const first = firsts.get(key)
    if (first === undefined || one.pid < first.pid) firsts.set(key, one)
  }
  const [first] = firsts.values()
  if (members.length === 0)
    throw new ConflictError(`In ${what} no process runs`, { context, hint: 'Start it first' })
  if (first === undefined)
    throw new ConflictError(`In ${what} no process has a user namespace of its own: ${described(members)}`, {
      context,
      hint: 'A token works only in one: start it with PrivateUsers= and DelegateNamespaces=mnt (systemd) or --userns=auto (Podman)',
    })
  if (firsts.size > 1)
    throw new ConflictError(
      `In ${what} there are processes in ${firsts.size} different user or mount namespaces: ${described([...firsts.values()])}`,
      { context, reason: 'name-ambiguous' },
    )
  return {
    pid: first.pid,
    what: `${what}, process ${first.pid} ${JSON.stringify(first.name)}`,
    identity: `${context['cgroup']} ${first.pid} ${first.userNamespace} ${first.mountNamespace}`,
  }
}

const SHOWN = 8
const SHOWN_CHARS = 120

function described(members: readonly Member[]): string {
  const shown = members.slice(0, SHOWN).map(({ pid, name }) => `${pid} ${JSON.stringify(name)}`)
  return [...shown, ...(members.length > SHOWN ? [`and ${members.length - SHOWN} more`] : [])].join(', ')
}

function membersOf(directory: string): Member[] {
  requireOwnProc()
  return [...processesIn(directory)].flatMap(pid => {
    const name = unlessGone(() => readFileSync(`/proc/${pid}/comm`, 'utf8').replace(/\n$/, ''))
    const userNamespace = namespaceOfTask(pid, 'user')
    const mountNamespace = namespaceOfTask(pid, 'mnt')
    if (name === undefined || userNamespace === undefined || mountNamespace === undefined) return []
    return [{ pid, name, userNamespace, mountNamespace }]
  })
}

/**
 * The numbers of the processes; 0 is a process of another PID namespace. ConflictError: cgroups
 * below have longer paths than can be named, so there may be more processes.
 */
function* processesIn(directory: string): Generator<number> {
  // A cgroup of threads has no such list: EOPNOTSUPP. Its processes are in the one above.
  const text = unlessThreaded(() =>
    wholly(directory, () => readFileSync(join(directory, 'cgroup.procs'), 'utf8')),
  )
  yield* (procNumbers(text.replaceAll('\n', ' ')) ?? []).filter(pid => pid > 0)
  for (const entry of wholly(directory, () => readdirSync(directory, { withFileTypes: true })))
    if (entry.isDirectory()) {
      const below = unlessGone(() => [...processesIn(join(directory, entry.name))])
      yield* below ?? []
    }
}

function unlessThreaded(read: () => string): string {
  try {
    return read()
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EOPNOTSUPP') return ''
    throw error
  }
}

/** A workload that may make cgroups can make them deeper than any path reaches. */
function wholly<T>(directory: string, look: () => T): T {
  try {
    return look()
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENAMETOOLONG') throw error
    const start = directory.slice(0, SHOWN_CHARS)
    throw new ConflictError(
      `Cgroups lie too deep to be looked into, so that nobody can say which process is meant: those below ${JSON.stringify(start)}`,
      {
        context: { cgroup: start },
        reason: 'name-ambiguous',
      },
    )
  }
}

/**
 * All directories of this name below `directory`; none if `directory` does not exist.
 * ConflictError: not all can be looked into.
 */
export function findBelow(directory: string, name: string): string[] {
  const entries =
    unlessGone(() => wholly(directory, () => readdirSync(directory, { withFileTypes: true }))) ?? []
  return entries
    .filter(entry => entry.isDirectory())
    .flatMap(entry => {
      const path = join(directory, entry.name)
      return entry.name === name ? [path] : findBelow(path, name)
    })
}

function isCgroup2(directory: string): boolean {
  const { type }: StatsFs = statfsSync(directory)
  return type >>> 0 === CGROUP2_SUPER_MAGIC
}

function unlessMissing<T>(directory: string, look: () => T): T {
  try {
    return look()
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (!['ENOENT', 'ENODEV', 'ENOTDIR'].includes(code ?? '')) throw error
    throw new NotFoundError(`There is no cgroup ${JSON.stringify(directory)}`, {
      context: { cgroup: directory },
      cause: error,
    })
  }
}
