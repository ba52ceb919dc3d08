/** Objects without a compiler. */

const EM_BPF = 247
interface Section {
  name: string
  type: number
  flags: number
  data: Buffer
  link?: number
  info?: number
  entrySize?: number
}

const PROGBITS = 1
const SYMTAB = 2
const STRTAB = 3
const ALLOC = 2
const EXEC = 4

/** r0 = *(u64 *)(r10 - 8), which nobody wrote: the verifier lets only holders of CAP_PERFMON do it. */
export const READS_STACK = '79a0f8ff00000000'
/** r0 = r5, which nobody has set: no right lets it load. */
export const READS_UNSET = 'bf50000000000000'

/**
 * The smallest BPF object that a loader takes: one program that returns 2 (`verdict`), which for
 * XDP lets every packet pass. `section` makes it a program of another type, `name` is its symbol,
 * and `before` are instructions that come first. No compiler needed.
 */
export function xdpObject(section = 'xdp', name = 'let_pass', verdict = 2, before = ''): Buffer {
  // r0 = verdict; exit
  const code = Buffer.from(`${before}b7000000000000009500000000000000`, 'hex')
  code.writeInt32LE(verdict, code.length - 12)
  const strings = Buffer.from(`\0${name}\0`)
  const sections: Section[] = [
    { name: '', type: 0, flags: 0, data: Buffer.alloc(0) },
    { name: section, type: PROGBITS, flags: ALLOC | EXEC, data: code },
    { name: 'license', type: PROGBITS, flags: ALLOC, data: Buffer.from('GPL\0') },
    { name: '.symtab', type: SYMTAB, flags: 0, data: symbols(code.length), link: 4, info: 1, entrySize: 24 },
    { name: '.strtab', type: STRTAB, flags: 0, data: strings },
    { name: '.shstrtab', type: STRTAB, flags: 0, data: Buffer.alloc(0) },
  ]
  const names = sections.map(section => section.name)
  sections[5]!.data = Buffer.from(`${names.join('\0')}\0`)
  return assemble(sections)
}

/** The obligatory empty symbol, and a global function at the start of section 1. */
function symbols(codeBytes: number): Buffer {
  const table = Buffer.alloc(48)
  table.writeUInt32LE(1, 24)
  table[28] = (1 << 4) | 2 // STB_GLOBAL, STT_FUNC
  table.writeUInt16LE(1, 30)
  table.writeBigUInt64LE(BigInt(codeBytes), 40)
  return table
}

function assemble(sections: Section[]): Buffer {
  const header = Buffer.alloc(64)
  header.write('\x7fELF\x02\x01\x01', 'latin1') // 64 bits, little-endian, version 1
  header.writeUInt16LE(1, 16) // ET_REL
  header.writeUInt16LE(EM_BPF, 18)
  header.writeUInt32LE(1, 20)
  header.writeUInt16LE(64, 52)
  header.writeUInt16LE(64, 58)
  header.writeUInt16LE(sections.length, 60)
  header.writeUInt16LE(sections.length - 1, 62)
  const parts: Buffer[] = [header]
  const table = Buffer.alloc(64 * sections.length)
  let off = header.length
  let nameOff = 0
  sections.forEach((section, i) => {
    const at = 64 * i
    table.writeUInt32LE(nameOff, at)
    table.writeUInt32LE(section.type, at + 4)
    table.writeBigUInt64LE(BigInt(section.flags), at + 8)
    table.writeBigUInt64LE(BigInt(off), at + 24)
    table.writeBigUInt64LE(BigInt(section.data.length), at + 32)
    table.writeUInt32LE(section.link ?? 0, at + 40)
    table.writeUInt32LE(section.info ?? 0, at + 44)
    table.writeBigUInt64LE(i === 0 ? 0n : 8n, at + 48)
    table.writeBigUInt64LE(BigInt(section.entrySize ?? 0), at + 56)
    const padding = Buffer.alloc((8 - (section.data.length % 8)) % 8)
    parts.push(section.data, padding)
    off += section.data.length + padding.length
    nameOff += section.name.length + 1
  })
  header.writeBigUInt64LE(BigInt(off), 40)
  return Buffer.concat([...parts, table])
}
