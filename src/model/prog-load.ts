/** BPF_PROG_LOAD, up to the verifier, whose answer the caller says. */
import { ATTACH_ZERO } from '../policy/kernel-classes.ts'
import { hasBit } from '../policy/vocabulary.ts'
import { bpf_attr_prog_load } from '../uapi/bpf.ts'
import { NET_ADMIN_PROGS, PERFMON_PROGS } from '../uapi/bpf-needs.ts'
import { type AttrBytes, callFails, lsmText, tailFails } from './bpf-call.ts'
import { type File, fileText } from './file.ts'
import { type ErrnoName, type Judge, type Rule, wordList } from './judge.ts'
import type { KernelFacts } from './kernel.ts'
import type { Machine } from './machine.ts'
import { nameFails } from './names.ts'
import type { Task } from './task.ts'
import { foundText, neededText, resolveToken, type TokenChoice, tokenCapable } from './token.ts'

export interface ProgLoad {
  readonly op: 'prog_load'
  /** enum bpf_prog_type */
  readonly type: number
  /** enum bpf_attach_type; absent: 0. */
  readonly attach?: number
  /** How many; absent: a few. */
  readonly instructions?: number
  /** prog_flags, without BPF_F_TOKEN_FD. */
  readonly flags?: number
  readonly name?: string
  readonly token?: TokenChoice
  readonly standardInput?: File
  /** attach_btf_id; absent: 0. */
  readonly target?: number
  /** What attach_prog_fd names; absent: 0, and then `target` is a type of the kernel's. */
  readonly targetFile?: File
  /** Whether instructions and license can be read; absent: they can. */
  readonly unreadable?: boolean
  /** With what the verifier refuses; absent: it accepts. */
  readonly verifier?: ErrnoName
  readonly attr?: AttrBytes
}

