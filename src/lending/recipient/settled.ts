/**
 * Waits until a process that has just begun is done with building its sandbox.
 *
 * A sandbox is made in steps: user namespace, ids, mounts, another root directory, and then the
 * program is executed. Whoever learns the number of the process between two of them (bubblewrap tells
 * it before its child has a root) would lend to a place that the next step throws away, and nothing
 * would say so. From outside no step can be seen to be the last. But while it builds, the process
 * still executes the program of its maker, and waits for nothing: so it is settled once it executes
 * another, or stays asleep. What is older than a sandbox takes to build is not waited for.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { NotFoundError, SyscallError } from '../../errors.ts'
import { LOOK_MS, openInTime } from '../../sys/in-time.ts'
import { heldNamespaceName } from '../../sys/namespace.ts'
import { inodeOf } from '../../sys/open.ts'
import { procFields } from '../../sys/proc-file.ts'
import { openProcess, type ProcessHandle, readProc } from '../../sys/process.ts'
import { ownNamespace } from '../../sys/self.ts'
import { processStartTime } from './start-time.ts'

/** bubblewrap takes 6 ms, and on a machine that is twenty times too busy some hundreds. */
const YOUNG_MS = 2000
const EVERY_MS = 10

/** What is seen of a process at one moment. */
export interface Look {
  /** In a user namespace of its own with ids, and in another mount namespace than ours. */
  readonly isApart: boolean
  /** It executes what its maker executes. */
  readonly isMakers: boolean
  /** It waits for something that can be interrupted. */
  readonly sleeps: boolean
  /** How often it has slept or was made to wait. */
  readonly switches: string
}

/** Pure: of two looks, one after the other. */
export function isSettled(before: Look | undefined, now: Look): boolean {
  if (!now.isApart) return false
  if (!now.isMakers) return true
  return before?.isApart === true && before.sleeps && now.sleeps && before.switches === now.switches
}

/**
 * Returns when it is settled, or has lived so long that it is what it will be; or if it is not ours to
 * look at. NotFoundError: it has exited. TimeoutError, ConflictError: as src/sys/in-time.ts has them.
 */
export async function untilSettled(process: ProcessHandle): Promise<void> {
  let before: Look | undefined
  try {
    const began = await processStartTime(process)
    // A clock that was set back says that it begins in the future.
    while (Math.abs(Date.now() - began) < YOUNG_MS) {
      const now = await lookAt(process)
      if (isSettled(before, now)) return
      before = now
      await sleep(EVERY_MS)
    }
  } catch (error) {
    if (error instanceof SyscallError && ['EACCES', 'EPERM'].includes(error.errnoName)) return
    throw error
  }
}

async function lookAt(process: ProcessHandle): Promise<Look> {
  const fields = procFields(readProc(process, 'status'))
  const field = (name: string): string => fields.get(name) ?? ''
  const isApart =
    heldNamespaceName(process, 'user') !== ownNamespace('user') &&
    heldNamespaceName(process, 'mnt') !== ownNamespace('mnt') &&
    readProc(process, 'uid_map') !== ''
  return {
    isApart,
    isMakers: isApart && (await programOf(process)) === (await makersProgram(Number(field('PPid')))),
    sleeps: field('State').startsWith('S'),
    switches: `${field('voluntary_ctxt_switches')} ${field('nonvoluntary_ctxt_switches')}`,
  }
}

async function programOf(process: ProcessHandle): Promise<bigint | number> {
  using program = await openInTime(process, 'exe', LOOK_MS)
  return inodeOf(program)
}

/** Undefined: its maker is gone, or lives where we do not see it. */
async function makersProgram(pid: number): Promise<bigint | number | undefined> {
  if (pid === 0) return undefined
  try {
    using maker = openProcess(pid)
    return await programOf(maker)
  } catch (error) {
    if (error instanceof NotFoundError) return undefined
    throw error
  }
}
