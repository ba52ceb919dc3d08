/**
 * Executables and libraries: 64 bits, both byte orders: what is where in the file and in memory.
 * Pure, and lazy: such files are large, and only what is asked for is read.
 *
 * Layout: System V ABI, chapters 4 and 5.
 */
import { FormatError } from '../../errors.ts'
import { isElf } from './elf.ts'

const HEADER_BYTES = 64
const SECTION_BYTES = 64
const SEGMENT_BYTES = 56
const PT_LOAD = 1
const PF_X = 1
const SHT_NOBITS = 8
/** Longer ones are not told from garbage. */
const MAX_TEXT_BYTES = 4096

export interface ExecutableSection {
  readonly index: number
  readonly name: string
  readonly type: number
  readonly address: bigint
  readonly off: number
  readonly sizeBytes: number
  readonly link: number
}

/** What is loaded into memory in one piece. */
export interface Segment {
  readonly address: bigint
  readonly memoryBytes: bigint
  readonly off: bigint
  readonly executable: boolean
}

export class Executable {
  readonly path: string
  readonly bytes: Buffer
  readonly littleEndian: boolean
  /** e_machine: 62 is x86-64, 183 is arm64. */
  readonly machine: number
  readonly #view: DataView
  #sections: readonly ExecutableSection[] | undefined
  #segments: readonly Segment[] | undefined

  /** `path` is for messages. FormatError: not such a file. Keeps `bytes`. */
  constructor(bytes: Uint8Array, path: string) {
    this.path = path
    this.bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    if (bytes.length < HEADER_BYTES || !isElf(bytes) || bytes[4] !== 2)
      throw this.bad('is not ELF of 64 bits')
    this.littleEndian = bytes[5] === 1
    this.machine = this.u16(18)
  }

  bad(what: string): FormatError {
    return new FormatError('ELF', `${this.path} ${what}`)
  }

  // Offsets are within the file: who calls has compared a table's bounds with it.
  u16(off: number): number {
    return this.#view.getUint16(off, this.littleEndian)
  }
  u32(off: number): number {
    return this.#view.getUint32(off, this.littleEndian)
  }
  u64(off: number): bigint {
    return this.#view.getBigUint64(off, this.littleEndian)
  }

  get sections(): readonly ExecutableSection[] {
    this.#sections ??= this.#readSections()
    return this.#sections
  }

  /** By their addresses. Of two that overlap, the later one counts. */
  get segments(): readonly Segment[] {
    this.#segments ??= this.#readSegments()
    return this.#segments
  }

  section(name: string): ExecutableSection | undefined {
    return this.sections.find(one => one.name === name)
  }

  /** FormatError: it runs past the end of the file. */
  contents(section: ExecutableSection): Buffer {
    if (section.type === SHT_NOBITS) return this.bytes.subarray(0, 0)
    this.requireInside(section.off, section.sizeBytes, `section "${section.name}"`)
    return this.bytes.subarray(section.off, section.off + section.sizeBytes)
  }

  requireInside(off: number, length: number, what: string): void {
    if (off < 0 || length < 0 || off + length > this.bytes.length) throw this.bad(`has ${what} past its end`)
  }

  /** The text at `off` of a string table; empty where there is none. */
  text(strings: ExecutableSection, off: number): string {
    const start = strings.off + off
    const last = Math.min(strings.off + strings.sizeBytes, start + MAX_TEXT_BYTES, this.bytes.length)
    if (start >= last) return ''
    const end = this.bytes.subarray(start, last).indexOf(0)
    return end === -1 ? '' : this.bytes.toString('utf8', start, start + end)
  }

  /** The segment that holds an address; undefined: none does. */
  segmentAt(address: bigint): Segment | undefined {
    const all = this.segments
    // A file may ask for as many addresses as it has segments, each by the ten thousand.
    let [from, to] = [0, all.length]
    while (from < to) {
      const middle = (from + to) >>> 1
      if (all[middle]!.address <= address) from = middle + 1
      else to = middle
    }
    const found = all[from - 1]
    return found !== undefined && address < found.address + found.memoryBytes ? found : undefined
  }

  #readSections(): ExecutableSection[] {
    const [table, count, names] = [Number(this.u64(40)), this.u16(60), this.u16(62)]
    this.requireInside(table, count * SECTION_BYTES, 'section headers')
    const heads = Array.from({ length: count }, (_, index) => {
      const at = table + index * SECTION_BYTES
      return {
        nameOff: this.u32(at),
        index,
        name: '',
        type: this.u32(at + 4),
        address: this.u64(at + 16),
        off: Number(this.u64(at + 24)),
        sizeBytes: Number(this.u64(at + 32)),
        link: this.u32(at + 40),
      }
    })
    const strings = heads[names]
    return heads.map(({ nameOff, ...head }) => ({
      ...head,
      name: strings === undefined ? '' : this.text(strings, nameOff),
    }))
  }

  #readSegments(): Segment[] {
    const [table, count] = [Number(this.u64(32)), this.u16(56)]
    this.requireInside(table, count * SEGMENT_BYTES, 'program headers')
    return Array.from({ length: count }, (_, index) => table + index * SEGMENT_BYTES)
      .filter(at => this.u32(at) === PT_LOAD)
      .map(at => ({
        executable: (this.u32(at + 4) & PF_X) !== 0,
        off: this.u64(at + 8),
        address: this.u64(at + 16),
        memoryBytes: this.u64(at + 40),
      }))
      .sort((a, b) => (a.address < b.address ? -1 : a.address > b.address ? 1 : 0))
  }
}
