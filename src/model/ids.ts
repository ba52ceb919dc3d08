/** Commands about objects by their numbers, and what is asked of the host alone: no token serves. */
import { type AttrBytes, callFails, capable, initialText, lsmText, tailFails } from './bpf-call.ts'
import type { Judge, Rule } from './judge.ts'
import type { KernelFacts, ModelCommand } from './kernel.ts'
import type { Machine } from './machine.ts'
import type { Task } from './task.ts'

/** `*_get_next_id`, and `*_get_fd_by_id` but for BTF, which takes a token: see btf.ts. */
export interface GetById {
  readonly op: Extract<
    ModelCommand,
    | 'prog_get_next_id'
    | 'map_get_next_id'
    | 'btf_get_next_id'
    | 'link_get_next_id'
    | 'prog_get_fd_by_id'
    | 'map_get_fd_by_id'
    | 'link_get_fd_by_id'
  >
  /** Whether there is an object of that number, or after it. */
  readonly exists: boolean
  /** `*_get_next_id`: the number is 2147483647 or more. */
  readonly tooHigh?: boolean
  /** open_flags of `*_get_fd_by_id`: BPF_F_RDONLY or BPF_F_WRONLY of a map, 0 of others. */
  readonly flags?: number
  readonly attr?: AttrBytes
}

/** BPF_ENABLE_STATS. BPF_TASK_FD_QUERY is asked about a process that is not there. */
export interface HostCommand {
  readonly op: 'enable_stats' | 'task_fd_query'
  /** Whether statistics are of a kind that there is. */
  readonly known?: boolean
  readonly attr?: AttrBytes
}

export interface ProgQuery {
  readonly op: 'prog_query'
  /** enum bpf_attach_type */
  readonly attach: number
  readonly flags?: number
  /** The cgroup, device or whatever is asked about is not there. */
  readonly missing?: boolean
  readonly attr?: AttrBytes
}

export const ID_RULES = {
  tooHigh: {
    name: 'GET_NEXT_ID: number',
    needs: 'a number below 2147483647',
    source: 'bpf_obj_get_next_id',
    errno: 'EINVAL',
  },
  flags: {
    name: 'GET_FD_BY_ID: flags',
    needs: 'no flag but BPF_F_RDONLY and BPF_F_WRONLY, and those for maps alone',
    source: 'bpf_map_get_fd_by_id',
    errno: 'EINVAL',
  },
  capable: {
    name: 'GET_BY_ID: CAP_SYS_ADMIN of the host',
    needs: 'CAP_SYS_ADMIN in the initial user namespace; no token stands in for it',
    source: 'bpf_prog_get_fd_by_id',
    errno: 'EPERM',
  },
  fileFlags: {
    name: 'MAP_GET_FD_BY_ID: read-only and write-only at once',
    needs: 'not both BPF_F_RDONLY and BPF_F_WRONLY',
    source: 'bpf_get_file_flag',
    errno: 'EINVAL',
  },
  exists: {
    name: 'GET_BY_ID: object',
    needs: 'an object of that number, or after it',
    source: 'bpf_prog_by_id',
    errno: 'ENOENT',
  },
  lsm: {
    name: 'LSM bpf_prog and bpf_map, of an object by its number',
    needs: 'security modules that allow a descriptor of the object',
    source: 'bpf_prog_new_fd',
  },
  host: {
    name: 'CAP_SYS_ADMIN of the host',
    needs: 'CAP_SYS_ADMIN in the initial user namespace; no token stands in for it',
    source: 'bpf_enable_stats',
    errno: 'EPERM',
  },
  stats: {
    name: 'ENABLE_STATS: kind',
    needs: 'a kind of statistics that there is',
    source: 'bpf_enable_stats',
    errno: 'EINVAL',
  },
  process: {
    name: 'TASK_FD_QUERY: process',
    needs: 'a process that is there',
    source: 'bpf_task_fd_query',
    errno: 'ENOENT',
  },
  query: {
    name: 'PROG_QUERY: CAP_NET_ADMIN of the host',
    needs: 'CAP_NET_ADMIN or CAP_SYS_ADMIN in the initial user namespace; no token stands in for it',
    source: 'bpf_net_capable',
    errno: 'EPERM',
  },
  queryFlags: {
    name: 'PROG_QUERY: flags',
    needs: 'no flag but BPF_F_QUERY_EFFECTIVE',
    source: 'bpf_prog_query',
    errno: 'EINVAL',
  },
  queryAttach: {
    name: 'PROG_QUERY: attach type',
    needs: 'an attach type that can be asked about',
    source: 'bpf_prog_query',
    errno: 'EINVAL',
  },
  queryEffective: {
    name: 'PROG_QUERY: BPF_F_QUERY_EFFECTIVE',
    needs: 'BPF_F_QUERY_EFFECTIVE for cgroups alone',
    source: 'netns_bpf_prog_query',
    errno: 'EINVAL',
  },
  queryTarget: {
    name: 'PROG_QUERY: target',
    needs: 'a cgroup, network namespace, map or device that is there',
    source: 'cgroup_bpf_prog_query',
    errno: 'EBADF',
  },
} as const satisfies Record<string, Rule>

