/**
 * What the running kernel can do, tried out and never guessed from its version: one table, and
 * `Features` to ask.
 *
 * A probe that is refused for want of a right says nothing about the kernel. Other loaders take
 * that for "no" and then load something else, or fail later for an unrelated reason. Here the
 * answer is undefined, and the kernel is asked again.
 */
import { NotSupportedError, SyscallError, VerifierError } from '../../errors.ts'
import { linkCreate, objGetInfoByFd, tokenCreate } from '../../sys/bpf.ts'
import { open } from '../../sys/open.ts'
import { effectiveCapabilities, inInitialUserNamespace } from '../../sys/self.ts'
import { bpf_map_flags, bpf_token_info } from '../../uapi/bpf.ts'
import { BPF_F_SLEEPABLE, BPF_F_XDP_HAS_FRAGS, O_CLOEXEC, O_PATH } from '../../uapi/constants.ts'
import {
  alu64,
  atomic,
  call,
  callLocal,
  exit,
  type Insn,
  jumpIf,
  type Label,
  label,
  ldMapValue,
  loadAcquire,
  mayGoto,
  mov64,
  movsx64,
  R0,
  R1,
  R2,
  R3,
  R10,
  store,
} from '../asm/insn.ts'
import { BtfBuilder } from '../btf/builder.ts'
import { BtfObject, opensTypesByToken } from '../btf/object.ts'
import type { BtfFeature } from '../btf/sanitize.ts'
import { BpfMap, type MapSpec } from '../map.ts'
import { Program, type ProgramSpec } from '../prog.ts'
import { missingCapabilities } from '../rights.ts'
import { chooseToken, type TokenChoice } from '../token.ts'
import { ATTACH_TYPES, type AttachType, type ProgType } from '../type-names.ts'
import { kernelBtf } from './btf.ts'

/** An answer, or a throw that `conclusive` judges. */
type Probe = (token: TokenChoice) => Promise<boolean>

export interface Feature {
  readonly name: FeatureName
  /** First Linux release with it. For messages: whether it is there, the probe says. */
  readonly since: string
  /** Option that a kernel must be built with, beyond those for BPF itself. */
  readonly config?: string
  readonly probe: Probe
}

const RETURN_0: readonly Insn[] = [mov64(R0, 0), exit()]
const NO_FD = 0xffff_ffff
/**
 * No address of ours: the kernel comes to read it, and so knows the command, or has refused before.
 */
const BAD_ADDRESS = 8n

const program = (spec: Partial<ProgramSpec>, token: TokenChoice): Promise<Program> =>
  Program.load({ type: 'socket_filter', insns: RETURN_0, license: 'GPL', name: 'probe', ...spec, token })

const array = (spec: Partial<MapSpec>, token: TokenChoice): BpfMap =>
  BpfMap.create({ type: 'array', keyBytes: 4, valueBytes: 32, maxEntries: 1, name: 'probe', ...spec, token })

/** The kernel takes such a program. */
function loads(spec: Partial<ProgramSpec>): Probe {
  return async token => {
    using _ = await program(spec, token)
    return true
  }
}

/** The kernel takes this code, as a socket filter or as `spec` says. */
function runs(insns: readonly (Insn | Label)[], spec: Partial<ProgramSpec> = {}): Probe {
  return loads({ ...spec, insns })
}

/** The kernel makes such a map. */
function makes(spec: Partial<MapSpec>): Probe {
  return async token => {
    using _ = array(spec, token)
    return true
  }
}

/** The kernel takes such types. */
function describes(types: (btf: BtfBuilder) => void): Probe {
  return async token => {
    using _ = await loadTypes(types, token)
    return true
  }
}

function loadTypes(types: (btf: BtfBuilder) => void, token: TokenChoice): Promise<BtfObject> {
  const btf = new BtfBuilder()
  types(btf)
  return BtfObject.load(btf.build(), { token })
}

const int = (btf: BtfBuilder): number => btf.int('int', 4, { signed: true })
const aFunction = (btf: BtfBuilder): number => btf.funcProto(0, [{ name: 'a', type: int(btf) }])

/** Types of a section with one variable. */
function aDatasec(name: string): (btf: BtfBuilder) => void {
  return btf => {
    const variable = btf.var('x', int(btf), 'static')
    btf.datasec(name, 4, [{ type: variable, off: 0, size: 4 }])
  }
}

