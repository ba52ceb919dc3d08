/**
 * Takes the types out of a kernel image: node --import tsx test/corpus/foreign-btf.ts VMLINUZ
 * OUTPUT
 *
 * The image holds the kernel compressed, an ELF file with a section .BTF. The ELF reader here is on
 * purpose not that of src/ebpf, which is to be tested.
 */
import { spawnSync } from 'node:child_process'
import { readFileSync, renameSync, writeFileSync } from 'node:fs'

const FORMATS = [
  { magic: [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00], command: ['xz', '-dc', '--single-stream'] },
  { magic: [0x28, 0xb5, 0x2f, 0xfd], command: ['zstd', '-dc'] },
  { magic: [0x1f, 0x8b, 0x08], command: ['gzip', '-dc'] },
  { magic: [0x02, 0x21, 0x4c, 0x18], command: ['lz4', '-dc'] },
]
const ELF_MAGIC = 0x7f454c46
/** Of each section header. */
const HEADER_SIZE = 64

function btfOf(kernel: Buffer): Buffer | undefined {
  if (kernel.length < HEADER_SIZE || kernel.readUInt32BE(0) !== ELF_MAGIC) return undefined
  const table = Number(kernel.readBigUInt64LE(40))
  const header = (index: number) => kernel.subarray(table + index * HEADER_SIZE)
  const contents = (head: Buffer) => {
    const off = Number(head.readBigUInt64LE(24))
    return kernel.subarray(off, off + Number(head.readBigUInt64LE(32)))
  }
  const names = contents(header(kernel.readUInt16LE(62)))
  for (let index = 1; index < kernel.readUInt16LE(60); index++) {
    const off = header(index).readUInt32LE(0)
    if (names.toString('latin1', off, names.indexOf(0, off)) === '.BTF') return contents(header(index))
  }
  return undefined
}

/** The boot header says where the compressed kernel is: Documentation/arch/x86/boot.rst. */
function unpack(image: Buffer): Buffer {
  const start = (image[0x1f1]! + 1) * 512 + image.readUInt32LE(0x248)
  const payload = image.subarray(start, start + image.readUInt32LE(0x24c))
  const format = FORMATS.find(({ magic }) => payload.indexOf(Buffer.from(magic)) === 0)
  if (format === undefined)
    throw new Error(`the kernel is compressed in an unknown way: ${payload.toString('hex', 0, 8)}`)
  const [program, ...args] = format.command as [string, ...string[]]
  // The size that follows the data is none of theirs, so these programs may end with a failure,
  // their work done.
  const { stdout, error } = spawnSync(program, args, { input: payload, maxBuffer: 2 ** 30 })
  const btf = stdout === null ? undefined : btfOf(stdout)
  if (btf === undefined) throw error ?? new Error('the kernel has no types')
  return btf
}

const [image, output] = process.argv.slice(2) as [string, string]
writeFileSync(`${output}.new`, unpack(readFileSync(image)))
renameSync(`${output}.new`, output)
