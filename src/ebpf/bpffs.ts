/**
 * Which bpffs instances a mount namespace shows and what each of them delegates. Pure: from the
 * text of /proc/PID/mountinfo. Masks stay text here, in the kernel's words; policy knows how to
 * read them.
 */
import { type MountInfo, parseMountInfo } from '../sys/mountinfo.ts'

/**
 * The kernel's four masks as /proc/mounts shows them: words joined by `:`, hex, or `any`; `''` is
 * nothing.
 */
export interface DelegationText {
  cmds: string
  maps: string
  progs: string
  attachs: string
}

export interface BpffsMount {
  path: string
  /** Unique among the mounts that exist now. */
  mountId: number
  /** `major:minor`. Two mounts with the same one are the same instance (a bind mount). */
  device: string
  /** False for a bind mount of a subdirectory, of which no token can be made. */
  wholeInstance: boolean
  /**
   * Owner of the root directory, in numbers of the initial user namespace, wherever the text was
   * read.
   */
  uid: number
  gid: number
  /** Permission bits of the root directory. */
  mode: number
  /**
   * Whether any of the four masks says something. Bits that the kernel does not know are not shown.
   */
  delegated: boolean
  delegation: DelegationText
}

/** What one line of mountinfo, or statmount(2), says of a bpffs. */
export function bpffsMount(
  mount: Pick<MountInfo, 'mountId' | 'device' | 'root' | 'path' | 'superOptions'>,
): BpffsMount {
  const options = new Map(
    mount.superOptions.map(option => {
      const at = option.indexOf('=')
      return at < 0 ? [option, ''] : [option.slice(0, at), option.slice(at + 1)]
    }),
  )
  // uid, gid and mode are left out at their defaults: 0, 0 and 0777; a bpffs root always is sticky.
  const delegation = {
    cmds: options.get('delegate_cmds') ?? '',
    maps: options.get('delegate_maps') ?? '',
    progs: options.get('delegate_progs') ?? '',
    attachs: options.get('delegate_attachs') ?? '',
  }
  return {
    path: mount.path,
    mountId: mount.mountId,
    device: mount.device,
    wholeInstance: mount.root === '/',
    uid: Number(options.get('uid') ?? 0),
    gid: Number(options.get('gid') ?? 0),
    mode: Number.parseInt(options.get('mode') ?? '1777', 8),
    delegated: Object.values(delegation).some(text => text !== ''),
    delegation,
  }
}

/**
 * Every bpffs mount in the text of a mountinfo file, in its order: a later one may hide an earlier
 * one.
 */
export function bpffsMounts(mountinfo: string): BpffsMount[] {
  return parseMountInfo(mountinfo, 'bpf').map(bpffsMount)
}

/** The mounts that delegate something and of which a token can be made. */
export function delegatedMounts(mountinfo: string): BpffsMount[] {
  return bpffsMounts(mountinfo).filter(mount => mount.delegated && mount.wholeInstance)
}
