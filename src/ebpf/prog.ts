/**
 * BPF programs: loading with the verifier's log, running, pinning, info. Start at `Program.load`.
 *
 * The kernel checks capabilities and rights here, when a program is loaded; attaching it is almost
 * free.
 */
import { VerifierError } from '../errors.ts'
import {
  getFdById,
  objGet,
  objGetInfoByFd,
  progBindMap,
  progLoad,
  progStreamRead,
  progTestRun,
} from '../sys/bpf.ts'
import { failure } from '../sys/failure.ts'
import { Fd } from '../sys/fd.ts'
import { bpf_map_flags, bpf_prog_info, bpf_stream_id } from '../uapi/bpf.ts'
import {
  BPF_F_TEST_RUN_ON_CPU,
  BPF_F_TEST_XDP_LIVE_FRAMES,
  BPF_LOG_LEVEL1,
  BPF_LOG_MAX_BYTES,
} from '../uapi/constants.ts'
import { ERRNO } from '../uapi/errno.ts'
import { assemble, type Insn, type Label, SLOT_BYTES } from './asm/insn.ts'
import { loadsAtOnce } from './loads-at-once.ts'
import { expectKind } from './object-kind.ts'
import { nameFrom, objectName } from './object-name.ts'
import { pin } from './pin.ts'
import { explain } from './refusal.ts'
import { chooseToken, type Token, type TokenChoice } from './token.ts'
import { ATTACH_TYPES, type AttachType, PROG_TYPES, type ProgType } from './type-names.ts'
import { newerInsnHint, perfmonHint, summarize } from './verifier-log.ts'

/** Fixed-size records, one after the other, as .BTF.ext has them. */
export interface Records {
  recordBytes: number
  data: Uint8Array
}

export interface ProgramSpec {
  type: ProgType | number
  /** Raw instructions, or what the builder of insn.ts makes. */
  insns: Uint8Array | readonly (Insn | Label)[]
  /** Helpers marked GPL-only want `GPL` or a compatible licence. None by default. */
  license?: string
  name?: string
  /** Where it will be attached; some types must say so. */
  expectedAttachType?: AttachType | number
  /** Function or type to attach to, in the kernel's BTF or in `attachBtf`. */
  attachBtfId?: number
  attachBtf?: { readonly fd: Fd }
  /** Program to extend or trace; `attachBtfId` is then one of its functions. */
  attachProgram?: Program
  /** BPF_F_SLEEPABLE and so on. */
  flags?: number
  ifindex?: number
  btf?: { object: { readonly fd: Fd }; funcInfo?: Records; lineInfo?: Records }
  /** Maps and module BTF that instructions name by index instead of by descriptor. */
  fdArray?: readonly Fd[]
  /**
   * 1, 2, plus 4 for statistics: the log is then `program.log`. Otherwise only a failure asks for
   * it.
   */
  logLevel?: number
  /** Undefined: the token that `defaultToken` finds; null: none. */
  token?: TokenChoice
}

/**
 * What the kernel says of a program. Sizes of code are 0 for callers without CAP_BPF in the initial
 * user namespace.
 */
export interface ProgramInfo {
  id: number
  type: ProgType
  name: string
  /** First 8 bytes, in hex, of the kernel's digest of the instructions. */
  tag: string
  gplCompatible: boolean
  mapIds: number[]
  /** 0: none. */
  btfId: number
  createdByUid: number
  /** Nanoseconds since boot. */
  loadedAtNs: bigint
  xlatedBytes: number
  jitedBytes: number
  verifiedInsns: number
  /** Counted only while BPF_ENABLE_STATS or sysctl kernel.bpf_stats_enabled is on. */
  runCount: bigint
  runTimeNs: bigint
  recursionMisses: bigint
  attachBtfId: number
  attachBtfObjectId: number
}

/** For `testRun`: on the CPU that `cpu` names; frames of XDP sent on for real. */
export const TEST_RUN_FLAGS = {
  onCpu: BPF_F_TEST_RUN_ON_CPU,
  xdpLiveFrames: BPF_F_TEST_XDP_LIVE_FRAMES,
} as const

