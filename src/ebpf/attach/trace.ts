/**
 * Attaching programs that watch the kernel or other processes: kprobes, uprobes, tracepoints,
 * functions, LSM hooks.
 *
 * What is attached here sees the whole machine, in a container too. The links that go through
 * perf_event_open(2) want CAP_PERFMON in the initial user namespace, which no token gives; the
 * `multi` ones want nothing. The caller disposes of the link.
 */
import { readFileSync } from 'node:fs'
import { InputError, NotFoundError, NotSupportedError } from '../../errors.ts'
import { linkCreate } from '../../sys/bpf.ts'
import { type PerfEvent, perfEventOpen } from '../../sys/perf.ts'
import { matchingSymbols, symbolOffset } from '../elf/symbol.ts'
import { glob } from '../glob.ts'
import { hasSyscallWrapper, ksymAddresses } from '../kernel/kallsyms.ts'
import { Link } from '../link.ts'
import type { BpfMap } from '../map.ts'
import type { Program } from '../prog.ts'
import { ATTACH_TYPES, type AttachType } from '../type-names.ts'
import { openExecutable, programFile } from './program-file.ts'

const PERF_TYPE_TRACEPOINT = 2
const TRACEFS = ['/sys/kernel/tracing', '/sys/kernel/debug/tracing']
const PMUS = '/sys/bus/event_source/devices'

interface Cookie {
  /** What bpf_get_attach_cookie gives to the program. */
  readonly cookie?: bigint
}

