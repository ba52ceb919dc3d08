/**
 * Which user namespace a file system belongs to, of which the kernel tells nobody: a program that
 * follows the pointers from one of our own descriptors, run here and now. It is put together from
 * the kernel's types by hand, since loading an object takes four times as long.
 */
import {
  alu64,
  call,
  exit,
  type Insn,
  jumpIf,
  type Label,
  label,
  load,
  mov64,
  R0,
  R1,
  R2,
  R3,
  R6,
  R7,
  R8,
  R10,
  type Reg,
  store,
} from '../../ebpf/asm/insn.ts'
import type { Btf } from '../../ebpf/btf/btf.ts'
import { kernelBtf } from '../../ebpf/kernel/btf.ts'
import { Program } from '../../ebpf/prog.ts'
import { BpftokenError, NotSupportedError } from '../../errors.ts'
import type { Fd } from '../../sys/fd.ts'
import { struct, u32 } from '../../uapi/codec.ts'
import { BPF_F_SLEEPABLE } from '../../uapi/constants.ts'

/** What the program is given, and gives. */
const request = struct(8, {
  fd: u32(0),
  user_namespace: u32(4), // inode number; 0: it cannot be told
})
const POINTER_BYTES = 8

/**
 * The user namespaces that the file systems of these files belong to, `user:[4026531837]`. Needs
 * CAP_BPF and CAP_PERFMON in the initial user namespace. Undefined: the kernel lets no program look,
 * as under lockdown.
 */
export async function ownersOfFileSystems(files: readonly Fd[]): Promise<(string | undefined)[]> {
  try {
    const insns = chase(kernelBtf().types)
    using program = await Program.load({
      ...{ type: 'syscall', insns, license: 'GPL', flags: BPF_F_SLEEPABLE, token: null },
      name: 'fs_owner',
    })
    const owners: (string | undefined)[] = []
    for (const { number } of files) {
      const asked = request.encode({ fd: number, user_namespace: 0 })
      const { context } = await program.testRun({ contextIn: asked })
      const { user_namespace } = request.decode(context)
      owners.push(user_namespace === 0 ? undefined : `user:[${user_namespace}]`)
    }
    return owners
  } catch (error) {
    if (error instanceof BpftokenError) return files.map(() => undefined)
    throw error
  }
}

/** Where nothing is, zeros are read. */
function chase(types: Btf): (Insn | Label)[] {
  const off = (name: string, ...members: string[]): number => offsetIn(types, name, members)
  const follow = (name: string, member: string): Insn[] => read(R7, R7, off(name, member), POINTER_BYTES)
  return [
    mov64(R6, R1),
    call('get_current_task'),
    mov64(R7, R0),
    ...follow('task_struct', 'files'),
    ...follow('files_struct', 'fdt'),
    ...read(R8, R7, off('fdtable', 'max_fds'), 4),
    load('u32', R1, R6, 0),
    jumpIf('>=', R1, R8, 'none'),
    ...follow('fdtable', 'fd'),
    load('u32', R1, R6, 0),
    alu64('<<=', R1, 3),
    alu64('+=', R7, R1),
    ...read(R7, R7, 0, POINTER_BYTES),
    ...follow('file', 'f_inode'),
    ...follow('inode', 'i_sb'),
    ...follow('super_block', 's_user_ns'),
    ...read(R7, R7, off('user_namespace', 'ns', 'inum'), 4),
    store('u32', R6, 4, R7),
    label('none'),
    mov64(R0, 0),
    exit(),
  ]
}

/** The bytes of the kernel at `from` and an offset. */
function read(to: Reg, from: Reg, offset: number, bytes: 4 | 8): Insn[] {
  return [
    mov64(R3, from),
    alu64('+=', R3, offset),
    store('u64', R10, -8, 0),
    mov64(R1, R10),
    alu64('+=', R1, -8),
    mov64(R2, bytes),
    call('probe_read_kernel'),
    load(bytes === 4 ? 'u32' : 'u64', to, R10, -8),
  ]
}

/** Of a member of a member, in bytes. */
function offsetIn(types: Btf, name: string, members: readonly string[]): number {
  let id = types.find(name, 'struct')[0]
  let bits = 0
  for (const member of members) {
    const found = id === undefined ? undefined : memberOf(types, id, member)
    if (found === undefined)
      throw new NotSupportedError(`This kernel has no ${name}.${members.join('.')}`, {
        context: { type: name },
      })
    id = found.type
    bits += found.bits
  }
  return bits / 8
}

/** Also of a structure without a name that lies in it. */
function memberOf(types: Btf, id: number, name: string): { type: number; bits: number } | undefined {
  const type = types.resolve(id)
  if (type?.kind !== 'struct' && type?.kind !== 'union') return undefined
  for (const member of type.members) {
    if (member.name === name) return { type: member.type, bits: member.bitOff }
    const inner = member.name === '' ? memberOf(types, member.type, name) : undefined
    if (inner !== undefined) return { ...inner, bits: inner.bits + member.bitOff }
  }
  return undefined
}
