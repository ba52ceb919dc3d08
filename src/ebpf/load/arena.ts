/**
 * The arena of a loaded object: memory that its programs and this process share, at one address.
 *
 * The kernel loads no program that uses an arena before somebody has mapped it. Global variables
 * that are declared `__arena` lie in it: at its end where the kernel can address that in one
 * instruction, else at its start, as libbpf places them. Since Linux 6.9.
 */
import { ConflictError, InputError, NotFoundError, NotSupportedError, SyscallError } from '../../errors.ts'
import { type Mapping, mapShared, PAGE_BYTES } from '../../sys/memory.ts'
import { bpf_map_flags } from '../../uapi/bpf.ts'
import type { TypedValue } from '../btf/typed-value.ts'
import type { BpfMap } from '../map.ts'
import { GlobalVariables } from '../object/global-variables.ts'
import type { ObjectSpec } from '../object/spec.ts'
import { notMapped } from './not-mapped.ts'

/** Pages of an arena come to be when they are first touched. */
export class Arena implements Disposable {
  readonly map: BpfMap
  /** The global variables that are declared `__arena`, where the object describes them. */
  readonly variables: GlobalVariables | undefined
  /** Byte offset of the global variables in `bytes`. */
  readonly globalsOff: number
  /**
   * Where it begins in this process, which is what pointers to it that programs store count from: its
   * `map_extra`, or else where there was room. It lies within 4 GiB that begin at a multiple of them.
   */
  readonly address: bigint
  readonly #mapping: Mapping
  readonly #globalBytes: number
  readonly #isDeadly: boolean

  private constructor(
    map: BpfMap,
    mapping: Mapping,
    globals: { off: number; bytes: number; variables: GlobalVariables | undefined },
  ) {
    this.map = map
    this.#mapping = mapping
    this.address = mapping.address
    this.#isDeadly = isDeadly(map)
    this.variables = globals.variables
    this.globalsOff = globals.off
    this.#globalBytes = globals.bytes
  }

  /**
   * Byte offset at which the object's global variables go. `atEnd`: whether the kernel can address
   * the end (feature ldimm64_full_range_off).
   */
  static globalsOff(spec: ObjectSpec, map: BpfMap, atEnd: boolean): number {
    const room = map.maxEntries * PAGE_BYTES
    const bytes = wholePages(spec.arena!.sizeBytes)
    if (bytes > room)
      throw new InputError(`The arena of ${room} bytes is too small for global variables of ${bytes}`, {
        context: { map: spec.arena!.map, maxEntries: map.maxEntries },
      })
    return atEnd ? room - bytes : 0
  }

  /**
   * Maps the object's arena and puts `contents`, its global variables, in place. ConflictError: something is
   * where its `map_extra` says. NotSupportedError: it has variables, and BPF_F_SEGV_ON_FAULT, with
   * which touching a page that no program has made kills the process.
   */
  static map(spec: ObjectSpec, map: BpfMap, globalsOff: number, contents: Uint8Array): Arena {
    const { map: name, sizeBytes, typeId } = spec.arena!
    const { extra } = spec.maps.find(one => one.name === name)!
    if (sizeBytes > 0 && isDeadly(map))
      throw new NotSupportedError(
        `Arena "${name}" has global variables, and BPF_F_SEGV_ON_FAULT keeps us from it`,
        {
          context: { map: name },
          hint: 'Take the flag away, or let a program make what it needs',
        },
      )
    const mapping = mapAt(map, map.maxEntries * PAGE_BYTES, extra)
    new Uint8Array(mapping.buffer).set(contents, globalsOff)
    const variables = typeId === 0 ? undefined : new GlobalVariables(spec.btf!.types, typeId)
    return new Arena(map, mapping, { off: globalsOff, bytes: sizeBytes, variables })
  }

  /**
   * All of it. Empty once disposed of, and all else is NotFoundError then. Give a copy (`slice`) to what reads it while we go on, such as
   * zlib, fs and crypto with a callback: reading where it was mapped kills the process.
   * NotSupportedError: with BPF_F_SEGV_ON_FAULT, reading a page that no program has made would kill
   * the process.
   */
  get bytes(): Uint8Array {
    const { buffer } = this.#mapping
    if (buffer.byteLength === 0) return new Uint8Array(0)
    if (this.#isDeadly)
      throw new NotSupportedError('An arena with BPF_F_SEGV_ON_FAULT cannot be read here', {
        context: { maxEntries: this.map.maxEntries },
      })
    return new Uint8Array(buffer)
  }

  /** The bytes of the global variables. */
  get globals(): Uint8Array {
    this.#requireMapped()
    return this.bytes.subarray(this.globalsOff, this.globalsOff + this.#globalBytes)
  }

  /** What a variable is now. NotFoundError: there is none of that name. */
  get(name: string): TypedValue {
    const { globals } = this
    return this.#described(name).get(globals, name)
  }

  /** Sets a variable, which programs see at once. Errors as of `GlobalVariables.set`. */
  set(name: string, value: TypedValue): void {
    const { globals } = this
    this.#described(name).set(globals, name, value)
  }

  /** The pointer to a variable. NotFoundError: there is none of that name. */
  pointerTo(name: string): bigint {
    this.#requireMapped()
    const { off } = this.#described(name).find(name)
    return this.address + BigInt(this.globalsOff + off)
  }

  [Symbol.dispose](): void {
    this.#mapping[Symbol.dispose]()
  }

  #requireMapped(): void {
    if (this.#mapping.buffer.byteLength === 0) throw notMapped()
  }

  #described(name: string): GlobalVariables {
    if (this.variables !== undefined) return this.variables
    throw new NotFoundError(`The object does not describe the variable "${name}" of its arena`, {
      context: { variable: name },
    })
  }
}

function isDeadly(map: BpfMap): boolean {
  return (map.info().flags & bpf_map_flags.BPF_F_SEGV_ON_FAULT) !== 0
}

function wholePages(bytes: number): number {
  return Math.ceil(bytes / PAGE_BYTES) * PAGE_BYTES
}

function mapAt(map: BpfMap, length: number, extra: bigint): Mapping {
  try {
    return mapShared(map.fd, length, 0, true, Number(extra))
  } catch (error) {
    if (!(error instanceof SyscallError) || !['EEXIST', 'EBUSY'].includes(error.errnoName)) throw error
    throw new ConflictError(
      `The arena wants to be at 0x${extra.toString(16)}, where this process has something else`,
      { cause: error, context: { address: `0x${extra.toString(16)}`, bytes: length } },
    )
  }
}
