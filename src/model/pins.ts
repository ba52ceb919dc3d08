/** BPF_OBJ_PIN and BPF_OBJ_GET: a name for an object in a bpffs, and the object by its name. */
import { type AttrBytes, callFails, lsmText, tailFails } from './bpf-call.ts'
import { type File, fileText } from './file.ts'
import { type Inode, inodeText, MAY, mayAccess } from './inode.ts'
import type { Judge, Rule } from './judge.ts'
import type { Machine } from './machine.ts'
import { hasHostId, type Task } from './task.ts'

export interface ObjPin {
  readonly op: 'obj_pin'
  readonly object: File
  /** The directory that the name is to be in. */
  readonly directory: File
  /** file_flags, without BPF_F_PATH_FD. */
  readonly flags?: number
  /** A name with a dot in it, which bpffs keeps for itself. */
  readonly dotted?: boolean
  /** There is something of that name. */
  readonly exists?: boolean
  readonly attr?: AttrBytes
}

/** What has a name in a directory. */
export interface Pin {
  /** `other`: a file of another kind, in another file system. */
  readonly kind: 'map' | 'prog' | 'link' | 'directory' | 'other'
  readonly inode: Inode
}

export interface ObjGet {
  readonly op: 'obj_get'
  /** The directory that the name is looked for in. */
  readonly directory: File
  /** What has the name; absent: nothing. */
  readonly pin?: Pin
  /** file_flags, without BPF_F_PATH_FD. */
  readonly flags?: number
  readonly dotted?: boolean
  readonly attr?: AttrBytes
}

export const PIN_RULES = {
  pinFlags: {
    name: 'OBJ_PIN: flags',
    needs: 'no flag but BPF_F_PATH_FD',
    source: 'bpf_obj_pin',
    errno: 'EINVAL',
  },
  object: {
    name: 'OBJ_PIN: object',
    needs: 'a map, a program or a link; a token cannot be pinned',
    source: 'bpf_fd_probe_obj',
    errno: 'EINVAL',
  },
  getFlags: {
    name: 'OBJ_GET: flags',
    needs: 'no flag but BPF_F_PATH_FD, BPF_F_RDONLY and BPF_F_WRONLY',
    source: 'bpf_obj_get',
    errno: 'EINVAL',
  },
  getBoth: {
    name: 'OBJ_GET: read-only and write-only at once',
    needs: 'not both BPF_F_RDONLY and BPF_F_WRONLY',
    source: 'bpf_get_file_flag',
    errno: 'EINVAL',
  },
  directory: {
    name: 'pin: descriptor of the directory',
    needs: 'an open directory',
    source: 'path_init',
    errno: 'EBADF',
  },
  isDirectory: {
    name: 'pin: directory',
    needs: 'a directory',
    source: 'path_init',
    errno: 'ENOTDIR',
  },
  search: {
    name: 'pin: directory may be searched',
    needs: 'the right to search the directory',
    source: 'may_lookup',
    errno: 'EACCES',
  },
  dotted: {
    name: 'pin: name without a dot',
    needs: 'a name without a dot',
    source: 'bpf_lookup',
    errno: 'EPERM',
  },
  exists: {
    name: 'OBJ_PIN: new name',
    needs: 'a name that nothing has yet',
    source: 'filename_create',
    errno: 'EEXIST',
  },
  bpffs: {
    name: 'OBJ_PIN: bpffs',
    needs: 'a directory of a bpffs',
    source: 'bpf_obj_do_pin',
    errno: 'EPERM',
  },
  known: {
    name: 'OBJ_PIN: a user whom the bpffs knows',
    needs: 'a user and group of the user namespace that the bpffs belongs to',
    source: 'may_create',
    errno: 'EOVERFLOW',
  },
  write: {
    name: 'OBJ_PIN: directory may be written',
    needs: 'the right to write to the directory',
    source: 'may_create',
    errno: 'EACCES',
  },
  named: {
    name: 'OBJ_GET: name',
    needs: 'a name that something has',
    source: 'user_path_at',
    errno: 'ENOENT',
  },
  open: {
    name: 'OBJ_GET: owner and mode of the pin',
    needs: 'the right to read and to write the pin, but for what BPF_F_RDONLY and BPF_F_WRONLY leave out',
    source: 'path_permission',
    errno: 'EACCES',
  },
  pinned: {
    name: 'OBJ_GET: something pinned',
    needs: 'a map, a program or a link',
    source: 'bpf_inode_type',
    errno: 'EACCES',
  },
  link: {
    name: 'OBJ_GET: link without flags',
    needs: 'neither BPF_F_RDONLY nor BPF_F_WRONLY for a link',
    source: 'bpf_obj_get_user',
    errno: 'EINVAL',
  },
  lsm: {
    name: 'LSM bpf_prog and bpf_map, of an object by its name',
    needs: 'security modules that allow a descriptor of the object',
    source: 'bpf_map_new_fd',
  },
} as const satisfies Record<string, Rule>

