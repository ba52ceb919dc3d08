import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { gzipSync } from 'node:zlib'
import { Btf } from '../../../../src/ebpf/btf/btf.ts'
import { BtfBuilder } from '../../../../src/ebpf/btf/builder.ts'
import { CoreResolver } from '../../../../src/ebpf/core/relo.ts'
import { parseElf } from '../../../../src/ebpf/elf/elf.ts'
import { KernelTypes } from '../../../../src/ebpf/kernel/kernel-types.ts'
import { parseObject } from '../../../../src/ebpf/object/spec.ts'
import { FormatError } from '../../../../src/errors.ts'
import { ROOT } from '../../../helpers/machine.ts'

const file = readFileSync(join(ROOT, 'test/fixtures/kernel.bpf.o'))

/** A kernel whose struct bpf_map has `id` at that byte, and nothing else. */
function kernelWith(idOff: number, named = 'bpf_map'): Uint8Array {
  const b = new BtfBuilder()
  const u32 = b.int('unsigned int', 4)
  b.struct(named, idOff + 4, [{ name: 'id', type: u32, bitOff: idOff * 8 }])
  return b.build()
}

/** What a kernel says to the program's accesses of bpf_map::id: the offset, or not there. */
function offsetOfId(kernel: KernelTypes): number | 'not there' {
  const spec = parseObject(file)
  const found = spec.functions.find(({ name }) => name === 'dump_maps')!
  const code = Uint8Array.from(found.code)
  const resolver = new CoreResolver(spec.btf!.types, kernel.vmlinux, () => kernel.modules)
  const outcome = resolver
    .apply(code, found.coreRelos, 'dump_maps')
    .find(({ what }) => /^byte offset of struct bpf_map(___\w+)?::id/.test(what))!
  assert.ok(outcome !== undefined)
  return outcome.poisoned ? 'not there' : new DataView(code.buffer).getInt16(outcome.slot * 8 + 2, true)
}

test('KernelTypes: several kernels at once, each with its own answer for the same object', () => {
  const kernels = [16, 48].map(off => KernelTypes.parse(kernelWith(off), { name: `id at ${off}` }))
  assert.deepEqual(kernels.map(offsetOfId), [16, 48])
  assert.deepEqual(
    kernels.map(({ name }) => name),
    ['id at 16', 'id at 48'],
  )
  assert.equal(offsetOfId(KernelTypes.parse(kernelWith(16, 'other'))), 'not there')
})

test('KernelTypes looks into modules where the kernel has no type of the name', () => {
  const base = kernelWith(0, 'other')
  const count = Btf.parse(base).count
  // A split blob continues ids and strings: bpf_map { id } of the base's first type, at byte 32.
  const view = Buffer.alloc(24 + 24 + 12)
  const stringsBytes = Buffer.from(base).readUInt32LE(20)
  for (const [off, word] of [
    [4, 24],
    [8, 0],
    [12, 24],
    [16, 24],
    [20, 12],
  ] as const)
    view.writeUInt32LE(word, off)
  view.writeUInt16LE(0xeb9f, 0)
  view.writeUInt8(1, 2)
  const words = [stringsBytes, (4 << 24) | 1, 36, stringsBytes + 8, 1, 32 * 8]
  for (const [i, word] of words.entries()) view.writeUInt32LE(word, 24 + i * 4)
  view.write('bpf_map\0id\0\0', 48, 'latin1')
  assert.ok(count >= 1)
  const kernel = KernelTypes.parse(base, { modules: { some: view } })
  assert.equal(offsetOfId(kernel), 32)
  assert.deepEqual(
    kernel.modules.map(({ name }) => name),
    ['some'],
  )
})

test('KernelTypes reads an ELF file with a section .BTF', () => {
  const { vmlinux } = KernelTypes.parse(file, { name: 'x' })
  const raw = parseElf(file).sections.find(({ name }) => name === '.BTF')!.data
  assert.equal(vmlinux.types.count, Btf.parse(raw).count)
})

test('KernelTypes says what is wrong with a file that has no types', () => {
  const stripped = Uint8Array.from(file)
  const text = Buffer.from(stripped.buffer)
  for (let at = text.indexOf('.BTF\0'); at !== -1; at = text.indexOf('.BTF\0')) text[at] = 0x2c
  for (const [bytes, message] of [
    [gzipSync(kernelWith(16)), /packed with gzip/],
    [Uint8Array.from([0xfd, 0x37, 0x7a, 0x58, 0x5a, 0, 0]), /packed with xz/],
    [new Uint8Array(4), /too few for a header/],
    [stripped, /no section \.BTF/],
  ] as const)
    assert.throws(
      () => KernelTypes.parse(bytes),
      (error: unknown) => error instanceof FormatError && message.test(error.message),
    )
})
