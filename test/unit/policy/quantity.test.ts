import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import {
  formatDuration,
  formatSize,
  MAX_DURATION_SEC,
  parseDuration,
  parseSize,
} from '../../../src/policy/quantity.ts'

test('parseDuration() adds the units when they go from large to small', () => {
  assert.equal(parseDuration('8h'), 28_800)
  assert.equal(parseDuration('1h30m'), 5_400)
  assert.equal(parseDuration('1d1s'), 86_401)
})

test('parseDuration() is undefined when the text is no duration', () => {
  for (const text of ['', '8', 'h', '30m1h', '1h1h', '1.5h', '-1h', '1 h', '9'.repeat(100)]) {
    assert.equal(parseDuration(text), undefined, text)
  }
})

test('parseDuration() takes a hundred years and no second more', () => {
  assert.equal(parseDuration('36500d'), MAX_DURATION_SEC)
  assert.ok(BigInt(MAX_DURATION_SEC) * 1_000_000_000n * 2n < 1n << 63n)
  for (const text of ['36500d1s', '36501d', '999999999d', '999999999d999999999h', '999999999h'])
    assert.equal(parseDuration(text), undefined, text)
})

test('parseSize() knows binary units and plain bytes', () => {
  assert.equal(parseSize('64MiB'), 67_108_864n)
  assert.equal(parseSize('1GiB'), 1_073_741_824n)
  assert.equal(parseSize('4096'), 4096n)
})

test('parseSize() is undefined when the text is no size or exceeds 63 bits', () => {
  assert.equal(parseSize('8388607TiB'), 8_388_607n << 40n)
  for (const text of ['8388608TiB', '', 'MiB', '1MB', '1.5GiB', '-1', '999999999TiB'])
    assert.equal(parseSize(text), undefined, text)
})

test('formatDuration() and formatSize() are read back as they were', () => {
  fc.assert(
    fc.property(fc.nat(MAX_DURATION_SEC), seconds =>
      assert.equal(parseDuration(formatDuration(seconds)), seconds),
    ),
  )
  fc.assert(
    fc.property(fc.bigInt(0n, 10n ** 18n - 1n), bytes => assert.equal(parseSize(formatSize(bytes)), bytes)),
  )
})
