import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import {
  encodeKconfig,
  type KconfigFacts,
  parseKconfig,
  parseKernelVersion,
} from '../../../../src/ebpf/kernel/kconfig.ts'
import type { KconfigField, KconfigShape } from '../../../../src/ebpf/object/externs.ts'
import { FormatError, NotFoundError, NotSupportedError } from '../../../../src/errors.ts'

const FACTS: KconfigFacts = { kernelVersion: 0x06122c, hasSyscallWrapper: true, hasBpfCookie: false }

function field(shape: KconfigShape, sizeBytes: number, signed = false): KconfigField {
  return { off: 0, sizeBytes, shape, signed }
}

/** One value in hex, as the variable would hold it. */
function encode(of: KconfigField, value: string): string {
  const bytes = encodeKconfig(
    [{ name: 'CONFIG_X', weak: false, field: of }],
    new Map([['CONFIG_X', value]]),
    FACTS,
  )
  return Buffer.from(bytes).toString('hex')
}

test('parseKconfig() reads options as they stand and leaves out what is not set', () => {
  const text =
    '#\n# Automatic\n#\nCONFIG_HZ=250\n# CONFIG_FOO is not set\nCONFIG_V="a=b # \\"c\\""\n\nCONFIG_M=m\n'
  assert.deepEqual(
    [...parseKconfig(text)],
    [
      ['CONFIG_HZ', '250'],
      ['CONFIG_V', '"a=b # \\"c\\""'],
      ['CONFIG_M', 'm'],
    ],
  )
})

test('parseKconfig() takes the first when an option is there twice', () => {
  assert.equal(parseKconfig('CONFIG_A=y\nCONFIG_A=m\n').get('CONFIG_A'), 'y')
})

test('parseKconfig() throws FormatError when an option has no value', () => {
  for (const text of ['CONFIG_A\n', 'CONFIG_A=\n'])
    assert.throws(
      () => parseKconfig(text),
      (error: unknown) => error instanceof FormatError && /CONFIG_A/.test(error.message),
    )
})

test('encodeKconfig() stores y, n and m when the variable can hold them', () => {
  assert.equal(encode(field('bool', 1), 'y'), '01')
  assert.equal(encode(field('bool', 1), 'n'), '00')
  assert.equal(encode(field('tristate', 4), 'n'), '00000000')
  assert.equal(encode(field('tristate', 4), 'y'), '01000000')
  assert.equal(encode(field('tristate', 4), 'm'), '02000000')
  assert.equal(encode(field('char', 1), 'm'), '6d')
})

test('encodeKconfig() throws FormatError when a value is for another type of variable', () => {
  const wrong: [KconfigField, string][] = [
    [field('bool', 1), 'm'],
    [field('bool', 1), '1'],
    [field('int', 4), 'y'],
    [field('char_array', 8), 'y'],
    [field('tristate', 4), '1'],
    [field('char_array', 8), '1'],
    [field('int', 4), '"1"'],
    [field('char', 1), '"y"'],
    [field('char_array', 8), '"open'],
    [field('char_array', 8), '"'],
    [field('int', 4), 'why'],
    [field('int', 4), '12x'],
    [field('int', 4), '08'],
    [field('int', 4), 'toString'],
  ]
  for (const [of, value] of wrong) assert.throws(() => encode(of, value), FormatError, `${of.shape} ${value}`)
})

test('encodeKconfig() reads numbers as C does', () => {
  assert.equal(encode(field('int', 4), '250'), 'fa000000')
  assert.equal(encode(field('int', 8), '0xffffffff81000000'), '00000081ffffffff')
  assert.equal(encode(field('int', 2), '0X1F'), '1f00')
  assert.equal(encode(field('int', 2), '010'), '0800')
  assert.equal(encode(field('int', 2), '0'), '0000')
  assert.equal(encode(field('int', 4, true), '-1'), 'ffffffff')
  assert.equal(encode(field('int', 8, false), '-1'), 'ffffffffffffffff')
  assert.equal(encode(field('char', 1), '65'), '41')
})

