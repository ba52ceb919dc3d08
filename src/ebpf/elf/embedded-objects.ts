/**
 * BPF objects inside other files: what bpftool's skeletons and bpf2go put into executables and
 * libraries. Pure.
 *
 * An object is found by its ELF header and reaches as far as its header says its sections do.
 * Contents are views. Time is linear in the file: who writes many headers over one table of
 * sections is refused.
 */
import { FormatError } from '../../errors.ts'
import { EM_BPF, ET_REL, SHT } from './elf.ts'

export interface EmbeddedObject {
  /** Byte offset into the file. */
  readonly off: number
  readonly bytes: Uint8Array
}

/** `\x7fELF`, 64 bits. */
const MAGIC = Buffer.from([0x7f, 0x45, 0x4c, 0x46, 2])
/**
 * Of the file header, and of each section header (struct Elf64_Ehdr, Elf64_Shdr in
 * include/uapi/linux/elf.h).
 */
const HEADER_BYTES = 64
/** Section headers that a file may claim beyond those it has room for. */
const SPARE_HEADERS = 1 << 16

/** All BPF objects in a file, by their places; an object file is itself the only one. */
export function embeddedObjects(bytes: Uint8Array): EmbeddedObject[] {
  const file = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
  const found: EmbeddedObject[] = []
  let budget = Math.floor(file.length / HEADER_BYTES) + SPARE_HEADERS
  for (let off = file.indexOf(MAGIC); off !== -1; ) {
    const head = readHead(file, off)
    let next = off + MAGIC.length
    if (head !== undefined) {
      budget -= head.sections
      if (budget < 0)
        throw new FormatError('executable', 'has more ELF headers than it has room for', { off })
      const sizeBytes = extent(file, off, head)
      if (sizeBytes !== undefined) {
        // Old compilers left the machine at 0, so a whole file is for the object reader to judge.
        found.push({ off, bytes: bytes.subarray(off, off === 0 ? bytes.length : off + sizeBytes) })
        next = off + sizeBytes
      }
    }
    off = file.indexOf(MAGIC, next)
  }
  return found
}

interface Head {
  readonly littleEndian: boolean
  readonly tableOff: number
  readonly sections: number
}

/** Undefined: no relocatable BPF object begins there. */
function readHead(file: Buffer, off: number): Head | undefined {
  const order = file[off + 5]
  if (off + HEADER_BYTES > file.length || (order !== 1 && order !== 2)) return undefined
  const view = viewOf(file, off)
  const littleEndian = order === 1
  const u16 = (at: number) => view.getUint16(at, littleEndian)
  if (u16(16) !== ET_REL || (u16(18) !== EM_BPF && !(u16(18) === 0 && off === 0))) return undefined
  if (u16(52) !== HEADER_BYTES || u16(58) !== HEADER_BYTES) return undefined
  return { littleEndian, tableOff: Number(view.getBigUint64(40, littleEndian)), sections: u16(60) }
}

/** Bytes up to the end of the last section or of their table; undefined: the file ends before. */
function extent(file: Buffer, off: number, { littleEndian, tableOff, sections }: Head): number | undefined {
  const room = file.length - off
  let end = Math.max(HEADER_BYTES, tableOff + sections * HEADER_BYTES)
  if (end > room) return undefined
  const view = viewOf(file, off)
  for (let i = 0; i < sections; i++) {
    const at = tableOff + i * HEADER_BYTES
    if (view.getUint32(at + 4, littleEndian) === SHT.NOBITS) continue
    const start = Number(view.getBigUint64(at + 24, littleEndian))
    end = Math.max(end, start + Number(view.getBigUint64(at + 32, littleEndian)))
    if (end > room) return undefined
  }
  return end
}

function viewOf(file: Buffer, off: number): DataView {
  return new DataView(file.buffer, file.byteOffset + off, file.length - off)
}
