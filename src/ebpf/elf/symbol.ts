/**
 * Where in a file the code of a symbol is: executables and libraries, 64 bits, both byte orders.
 * Pure.
 *
 * A uprobe is set at a byte of the file, while a symbol's value is an address; the section that the
 * symbol is in says how far apart they are. Layout: System V ABI, chapter 4.
 */
import { FormatError, NotFoundError } from '../../errors.ts'
import { isElf } from './elf.ts'

const HEADER_BYTES = 64
const SECTION_BYTES = 64
const SYMBOL_BYTES = 24
const SHT_SYMTAB = 2
const SHT_DYNSYM = 11
const STT_FUNC = 2

function bad(message: string): FormatError {
  return new FormatError('ELF', message)
}

/**
 * Byte offset in the file of function `name`. NotFoundError: neither symbol table has it. `path` is
 * for messages.
 */
export function symbolOffset(bytes: Uint8Array, name: string, path: string): bigint {
  if (bytes.length < HEADER_BYTES || !isElf(bytes) || bytes[4] !== 2) throw bad(`${path} is not of 64 bits`)
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const little = bytes[5] === 1
  const u32 = (off: number): number => view.getUint32(off, little)
  const u64 = (off: number): bigint => view.getBigUint64(off, little)
  const table = Number(u64(40))
  const count = view.getUint16(60, little)
  if (table + count * SECTION_BYTES > bytes.length) throw bad(`${path} has section headers past its end`)
  const section = (index: number) => {
    const at = table + index * SECTION_BYTES
    const [off, size] = [Number(u64(at + 24)), Number(u64(at + 32))]
    return { type: u32(at + 4), address: u64(at + 16), off, size, link: u32(at + 40) }
  }
  const wanted = Buffer.from(`${name}\0`)
  for (const type of [SHT_SYMTAB, SHT_DYNSYM]) {
    for (let index = 0; index < count; index++) {
      const symbols = section(index)
      if (symbols.type !== type || symbols.link >= count) continue
      const strings = section(symbols.link)
      if (symbols.off + symbols.size > bytes.length || strings.off + strings.size > bytes.length)
        throw bad(`${path} has a symbol table past its end`)
      for (let at = symbols.off; at + SYMBOL_BYTES <= symbols.off + symbols.size; at += SYMBOL_BYTES) {
        const [info, of] = [bytes[at + 4]!, view.getUint16(at + 6, little)]
        if ((info & 0xf) !== STT_FUNC || of === 0 || of >= count) continue
        const nameAt = strings.off + u32(at)
        if (!wanted.equals(bytes.subarray(nameAt, nameAt + wanted.length))) continue
        const code = section(of)
        return u64(at + 8) - code.address + BigInt(code.off)
      }
    }
  }
  throw new NotFoundError(`${path} has no function "${name}"`, {
    context: { path, symbol: name },
    hint: 'Name a function of its symbol tables, or give a byte offset',
  })
}