/** Storage maps and their types: a long to hold. */
function storage(type: 'task_storage' | 'cgrp_storage'): Probe {
  return async token => {
    using object = await loadTypes(int, token)
    const btf = { object, keyTypeId: 1, valueTypeId: 1 }
    using _ = array(
      { type, valueBytes: 4, maxEntries: 0, flags: bpf_map_flags.BPF_F_NO_PREALLOC, btf },
      token,
    )
    return true
  }
}

/** Makes a link that cannot be, and tells by the errno how far the kernel came. */
function links(
  spec: Partial<ProgramSpec> & { readonly attachType: AttachType },
  attr: Parameters<typeof linkCreate>[0],
  errno: string,
  pointers: Parameters<typeof linkCreate>[1] = {},
): Probe {
  const { attachType, ...rest } = spec
  return async token => {
    using loaded = await program(rest, token)
    const attach_type = ATTACH_TYPES.number(attachType)
    return fails(errno, () => {
      linkCreate({ target_fd: NO_FD, ...attr, prog_fd: loaded.fd.number, attach_type }, pointers).close()
    })
  }
}

/**
 * Whether the command fails with this errno, which only a kernel that knows it gives. It is there
 * as well if it does not fail.
 */
function fails(errno: string, command: () => void): boolean {
  try {
    command()
  } catch (error) {
    if (error instanceof SyscallError && error.errnoName === errno) return true
    throw error
  }
  return true
}

const globalData: Probe = async token => {
  using map = array({}, token)
  const insns = [ldMapValue(R1, map.fd.number, 16), store('u64', R1, 0, 42), ...RETURN_0]
  using _ = await program({ insns }, token)
  return true
}

const bindMap: Probe = async token => {
  using map = array({}, token)
  using loaded = await program({}, token)
  loaded.bindMap(map)
  return true
}

const moduleBtf: Probe = async token => {
  using object = await loadTypes(int, token)
  // Kernels that know no modules' types know no name of types either.
  object.info()
  return true
}

/** A context that is a plain pointer but for its tag; only a helper that wants a context tells. */
const contextTag: Probe = async token => {
  using object = await loadTypes(btf => {
    const pointer = btf.ptr(0)
    const result = int(btf)
    const main = btf.funcProto(result, [{ name: 'a', type: pointer }])
    btf.func('main', main)
    const other = btf.funcProto(result, [{ name: 'b', type: pointer }])
    btf.declTag('arg:ctx', btf.func('other', other), 0)
  }, token)
  const insns = [callLocal('other'), exit(), label('other'), call('get_func_ip'), exit()]
  // struct bpf_func_info: insn_off, type_id
  const data = new Uint8Array(Uint32Array.of(0, 4, 2, 6).buffer)
  const btf = { object, funcInfo: { recordBytes: 8, data } }
  using _ = await program({ type: 'kprobe', insns, btf }, token)
  return true
}

/** Too far into a map either way; but where the range is full, a later check says so. */
const fullRange: Probe = async token => {
  using map = array({ valueBytes: 1 }, token)
  try {
    using _ = await program({ insns: [ldMapValue(R1, map.fd.number, 2 ** 30), exit()] }, token)
  } catch (error) {
    if (!(error instanceof VerifierError)) throw error
    const log = error.log.join('\n')
    if (log.includes('invalid access to map value pointer')) return true
    if (!log.includes('direct value offset')) throw error
  }
  return false
}

/** Tokens exist where a descriptor that is none of a bpffs is looked at. Needs no right. */
const tokens: Probe = async () => {
  using path = open('/', O_PATH | O_CLOEXEC)
  return fails('EBADF', () => tokenCreate(path).close())
}

const tokenInfo: Probe = async choice => {
  const token = chooseToken(choice)
  if (token === undefined) return kernelBtf().types.find('bpf_token_info', 'struct').length > 0
  objGetInfoByFd(token.fd, new Uint8Array(bpf_token_info.size))
  return true
}

const btfByToken: Probe = async () => opensTypesByToken()

const TRACEPOINT = { type: 'tracepoint' } as const
const KPROBE_MULTI = { type: 'kprobe', expectedAttachType: 'trace_kprobe_multi' } as const
const UPROBE_MULTI = { type: 'kprobe', expectedAttachType: 'trace_uprobe_multi' } as const
const ROOT_PATH = new TextEncoder().encode('/\0')
/** Uprobes in a directory, which has no code. */
const uprobes = (pid: number, errno: string): Probe =>
  links(
    { ...UPROBE_MULTI, attachType: 'trace_uprobe_multi' },
    { uprobe_multi_cnt: 1, uprobe_multi_pid: pid },
    errno,
    { uprobe_multi_path: ROOT_PATH, uprobe_multi_offsets: new Uint8Array(8) },
  )