export interface TestRunOptions {
  /** Packet for network types, at least 14 bytes. */
  dataIn?: Uint8Array
  /** Room for the packet afterwards; default: 256 bytes more than `dataIn`. ENOSPC: too small. */
  dataOutBytes?: number
  /** The context struct, for types that take one; it comes back as `context`. */
  contextIn?: Uint8Array
  /** 1 by default; at least 1 where the type allows it. */
  repeat?: number
  /** `TEST_RUN_FLAGS` */
  flags?: number
  cpu?: number
  batchSize?: number
}

export interface TestRunResult {
  returned: number
  /** Mean time of one run. */
  durationNs: number
  data: Uint8Array
  context: Uint8Array
}

const FIRST_LOG_BYTES = 64 * 1024
const DATA_HEADROOM_BYTES = 256
const STREAM_CHUNK_BYTES = 16 * 1024
const MAX_STREAM_BYTES = 1024 * 1024
/** The kernel may give up a load that signals interrupt; libbpf tries as often. */
const LOAD_ATTEMPTS = 5

/**
 * A program, by an open descriptor. Whoever made the object closes it; links and pins keep the
 * program alive.
 */
export class Program implements Disposable {
  readonly fd: Fd
  /** What the verifier wrote, when `logLevel` asked for it. */
  readonly log: readonly string[]

  private constructor(fd: Fd, log: readonly string[] = []) {
    this.fd = fd
    this.log = log
  }

  /**
   * Loads a program: BPF_PROG_LOAD, on a worker thread but where it cannot take long. Needs CAP_BPF and, by type, CAP_NET_ADMIN
   * or CAP_PERFMON, in the token's user namespace or, without a token, in the initial one.
   *
   * VerifierError with the log when the verifier refused it. Otherwise SyscallError: EPERM names
   * the missing right or capability as hint; EINVAL: type, attach type and flags do not go
   * together; E2BIG: too many instructions; ENOTSUPP: this attach target is not possible. The
   * caller disposes of it; descriptors in `spec` stay open until the promise is settled.
   */
  static async load(spec: ProgramSpec): Promise<Program> {
    const token = chooseToken(spec.token)
    const load = preparedLoad(spec, token)
    let attempt = spec.logLevel === undefined ? await load(0, 0) : undefined
    // Asked again with a log: a good program is not slowed down by writing one.
    if (attempt === undefined || attempt.result < 0) {
      const level = spec.logLevel ?? BPF_LOG_LEVEL1
      attempt = await load(level, FIRST_LOG_BYTES)
      for (let bytes = FIRST_LOG_BYTES; attempt.result === -ERRNO['ENOSPC']! && bytes < BPF_LOG_MAX_BYTES; ) {
        // Since Linux 6.4 the kernel says how much it wanted to write; before, double until it
        // fits.
        bytes = Math.min(BPF_LOG_MAX_BYTES, Math.max(attempt.logTrueBytes, bytes * 2))
        attempt = await load(level, bytes)
      }
    }
    if (attempt.result >= 0) return new Program(new Fd(attempt.result), linesOf(attempt.log))
    throw refusal(spec, attempt, token)
  }

  /** Takes ownership of a program's descriptor. TypeError: it is something else. */
  static fromFd(fd: Fd): Program {
    return new Program(expectKind(fd, 'program'))
  }

  /**
   * Opens a pinned program: BPF_OBJ_GET. Needs read and write permission on the file. The caller
   * disposes of it.
   */
  static open(path: string): Program {
    return Program.fromFd(objGet(path))
  }

  /**
   * Opens a program by id. Needs CAP_SYS_ADMIN in the initial user namespace. ENOENT: none such.
   * The caller disposes of it.
   */
  static fromId(id: number): Program {
    return new Program(getFdById('BPF_PROG_GET_FD_BY_ID', id))
  }

  /**
   * Gives the program a name in a bpffs: BPF_OBJ_PIN. ENOENT, EPERM: not at this place; the hint says
   * why. EEXIST: taken. unlink(2) removes it.
   */
  pin(path: string): void {
    pin(this.fd, path)
  }

  /** Keeps a map alive as long as the program, though no instruction uses it: BPF_PROG_BIND_MAP. */
  bindMap(map: { readonly fd: Fd }): void {
    progBindMap(this.fd, map.fd)
  }

