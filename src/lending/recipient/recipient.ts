/**
 * Who is lent to, by the name that people know it by: a container, a systemd unit, a cgroup.
 *
 * A name is looked up, the process that it means is held by pidfd, and the name is looked up again.
 * If both answers are the same and the process still lives, the process belonged to the name all
 * the while: a number is not reused while a process that is held has it and lives. So a container
 * that was restarted meanwhile is never taken for the one that was named.
 *
 * What the sources say is text from outside. It is bounded and checked where it is read, and names
 * go into error messages only, which are escaped where they are printed.
 */

import { openTargetInTime, type Target } from '../../delegation/target.ts'
import { ConflictError } from '../../errors.ts'
import type { Fd } from '../../sys/fd.ts'
import { LOOK_MS, namespaceInTime } from '../../sys/in-time.ts'
import { heldNamespaceName, ownerUids } from '../../sys/namespace.ts'
import { openProcess, type ProcessHandle, stillAlive } from '../../sys/process.ts'
import { processOfCgroup } from './cgroup.ts'
import type { Found, Owner } from './found.ts'
import { untilSettled } from './settled.ts'
import { hadBegun, processStartTime } from './start-time.ts'
import { processOfUnit } from './unit.ts'

/** `owner`: the user of a rootless container, or of a unit of a user's own systemd. */
export type RecipientName =
  | { readonly pid: number }
  | { readonly container: string; readonly owner?: Owner | undefined }
  | { readonly unit: string; readonly owner?: Owner | undefined }
  | { readonly cgroup: string }

export interface Recipient {
  readonly target: Target
  /** Undefined where a process was named by its number. */
  readonly what: string | undefined
}

/**
 * Takes hold of the process. NotFoundError: nothing has that name. ConflictError: several have it,
 * or it does not run, or it cannot be lent to. NotSupportedError: nothing on this machine knows
 * such names. The caller disposes of the target.
 */
export async function openRecipient(name: RecipientName): Promise<Recipient> {
  if ('pid' in name) {
    const process = await settled(name.pid)
    return { target: await openTargetInTime(process), what: undefined }
  }
  const found = await find(name)
  const target = await openFound(found)
  try {
    requireOwner(target.userNamespace, name, found)
    await requireSame(target.process, name, found)
    return { target, what: found.what }
  } catch (error) {
    target[Symbol.dispose]()
    throw error
  }
}

/** A process by name, for who asks somebody else to lend to it: named by the pidfd. */
export interface HeldRecipient extends Disposable {
  readonly pid: number
  /** Undefined where a process was named by its number. */
  readonly what: string | undefined
  /** The number of our pidfd of it, which is open until this is disposed of. */
  readonly pidfd: number
  /** As `/proc/PID/ns/user` reads. EACCES: the process is not ours to look at. */
  userNamespace(): string
}

/**
 * The same without its namespaces, which whoever lends opens. Errors are those of `openRecipient`.
 */
export async function holdRecipient(name: RecipientName): Promise<HeldRecipient> {
  if ('pid' in name) return held(await settled(name.pid), undefined)
  const found = await find(name)
  const process = await settled(found.pid)
  try {
    if ('owner' in name && name.owner !== undefined) {
      using userNamespace = await namespaceInTime(process, 'user', LOOK_MS)
      requireOwner(userNamespace, name, found)
    }
    await requireSame(process, name, found)
    return held(process, found.what)
  } catch (error) {
    process[Symbol.dispose]()
    throw error
  }
}

/** Takes hold of the process, and waits until it is what it will be; see settled.ts. */
async function settled(pid: number): Promise<ProcessHandle> {
  const process = openProcess(pid)
  try {
    await untilSettled(process)
    return process
  } catch (error) {
    process[Symbol.dispose]()
    throw error
  }
}

function held(process: ProcessHandle, what: string | undefined): HeldRecipient {
  return {
    pid: process.pid,
    what,
    pidfd: process.pidfd.number,
    userNamespace: () => heldNamespaceName(process, 'user'),
    [Symbol.dispose]: () => process[Symbol.dispose](),
  }
}

/** That the name means the process that is held, and meant it all the while. */
async function requireSame(
  process: ProcessHandle,
  name: Exclude<RecipientName, { pid: number }>,
  found: Found,
): Promise<void> {
  await requireBegun(process, found)
  const again = await find(name)
  stillAlive(process)
  if (again.identity === found.identity && again.pid === found.pid) return
  throw new ConflictError(`While it was looked at, ${found.what} became ${again.what}`, {
    context: { pid: found.pid, pidNow: again.pid },
    hint: 'Try again once it has started',
  })
}

async function find(name: Exclude<RecipientName, { pid: number }>): Promise<Found> {
  if ('container' in name) {
    // With a client of HTTP, for Docker: start-up is felt.
    const { processOfContainer } = await import('./container.ts')
    return await processOfContainer(name.container, name.owner)
  }
  if ('unit' in name) return processOfUnit(name.unit, name.owner)
  return processOfCgroup(name.cgroup)
}

/** Who has named a container or a unit wants to know how that one gets a user namespace. */
async function openFound({ pid, what }: Found): Promise<Target> {
  try {
    return await openTargetInTime(await settled(pid))
  } catch (error) {
    if (!(error instanceof ConflictError)) throw error
    throw new ConflictError(`Of ${what}: ${error.message}`, {
      context: error.context,
      hint: 'Start it in a user namespace of its own (Podman: --userns=auto; Docker: userns-remap of the daemon; systemd: PrivateUsers= with DelegateNamespaces=mnt)',
    })
  }
}

/**
 * A process that began later than the engine says has the number of one that has ended, and the
 * engine does not know that yet.
 */
async function requireBegun(process: ProcessHandle, { pid, what, startedAt }: Found): Promise<void> {
  if (startedAt === undefined) return
  if (hadBegun(await processStartTime(process), startedAt)) return
  throw new ConflictError(
    `Process ${pid}, which is said to be ${what}, began after that was started: it is another one`,
    {
      context: { pid, startedAt: new Date(startedAt).toISOString() },
      hint: "Start it again, also if the machine's clock was set since, or if it was restored from a checkpoint",
    },
  )
}

/**
 * What a user's own Podman or Docker says is the user's word. Only a process in a user namespace
 * that this user made is theirs to name: the kernel knows, and nobody can forge it.
 */
function requireOwner(userNamespace: Fd, name: RecipientName, { pid, what }: Found): void {
  const owner = 'owner' in name ? name.owner : undefined
  if (owner === undefined || ownerUids(userNamespace).includes(owner.uid)) return
  throw new ConflictError(
    `Process ${pid}, which is said to be ${what}, is in no user namespace of user ${owner.name}`,
    {
      context: { pid, uid: owner.uid },
      hint: 'What belongs to root is named without a user before it',
    },
  )
}