export const PROG_RULES = {
  flags: {
    name: 'PROG_LOAD: flags',
    needs: 'flags that this kernel knows',
    source: 'bpf_prog_load',
    errno: 'EINVAL',
  },
  refused: {
    name: 'PROG_LOAD: refused by this kernel',
    needs: 'a program type that this kernel does not refuse to everybody',
    source: 'bpf_prog_load',
    errno: 'EPERM',
  },
  coversType: {
    name: 'token: allows the program type',
    needs: 'a token that allows the program type; without, it is ignored',
    source: 'bpf_token_allow_prog_type',
  },
  coversAttach: {
    name: 'token: allows the attach type',
    needs: 'a token that allows the expected attach type; without, it is ignored',
    source: 'bpf_token_allow_prog_type',
  },
  fixUp: {
    name: 'PROG_LOAD: attach type is put right',
    needs: 'an attach type of 0 that the kernel replaces',
    source: 'bpf_prog_load_fixup_attach_type',
  },
  unprivileged: {
    name: 'PROG_LOAD: unprivileged_bpf_disabled',
    needs: 'CAP_BPF, or kernel.unprivileged_bpf_disabled=0',
    source: 'bpf_prog_load',
    errno: 'EPERM',
  },
  some: {
    name: 'PROG_LOAD: some instructions',
    needs: 'at least one instruction',
    source: 'bpf_prog_load',
    errno: 'E2BIG',
  },
  tooMany: {
    name: 'PROG_LOAD: number of instructions',
    needs: '4096 instructions at most, with CAP_BPF 1000000',
    source: 'bpf_prog_load',
    errno: 'E2BIG',
  },
  bpf: {
    name: 'PROG_LOAD: CAP_BPF for the type',
    needs: 'CAP_BPF',
    source: 'bpf_prog_load',
    errno: 'EPERM',
  },
  network: {
    name: 'PROG_LOAD: CAP_NET_ADMIN for the type',
    needs: 'CAP_NET_ADMIN',
    source: 'is_net_admin_prog_type',
    errno: 'EPERM',
  },
  perfmon: {
    name: 'PROG_LOAD: CAP_PERFMON for the type',
    needs: 'CAP_PERFMON',
    source: 'is_perfmon_prog_type',
    errno: 'EPERM',
  },
  targetFile: {
    name: 'PROG_LOAD: target program or BTF',
    needs: 'a program or BTF object as target',
    source: 'bpf_prog_load',
    errno: 'EINVAL',
  },
  targetBtf: {
    name: 'PROG_LOAD: target BTF is the kernel’s',
    needs: 'BTF of the kernel or its modules',
    source: 'bpf_prog_load',
    errno: 'ENOTSUPP',
  },
  targetNamed: {
    name: 'PROG_LOAD: a BTF comes with a type',
    needs: 'attach_btf_id beside a BTF object',
    source: 'bpf_prog_load_check_attach',
    errno: 'EINVAL',
  },
  targetType: {
    name: 'PROG_LOAD: type that has a target',
    needs: 'no attach target, but for tracing, lsm, struct_ops and ext',
    source: 'bpf_prog_load_check_attach',
    errno: 'EINVAL',
  },
  targetProgram: {
    name: 'PROG_LOAD: type that has a program as target',
    needs: 'no target program, but for tracing and ext',
    source: 'bpf_prog_load_check_attach',
    errno: 'EINVAL',
  },
  many: {
    name: 'PROG_LOAD: many functions at once',
    needs: 'a tracing program without a target, for an attach type of many functions',
    source: 'bpf_prog_load_check_attach',
    errno: 'EINVAL',
  },
  attach: {
    name: 'PROG_LOAD: attach type of the program type',
    needs: 'an expected attach type that goes with the program type',
    source: 'bpf_prog_load_check_attach',
    errno: 'EINVAL',
  },
  readable: {
    name: 'PROG_LOAD: instructions and license',
    needs: 'instructions and license that can be read',
    source: 'bpf_prog_load',
    errno: 'EFAULT',
  },
  type: {
    name: 'PROG_LOAD: program type',
    needs: 'a program type that this kernel has',
    source: 'find_prog_type',
    errno: 'EINVAL',
  },
  name: {
    name: 'PROG_LOAD: name',
    needs: 'a name of at most 15 letters, digits, "_" and "."',
    source: 'bpf_obj_name_cpy',
    errno: 'EINVAL',
  },
  lsmLoad: {
    name: 'LSM bpf_prog_load',
    needs: 'security modules that allow the program',
    source: 'security_bpf_prog_load',
  },
  verifier: {
    name: 'PROG_LOAD: verifier',
    needs: 'a program that the verifier accepts',
    source: 'bpf_check',
    errno: 'EACCES',
  },
  lsmProg: {
    name: 'LSM bpf_prog',
    needs: 'security modules that allow a descriptor of the program',
    source: 'security_bpf_prog',
  },
} as const satisfies Record<string, Rule>

const UNPRIVILEGED_PROGS = wordList('program types without CAP_BPF', ['socket_filter', 'cgroup_skb'])
const NETWORK_PROGS = wordList('program types with CAP_NET_ADMIN', NET_ADMIN_PROGS)
const TRACING_PROGS = wordList('program types with CAP_PERFMON', PERFMON_PROGS)
const WITH_TARGET = wordList('program types with a target', ['tracing', 'lsm', 'struct_ops', 'ext'])
const ON_PROGRAMS = wordList('program types with a program as target', ['tracing', 'ext'])

const both = (...names: string[]): string[] =>
  names.flatMap(name => [`cgroup_inet4_${name}`, `cgroup_inet6_${name}`])
const SOCK_ADDR_CALLS = [
  ...both('bind', 'connect', 'getpeername', 'getsockname'),
  ...['sendmsg', 'recvmsg'].flatMap(call => [`cgroup_udp4_${call}`, `cgroup_udp6_${call}`]),
  ...['connect', 'getpeername', 'getsockname', 'sendmsg', 'recvmsg'].map(call => `cgroup_unix_${call}`),
]