  /** BPF_OBJ_GET_INFO_BY_FD; needs no capability. */
  info(): ProgramInfo {
    const { info } = readInfo(this.fd, 0)
    const count = info.nr_map_ids ?? 0
    return {
      id: info.id!,
      type: PROG_TYPES.word(info.type!),
      name: nameFrom(info.name),
      tag: Buffer.from(info.tag!).toString('hex'),
      gplCompatible: (info.gpl_compatible! & 1) === 1,
      mapIds: count === 0 ? [] : readInfo(this.fd, count).mapIds,
      btfId: info.btf_id!,
      createdByUid: info.created_by_uid!,
      loadedAtNs: info.load_time!,
      xlatedBytes: info.xlated_prog_len!,
      jitedBytes: info.jited_prog_len!,
      verifiedInsns: info.verified_insns!,
      runCount: info.run_cnt!,
      runTimeNs: info.run_time_ns!,
      recursionMisses: info.recursion_misses!,
      attachBtfId: info.attach_btf_id!,
      attachBtfObjectId: info.attach_btf_obj_id!,
    }
  }

  /**
   * Runs the program here and now: BPF_PROG_TEST_RUN, on a worker thread; needs no capability.
   * ENOTSUPP: this type cannot be run so. EINVAL: data, context or `repeat` do not fit the type.
   */
  async testRun(options: TestRunOptions = {}): Promise<TestRunResult> {
    const { dataIn, contextIn } = options
    const outBytes = options.dataOutBytes ?? (dataIn === undefined ? 0 : dataIn.length + DATA_HEADROOM_BYTES)
    const data = outBytes === 0 ? undefined : new Uint8Array(outBytes)
    // A syscall program's context is written back where it came from (net/bpf/test_run.c refuses
    // any ctx_out for it).
    const inPlace = contextIn !== undefined && this.info().type === 'syscall'
    const context = contextIn?.slice()
    const attr = await progTestRun(
      {
        prog_fd: this.fd.number,
        data_size_in: dataIn?.length ?? 0,
        data_size_out: outBytes,
        ctx_size_in: contextIn?.length ?? 0,
        ctx_size_out: inPlace ? 0 : (context?.length ?? 0),
        repeat: options.repeat ?? 0,
        flags: options.flags ?? 0,
        cpu: options.cpu ?? 0,
        batch_size: options.batchSize ?? 0,
      },
      {
        data_in: dataIn,
        data_out: data,
        ctx_in: inPlace ? context : contextIn,
        ctx_out: inPlace ? undefined : context,
      },
    )
    return {
      returned: attr.retval!,
      durationNs: attr.duration!,
      data: (data ?? new Uint8Array()).subarray(0, attr.data_size_out),
      context: (context ?? new Uint8Array()).subarray(0, inPlace ? undefined : attr.ctx_size_out),
    }
  }

  /**
   * What the program has written to a stream since it was read last, by bpf_stream_printk(), and to
   * `stderr` also the kernel: BPF_PROG_STREAM_READ_BY_FD, since Linux 6.17. Needs no capability.
   * What a program writes beyond 100,000 bytes is dropped. EINVAL: this kernel has no streams.
   */
  readStream(stream: 'stdout' | 'stderr'): Buffer {
    const chunks: Buffer[] = []
    const id = stream === 'stdout' ? bpf_stream_id.BPF_STDOUT : bpf_stream_id.BPF_STDERR
    // A program that goes on writing does not keep us.
    for (let total = 0; total < MAX_STREAM_BYTES; ) {
      const chunk = Buffer.alloc(STREAM_CHUNK_BYTES)
      const length = progStreamRead(this.fd, id, chunk)
      if (length === 0) break
      chunks.push(chunk.subarray(0, length))
      total += length
    }
    return Buffer.concat(chunks)
  }

  close(): void {
    this.fd.close()
  }

  [Symbol.dispose](): void {
    this.close()
  }
}

interface Attempt {
  result: number
  log: string
  logTrueBytes: number
}

const EMPTY = new Uint8Array()

