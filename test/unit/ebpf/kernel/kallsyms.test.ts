import assert from 'node:assert/strict'
import { test } from 'node:test'
import { addressesIn } from '../../../../src/ebpf/kernel/kallsyms.ts'
import { ConflictError, NotSupportedError } from '../../../../src/errors.ts'

const LINES = [
  '0000000000000000 A fixed_percpu_data',
  'ffffffff81000000 T startup_64',
  'ffffffff81000100 d slots.llvm.1234',
  'ffffffff81000200 t twice',
  'ffffffff81000300 t twice',
  'ffffffff81000400 t same',
  'ffffffff81000400 t same',
  'ffffffffc0000000 t in_module\t[mod]',
]

test('addressesIn() gives addresses by name, and nothing for names that are not there', () => {
  const found = addressesIn(
    LINES,
    new Set(['startup_64', 'in_module', 'slots', 'same', 'fixed_percpu_data', 'no']),
  )
  assert.deepEqual(
    found,
    new Map([
      ['fixed_percpu_data', 0n],
      ['startup_64', 0xffffffff81000000n],
      ['slots', 0xffffffff81000100n],
      ['same', 0xffffffff81000400n],
      ['in_module', 0xffffffffc0000000n],
    ]),
  )
})

test('addressesIn() throws ConflictError when a wanted name has two addresses', () => {
  assert.throws(() => addressesIn(LINES, new Set(['twice'])), ConflictError)
  assert.equal(addressesIn(LINES, new Set(['startup_64'])).size, 1)
})

test('addressesIn() throws NotSupportedError when the kernel hides all addresses', () => {
  const hidden = LINES.map(line => line.replace(/^\w+/, '0000000000000000'))
  assert.throws(
    () => addressesIn(hidden, new Set(['startup_64'])),
    (error: unknown) => error instanceof NotSupportedError && /kptr_restrict/.test(error.hint!),
  )
  assert.equal(addressesIn(hidden, new Set(['no'])).size, 0)
})