interface Row {
  readonly since: string
  readonly config?: string
  readonly probe: Probe
}

/** One page. */
const ARENA = { type: 'arena', keyBytes: 0, valueBytes: 0, flags: bpf_map_flags.BPF_F_MMAPABLE } as const

// biome-ignore format: a table
const TABLE = {
  prog_name: { since: '4.15', probe: loads({}) },
  exp_attach_type: {
    since: '4.17', config: 'CONFIG_CGROUP_BPF',
    probe: loads({ type: 'cgroup_sock', expectedAttachType: 'cgroup_inet_sock_create', insns: [mov64(R0, 1), exit()] }),
  },
  btf: { since: '4.18', probe: describes(int) },
  btf_func: { since: '5.0', probe: describes(btf => btf.func('x', aFunction(btf), 'static')) },
  btf_datasec: { since: '5.2', probe: describes(aDatasec('.data')) },
  global_data: { since: '5.2', probe: globalData },
  bounded_loop: { since: '5.3', probe: runs([mov64(R0, 10), label('again'), alu64('-=', R0, 1), jumpIf('!=', R0, 0, 'again'), exit()]) },
  array_mmap: { since: '5.5', probe: makes({ flags: bpf_map_flags.BPF_F_MMAPABLE }) },
  probe_read_kernel: {
    since: '5.5', config: 'CONFIG_BPF_EVENTS',
    probe: runs([mov64(R1, R10), alu64('+=', R1, -8), mov64(R2, 8), mov64(R3, 0), call('probe_read_kernel'), exit()], TRACEPOINT),
  },
  btf_func_global: { since: '5.6', probe: describes(btf => btf.func('x', aFunction(btf))) },
  ringbuf: { since: '5.8', probe: makes({ type: 'ringbuf', keyBytes: 0, valueBytes: 0, maxEntries: 65536 }) },
  prog_bind_map: { since: '5.10', probe: bindMap },
  module_btf: { since: '5.11', probe: moduleBtf },
  memcg_account: { since: '5.11', probe: runs([call('ktime_get_coarse_ns'), exit()]) },
  task_storage: { since: '5.11', probe: storage('task_storage') },
  atomic_fetch: { since: '5.12', probe: runs([mov64(R0, 1), store('u64', R10, -8, 0), atomic('add', 'u64', R10, -8, R0, { fetch: true }), exit()]) },
  btf_float: { since: '5.13', probe: describes(btf => btf.float('float', 4)) },
  syscall_program: { since: '5.14', probe: loads({ type: 'syscall', flags: BPF_F_SLEEPABLE }) },
  bpf_cookie: { since: '5.15', config: 'CONFIG_BPF_EVENTS', probe: runs([call('get_attach_cookie'), exit()], TRACEPOINT) },
  perf_link: { since: '5.15', config: 'CONFIG_PERF_EVENTS', probe: links({ ...TRACEPOINT, attachType: 'perf_event' }, {}, 'EBADF') },
  btf_decl_tag: { since: '5.16', probe: describes(btf => btf.declTag('tag', btf.var('x', int(btf), 'static'))) },
  bloom_filter: { since: '5.16', probe: makes({ type: 'bloom_filter', keyBytes: 0 }) },
  btf_type_tag: { since: '5.17', probe: describes(btf => btf.ptr(btf.typeTag('tag', int(btf)))) },
  xdp_frags: { since: '5.18', probe: loads({ type: 'xdp', flags: BPF_F_XDP_HAS_FRAGS }) },
  kprobe_multi: {
    since: '5.18', config: 'CONFIG_FPROBE',
    probe: links({ ...KPROBE_MULTI, attachType: 'trace_kprobe_multi' }, { kprobe_multi_cnt: 1, kprobe_multi_addrs: BAD_ADDRESS }, 'EFAULT'),
  },
  btf_enum64: { since: '6.0', probe: describes(btf => btf.enum64('e', { a: 1n })) },
  user_ringbuf: { since: '6.1', probe: makes({ type: 'user_ringbuf', keyBytes: 0, valueBytes: 0, maxEntries: 65536 }) },
  cgrp_storage: { since: '6.2', config: 'CONFIG_CGROUPS', probe: storage('cgrp_storage') },
  netfilter_program: { since: '6.4', config: 'CONFIG_NETFILTER_BPF_LINK', probe: loads({ type: 'netfilter', expectedAttachType: 'netfilter', insns: [mov64(R0, 1), exit()] }) },
  cpu_v4: { since: '6.6', probe: runs([mov64(R0, 0), movsx64(R0, R0, 8), exit()]) },
  uprobe_multi: { since: '6.6', config: 'CONFIG_UPROBES', probe: uprobes(0, 'EBADF') },
  arg_ctx_tag: { since: '6.8', config: 'CONFIG_BPF_EVENTS', probe: contextTag },
  arena: { since: '6.9', config: 'CONFIG_BPF_JIT', probe: makes(ARENA) },
  // Not to the next instruction: the first kernels with it refuse that.
  may_goto: { since: '6.9', probe: runs([mov64(R0, 0), mayGoto('out'), mov64(R0, 0), label('out'), exit()]) },
  btf_qmark_datasec: { since: '6.9', probe: describes(aDatasec('?.data')) },
  token: { since: '6.9', probe: tokens },
  // Until then a process id was taken for a thread's.
  uprobe_multi_pid: { since: '6.10', config: 'CONFIG_UPROBES', probe: uprobes(NO_FD, 'EINVAL') },
  btf_get_fd_by_id_token: { since: '6.15', probe: btfByToken },
  load_acquire: { since: '6.15', probe: runs([store('u64', R10, -8, 0), loadAcquire('u64', R0, R10, -8), exit()]) },
  token_info: { since: '6.17', probe: tokenInfo },
  ldimm64_full_range_off: { since: '7.0', probe: fullRange },
} satisfies Record<string, Row> & Record<BtfFeature, Row>