const BPF_F_RDONLY = 8
const BPF_F_WRONLY = 16

export function getById(judge: Judge, machine: Machine, task: Task, call: GetById): void {
  const attr = call.attr ?? {}
  if (callFails(judge, machine, task, call.op, attr)) return
  if (tailFails(judge, machine, call.op, attr)) return
  if (call.op.endsWith('_get_next_id')) {
    const high = call.tooHigh === true
    if (judge.fails(ID_RULES.tooHigh, !high, high ? 'too high' : 'in range')) return
  }
  const flags = call.flags ?? 0
  const taken = call.op === 'map_get_fd_by_id' ? BPF_F_RDONLY | BPF_F_WRONLY : 0
  if (judge.fails(ID_RULES.flags, (flags & ~taken) === 0, `flags ${flags}`)) return
  const may = capable(judge, task, 'sys_admin')
  if (judge.fails(ID_RULES.capable, may, () => initialText(task, 'sys_admin'))) return
  if (call.op === 'map_get_fd_by_id') {
    const both = (flags & BPF_F_RDONLY) !== 0 && (flags & BPF_F_WRONLY) !== 0
    if (judge.fails(ID_RULES.fileFlags, !both, both ? 'both' : 'not both')) return
  }
  if (judge.fails(ID_RULES.exists, call.exists, call.exists ? 'there is one' : 'there is none')) return
  const hook = call.op === 'prog_get_fd_by_id' ? 'bpf_prog' : 'bpf_map'
  const asked = call.op === 'prog_get_fd_by_id' || call.op === 'map_get_fd_by_id'
  const refusal = asked ? machine.lsm?.[hook] : undefined
  judge.fails(ID_RULES.lsm, refusal === undefined, lsmText(refusal), undefined, refusal)
}

export function hostCommand(judge: Judge, machine: Machine, task: Task, call: HostCommand): void {
  const attr = call.attr ?? {}
  if (callFails(judge, machine, task, call.op, attr)) return
  if (tailFails(judge, machine, call.op, attr)) return
  const may = capable(judge, task, 'sys_admin')
  if (judge.fails(ID_RULES.host, may, () => initialText(task, 'sys_admin'))) return
  if (call.op === 'task_fd_query') {
    judge.fails(ID_RULES.process, false, 'there is none')
    return
  }
  const known = call.known !== false
  judge.fails(ID_RULES.stats, known, known ? 'known' : 'not known')
}

export function progQuery(judge: Judge, machine: Machine, task: Task, call: ProgQuery): void {
  const attr = call.attr ?? {}
  if (callFails(judge, machine, task, 'prog_query', attr)) return
  const may = capable(judge, task, 'net_admin') || capable(judge, task, 'sys_admin')
  if (judge.fails(ID_RULES.query, may, () => initialText(task, 'net_admin'))) return
  if (tailFails(judge, machine, 'prog_query', attr)) return
  const flags = call.flags ?? 0
  if (judge.fails(ID_RULES.queryFlags, (flags & ~1) === 0, `flags ${flags}`)) return
  const word = machine.kernel.vocabulary.attachs.nameOfBit.get(call.attach)
  const can = word !== undefined && isQueried(word) && !isLacking(machine.kernel, word)
  if (judge.fails(ID_RULES.queryAttach, can, word ?? `attach type ${call.attach}`)) return
  const ofDevice = /^(tcx|netkit)_/.test(word ?? '')
  const takes = (flags & 1) === 0 || /^(cgroup_|lsm_cgroup)/.test(word ?? '')
  const there = call.missing !== true
  // Devices are looked up first.
  const takesFlags = (): boolean => judge.fails(ID_RULES.queryEffective, takes, `flags ${flags}`)
  if (!ofDevice && takesFlags()) return
  const errno = ofDevice ? 'ENODEV' : 'EBADF'
  if (judge.fails(ID_RULES.queryTarget, there, there ? 'there' : 'not there', undefined, errno)) return
  if (ofDevice) takesFlags()
}

const QUERIED = new Set([
  ...['lirc_mode2', 'flow_dissector', 'sk_lookup', 'tcx_ingress', 'tcx_egress'],
  ...['netkit_primary', 'netkit_peer', 'lsm_cgroup'],
  ...['sk_skb_stream_parser', 'sk_skb_stream_verdict', 'sk_msg_verdict', 'sk_skb_verdict'],
])

function isLacking({ lacks }: KernelFacts, word: string): boolean {
  return (word === 'lirc_mode2' && lacks.has('lirc')) || (word.startsWith('netkit_') && lacks.has('netkit'))
}

function isQueried(word: string): boolean {
  return word.startsWith('cgroup_') || QUERIED.has(word)
}
