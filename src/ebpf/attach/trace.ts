/**
 * Attaching programs that watch the kernel or other processes: kprobes, uprobes, tracepoints,
 * functions, LSM hooks.
 *
 * What is attached here sees the whole machine, in a container too. The links that go through
 * perf_event_open(2) want CAP_PERFMON in the initial user namespace, which no token gives; the
 * `multi` ones want nothing. The caller disposes of the link.
 */
import { readFileSync } from 'node:fs'
import { NotFoundError, NotSupportedError } from '../../errors.ts'
import { linkCreate } from '../../sys/bpf.ts'
import type { PerfEvent } from '../../sys/perf.ts'
import { symbolOffset } from '../elf/symbol.ts'
import { hasSyscallWrapper } from '../kernel/kallsyms.ts'
import { tracefsFile } from '../kernel/tracefs.ts'
import { Link } from '../link.ts'
import type { BpfMap } from '../map.ts'
import type { Program } from '../prog.ts'
import { ATTACH_TYPES, type AttachType } from '../type-names.ts'
import { attachPerf } from './perf-link.ts'
import { openExecutable, programFile } from './program-file.ts'

const PERF_TYPE_TRACEPOINT = 2
const PMUS = '/sys/bus/event_source/devices'

interface Cookie {
  /** What bpf_get_attach_cookie gives to the program. */
  readonly cookie?: bigint
}

function pmuFile(pmu: string, file: string): string {
  try {
    return readFileSync(`${PMUS}/${pmu}/${file}`, 'utf8').trim()
  } catch (cause) {
    throw new NotSupportedError(`This kernel has no ${pmu} events`, {
      cause,
      context: { pmu },
      hint: 'Run a kernel with CONFIG_KPROBE_EVENTS and CONFIG_UPROBE_EVENTS, and mount sysfs',
    })
  }
}

function probeEvent(pmu: 'kprobe' | 'uprobe', onReturn: boolean, text: string, off: bigint): PerfEvent {
  const bit = onReturn ? /^config:(\d+)$/.exec(pmuFile(pmu, 'format/retprobe'))?.[1] : undefined
  return { type: Number(pmuFile(pmu, 'type')), config: bit === undefined ? 0n : 1n << BigInt(bit), text, off }
}

/**
 * Entry (or, with `onReturn`, return) of a kernel function, `off` bytes behind its start. ENOENT:
 * no such function. Since Linux 4.17.
 */
export function attachKprobe(
  program: Program,
  target: { symbol: string; off?: number; onReturn?: boolean } & Cookie,
): Link {
  const event = probeEvent('kprobe', target.onReturn === true, target.symbol, BigInt(target.off ?? 0))
  return attachPerf(program, event, -1, 0, `kernel function ${target.symbol}`, target.cookie)
}

const SYSCALL_PREFIX: Readonly<Record<string, string>> = {
  x64: '__x64_sys_',
  arm64: '__arm64_sys_',
  s390x: '__s390x_sys_',
}

/**
 * The kernel's function for a system call, such as `getppid`; with a wrapper, its arguments are in
 * a struct.
 */
export function syscallFunction(name: string): string {
  return `${hasSyscallWrapper() ? (SYSCALL_PREFIX[process.arch] ?? '__se_sys_') : '__se_sys_'}${name}`
}

/**
 * A place in a file that processes run: a symbol or a byte offset; `pid` -1, the default, means
 * every process. A name without a slash is looked for as `programFile` does. A symbol may have a
 * version: `pthread_create@GLIBC_2.2.5`. `refCtrOff`: byte of the file of a counter of who watches,
 * which is raised meanwhile (since Linux 4.20). NotFoundError: there is no such file, or it has no
 * such symbol. ConflictError: it has several. Since Linux 4.17.
 */
export function attachUprobe(
  program: Program,
  target: {
    path: string
    symbol?: string
    off?: number
    onReturn?: boolean
    pid?: number
    refCtrOff?: number
  } & Cookie,
): Link {
  const { symbol, off = 0, pid = -1 } = target
  const path = programFile(target.path)
  const at = BigInt(off) + (symbol === undefined ? 0n : symbolOffset(openExecutable(path), symbol))
  const event = probeEvent('uprobe', target.onReturn === true, path, at)
  // format/ref_ctr_offset is config:32-63 on every kernel that has it.
  const counter = BigInt(target.refCtrOff ?? 0) << 32n
  return attachPerf(
    program,
    { ...event, config: event.config | counter },
    pid,
    pid === -1 ? 0 : -1,
    `${path}:${symbol ?? `0x${at.toString(16)}`}`,
    target.cookie,
  )
}

/** A tracepoint, such as `syscalls` and `sys_enter_openat`. NotFoundError: there is none. */
export function attachTracepoint(
  program: Program,
  target: { category: string; name: string } & Cookie,
): Link {
  const { category, name } = target
  const event = { type: PERF_TYPE_TRACEPOINT, config: tracepointId(category, name) }
  return attachPerf(program, event, -1, 0, `tracepoint ${category}/${name}`, target.cookie)
}

function tracepointId(category: string, name: string): bigint {
  try {
    return BigInt(tracefsFile(`events/${category}/${name}/id`).trim())
  } catch (cause) {
    if (!(cause instanceof NotSupportedError)) throw cause
    throw new NotFoundError(`There is no tracepoint ${category}/${name}, or tracefs cannot be read`, {
      cause,
      context: { category, name },
      hint: 'See /sys/kernel/tracing/events, which only root may read',
    })
  }
}

/**
 * What a tracing or LSM program was loaded for: entry or exit of a function, an LSM hook, a typed
 * tracepoint. With `target`, a function of another program instead. Since Linux 5.5.
 */
export function attachTrampoline(
  program: Program,
  options: { attachType: AttachType | number; target?: { program: Program; functionId: number } } & Cookie,
): Link {
  const { attachType, target, cookie = 0n } = options
  const attr = {
    prog_fd: program.fd.number,
    attach_type: ATTACH_TYPES.number(attachType),
    target_fd: target?.program.fd.number ?? 0,
    target_btf_id: target?.functionId ?? 0,
    tracing_cookie: cookie,
  }
  return new Link(linkCreate(attr, {}, `target of ${ATTACH_TYPES.word(attachType)}`))
}

/**
 * Registers a `struct_ops` map: its contents are set and, where the map was made for it, a link
 * holds the registration, which ends with it (since Linux 6.4). Otherwise the map itself is
 * registered, until its value is deleted: `StructOpsRegistration` does that, and outlives nobody.
 */
export function attachStructOps(map: BpfMap, contents: Uint8Array): Link | StructOpsRegistration {
  map.update(0, contents)
  if ((map.info().flags & STRUCT_OPS_LINK) === 0) return new StructOpsRegistration(map)
  const attr = { map_fd: map.fd.number, attach_type: ATTACH_TYPES.number('struct_ops') }
  return new Link(linkCreate(attr, {}, 'struct_ops map'))
}

/**
 * A `struct_ops` map that is registered without a link. It stays registered, whoever closes what,
 * until this is disposed of. The map stays its owner's.
 */
export class StructOpsRegistration implements Disposable {
  readonly #map: BpfMap
  #ended = false

  constructor(map: BpfMap) {
    this.#map = map
  }

  /** Deletes the map's value, which ends the registration. EINPROGRESS: ended already. */
  end(): void {
    if (this.#ended) return
    this.#ended = true
    this.#map.delete(0)
  }

  [Symbol.dispose](): void {
    this.end()
  }
}

/** BPF_F_LINK */
const STRUCT_OPS_LINK = 1 << 13
