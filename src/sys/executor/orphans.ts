/**
 * Executors whose client has died: each undoes what it had begun, and exits. Until then it may
 * still do what was asked of it last.
 */
import { readFileSync, readlinkSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { BpftokenError } from '../../errors.ts'
import { LOOK_MS, openInTime } from '../in-time.ts'
import { procFields, procNumbers } from '../proc-file.ts'
import { openProcess } from '../process.ts'
import { allProcesses, unlessGone } from '../tasks.ts'

/** As the kernel cuts it: 15 bytes. */
const NAME = 'bpftoken-executor'.slice(0, 15)
const POLL_MS = 20

/** False: some are still there after so long, or when nobody wants to know any more. */
export async function orphansGone(limitMs: number, isOver: () => boolean): Promise<boolean> {
  for (const deadline = performance.now() + limitMs; (await orphans()).length > 0; await sleep(POLL_MS))
    if (performance.now() > deadline || isOver()) return false
  return true
}

/** Process ids. The client of one that has any is Node, as we are. */
async function orphans(): Promise<number[]> {
  const found: number[] = []
  for (const pid of allProcesses()) {
    const comm = unlessGone(() => readFileSync(`/proc/${pid}/comm`, 'utf8'))
    if (comm?.trimEnd() !== NAME) continue
    const status = unlessGone(() => procFields(readFileSync(`/proc/${pid}/status`, 'utf8')))
    // Anybody can call a program so.
    const ids = procNumbers(status?.get('Uid') ?? '-')
    if (ids?.every(uid => uid === 0) !== true || status?.get('State')?.startsWith('Z') === true) continue
    if (!(await isNode(Number(status?.get('PPid'))))) found.push(pid)
  }
  return found
}

/** False also where that cannot be seen in time. */
async function isNode(pid: number): Promise<boolean> {
  try {
    using held = openProcess(pid)
    using file = await openInTime(held, 'exe', LOOK_MS)
    return readlinkSync(`/proc/self/fd/${file.number}`) === process.execPath
  } catch (error) {
    if (error instanceof BpftokenError) return false
    throw error
  }
}
