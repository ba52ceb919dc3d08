/** BPF_OBJ_PIN: a name for an object in a bpffs. */
import { type AttrBytes, callFails, tailFails } from './bpf-call.ts'
import { type File, fileText } from './file.ts'
import type { Judge, Rule } from './judge.ts'
import type { Machine } from './machine.ts'
import type { Task } from './task.ts'

export interface ObjPin {
  readonly op: 'obj_pin'
  readonly object: File
  /** The directory that the name is to be in. */
  readonly directory: File
  /** A name with a dot in it, which bpffs keeps for itself. */
  readonly dotted?: boolean
  /** There is something of that name. */
  readonly exists?: boolean
  readonly attr?: AttrBytes
}

export const PIN_RULES = {
  object: {
    name: 'OBJ_PIN: object',
    needs: 'a map, a program or a link; a token cannot be pinned',
    source: 'bpf_fd_probe_obj',
    errno: 'EINVAL',
  },
  directory: {
    name: 'OBJ_PIN: descriptor of the directory',
    needs: 'an open directory',
    source: 'user_path_create',
    errno: 'EBADF',
  },
  isDirectory: {
    name: 'OBJ_PIN: directory',
    needs: 'a directory',
    source: 'user_path_create',
    errno: 'ENOTDIR',
  },
  dotted: {
    name: 'OBJ_PIN: name without a dot',
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
} as const satisfies Record<string, Rule>

/** Up to the rights of the directory, which are those of any file. */
export function objPin(judge: Judge, machine: Machine, task: Task, call: ObjPin): void {
  const attr = call.attr ?? {}
  const { object, directory } = call
  if (callFails(judge, machine, task, 'obj_pin', attr)) return
  if (tailFails(judge, machine, 'obj_pin', attr)) return
  const can = object.kind === 'map' || object.kind === 'prog' || object.kind === 'link'
  if (judge.fails(PIN_RULES.object, can, fileText(object))) return
  if (judge.fails(PIN_RULES.directory, directory.kind !== 'closed', fileText(directory))) return
  const isDirectory = ['bpffs', 'root', 'cgroup', 'path'].includes(directory.kind)
  if (judge.fails(PIN_RULES.isDirectory, isDirectory, fileText(directory))) return
  const isBpffs = directory.kind === 'bpffs' || directory.kind === 'path'
  const dotted = isBpffs && call.dotted === true
  if (judge.fails(PIN_RULES.dotted, !dotted, dotted ? 'a dot' : 'no dot')) return
  const exists = call.exists === true
  if (judge.fails(PIN_RULES.exists, !exists, exists ? 'there is one' : 'there is none')) return
  judge.fails(PIN_RULES.bpffs, isBpffs, fileText(directory))
}
