/**
 * Attaching to many places with one link: kernel functions by name or pattern, and functions of a
 * program or library. Unlike single ones, they do not go through perf_event_open(2), so that they
 * work under a token. The caller disposes of the link.
 */
import { ConflictError, InputError, NotFoundError, NotSupportedError, SyscallError } from '../../errors.ts'
import { linkCreate, linkCreateByNames } from '../../sys/bpf.ts'
import { matchingSymbols, symbolOffset } from '../elf/symbol.ts'
import { ksymAddresses } from '../kernel/kallsyms.ts'
import { tracedAddresses, tracedFunctions } from '../kernel/tracefs.ts'
import { Link } from '../link.ts'
import type { Program } from '../prog.ts'
import { ATTACH_TYPES } from '../type-names.ts'
import { openExecutable, programFile } from './program-file.ts'

/** BPF_F_KPROBE_MULTI_RETURN, BPF_F_UPROBE_MULTI_RETURN */
const MULTI_RETURN = 1

function words64(values: readonly bigint[]): Uint8Array {
  return new Uint8Array(BigUint64Array.from(values).buffer)
}

/** As many addresses as one call of ours can write. */
const MAX_NAMED = 14

/** Which kernel functions; one of `symbols` and `pattern`. */
export interface KprobePlaces {
  readonly symbols?: readonly string[]
  /** Every function that can be traced and whose name fits, with `*`, `?` and `[...]`. */
  readonly pattern?: string
  readonly onReturn?: boolean
  /** The program runs at entry and return, and at entry says whether also at return; since 6.10. */
  readonly session?: boolean
  /** For each of `symbols`, what bpf_get_attach_cookie() gives. */
  readonly cookies?: readonly bigint[]
}

/**
 * Many kernel functions at once; since Linux 5.18. No capability is asked beyond having loaded the
 * program. Where /proc/kallsyms hides addresses, as under a token, the kernel looks for up to 14
 * `symbols` by name; more, and patterns, which are looked for in tracefs, are a NotSupportedError.
 * NotFoundError: a function does not exist, or none fits. ConflictError: several have the name.
 */
export function attachKprobeMulti(program: Program, target: KprobePlaces): Link {
  const { symbols, pattern, cookies } = target
  if ((symbols === undefined) === (pattern === undefined))
    throw new InputError('Give one of symbols and pattern')
  if (cookies !== undefined && cookies.length !== symbols?.length)
    throw new InputError('One cookie for each of symbols is wanted')
  const addresses =
    pattern === undefined ? addressesOf(symbols!) : (tracedAddresses(pattern) ?? unambiguous(pattern))
  const count = addresses?.length ?? symbols!.length
  const object = `${count} kernel functions`
  const attr = {
    prog_fd: program.fd.number,
    attach_type: ATTACH_TYPES.number(target.session === true ? 'trace_kprobe_session' : 'trace_kprobe_multi'),
    kprobe_multi_flags: target.onReturn === true ? MULTI_RETURN : 0,
    kprobe_multi_cnt: count,
  }
  const pointers = cookies === undefined ? {} : { kprobe_multi_cookies: words64(cookies) }
  if (addresses !== undefined)
    return new Link(linkCreate(attr, { ...pointers, kprobe_multi_addrs: words64(addresses) }, object))
  try {
    return new Link(linkCreateByNames(attr, pointers, 'kprobe_multi_syms', symbols!, object))
  } catch (error) {
    if (!(error instanceof SyscallError) || error.errnoName !== 'ESRCH') throw error
    const names = symbols!.join(' ')
    throw new NotFoundError(`This kernel has no such function, or several of a name: ${names}`, {
      cause: error,
      context: { symbols: names },
    })
  }
}

/** Undefined: they are hidden, and few enough to be named. */
function addressesOf(symbols: readonly string[]): bigint[] | undefined {
  let known: Map<string, bigint>
  try {
    known = ksymAddresses(new Set(symbols))
  } catch (error) {
    if (!(error instanceof NotSupportedError) || symbols.length > MAX_NAMED) throw error
    return undefined
  }
  return symbols.map(symbol => {
    const address = known.get(symbol)
    if (address === undefined)
      throw new NotFoundError(`This kernel has no function "${symbol}"`, { context: { symbol } })
    return address
  })
}

/** Until Linux 6.5 is the floor: by names, those that one function alone has. */
function unambiguous(pattern: string): bigint[] {
  return tracedFunctions(pattern).flatMap(name => {
    try {
      return [...ksymAddresses(new Set([name])).values()]
    } catch (error) {
      if (error instanceof ConflictError) return []
      throw error
    }
  })
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
 * Many places of one file; since Linux 6.6. No capability is asked beyond having loaded the
 * program. NotFoundError: no such file, or no such function in it. ConflictError: a function is
 * there several times. EINVAL: the program was loaded for something else, or a place has no code.
 * ESRCH: no such process.
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
