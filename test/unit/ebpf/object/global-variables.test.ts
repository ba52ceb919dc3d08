import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { Btf } from '../../../../src/ebpf/btf/btf.ts'
import { BtfBuilder } from '../../../../src/ebpf/btf/builder.ts'
import { GlobalVariables } from '../../../../src/ebpf/object/global-variables.ts'
import { ConflictError, NotFoundError } from '../../../../src/errors.ts'

/** u32 port; char name[8]; and two statics `state`, in 24 bytes. */
function sample(): GlobalVariables {
  const b = new BtfBuilder()
  const [u32, char] = [b.int('u32', 4), b.int('char', 1)]
  const name = b.array(char, u32, 8)
  const id = b.datasec('.data', 24, [
    { type: b.var('port', b.const(b.volatile(u32))), off: 0, size: 4 },
    { type: b.var('name', name), off: 4, size: 8 },
    { type: b.var('state', u32, 'static'), off: 12, size: 4 },
    { type: b.var('state', u32, 'static'), off: 16, size: 4 },
  ])
  return new GlobalVariables(Btf.parse(b.build()), id)
}

test('GlobalVariables lists the variables of a section with their places', () => {
  const { section, all } = sample()
  assert.equal(section, '.data')
  assert.deepEqual(
    [...all].map(([name, { off, sizeBytes }]) => [name, off, sizeBytes]),
    [
      ['port', 0, 4],
      ['name', 4, 8],
      ['state', 12, 4],
    ],
  )
})

test('GlobalVariables.get() gives back what set() set, and nothing else changes', () => {
  const globals = sample()
  const text = fc.uint8Array({ minLength: 8, maxLength: 8 })
  fc.assert(
    fc.property(fc.nat(0xffff_ffff), text, (port, name) => {
      const bytes = new Uint8Array(24).fill(0xaa)
      globals.set(bytes, 'port', port)
      globals.set(bytes, 'name', name)
      assert.equal(globals.get(bytes, 'port'), port)
      assert.deepEqual(globals.get(bytes, 'name'), name)
      assert.ok(bytes.subarray(12).every(byte => byte === 0xaa))
    }),
  )
})

test('GlobalVariables names the variable when a value does not fit', () => {
  const bytes = new Uint8Array(24)
  assert.throws(() => sample().set(bytes, 'port', -1), {
    name: 'RangeError',
    message: 'Cannot set "port": the value takes 0 to 4294967295, not -1',
  })
  assert.throws(() => sample().set(bytes, 'port', 'x'), { name: 'TypeError' })
})

test('GlobalVariables throws when a name is of no variable, or of several', () => {
  assert.throws(() => sample().get(new Uint8Array(24), 'no'), NotFoundError)
  assert.throws(() => sample().set(new Uint8Array(24), 'state', 1), ConflictError)
})

test('GlobalVariables throws TypeError when the type is no data section', () => {
  const b = new BtfBuilder()
  const id = b.int('int', 4)
  assert.throws(() => new GlobalVariables(Btf.parse(b.build()), id), TypeError)
})
