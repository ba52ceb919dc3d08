/**
 * Who is to get a delegation: what the kernel says of a process that runs, or of the program that
 * `run` will start. Nothing that the process says of itself is believed. A fact that is not certain
 * is unknown, and an unknown fact matches no policy.
 */
import { readFileSync, readlinkSync, realpathSync } from 'node:fs'
import { BpftokenError, ConflictError, NotFoundError, TimeoutError } from '../errors.ts'
import type { Policy } from '../policy/policy.ts'
import { type Fact, type Identity, namesIn, type SubjectFacts, unitOfCgroup } from '../policy/subject.ts'
import { openInTime, readInTime } from '../sys/in-time.ts'
import { isOurMount } from '../sys/mount-table.ts'
import { heldNamespaceName } from '../sys/namespace.ts'
import { uniqueMountId } from '../sys/open.ts'
import { cgroup2Path, type ProcFields, procFields, procNumbers } from '../sys/proc-file.ts'
import { type ProcessHandle, readProc } from '../sys/process.ts'
import {
  INITIAL_CGROUP_NAMESPACE,
  INITIAL_USER_NAMESPACE,
  inInitialUserNamespace,
  ownNamespace,
} from '../sys/self.ts'

/** The users and groups of this machine; undefined where there is none of that name. */
export interface Accounts {
  uidOf(name: string): number | undefined
  gidOf(name: string): number | undefined
}

/** The program that is to be started, and as whom. It gets no supplementary groups. */
export interface ProgramToRun {
  readonly uid: number
  readonly gid: number
  /** The program as it is named on the command line. */
  readonly program: string
}

/**
 * The part of a policy, or of several, that is asked for here: the users and groups that it names.
 */
type Named = Pick<Policy, 'subjects'>

/**
 * What the kernel says of a process, of what the policy asks for. NotFoundError: it has exited.
 * Its executable and label are not looked for: the process could have us wait (`subjectInTime`).
 */
export function subjectOf(process: ProcessHandle, policy: Named, accounts: Accounts): SubjectFacts {
  const label = { unknown: 'it is not looked for here' }
  return { ...factsAtOnce(process, policy, accounts), executable: UNBELIEVED, label }
}

/** The same of a process that nobody may have us wait for, and with what `shownInTime` gives. */
export async function subjectInTime(
  process: ProcessHandle,
  policy: Named,
  accounts: Accounts,
  timeoutMs: number,
): Promise<SubjectFacts> {
  const shown = await shownInTime(process, policy, timeoutMs)
  return subjectAgain(process, policy, accounts, shown)
}

/** What only a look tells that the process could have wait. */
export type Shown = Pick<SubjectFacts, 'executable' | 'label'>

/**
 * Its executable and its label, each where the policy asks for it: a look that nobody needs would
 * let whoever hangs hold up what has nothing to do with it. What cannot be had in time is unknown.
 */
export async function shownInTime(process: ProcessHandle, policy: Named, timeoutMs: number): Promise<Shown> {
  const asked = (name: 'executable' | 'label'): boolean =>
    policy.subjects?.some(subject => subject[name] !== undefined) === true
  const executable = asked('executable')
    ? await attemptLater(() => executableOf(process, timeoutMs))
    : NOT_ASKED_FOR
  const label = asked('label')
    ? await attemptLater(
        async () => withoutLabels() ?? labelFrom(await readInTime(process, 'attr/current', timeoutMs)),
      )
    : NOT_ASKED_FOR
  return { executable, label }
}

/** The subject at once: what only a look tells that can wait is as it was `before`. */
export function subjectAgain(
  process: ProcessHandle,
  policy: Named,
  accounts: Accounts,
  { executable, label }: Shown,
): SubjectFacts {
  return { ...factsAtOnce(process, policy, accounts), executable, label }
}

/**
 * A container that is being made. Its first process is still its runtime's: whom it will run as, and
 * what, is not what the kernel says now. `told` is the runtime's own word.
 */
export function subjectOfContainer(
  process: ProcessHandle,
  told: Pick<SubjectFacts, 'container' | 'kubernetes'>,
): SubjectFacts {
  const unborn = { unknown: 'it is not known before the container runs' }
  return {
    ...{ user: unborn, groups: unborn, executable: unborn, label: unborn },
    ...cgroupOf(process),
    ...told,
  }
}

