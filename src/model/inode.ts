/** Files and directories by owner, group and mode, and who may use them. */
import type { Judge, Rule } from './judge.ts'
import { hasHostId, type ModelCapability, nsCapable, type Task } from './task.ts'

export interface Inode {
  /** Owner and group by their numbers in the initial namespace. */
  readonly uid: number
  readonly gid: number
  readonly mode: number
}

/** As the mode of a file has them. */
export const MAY = { read: 4, write: 2, search: 1 } as const

export const INODE_RULES = {
  mode: {
    name: 'inode_permission: owner, group and mode',
    needs: 'what the mode gives to this user',
    source: 'generic_permission',
  },
  override: {
    name: 'inode_permission: capability in place of the mode',
    needs: 'CAP_DAC_OVERRIDE, or CAP_DAC_READ_SEARCH to read, where the namespace knows owner and group',
    source: 'capable_wrt_inode_uidgid',
  },
} as const satisfies Record<string, Rule>

/** inode_permission(): whether the task has all that `wanted` names, as bits of `MAY`. */
export function mayAccess(
  judge: Judge,
  task: Task,
  inode: Inode,
  wanted: number,
  isDirectory: boolean,
): boolean {
  const { uid, gid, mode } = inode
  const bits = task.uid === uid ? mode >> 6 : (task.gid ?? task.uid) === gid ? mode >> 3 : mode
  if (judge.part(INODE_RULES.mode, (bits & wanted) === wanted)) return true
  const ns = task.userNamespace
  const known = hasHostId(ns, uid) && hasHostId(ns, gid)
  const has = (capability: ModelCapability): boolean => nsCapable(judge, task, ns, capability)
  const reads = isDirectory ? (wanted & MAY.write) === 0 : wanted === MAY.read
  return judge.part(INODE_RULES.override, known && ((reads && has('dac_read_search')) || has('dac_override')))
}

/** For people. */
export function inodeText({ uid, gid, mode }: Inode): string {
  return `owner ${uid}, group ${gid}, mode ${mode.toString(8).padStart(4, '0')}`
}
