/** BPF_BTF_LOAD and BPF_BTF_GET_FD_BY_ID, the two commands that take a token without a type. */
import { type AttrBytes, callFails, lsmText, tailFails } from './bpf-call.ts'
import type { ErrnoName, Judge, Rule } from './judge.ts'
import type { Machine } from './machine.ts'
import type { Task } from './task.ts'
import { foundText, neededText, resolveToken, type TokenChoice, tokenCapable } from './token.ts'

export interface BtfLoad {
  readonly op: 'btf_load'
  /** btf_flags, without BPF_F_TOKEN_FD. */
  readonly flags?: number
  readonly token?: TokenChoice
  /** With what the BTF's own check refuses; absent: it accepts. */
  readonly parser?: ErrnoName
  readonly attr?: AttrBytes
}

export interface BtfGetFdById {
  readonly op: 'btf_get_fd_by_id'
  /** Whether there is a BTF object of that number. */
  readonly exists: boolean
  /** open_flags, without BPF_F_TOKEN_FD. */
  readonly flags?: number
  readonly token?: TokenChoice
  readonly attr?: AttrBytes
}

export const BTF_RULES = {
  loadFlags: {
    name: 'BTF_LOAD: flags',
    needs: 'no flag but BPF_F_TOKEN_FD',
    source: 'bpf_btf_load',
    errno: 'EINVAL',
  },
  loadCapable: {
    name: 'BTF_LOAD: CAP_BPF',
    needs: 'CAP_BPF',
    source: 'bpf_btf_load',
    errno: 'EPERM',
  },
  parser: {
    name: 'BTF_LOAD: valid BTF',
    needs: 'BTF that the kernel finds valid',
    source: 'btf_new_fd',
    errno: 'EINVAL',
  },
  idFlags: {
    name: 'BTF_GET_FD_BY_ID: flags',
    needs: 'no flag but BPF_F_TOKEN_FD, and that since Linux 6.15',
    source: 'bpf_btf_get_fd_by_id',
    errno: 'EINVAL',
  },
  idCapable: {
    name: 'BTF_GET_FD_BY_ID: CAP_SYS_ADMIN',
    needs: 'CAP_SYS_ADMIN',
    source: 'bpf_btf_get_fd_by_id',
    errno: 'EPERM',
  },
  idExists: {
    name: 'BTF_GET_FD_BY_ID: object',
    needs: 'a BTF object of that number',
    source: 'btf_get_fd_by_id',
    errno: 'ENOENT',
  },
} as const satisfies Record<string, Rule>

const COVERS = (): boolean => true

export function btfLoad(judge: Judge, machine: Machine, task: Task, call: BtfLoad): void {
  const attr = call.attr ?? {}
  if (callFails(judge, machine, task, 'btf_load', attr)) return
  if (tailFails(judge, machine, 'btf_load', attr)) return
  const flags = call.flags ?? 0
  if (judge.fails(BTF_RULES.loadFlags, flags === 0, () => `flags 0x${flags.toString(16)}`)) return
  const resolved = resolveToken(judge, machine, call.token, 'btf_load', COVERS)
  if (resolved.refused) return
  const { token } = resolved
  const may = tokenCapable(judge, machine, task, token, 'bpf')
  const needed = (): string => neededText(token, 'bpf')
  if (judge.fails(BTF_RULES.loadCapable, may, () => foundText(machine, task, token), needed)) return
  const { parser } = call
  const said = parser === undefined ? 'valid' : lsmText(parser)
  judge.fails(BTF_RULES.parser, parser === undefined, said, undefined, parser)
}

export function btfGetFdById(judge: Judge, machine: Machine, task: Task, call: BtfGetFdById): void {
  const attr = call.attr ?? {}
  if (callFails(judge, machine, task, 'btf_get_fd_by_id', attr)) return
  if (tailFails(judge, machine, 'btf_get_fd_by_id', attr)) return
  const flags = call.flags ?? 0
  const takes = machine.kernel.btfByIdTakesToken
  // Where no token is taken, its descriptor's field is not zero behind the last one that is known.
  const bad = flags !== 0 || (call.token !== undefined && !takes)
  const given = call.token?.flag === true ? 'BPF_F_TOKEN_FD' : `flags 0x${flags.toString(16)}`
  if (judge.fails(BTF_RULES.idFlags, !bad, given)) return
  const resolved = resolveToken(judge, machine, call.token, 'btf_get_fd_by_id', COVERS)
  if (resolved.refused) return
  const { token } = resolved
  const may = tokenCapable(judge, machine, task, token, 'sys_admin')
  const needed = (): string => neededText(token, 'sys_admin')
  if (judge.fails(BTF_RULES.idCapable, may, () => foundText(machine, task, token), needed)) return
  judge.fails(BTF_RULES.idExists, call.exists, call.exists ? 'there is one' : 'there is none')
}
