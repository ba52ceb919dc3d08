/**
 * Other mounts of a delegation: bind mounts, and copies that propagated to, or were taken along
 * into, other mount namespaces. A token can be made at each of them, so that taking a delegation
 * back unmounts all.
 */
import { readFileSync } from 'node:fs'
import type { Vocabulary } from '../policy/vocabulary.ts'
import { parseMountInfo } from '../sys/mountinfo.ts'
import { openProcess } from '../sys/process.ts'
import { ask, mountsAt } from './ask.ts'
import { type DelegatedInstance, findMountsOf } from './instances.ts'
import { openTargetInTime, type Target } from './target.ts'

/** More rounds than this are somebody who mounts as fast as we unmount. */
const ROUNDS = 8

/** By so many processes of a namespace we try, since one may hang, or see a part. */
export const WAYS = 4

export interface Copies {
  readonly unmounted: number
  /** What is still mounted. */
  readonly left: readonly DelegatedInstance[]
}

/**
 * Unmounts what is mounted of the superblock with this device in any mount namespace that a process
 * is in. The caller holds a directory of it open: the number could be another one's by now else.
 */
export async function unmountCopies(
  device: string,
  vocabulary: Vocabulary,
  timeoutMs?: number,
): Promise<Copies> {
  let unmounted = 0
  for (let round = 0; ; round++) {
    const left = await findMountsOf(device, vocabulary)
    let progress = 0
    if (round < ROUNDS) for (const copy of left) if (await isUnmounted(copy, timeoutMs)) progress++
    unmounted += progress
    if (progress === 0) return { unmounted, left }
  }
}

/** False, whatever the reason: it is told as what is left. */
async function isUnmounted(copy: DelegatedInstance, timeoutMs: number | undefined): Promise<boolean> {
  for (const pid of copy.pids.slice(0, WAYS)) if (await isUnmountedBy(pid, copy, timeoutMs)) return true
  return false
}

async function isUnmountedBy(
  pid: number,
  copy: DelegatedInstance,
  timeoutMs: number | undefined,
): Promise<boolean> {
  try {
    using place = await openTargetInTime(openProcess(pid), timeoutMs)
    const path = pathOfMount(place, copy.mountId)
    if (place.facts.mountNamespace !== copy.mountNamespace || path === undefined) return false
    const { mounts, directory } = await mountsAt(place, path, timeoutMs)
    using top = directory
    const covers = mounts.findIndex(
      ({ mountId, device }) => mountId === copy.mountId && device === copy.device,
    )
    if (covers < 0 || !mounts[0]!.atRoot) return false
    if (covers === 0) await ask(place, [{ op: 'DETACH' }], { slots: { MOUNT: top }, timeoutMs })
    else {
      const action = { op: 'DETACH_COVERED', number: covers, text: [path] } as const
      const { given } = await ask(place, [action], { give: ['REACHED'], timeoutMs })
      given.REACHED!.close()
    }
    return true
  } catch {
    return false
  }
}

/**
 * Byte by byte as the kernel has it, which need not be UTF-8; undefined: the process does not see
 * it.
 */
export function pathOfMount(target: Target, mountId: number): Uint8Array | undefined {
  const mounts = parseMountInfo(readFileSync(`/proc/${target.process.pid}/mountinfo`, 'latin1'))
  const mount = mounts.find(one => one.mountId === mountId)
  return mount && Buffer.from(mount.path, 'latin1')
}