/** The attach types that a program type takes when it is loaded. Of the others any is taken. */
const ATTACHS_AT_LOAD = Object.fromEntries(
  Object.entries({
    cgroup_sock: ['cgroup_inet_sock_create', 'cgroup_inet_sock_release', ...both('post_bind')],
    cgroup_sock_addr: SOCK_ADDR_CALLS,
    cgroup_skb: [ATTACH_ZERO, 'cgroup_inet_egress'],
    cgroup_sockopt: ['cgroup_setsockopt', 'cgroup_getsockopt'],
    sk_lookup: ['sk_lookup'],
    sk_reuseport: ['sk_reuseport_select', 'sk_reuseport_select_or_migrate'],
    netfilter: ['netfilter'],
    syscall: [ATTACH_ZERO],
    ext: [ATTACH_ZERO],
  }).map(([type, words]) => [type, wordList(`attach types of ${type}`, words)]),
)

/** Lists that a mutation may change, for tests. */
export const PROG_LISTS = [
  UNPRIVILEGED_PROGS,
  NETWORK_PROGS,
  TRACING_PROGS,
  WITH_TARGET,
  ON_PROGRAMS,
  ...Object.values(ATTACHS_AT_LOAD),
]

/** Attach types of a program for many functions, which are named when it is attached. */
const MANY_FUNCTIONS = new Set(['trace_fentry_multi', 'trace_fexit_multi', 'trace_fsession_multi'])

/** Which attach type stands for 0. */
const FIXED_UP: Readonly<Record<string, string>> = {
  cgroup_sock: 'cgroup_inet_sock_create',
  sk_reuseport: 'sk_reuseport_select',
}

const MAX_INSTRUCTIONS = 1_000_000
const MAX_UNPRIVILEGED_INSTRUCTIONS = 4096
/** Flags up to BPF_F_TEST_REG_INVARIANTS, all known since 6.8. */
const KNOWN_FLAGS = 0xff

const AT = bpf_attr_prog_load.fields

/** The attach type that the kernel goes on with. */
export function fixedAttach(judge: Judge, kernel: KernelFacts, word: string, attach: number): number {
  const instead = FIXED_UP[word]
  if (instead === undefined || !judge.part(PROG_RULES.fixUp, attach === 0)) return attach
  return kernel.vocabulary.attachs.bitOfName.get(instead)!
}

export function progLoad(judge: Judge, machine: Machine, task: Task, call: ProgLoad): void {
  const attr = call.attr ?? {}
  const { kernel } = machine
  if (callFails(judge, machine, task, 'prog_load', attr)) return
  if (tailFails(judge, machine, 'prog_load', attr)) return
  const flags = call.flags ?? 0
  const unknown = (flags & ~KNOWN_FLAGS) !== 0 || (call.token?.flag === true && !kernel.hasTokens)
  if (judge.fails(PROG_RULES.flags, !unknown, () => `flags 0x${flags.toString(16)}`)) return
  const word = kernel.vocabulary.progs.nameOfBit.get(call.type) ?? `type ${call.type}`
  const attach = fixedAttach(judge, kernel, word, call.attach ?? 0)
  const attachWord = kernel.vocabulary.attachs.nameOfBit.get(attach)
  const refused =
    kernel.refusedProgs.size > 0 &&
    (kernel.refusedProgs.has(word) || kernel.refusedProgs.has(`${word}/${attachWord ?? attach}`))
  if (judge.fails(PROG_RULES.refused, !refused, refused ? `${word} is refused` : 'not refused')) return
  const isKnown = kernel.vocabulary.progs.nameOfBit.has(call.type) && attachWord !== undefined
  const resolved = resolveToken(
    judge,
    machine,
    choiceOf(call),
    'prog_load',
    token =>
      judge.holds(PROG_RULES.coversType, isKnown && hasBit(token.masks.progs, call.type), word) &&
      judge.holds(
        PROG_RULES.coversAttach,
        isKnown && hasBit(token.masks.attachs, attach),
        attachWord ?? `attach type ${attach}`,
      ),
  )
  if (resolved.refused) return
  const { token } = resolved
  const found = (): string => foundText(machine, task, token)
  const has = (capability: 'bpf' | 'net_admin' | 'perfmon'): boolean =>
    tokenCapable(judge, machine, task, token, capability)
  const needs = (capability: 'bpf' | 'net_admin' | 'perfmon') => (): string => neededText(token, capability)
  const bpf = has('bpf')
  const sysctl = machine.unprivilegedBpfDisabled
  const sysctlText = (): string => `kernel.unprivileged_bpf_disabled=${sysctl}; ${found()}`
  if (judge.fails(PROG_RULES.unprivileged, sysctl === 0 || bpf, sysctlText, needs('bpf'))) return
  const count = call.instructions ?? 2
  if (judge.fails(PROG_RULES.some, count !== 0, `${count}`)) return
  const limit = bpf ? MAX_INSTRUCTIONS : MAX_UNPRIVILEGED_INSTRUCTIONS
  if (judge.fails(PROG_RULES.tooMany, count <= limit, `${count}`, `${limit} at most`)) return
  const free = judge.isOn(UNPRIVILEGED_PROGS, word)
  if (!free && judge.fails(PROG_RULES.bpf, bpf, found, needs('bpf'))) return
  if (
    judge.isOn(NETWORK_PROGS, word) &&
    judge.fails(PROG_RULES.network, has('net_admin'), found, needs('net_admin'))
  )
    return
  if (
    judge.isOn(TRACING_PROGS, word) &&
    judge.fails(PROG_RULES.perfmon, has('perfmon'), found, needs('perfmon'))
  )
    return
  if (targetFails(judge, call, word)) return
  const many = MANY_FUNCTIONS.has(attachWord ?? '')
  const alone = word === 'tracing' && (call.target ?? 0) === 0
  if (judge.fails(PROG_RULES.many, !many || alone, attachWord ?? `attach type ${attach}`)) return
  const attachs = ATTACHS_AT_LOAD[word]
  const goes = attachs === undefined || judge.isOn(attachs, attachWord ?? '')
  if (judge.fails(PROG_RULES.attach, goes, attachWord ?? `attach type ${attach}`)) return
  verifying(judge, machine, call, word)
}