/** The command with everything but the log filled in; each call of the result is one attempt. */
function preparedLoad(
  spec: ProgramSpec,
  token: Token | undefined,
): (logLevel: number, logBytes: number) => Promise<Attempt> {
  const insns = spec.insns instanceof Uint8Array ? spec.insns : assemble(spec.insns).bytes
  const type = PROG_TYPES.word(spec.type)
  const { funcInfo, lineInfo } = spec.btf ?? {}
  const fds = spec.fdArray && new Uint8Array(Int32Array.from(spec.fdArray, fd => fd.number).buffer)
  const pointers = {
    insns,
    license: new TextEncoder().encode(`${spec.license ?? ''}\0`),
    func_info: funcInfo?.data,
    line_info: lineInfo?.data,
    fd_array: fds,
  }
  const count = (records: Records | undefined): number =>
    records === undefined ? 0 : records.data.length / records.recordBytes
  const attr = {
    prog_type: PROG_TYPES.number(spec.type),
    insn_cnt: insns.length / SLOT_BYTES,
    prog_flags: (spec.flags ?? 0) | (token === undefined ? 0 : bpf_map_flags.BPF_F_TOKEN_FD),
    prog_name: objectName(spec.name ?? ''),
    prog_ifindex: spec.ifindex ?? 0,
    expected_attach_type: ATTACH_TYPES.number(spec.expectedAttachType ?? 0),
    prog_btf_fd: spec.btf?.object.fd.number ?? 0,
    func_info_rec_size: funcInfo?.recordBytes ?? 0,
    func_info_cnt: count(funcInfo),
    line_info_rec_size: lineInfo?.recordBytes ?? 0,
    line_info_cnt: count(lineInfo),
    attach_btf_id: spec.attachBtfId ?? 0,
    attach_prog_fd: (spec.attachProgram ?? spec.attachBtf)?.fd.number ?? 0,
    prog_token_fd: token?.fd.number ?? 0,
  }
  const toLoad = { type, insns, functions: attr.func_info_cnt, isOffloaded: attr.prog_ifindex !== 0 }
  return async (logLevel, logBytes) => {
    const log = logBytes === 0 ? EMPTY : new Uint8Array(logBytes)
    const logAttr = logBytes === 0 ? {} : { log_level: logLevel, log_size: logBytes }
    const logPointer = logBytes === 0 ? undefined : log
    for (let attempt = 1; ; attempt++) {
      const isShort = loadsAtOnce(toLoad)
      const { result, logTrueBytes } = await progLoad(
        { ...attr, ...logAttr },
        { ...pointers, log_buf: logPointer },
        isShort ? 'here' : 'on a thread',
      )
      if (result !== -ERRNO['EAGAIN']! || attempt === LOAD_ATTEMPTS)
        return { result, logTrueBytes, log: nameFrom(log) }
    }
  }
}

function linesOf(log: string): string[] {
  return log === '' ? [] : log.trimEnd().split('\n')
}

function refusal(spec: ProgramSpec, { result, log }: Attempt, token: Token | undefined): unknown {
  const type = PROG_TYPES.word(spec.type)
  const error = failure('bpf', 'BPF_PROG_LOAD', result)
  // Before it comes to verification, the log stays empty.
  if (log.trim() === '') {
    const need = {
      cmd: 'prog_load',
      progType: spec.type,
      attachType: spec.expectedAttachType ?? 0,
    } as const
    return explain(error, `program "${spec.name ?? ''}" (${type})`, need, token)
  }
  const { errno, errnoName } = error
  const { summary } = summarize(log)
  return new VerifierError(
    { program: spec.name ?? '', errno, errnoName, summary, log: linesOf(log) },
    {
      context: { type },
      hint: (token === undefined ? undefined : perfmonHint(summary)) ?? newerInsnHint(summary),
    },
  )
}

function readInfo(
  fd: Fd,
  mapCount: number,
): { info: ReturnType<typeof bpf_prog_info.decode>; mapIds: number[] } {
  const ids = new Uint32Array(mapCount)
  const bytes = bpf_prog_info.encode({ nr_map_ids: mapCount })
  const pointers: [number, Uint8Array][] =
    mapCount === 0 ? [] : [[bpf_prog_info.fields.map_ids.off, new Uint8Array(ids.buffer)]]
  objGetInfoByFd(fd, bytes, pointers)
  const info = bpf_prog_info.decode(bytes)
  return { info, mapIds: [...ids.subarray(0, info.nr_map_ids)] }
}
