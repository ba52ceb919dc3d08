import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { hexMask, maskOf, mountOption, parseMountValue, wordsOf } from '../../../src/policy/mask-text.ts'
import { ANY_MASK, MASK_DOMAINS } from '../../../src/policy/vocabulary.ts'
import { VOCABULARY } from './sample-kernel.ts'

const anyMask = fc.bigInt(0n, ANY_MASK)
const anyDomain = fc.constantFrom(...MASK_DOMAINS)

function issueOf(domain: (typeof MASK_DOMAINS)[number], word: string) {
  const result = maskOf(VOCABULARY, domain, [word])
  assert.ok(!result.ok)
  return result.issues[0]!
}

describe('maskOf()', () => {
  test('maskOf() adds names, aliases and numbers', () => {
    const words = ['map_create', 'prog_run', '0x2', 4, '256']
    assert.deepEqual(maskOf(VOCABULARY, 'cmds', words), { ok: true, mask: 0x507n })
  })

  test('maskOf() gives all 64 bits when the word is any', () => {
    assert.deepEqual(maskOf(VOCABULARY, 'maps', ['any']), { ok: true, mask: ANY_MASK })
  })

  test('maskOf() gives no bits when there are no words', () => {
    assert.deepEqual(maskOf(VOCABULARY, 'maps', []), { ok: true, mask: 0n })
  })

  for (const [domain, word, suggestion] of [
    ['cmds', 'BPF_PROG_LOAD', 'prog_load'],
    ['cmds', 'Prog_Load', 'prog_load'],
    ['cmds', 'prog_laod', 'prog_load'],
    ['maps', 'BPF_MAP_TYPE_ARRAY', 'array'],
    ['progs', 'BPF_PROG_TYPE_XDP', 'xdp'],
    ['attachs', 'BPF_XDP', 'xdp'],
    ['maps', 'ANY', 'any'],
  ] as const) {
    test(`maskOf() refuses and suggests ${suggestion} when the word is ${word}`, () => {
      assert.equal(issueOf(domain, word).suggestion, suggestion)
    })
  }

  test('maskOf() suggests nothing when no word is near', () => {
    assert.equal(issueOf('cmds', 'quicksilver').suggestion, undefined)
  })

  test('maskOf() refuses common_attrs, which the kernel would take for map_create', () => {
    assert.match(issueOf('cmds', 'common_attrs').message, /65536/)
  })

  test('maskOf() takes 64-bit numbers and refuses larger and negative ones', () => {
    assert.deepEqual(maskOf(VOCABULARY, 'cmds', ['18446744073709551615']), { ok: true, mask: ANY_MASK })
    for (const word of [
      '18446744073709551616',
      '0x10000000000000000',
      '9'.repeat(10_000),
      '-1',
      '',
      '0x',
      '1e3',
    ]) {
      assert.equal(maskOf(VOCABULARY, 'cmds', [word]).ok, false, word.slice(0, 30))
    }
  })
})

describe('wordsOf() and mountOption()', () => {
  test('wordsOf() and maskOf() are inverse', () => {
    fc.assert(
      fc.property(anyDomain, anyMask, (domain, mask) => {
        const { words, leftover } = wordsOf(VOCABULARY, domain, mask)
        const all = leftover === undefined ? words : [...words, leftover]
        assert.deepEqual(maskOf(VOCABULARY, domain, all), { ok: true, mask })
      }),
    )
  })

  test('mountOption() survives the kernel grammar for every mask', () => {
    fc.assert(
      fc.property(anyDomain, anyMask, (domain, mask) => {
        const value = mountOption(VOCABULARY, domain, mask)
        assert.deepEqual(parseMountValue(VOCABULARY, domain, value), { ok: true, mask })
        assert.deepEqual(parseMountValue(VOCABULARY, domain, hexMask(mask)), { ok: true, mask })
      }),
    )
  })

  test('mountOption() puts nameless bits first, since a number replaces what stands before it', () => {
    assert.equal(mountOption(VOCABULARY, 'cmds', (1n << 63n) | 1n), '0x8000000000000000:map_create')
  })
})

describe('parseMountValue()', () => {
  // Each row was seen on nine kernels from 6.12 to 7.3.
  for (const [text, mask] of [
    ['map_create:0x2', 0x2n],
    ['any:0x2', 0x2n],
    ['0x2:map_create', 0x3n],
    ['0x1:0x2', 0x2n],
    ['MAP_CREATE:Prog_Load', 0x21n],
    ['any', ANY_MASK],
    ['010', 8n],
    ['0', 0n],
    ['prog_run', 1n << 10n],
    ['common_attrs', 1n],
  ] as const) {
    test(`parseMountValue() gives ${hexMask(mask)} when the value is ${text}`, () => {
      assert.deepEqual(parseMountValue(VOCABULARY, 'cmds', text), { ok: true, mask })
    })
  }

  for (const [text, errno] of [
    ['', 'EINVAL'],
    ['map_create:', 'EINVAL'],
    [':map_create', 'EINVAL'],
    ['ANY', 'EINVAL'],
    ['BPF_MAP_CREATE', 'EINVAL'],
    ['map_create,prog_load', 'EINVAL'],
    ['-1', 'EINVAL'],
    ['09', 'EINVAL'],
    ['0x10000000000000000', 'ERANGE'],
  ] as const) {
    test(`parseMountValue() answers ${errno} when the value is "${text}"`, () => {
      const result = parseMountValue(VOCABULARY, 'cmds', text)
      assert.equal(!result.ok && result.errno, errno)
    })
  }
})
