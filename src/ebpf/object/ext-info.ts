/**
 * .BTF.ext: which function, source line and CO-RE relocation belongs to which instruction. Pure.
 *
 * Three tables of fixed-size records, each grouped by section; places are byte offsets into the
 * section. Source: Documentation/bpf/btf.rst section 4.2, and tools/lib/bpf/btf.c,
 * btf_ext_setup_info. Little endian.
 */
import { FormatError } from '../../errors.ts'

/** One table's records for one section: `words` 32-bit words each, the first one a byte offset. */
export interface ExtRecords {
  /** Offset of the section's name in the strings of .BTF. */
  readonly sectionNameOff: number
  readonly wordsEach: number
  readonly words: Uint32Array
}

export interface ExtInfo {
  readonly functions: readonly ExtRecords[]
  readonly lines: readonly ExtRecords[]
  readonly coreRelos: readonly ExtRecords[]
}

/**
 * `BPF_CORE_*`: what a CO-RE relocation asks, enum bpf_core_relo_kind in include/uapi/linux/bpf.h.
 */
export interface CoreRelo {
  /** Place of the instruction, in slots from the start of its function or program. */
  readonly slot: number
  /** `enum bpf_core_relo_kind` */
  readonly kind: number
  /** Root type, in the object's BTF. */
  readonly typeId: number
  /** Path from the root: `0:1:2`. */
  readonly access: string
}

const MAGIC = 0xeb9f
const HEADER_BYTES = 24
const CORE_HEADER_BYTES = 32
const SECTION_HEAD_WORDS = 2
const MIN_WORDS = { functions: 2, lines: 4, coreRelos: 4 } as const

function bad(message: string, off?: number): FormatError {
  return new FormatError('BTF.ext', message, off === undefined ? {} : { off })
}

/** Takes the section's bytes, in little endian. */
export function parseExtInfo(bytes: Uint8Array): ExtInfo {
  if (bytes.length < HEADER_BYTES) throw bad(`${bytes.length} bytes are too few for a header`)
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  if (view.getUint16(0, true) !== MAGIC) throw bad('magic is wrong', 0)
  if (view.getUint8(2) !== 1) throw bad(`version ${view.getUint8(2)} is not known, only 1`, 2)
  const headerBytes = view.getUint32(4, true)
  if (headerBytes < HEADER_BYTES || headerBytes > bytes.length)
    throw bad(`header length ${headerBytes} is impossible`, 4)
  const table = (at: number, what: keyof typeof MIN_WORDS): ExtRecords[] =>
    readTable(view, headerBytes + view.getUint32(at, true), view.getUint32(at + 4, true), what)
  return {
    functions: table(8, 'functions'),
    lines: table(16, 'lines'),
    coreRelos: headerBytes < CORE_HEADER_BYTES ? [] : table(24, 'coreRelos'),
  }
}

/** A copy, since the place may be no good for words. Machines that run BPF here are little endian. */
function wordsOf(view: DataView, start: number, end: number): Uint32Array {
  const words = new Uint32Array((end - start) / 4)
  new Uint8Array(words.buffer).set(new Uint8Array(view.buffer, view.byteOffset + start, end - start))
  return words
}

function readTable(
  view: DataView,
  start: number,
  sizeBytes: number,
  what: keyof typeof MIN_WORDS,
): ExtRecords[] {
  if (sizeBytes === 0) return []
  const end = start + sizeBytes
  if (sizeBytes < 4 || sizeBytes % 4 !== 0 || end > view.byteLength)
    throw bad(`${what} run past the end`, start)
  const wordsEach = view.getUint32(start, true) / 4
  if (!Number.isInteger(wordsEach) || wordsEach < MIN_WORDS[what])
    throw bad(`${what} of ${wordsEach * 4} bytes each are not known`, start)
  const groups: ExtRecords[] = []
  for (let at = start + 4; at < end; ) {
    if (at + SECTION_HEAD_WORDS * 4 > end) throw bad(`${what} end within the head of a section`, at)
    const sectionNameOff = view.getUint32(at, true)
    const count = view.getUint32(at + 4, true)
    at += SECTION_HEAD_WORDS * 4
    if (count === 0 || at + count * wordsEach * 4 > end)
      throw bad(`${what} of one section: ${count} do not fit`, at)
    const next = at + count * wordsEach * 4
    const words = wordsOf(view, at, next)
    at = next
    groups.push({ sectionNameOff, wordsEach, words })
  }
  return groups
}