/** Where it runs. NotFoundError: it has exited. */
export function cgroupOf(process: ProcessHandle): Pick<SubjectFacts, 'cgroup' | 'unit'> {
  const cgroup = attempt(() => cgroupFrom(readProc(process, 'cgroup')))
  return { cgroup, unit: unitFrom(cgroup) }
}

/**
 * What does not wait for the process, for its memory or for a file system of its: status and cgroup
 * take neither the mmap_lock of the process, which it can have held as long as it likes by a page
 * fault in a FUSE file (cmdline, environ and maps take it), nor what an execve(2) holds.
 */
function factsAtOnce(
  process: ProcessHandle,
  policy: Named,
  accounts: Accounts,
): Omit<SubjectFacts, 'executable' | 'label'> {
  const status = procFields(readProc(process, 'status'))
  return {
    ...accountsOf(idsFrom(status, 'Uid'), groupsFrom(status), policy, accounts),
    ...cgroupOf(process),
  }
}

/** What is known of a program before it runs. It will run in our own cgroup. */
export function subjectToRun(
  { uid, gid, program }: ProgramToRun,
  policy: Named,
  accounts: Accounts,
): SubjectFacts {
  const cgroup = attempt(() => cgroupFrom(readFileSync('/proc/self/cgroup', 'utf8')))
  return {
    ...accountsOf({ is: uid }, { is: [gid] }, policy, accounts),
    cgroup,
    unit: unitFrom(cgroup),
    executable: attempt(() => programFrom(program)),
    label: { unknown: 'it is not known before the program runs' },
  }
}

function accountsOf(
  uid: Fact<number>,
  gids: Fact<readonly number[]>,
  policy: Named,
  { uidOf, gidOf }: Accounts,
): Pick<SubjectFacts, 'user' | 'groups'> {
  const { users, groups } = namesIn(policy)
  const user = namesById(users, uidOf)
  const group = namesById(groups, gidOf)
  return {
    user: 'unknown' in uid ? uid : { is: user(uid.is) },
    groups: 'unknown' in gids ? gids : { is: gids.is.map(group) },
  }
}

/**
 * Names are turned into ids, and never back: if two users have one name, the system means the
 * first. Each name is looked up once, however many groups a process has (up to 65,536).
 */
function namesById(
  names: ReadonlySet<string>,
  idOf: (name: string) => number | undefined,
): (id: number) => Identity {
  const known = new Map<number | undefined, string[]>()
  for (const name of names) {
    const id = idOf(name)
    known.set(id, [...(known.get(id) ?? []), name])
  }
  return id => ({ id, names: known.get(id) ?? [] })
}

/** The fields of /proc/PID/status. */
type Status = ProcFields

/**
 * The id of a line of /proc/PID/status, if all four are the same: real, effective, saved, file
 * system.
 */
function idsFrom(status: Status, line: 'Uid' | 'Gid'): Fact<number> {
  if (!inInitialUserNamespace()) return { unknown: 'ids are not those of the initial user namespace here' }
  const ids = procNumbers(status.get(line) ?? '')
  const [real] = ids ?? []
  if (ids?.length !== 4 || real === undefined) return { unknown: `the kernel gives no ${line}` }
  return ids.every(id => id === real)
    ? { is: real }
    : { unknown: `real, effective, saved and file system id differ: ${ids.join(' ')}` }
}

function groupsFrom(status: Status): Fact<readonly number[]> {
  const primary = idsFrom(status, 'Gid')
  if ('unknown' in primary) return primary
  const more = procNumbers(status.get('Groups') ?? '-')
  if (more === undefined) return { unknown: 'the kernel gives no Groups' }
  return { is: [...new Set([primary.is, ...more])] }
}

/** From /proc/PID/cgroup; the kernel lets no name of a cgroup have a line break. */
function cgroupFrom(text: string): Fact<string> {
  if (ownNamespace('cgroup') !== INITIAL_CGROUP_NAMESPACE)
    return { unknown: 'cgroups are not seen from their root here' }
  const path = cgroup2Path(text)
  if (path === undefined) return { unknown: 'there is no cgroup v2 here' }
  return path.endsWith(' (deleted)') ? { unknown: 'its cgroup has been removed' } : { is: path }
}

