/** What every bpf(2) call passes first: seccomp, the attributes' size, the LSM hook `bpf`. */
import { type Judge, type Rule, type WordList, wordList } from './judge.ts'
import type { ModelCommand } from './kernel.ts'
import type { Machine } from './machine.ts'
import { bpfNsCapable, capabilityText, INITIAL, type ModelCapability, nsCapable, type Task } from './task.ts'

/** The bytes that the caller passes as attributes, beside the fields that the call names. */
export interface AttrBytes {
  /** How many; absent: all that the command needs. Fields that lie behind read as 0. */
  readonly size?: number
  /** Offset of a byte that is not zero and belongs to no field of the command. */
  readonly junkAt?: number
}

/** Up to this size the kernel looks at attributes that are longer than it knows. */
const PAGE_BYTES = 4096

export const CALL_RULES = {
  seccomp: {
    name: 'seccomp: bpf(2)',
    needs: 'a seccomp filter that lets bpf(2) through',
    source: 'seccomp',
    errno: 'EPERM',
  },
  size: {
    name: 'bpf: attributes too long',
    needs: 'attributes of one page at most',
    source: 'bpf_check_uarg_tail_zero',
    errno: 'E2BIG',
  },
  newer: {
    name: 'bpf: fields of a newer kernel',
    needs: 'zeros behind the attributes that this kernel knows',
    source: 'bpf_check_uarg_tail_zero',
    errno: 'E2BIG',
  },
  lsm: {
    name: 'LSM bpf',
    needs: 'security modules that allow the command',
    source: 'security_bpf',
  },
  command: {
    name: 'bpf: unknown command',
    needs: 'a kernel with this command',
    source: '__sys_bpf',
    errno: 'EINVAL',
  },
  tail: {
    name: 'CHECK_ATTR',
    needs: 'zeros behind the last field that the command knows',
    source: 'CHECK_ATTR',
    errno: 'EINVAL',
  },
  beforeTokens: {
    name: 'bpf: unprivileged_bpf_disabled, before tokens',
    needs: 'CAP_BPF in the initial user namespace, or kernel.unprivileged_bpf_disabled=0',
    source: '__sys_bpf',
    errno: 'EPERM',
  },
} as const satisfies Record<string, Rule>

const CREATE_COMMANDS: WordList = wordList('commands that unprivileged_bpf_disabled holds before tokens', [
  'map_create',
  'prog_load',
])

/** Whether the call fails before its own function. */
export function callFails(
  judge: Judge,
  machine: Machine,
  task: Task,
  command: ModelCommand,
  attr: AttrBytes,
): boolean {
  const { kernel, lsm } = machine
  const size = attr.size ?? kernel.attrEnds[command]
  const junk = attr.junkAt
  if (
    judge.fails(
      CALL_RULES.seccomp,
      task.seccomp === undefined,
      task.seccomp === undefined ? 'it is let through' : `the filter answers ${task.seccomp}`,
      undefined,
      task.seccomp,
    )
  )
    return true
  if (!kernel.hasTokens && judge.isOn(CREATE_COMMANDS, command)) {
    const may = machine.unprivilegedBpfDisabled === 0 || bpfNsCapable(judge, task, INITIAL, 'bpf')
    const found = `kernel.unprivileged_bpf_disabled=${machine.unprivilegedBpfDisabled}`
    if (judge.fails(CALL_RULES.beforeTokens, may, found)) return true
  }
  if (judge.fails(CALL_RULES.size, size <= PAGE_BYTES, `${size} bytes`)) return true
  const beyond = junk !== undefined && junk < size && junk >= kernel.attrBytes
  if (judge.fails(CALL_RULES.newer, !beyond, beyond ? `a byte at ${junk}` : 'zeros')) return true
  if (judge.fails(CALL_RULES.lsm, lsm?.bpf === undefined, lsmText(lsm?.bpf), undefined, lsm?.bpf)) return true
  const known = kernel.vocabulary.cmds.bitOfName.has(command)
  if (judge.fails(CALL_RULES.command, known, known ? command : `no ${command}`)) return true
  return false
}

/** Whether bytes behind the command's last field are not zero. */
export function tailFails(judge: Judge, machine: Machine, command: ModelCommand, attr: AttrBytes): boolean {
  const junk = attr.junkAt
  const size = attr.size ?? machine.kernel.attrEnds[command]
  const bad = junk !== undefined && junk < size && junk >= machine.kernel.attrEnds[command]
  return judge.fails(CALL_RULES.tail, !bad, bad ? `a byte at ${junk}` : 'zeros')
}

/** The value of a field of four bytes at `offset`: 0 if the attributes end before. */
export function fieldOf(attr: AttrBytes, offset: number, value: number): number {
  return attr.size === undefined || attr.size >= offset + 4 ? value : 0
}

export function lsmText(errno: string | undefined): string {
  return errno === undefined ? 'nothing against it' : `refused with ${errno}`
}

/** A capability over the initial namespace, which no token stands in for: capable(). */
export function capable(judge: Judge, task: Task, capability: ModelCapability): boolean {
  return nsCapable(judge, task, INITIAL, capability)
}

export function initialText(task: Task, capability: ModelCapability): string {
  if (task.userNamespace !== INITIAL) return `a task of user namespace ${task.userNamespace.name}`
  return task.capabilities.has(capability) ? capabilityText(capability) : `no ${capabilityText(capability)}`
}
