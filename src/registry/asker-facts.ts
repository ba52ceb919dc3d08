/** What records keep of who asked, as the kernel said it then. */
import { account, type Fields, number, optional, processId, shortText } from './fields.ts'

export interface AskerFacts {
  readonly pid: number
  readonly uid: number
  readonly gid: number
  /** Whose share of the limits it took, where that is not its own user's: `user N` or `user:[INODE]`. */
  readonly owner?: string
  readonly loginUid?: number
  readonly executable?: string
  readonly cgroup?: string
  readonly unit?: string
  readonly label?: string
  /** `user:[INODE]` */
  readonly userNamespace: string
  /**
   * The number of that namespace which no other gets, in decimal digits; where it is not the initial
   * one, and the kernel knows such (Linux 6.18).
   */
  readonly userNamespaceId?: string
}

export const ASKER_FIELDS: Fields<AskerFacts> = {
  pid: processId,
  uid: account,
  gid: account,
  owner: optional(shortText),
  loginUid: optional(number(0, 0xffff_fffe)),
  executable: optional(shortText),
  cgroup: optional(shortText),
  unit: optional(shortText),
  label: optional(shortText),
  userNamespace: shortText,
  userNamespaceId: optional(shortText),
}

export function userShare(uid: number): string {
  return `user ${uid}`
}

/** Whose share of the limits it takes. */
export function shareOf({ uid, owner }: { uid: number; owner?: string | undefined }): string {
  return owner ?? userShare(uid)
}