function unitFrom(cgroup: Fact<string>): Fact<string> {
  if ('unknown' in cgroup) return cgroup
  const unit = unitOfCgroup(cgroup.is)
  return unit === undefined ? { unknown: 'its cgroup belongs to no unit of systemd' } : { is: unit }
}

/** What a PATH or a symbolic link leads to may change until the program is executed. */
function programFrom(program: string): Fact<string> {
  return program.startsWith('/') && realpathSync(program) === program
    ? { is: program }
    : { unknown: 'it is known only of a program that is named by its absolute path, without symbolic links' }
}

const NOT_ASKED_FOR: Fact<string> = { unknown: 'no policy at hand asks for it' }

const UNBELIEVED: Fact<string> = {
  unknown: 'a process in a user namespace can choose what the kernel says that it executes',
}

/**
 * What the kernel says that it executes, of a process in the initial user namespace alone: in one of
 * its own, CAP_CHECKPOINT_RESTORE is enough to have that changed (prctl(2), PR_SET_MM_MAP).
 *
 * It proves that this user may execute that file, and nothing more. Other programs of the same user
 * can make it do what they like (ptrace(2), LD_PRELOAD), speak through a socket that it opened, or,
 * from a user namespace that shares its memory, change what the kernel says here.
 *
 * A path of another mount namespace, which may be the user's own, is not ours: a process here can
 * execute a file of there by its descriptor. The file is held without its file system being asked,
 * which may be one that does not answer.
 */
async function executableOf(process: ProcessHandle, timeoutMs: number): Promise<Fact<string>> {
  if (heldNamespaceName(process, 'user') !== INITIAL_USER_NAMESPACE) return UNBELIEVED
  using file = await openInTime(process, 'exe', timeoutMs)
  const mount = uniqueMountId(file)
  if (mount === undefined || !isOurMount(mount))
    return { unknown: 'its executable does not lie in our mount namespace' }
  const path = readlinkSync(`/proc/self/fd/${file.number}`)
  return path.endsWith(' (deleted)') ? { unknown: 'its executable has been removed' } : { is: path }
}

let givesLabels: boolean | undefined

/** Why there are none at all. Asked once: it is the kernel's. */
function withoutLabels(): Fact<string> | undefined {
  try {
    if (givesLabels === undefined) readFileSync('/proc/self/attr/current')
    givesLabels ??= true
  } catch {
    givesLabels = false
  }
  return givesLabels ? undefined : { unknown: 'this kernel gives processes no security label' }
}

/** AppArmor adds the mode of the profile, which confines nothing unless it is enforced. */
export function labelFrom(text: string): Fact<string> {
  const label = text.replace(/[\0\n]+$/, '')
  const [, profile, mode] = /^(.*) \((\w+)\)$/s.exec(label) ?? []
  if (label === '') return { unknown: 'the kernel gives no security label' }
  if (mode === undefined) return { is: label }
  return ['enforce', 'kill'].includes(mode)
    ? { is: profile! }
    : { unknown: `its profile is in ${mode} mode, which confines nothing` }
}

/**
 * Fail closed: a fact that the kernel does not tell is unknown. If the process has exited, that
 * error is passed on.
 */
function attempt(look: () => Fact<string>): Fact<string> {
  try {
    return look()
  } catch (error) {
    return untold(error)
  }
}

async function attemptLater(look: () => Promise<Fact<string>>): Promise<Fact<string>> {
  try {
    return await look()
  } catch (error) {
    return untold(error)
  }
}

function untold(error: unknown): Fact<string> {
  if (error instanceof NotFoundError) throw error
  if (error instanceof TimeoutError || error instanceof ConflictError)
    return { unknown: 'it could not be looked at in time' }
  const { code, errnoName } = error as { code?: string; errnoName?: string }
  const name = errnoName ?? (error instanceof BpftokenError ? undefined : code)
  if (name === undefined) throw error
  return { unknown: `the kernel does not tell (${name})` }
}