export type FeatureName = keyof typeof TABLE

/** Every feature that can be asked for, in the order in which kernels got them. */
export const FEATURES: readonly Feature[] = (Object.entries(TABLE) as [FeatureName, Row][]).map(
  ([name, row]) => ({ name, ...row }),
)

/**
 * What a failed probe means for the kernel: these errnos say that it does not know what was asked.
 * Others, EPERM first of all, but also ENOMEM or EMFILE, say that it was not even looked at.
 */
const UNKNOWN_TO_KERNEL: readonly string[] = ['EINVAL', 'E2BIG', 'EOPNOTSUPP', 'ENOTSUPP', 'ENOENT']

function conclusive(error: unknown, choice: TokenChoice): false | undefined {
  if (error instanceof VerifierError) return isJudgedInFull(error, choice) ? false : undefined
  if (error instanceof SyscallError) return UNKNOWN_TO_KERNEL.includes(error.errnoName) ? false : undefined
  // Nowhere to read the kernel's types.
  if (error instanceof NotSupportedError) return undefined
  throw error
}

/**
 * Whether the verifier refused the program for what it is. Of a loader without CAP_PERFMON it also
 * follows paths that are never taken, and refuses a loop; of one without CAP_BPF, or whose token is
 * for other programs, much more.
 */
function isJudgedInFull(error: VerifierError, choice: TokenChoice): boolean {
  if (error.errnoName === 'EPERM') return false
  if (missingCapabilities(['CAP_BPF', 'CAP_PERFMON'], effectiveCapabilities()).length > 0) return false
  const token = chooseToken(choice)
  // Fail closed: outside the initial user namespace, capabilities are worth nothing without a
  // token.
  if (token === undefined) return inInitialUserNamespace()
  return token.covers({ cmd: 'prog_load', progType: error.context['type'] as ProgType })
}

/**
 * Answers of the running kernel, asked with one token. Ask one object many times: what is certain
 * is kept.
 */
export class Features {
  readonly #token: TokenChoice
  readonly #answers = new Map<FeatureName, Promise<boolean | undefined>>()

  /** The token stays the caller's. Undefined: the one that `defaultToken` finds; null: none. */
  constructor(token?: TokenChoice) {
    this.#token = token
  }

  /**
   * Whether the kernel has it. Undefined: it cannot be told, because we lack the right for the
   * probe or the kernel the memory; then nothing is kept, and the next call asks again. Makes small
   * maps, programs and types, and closes them.
   */
  has(name: FeatureName): Promise<boolean | undefined> {
    const known = this.#answers.get(name)
    if (known !== undefined) return known
    const answer = this.#ask(name)
    this.#answers.set(name, answer)
    return answer
  }

  async #ask(name: FeatureName): Promise<boolean | undefined> {
    const { probe }: Row = TABLE[name]
    let answer: boolean | undefined
    try {
      answer = await probe(this.#token)
    } catch (error) {
      this.#answers.delete(name)
      answer = conclusive(error, this.#token)
      if (answer !== undefined) this.#answers.set(name, Promise.resolve(answer))
    }
    return answer
  }
}
