/** Loading with the types of files instead of the running kernel's, once for many objects. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { attachIterator } from '../../../src/ebpf/attach/attach.ts'
import { BtfBuilder } from '../../../src/ebpf/btf/builder.ts'
import { KernelTypes } from '../../../src/ebpf/kernel/kernel-types.ts'
import { loadObject } from '../../../src/ebpf/load/object.ts'
import { parseObject } from '../../../src/ebpf/object/spec.ts'
import { VerifierError } from '../../../src/errors.ts'
import { openFds, traceFds } from '../../../src/sys/fd.ts'
import { VMLINUX_BTF } from '../../../src/uapi/kernel-paths.ts'
import { needsTokens, ROOT } from '../../helpers/machine.ts'

before(() => traceFds())
after(() => assert.deepEqual(openFds(), []))

const spec = parseObject(readFileSync(join(ROOT, 'test/fixtures/kernel.bpf.o')), { name: 'kernel' })

/** Tag of the iterator as it is loaded with these types. */
async function tagWith(kernelTypes?: KernelTypes): Promise<string> {
  using object = await loadObject(spec, {
    token: null,
    only: ['dump_maps'],
    ...(kernelTypes === undefined ? {} : { kernelTypes }),
  })
  return object.program('dump_maps').info().tag
}

test(
  "this kernel's types from a file give the same program as the kernel itself",
  needsTokens(),
  async () => {
    const kernel = KernelTypes.parse(readFileSync(VMLINUX_BTF))
    assert.equal(await tagWith(kernel), await tagWith())
    assert.equal(await tagWith(kernel), await tagWith(), 'and once more, of the same types')
    using object = await loadObject(spec, { token: null, only: ['dump_maps'], kernelTypes: kernel })
    using link = attachIterator(object.program('dump_maps'))
    assert.ok(link.readIterator().length > 0)
  },
)

test('types of another kernel change the program, and what they lack is named', needsTokens(), async () => {
  const b = new BtfBuilder()
  const u32 = b.int('unsigned int', 4)
  const pointer = b.ptr(0)
  b.struct('bpf_iter_meta', 8, [{ name: 'seq', type: pointer, bitOff: 0 }])
  b.struct('bpf_iter__bpf_map', 16, [
    { name: 'meta', type: pointer, bitOff: 0 },
    { name: 'map', type: pointer, bitOff: 64 },
  ])
  const without = KernelTypes.parse(b.build(), { name: 'nothing' })
  b.struct('bpf_map', 24, [
    { name: 'max_entries', type: u32, bitOff: 0 },
    { name: 'id', type: u32, bitOff: 64 },
  ])
  const other = KernelTypes.parse(b.build(), { name: 'other' })
  // Eight bytes into the kernel's own struct is a pointer, whose half is no number to read.
  const outcome = await tagWith(other).catch((error: unknown) => error)
  assert.notEqual(outcome, await tagWith())
  await assert.rejects(tagWith(without), (error: unknown) => {
    assert.ok(error instanceof VerifierError)
    assert.match(error.message, /bpf_map/)
    return true
  })
})