const BPF_F_RDONLY = 8
const BPF_F_WRONLY = 16
const ACCESS = BPF_F_RDONLY | BPF_F_WRONLY

const isObject = ({ kind }: Pin): boolean => kind === 'map' || kind === 'prog' || kind === 'link'

/** A directory of which nothing else is said is open to everybody. */
const OPEN: Inode = { uid: 0, gid: 0, mode: 0o777 }

/** The way to a name in a directory. */
function directoryFails(judge: Judge, task: Task, directory: File, dotted: boolean): boolean {
  if (judge.fails(PIN_RULES.directory, directory.kind !== 'closed', fileText(directory))) return true
  const is = directory.kind === 'bpffs' || directory.kind === 'root' || directory.kind === 'cgroup'
  if (judge.fails(PIN_RULES.isDirectory, is, fileText(directory))) return true
  const inode = inodeOf(directory)
  const may = mayAccess(judge, task, inode, MAY.search, true)
  if (judge.fails(PIN_RULES.search, may, () => inodeText(inode))) return true
  // A directory without any right, as nobody makes one, takes all names.
  const refused = directory.kind === 'bpffs' && dotted && (inode.mode & 0o7777) !== 0
  return judge.fails(PIN_RULES.dotted, !refused, refused ? 'a dot' : 'no dot')
}

const inodeOf = (directory: File): Inode => (directory.kind === 'bpffs' ? (directory.inode ?? OPEN) : OPEN)

export function objPin(judge: Judge, machine: Machine, task: Task, call: ObjPin): void {
  const { object, directory, attr = {}, flags = 0 } = call
  if (callFails(judge, machine, task, 'obj_pin', attr)) return
  if (tailFails(judge, machine, 'obj_pin', attr)) return
  if (judge.fails(PIN_RULES.pinFlags, flags === 0, `flags ${flags}`)) return
  const can = object.kind === 'map' || object.kind === 'prog' || object.kind === 'link'
  if (judge.fails(PIN_RULES.object, can, fileText(object))) return
  if (directoryFails(judge, task, directory, call.dotted === true)) return
  const exists = call.exists === true
  if (judge.fails(PIN_RULES.exists, !exists, exists ? 'there is one' : 'there is none')) return
  const isBpffs = directory.kind === 'bpffs'
  if (judge.fails(PIN_RULES.bpffs, isBpffs, fileText(directory)) || !isBpffs) return
  const ns = directory.instance.userNamespace
  const known = hasHostId(ns, task.uid) && hasHostId(ns, task.gid ?? task.uid)
  if (judge.fails(PIN_RULES.known, known, () => `user ${task.uid}, a bpffs of ${ns.name}`)) return
  const inode = inodeOf(directory)
  const may = mayAccess(judge, task, inode, MAY.write | MAY.search, true)
  judge.fails(PIN_RULES.write, may, () => inodeText(inode))
}

export function objGet(judge: Judge, machine: Machine, task: Task, call: ObjGet): void {
  const { directory, pin, attr = {}, flags = 0 } = call
  if (callFails(judge, machine, task, 'obj_get', attr)) return
  if (tailFails(judge, machine, 'obj_get', attr)) return
  if (judge.fails(PIN_RULES.getFlags, (flags & ~ACCESS) === 0, `flags ${flags}`)) return
  if (judge.fails(PIN_RULES.getBoth, (flags & ACCESS) !== ACCESS, `flags ${flags}`)) return
  if (directoryFails(judge, task, directory, call.dotted === true)) return
  const there = pin !== undefined
  if (judge.fails(PIN_RULES.named, there, there ? `a ${pin.kind}` : 'nothing') || !there) return
  const wanted = (flags & BPF_F_WRONLY ? 0 : MAY.read) | (flags & BPF_F_RDONLY ? 0 : MAY.write)
  const may = mayAccess(judge, task, pin.inode, wanted, pin.kind === 'directory')
  if (judge.fails(PIN_RULES.open, may, () => inodeText(pin.inode))) return
  if (judge.fails(PIN_RULES.pinned, isObject(pin), `a ${pin.kind}`)) return
  const plain = pin.kind !== 'link' || flags === 0
  if (judge.fails(PIN_RULES.link, plain, `a ${pin.kind}, flags ${flags}`)) return
  const refusal =
    pin.kind === 'link' ? undefined : machine.lsm?.[pin.kind === 'prog' ? 'bpf_prog' : 'bpf_map']
  judge.fails(PIN_RULES.lsm, refusal === undefined, lsmText(refusal), undefined, refusal)
}
