import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  DELEGATION_IDS,
  DESCRIPTORS,
  isWithin,
  PROCESS_IDS,
  parseWithin,
  USER_IDS,
} from '../../../src/uapi/number-range.ts'

test('parseWithin() takes the ends of each range, and not what is next to them', () => {
  for (const [range, min, max] of [
    [USER_IDS, 0, 4_294_967_294],
    [PROCESS_IDS, 1, 4_194_304],
    [DESCRIPTORS, 0, 2_147_483_647],
    [DELEGATION_IDS, 1, 4_294_967_295],
  ] as const) {
    assert.equal(parseWithin(range, String(min)), min)
    assert.equal(parseWithin(range, String(max)), max)
    assert.equal(parseWithin(range, String(min - 1)), undefined)
    assert.equal(parseWithin(range, String(max + 1)), undefined)
  }
})

test('parseWithin() takes plain decimal digits only', () => {
  assert.equal(parseWithin(USER_IDS, '1000'), 1000)
  const others = [
    '',
    ' ',
    ' 1000',
    '1000 ',
    '1000\n',
    '+1000',
    '-1',
    '-0',
    '0x3e8',
    '1e3',
    '1000.0',
    '01000',
    '00',
    '1_000',
  ]
  const large = ['4294967296', '4294967295', '18446744073709551616', '9'.repeat(400)]
  const unicode = ['١٠٠٠', '１０００', '1٠', 'NaN', 'Infinity']
  for (const text of [...others, ...large, ...unicode])
    assert.equal(parseWithin(USER_IDS, text), undefined, JSON.stringify(text))
})

test('isWithin() takes whole numbers of the range only', () => {
  assert.ok(isWithin(USER_IDS, 0) && isWithin(USER_IDS, 4_294_967_294))
  for (const value of [
    -1,
    2 ** 32 - 1,
    2 ** 32,
    2 ** 53,
    1.5,
    Number.NaN,
    Number.POSITIVE_INFINITY,
    '1',
    1n,
    null,
    undefined,
  ])
    assert.ok(!isWithin(USER_IDS, value), String(value))
})
