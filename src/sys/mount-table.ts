/**
 * The mounts of any mount namespace by listmount(2) and statmount(2), reachable or not.
 *
 * mountinfo shows what lies below the root of one process; a mount outside of it, or one that every
 * process has left by chroot(2), is only seen here. Other namespaces can be asked since Linux 6.11,
 * with CAP_SYS_ADMIN in the user namespace that owns them.
 */
import {
  LSMT_ROOT,
  NS_GET_MNTNS_ID,
  STATMOUNT_MNT_BASIC,
  STATMOUNT_MNT_OPTS,
  STATMOUNT_MNT_POINT,
  STATMOUNT_MNT_ROOT,
  STATMOUNT_SB_BASIC,
} from '../uapi/constants.ts'
import type { Fd } from './fd.ts'
import type { MountInfo } from './mountinfo.ts'
import { native } from './native.ts'

/** Ids that one listmount(2) gives; more are asked for from the last one on. */
const BATCH = 4096
/** struct statmount without its strings; they follow. */
const STRINGS_OFF = 512
const MAX_STATMOUNT_BYTES = 64 * 1024

/** What statmount(2) tells; `path` is undefined where it lies outside of the namespace's root. */
export type KernelMount = Pick<MountInfo, 'mountId' | 'parentId' | 'device' | 'root' | 'superOptions'> & {
  readonly path: string | undefined
}

export interface FoundMount {
  /** As in mountinfo. */
  readonly mountId: number
  readonly device: string
  /** Undefined: it has gone meanwhile. A bpffs that delegates takes the kernel long to describe. */
  describe(): KernelMount | undefined
}

/**
 * The mounts of file systems with this magic number in the namespace; undefined: this kernel does
 * not tell, or not us. One system call per mount.
 */
export function mountsOfType(mountNamespace: Fd, magic: bigint): FoundMount[] | undefined {
  const id = new Uint8Array(8)
  if (native().ioctl(mountNamespace.number, NS_GET_MNTNS_ID, id) < 0) return undefined
  const namespaceId = new DataView(id.buffer).getBigUint64(0, true)
  const ids = listMounts(namespaceId)
  if (ids === undefined) return undefined
  const basic = new Uint8Array(STRINGS_OFF)
  const fields = view(basic)
  return ids.flatMap(mount => {
    if (!statmount(mount, namespaceId, STATMOUNT_SB_BASIC | STATMOUNT_MNT_BASIC, basic)) return []
    if (fields.getBigUint64(SB_MAGIC, true) !== magic) return []
    const mountId = fields.getUint32(MNT_ID_OLD, true)
    return [{ mountId, device: deviceOf(fields), describe: () => describe(mount, namespaceId) }]
  })
}

/** One for all calls, since each is over when the next one is made. */
const REQUEST = new Uint8Array(32)

/**
 * struct mnt_id_req, 32 bytes: size @0, mnt_id @8, param @16, mnt_ns_id @24
 * (include/uapi/linux/mount.h). Good until it is called again.
 */
function request(mount: bigint, param: bigint, namespaceId: bigint): Uint8Array {
  const fields = view(REQUEST)
  fields.setUint32(0, REQUEST.byteLength, true)
  fields.setBigUint64(8, mount, true)
  fields.setBigUint64(16, param, true)
  fields.setBigUint64(24, namespaceId, true)
  return REQUEST
}

/** Whether a mount, by its unique id, is in our own mount namespace. Since Linux 6.8. */
export function isOurMount(id: bigint): boolean {
  return statmount(id, OUR_NAMESPACE, STATMOUNT_MNT_BASIC, new Uint8Array(STRINGS_OFF))
}

/** For listmount(2) and statmount(2). */
const OUR_NAMESPACE = 0n

/** What a call writes into, and nobody keeps: memory of this size is made and freed slowly. */
let batch: BigUint64Array | undefined

/** Unique ids, which mountinfo does not show. */
function listMounts(namespaceId: bigint): bigint[] | undefined {
  const found: bigint[] = []
  batch ??= new BigUint64Array(BATCH)
  for (;;) {
    const after = found.at(-1) ?? 0n
    const bytes = new Uint8Array(batch.buffer)
    const count = native().listmount(request(LSMT_ROOT, after, namespaceId), bytes, BATCH, 0)
    if (count < 0) return undefined
    found.push(...batch.subarray(0, count))
    if (count < BATCH) return found
  }
}

/** False: it has gone meanwhile, or does not fit. */
function statmount(mount: bigint, namespaceId: bigint, mask: bigint, into: Uint8Array): boolean {
  return native().statmount(request(mount, mask, namespaceId), into, 0) >= 0
}

// struct statmount (include/uapi/linux/mount.h). Strings are offsets from its end.
const MNT_OPTS = 4
const MASK = 8
const DEV_MAJOR = 16
const DEV_MINOR = 20
const SB_MAGIC = 24
const MNT_ID_OLD = 56
const MNT_PARENT_ID_OLD = 60
const MNT_ROOT = 104
const MNT_POINT = 108

const ALL =
  STATMOUNT_SB_BASIC | STATMOUNT_MNT_BASIC | STATMOUNT_MNT_ROOT | STATMOUNT_MNT_POINT | STATMOUNT_MNT_OPTS

function describe(mount: bigint, namespaceId: bigint): KernelMount | undefined {
  const bytes = new Uint8Array(MAX_STATMOUNT_BYTES)
  if (!statmount(mount, namespaceId, ALL, bytes)) return undefined
  const fields = view(bytes)
  const number = (off: number): number => fields.getUint32(off, true)
  const given = fields.getBigUint64(MASK, true)
  const text = (off: number, flag: bigint): string | undefined => {
    if ((given & flag) === 0n) return undefined
    const begin = STRINGS_OFF + number(off)
    return Buffer.from(bytes.subarray(begin, bytes.indexOf(0, begin))).toString('utf8')
  }
  return {
    mountId: number(MNT_ID_OLD),
    parentId: number(MNT_PARENT_ID_OLD),
    device: deviceOf(fields),
    root: text(MNT_ROOT, STATMOUNT_MNT_ROOT) ?? '/',
    path: text(MNT_POINT, STATMOUNT_MNT_POINT) || undefined,
    superOptions: (text(MNT_OPTS, STATMOUNT_MNT_OPTS) ?? '').split(',').filter(option => option !== ''),
  }
}

function deviceOf(fields: DataView): string {
  return `${fields.getUint32(DEV_MAJOR, true)}:${fields.getUint32(DEV_MINOR, true)}`
}

function view(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}