/** Attributes that are cut name descriptor 0. */
function choiceOf({ token, attr, standardInput }: ProgLoad): TokenChoice | undefined {
  if (token === undefined || attr?.size === undefined || attr.size >= AT.prog_token_fd.off + 4) return token
  return { flag: token.flag, file: standardInput ?? { kind: 'other' } }
}

/** What is wrong with the target of programs that name one. */
function targetFails(judge: Judge, call: ProgLoad, word: string): boolean {
  const { target = 0, targetFile: file } = call
  const isProgram = file?.kind === 'prog'
  if (file !== undefined && !isProgram) {
    if (judge.fails(PROG_RULES.targetFile, file.kind === 'btf', fileText(file))) return true
    const isKernel = file.kind === 'btf' && file.isKernel
    if (judge.fails(PROG_RULES.targetBtf, isKernel, fileText(file))) return true
  }
  const may = target === 0 || judge.isOn(WITH_TARGET, word)
  if (judge.fails(PROG_RULES.targetType, may, target === 0 ? 'no target' : word)) return true
  const isBtf = file?.kind === 'btf'
  if (judge.fails(PROG_RULES.targetNamed, !isBtf || target !== 0, isBtf ? `type ${target}` : 'no BTF'))
    return true
  const mayProgram = !isProgram || judge.isOn(ON_PROGRAMS, word)
  return judge.fails(PROG_RULES.targetProgram, mayProgram, isProgram ? word : 'no target program')
}

function verifying(judge: Judge, { kernel, lsm }: Machine, call: ProgLoad, word: string): void {
  const readable = call.unreadable !== true
  if (judge.fails(PROG_RULES.readable, readable, readable ? 'readable' : 'not readable')) return
  const known =
    word !== 'unspec' && kernel.vocabulary.progs.bitOfName.has(word) && !kernel.absentProgs.has(word)
  if (judge.fails(PROG_RULES.type, known, word)) return
  if (nameFails(judge, PROG_RULES.name, call.name)) return
  const load = lsm?.bpf_prog_load
  if (judge.fails(PROG_RULES.lsmLoad, load === undefined, lsmText(load), undefined, load)) return
  const { verifier } = call
  const said = verifier === undefined ? 'accepted' : `refused with ${verifier}`
  if (judge.fails(PROG_RULES.verifier, verifier === undefined, said, undefined, verifier)) return
  const prog = lsm?.bpf_prog
  judge.fails(PROG_RULES.lsmProg, prog === undefined, lsmText(prog), undefined, prog)
}