/** A BPF link on a perf event; since Linux 5.15. The link holds the event. */
function attachPerf(
  program: Program,
  event: PerfEvent,
  pid: number,
  cpu: number,
  object: string,
  cookie = 0n,
): Link {
  using fd = perfEventOpen(event, pid, cpu, object)
  const attr = { prog_fd: program.fd.number, target_fd: fd.number, perf_event_bpf_cookie: cookie }
  return new Link(linkCreate({ ...attr, attach_type: ATTACH_TYPES.number('perf_event') }, {}, object))
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
 * Kernel functions that can be traced and whose names fit a pattern with `*`, `?` and `[...]`.
 * NotFoundError: none does. NotSupportedError: tracefs cannot be read, which only root may.
 */
export function tracedFunctions(pattern: string): string[] {
  const fits = glob(pattern)
  // With the module in brackets; of functions with one name, the name counts once.
  const names = new Set(
    tracefsFile('available_filter_functions')
      .split('\n')
      .map(line => line.split(' ', 1)[0]!),
  )
  const found = [...names].filter(fits)
  if (found.length > 0) return found
  throw new NotFoundError(`No kernel function fits "${pattern}"`, { context: { pattern } })
}

function tracefsFile(path: string): string {
  for (const root of TRACEFS) {
    try {
      return readFileSync(`${root}/${path}`, 'utf8')
    } catch (error) {
      // Whatever it is, there may be another place.
      if ((error as NodeJS.ErrnoException).code === undefined) throw error
    }
  }
  throw new NotSupportedError(`tracefs has no ${path} that we may read`, {
    context: { path },
    hint: 'Mount tracefs at /sys/kernel/tracing, and be root',
  })
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

/** BPF_F_KPROBE_MULTI_RETURN, BPF_F_UPROBE_MULTI_RETURN */
const MULTI_RETURN = 1

function words64(values: readonly bigint[]): Uint8Array {
  return new Uint8Array(BigUint64Array.from(values).buffer)
}

/**
 * Many kernel functions at once; since Linux 5.18. No capability is asked beyond having loaded the
 * program, but addresses are: NotSupportedError where /proc/kallsyms hides them. NotFoundError: a
 * function does not exist.
 */
export function attachKprobeMulti(
  program: Program,
  target: { symbols: readonly string[]; onReturn?: boolean; session?: boolean; cookies?: readonly bigint[] },
): Link {
  const known = ksymAddresses(new Set(target.symbols))
  const addresses = target.symbols.map(symbol => {
    const address = known.get(symbol)
    if (address === undefined)
      throw new NotFoundError(`This kernel has no function "${symbol}"`, { context: { symbol } })
    return address
  })
  const attr = {
    prog_fd: program.fd.number,
    attach_type: ATTACH_TYPES.number(target.session === true ? 'trace_kprobe_session' : 'trace_kprobe_multi'),
    kprobe_multi_flags: target.onReturn === true ? MULTI_RETURN : 0,
    kprobe_multi_cnt: addresses.length,
  }
  const pointers = {
    kprobe_multi_addrs: words64(addresses),
    ...(target.cookies === undefined ? {} : { kprobe_multi_cookies: words64(target.cookies) }),
  }
  return new Link(linkCreate(attr, pointers, `${addresses.length} kernel functions`))
}

/** Where many uprobes of one file are; one of `offs`, `symbols` and `pattern`. */
export interface UprobePlaces {
  /** A name without a slash is looked for as `programFile` does. */
  readonly path: string
  /** Bytes of the file. */
  readonly offs?: readonly bigint[]
  /** Functions, each with or without a version. */
  readonly symbols?: readonly string[]
  /** Every function whose name fits, with `*`, `?` and `[...]`. */
  readonly pattern?: string
  readonly onReturn?: boolean
  /** The program runs at entry and return, and at entry says whether also at return; since 6.13. */
  readonly session?: boolean
  /** Hits every process that runs the file, unless one is named; since 6.10 a whole process. */
  readonly pid?: number
  /** For each place, what bpf_get_attach_cookie() gives. */
  readonly cookies?: readonly bigint[]
  /** For each place, the byte of the file of a counter that is raised meanwhile; 0: none. */
  readonly refCtrOffs?: readonly bigint[]
}

/**
 * Many places of one file; since Linux 6.6. No capability is asked beyond having loaded the program.
 * NotFoundError: no such file, or no such function in it. ConflictError: a function is there several
 * times. EINVAL: the program was loaded for something else, or a place has no code. ESRCH: no such
 * process.
 */
export function attachUprobeMulti(program: Program, target: UprobePlaces): Link {
  const path = programFile(target.path)
  const offs = placesOf(path, target)
  const count = offs.length
  for (const list of [target.cookies, target.refCtrOffs])
    if (list !== undefined && list.length !== count)
      throw new InputError(`${count} places have ${list.length} cookies or counters: one for each is wanted`)
  const attr = {
    prog_fd: program.fd.number,
    attach_type: ATTACH_TYPES.number(target.session === true ? 'trace_uprobe_session' : 'trace_uprobe_multi'),
    uprobe_multi_cnt: count,
    uprobe_multi_flags: target.onReturn === true ? MULTI_RETURN : 0,
    uprobe_multi_pid: target.pid ?? 0,
  }
  const counted = target.refCtrOffs?.some(off => off !== 0n) === true
  const pointers = {
    uprobe_multi_path: new TextEncoder().encode(`${path}\0`),
    uprobe_multi_offsets: words64(offs),
    ...(target.cookies === undefined ? {} : { uprobe_multi_cookies: words64(target.cookies) }),
    ...(counted ? { uprobe_multi_ref_ctr_offsets: words64(target.refCtrOffs!) } : {}),
  }
  return new Link(linkCreate(attr, pointers, `${count} places of ${path}`))
}

function placesOf(path: string, { offs, symbols, pattern }: UprobePlaces): readonly bigint[] {
  if ([offs, symbols, pattern].filter(one => one !== undefined).length !== 1)
    throw new InputError('Give one of offs, symbols and pattern', { context: { path } })
  if (offs !== undefined) return offs
  const file = openExecutable(path)
  if (symbols !== undefined) return symbols.map(symbol => symbolOffset(file, symbol))
  return matchingSymbols(file, pattern!).map(({ off }) => off)
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