test('encodeKconfig() throws FormatError when a number does not fit, and takes it when it just does', () => {
  for (const bytes of [1, 2, 4]) {
    const shape = bytes === 1 ? 'char' : 'int'
    const bits = BigInt(bytes * 8)
    const [unsigned, signed] = [field(shape, bytes), field(shape, bytes, true)]
    const fits: [KconfigField, bigint][] = [
      [unsigned, 2n ** bits - 1n],
      [signed, 2n ** (bits - 1n) - 1n],
      [signed, -(2n ** (bits - 1n))],
    ]
    for (const [of, value] of fits) {
      assert.ok(encode(of, String(value)))
      assert.throws(() => encode(of, String(value < 0n ? value - 1n : value + 1n)), FormatError)
    }
    assert.throws(() => encode(unsigned, '-1'), FormatError)
  }
  assert.throws(() => encode(field('int', 8), String(2n ** 64n)), FormatError)
})

test('encodeKconfig() gives back any number that fits', () => {
  fc.assert(
    fc.property(fc.constantFrom(2, 4, 8), fc.boolean(), fc.bigInt(), (size, signed, any) => {
      const bits = size * 8
      const value = signed ? BigInt.asIntN(bits, any) : BigInt.asUintN(bits, any)
      const bytes = Buffer.from(encode(field('int', size, signed), String(value)), 'hex')
      const all = [...bytes].reduceRight((sum, byte) => (sum << 8n) | BigInt(byte), 0n)
      assert.equal(signed ? BigInt.asIntN(bits, all) : all, value)
    }),
  )
})

test('encodeKconfig() takes the quotes off a string and cuts it so that a zero byte stays', () => {
  assert.equal(encode(field('char_array', 6), '"abc"'), '616263000000')
  assert.equal(encode(field('char_array', 4), '"abcdef"'), '61626300')
  assert.equal(encode(field('char_array', 2), '""'), '0000')
})

test('encodeKconfig() fills in what the kernel is', () => {
  const externs = [
    { name: 'LINUX_KERNEL_VERSION', weak: false, field: { ...field('int', 4), off: 0 } },
    { name: 'LINUX_HAS_SYSCALL_WRAPPER', weak: false, field: { ...field('bool', 1), off: 4 } },
    { name: 'LINUX_HAS_BPF_COOKIE', weak: false, field: { ...field('bool', 1), off: 5 } },
  ]
  const never = (): never => assert.fail('the configuration is not wanted')
  assert.equal(Buffer.from(encodeKconfig(externs, never, FACTS)).toString('hex'), '2c1206000100')
})

test('encodeKconfig() leaves zeros for what is weak and missing, and throws NotFoundError for the rest', () => {
  const one = (name: string, weak: boolean) => [{ name, weak, field: field('int', 4) }]
  for (const name of ['CONFIG_NO', 'LINUX_NEWER']) {
    assert.deepEqual(encodeKconfig(one(name, true), new Map(), FACTS), new Uint8Array(4))
    assert.throws(
      () => encodeKconfig(one(name, false), new Map(), FACTS),
      (error: unknown) => error instanceof NotFoundError && error.context['option'] === name,
    )
  }
  assert.throws(() => encodeKconfig(one('OTHER', true), new Map(), FACTS), NotFoundError)
})

test('parseKernelVersion() finds the upstream version of a distribution, and cuts the patch level to a byte', () => {
  const release = '6.1.0-21-amd64'
  const debian = '#1 SMP PREEMPT_DYNAMIC Debian 6.1.90-1 (2024-05-03)'
  assert.equal(parseKernelVersion({ release, version: debian }), 0x06015a)
  const ubuntu = {
    release: '5.4.0-12-generic',
    version: '#15-Ubuntu SMP',
    signature: 'Ubuntu 5.4.0-12.15-generic 5.4.8\n',
  }
  assert.equal(parseKernelVersion(ubuntu), 0x050408)
  assert.equal(parseKernelVersion({ release: '6.18.44-x', version: '#1 SMP' }), 0x06122c)
  assert.equal(parseKernelVersion({ release: '4.19.300', version: '' }), 0x0413ff)
  assert.throws(() => parseKernelVersion({ release: 'odd', version: '' }), NotSupportedError)
})
