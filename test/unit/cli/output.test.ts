/**
 * What is printed: nothing that others wrote moves a cursor, ends a line, hides, or looks like
 * another cell.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { columns, type Line, styled, table } from '../../../src/cli/output.ts'
import { printable, printableJson, printableName } from '../../../src/ebpf/printable.ts'

const FORBIDDEN = /[^\P{C}]|[\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}\u00a0\u2800\u3000\ufffd]/u
/** Any UTF-16 at all: half of the characters from where the dangerous ones are. */
const hostile = fc
  .array(
    fc.oneof(
      fc.integer({ min: 0, max: 0xffff }),
      fc.integer({ min: 0, max: 0xa0 }),
      fc.constantFrom(
        0x200b,
        0x200f,
        0x2028,
        0x2029,
        0x202a,
        0x202e,
        0x2066,
        0x2069,
        0xfeff,
        0xad,
        0xd800,
        0xdfff,
        0x20,
      ),
    ),
  )
  .map(units => String.fromCharCode(...units))

test('printable() leaves no character that a terminal obeys, hides or does not show', () => {
  fc.assert(
    fc.property(hostile, text => {
      const shown = printable(text)
      assert.doesNotMatch(shown, FORBIDDEN)
      assert.equal(printable(shown), shown)
    }),
  )
  const each: readonly [string, string][] = [
    ['\x1b[2K\r\x1b]0;owned\x07', '\\u{1b}[2K\\u{d}\\u{1b}]0;owned\\u{7}'],
    ['\x9b31m', '\\u{9b}31m'],
    ['a\nb\tc\x7f', 'a\\u{a}b\\u{9}c\\u{7f}'],
    ['\u202eevil\u2066', '\\u{202e}evil\\u{2066}'],
    ['\u200b\u200f\ufeff\u2028\u2029\u00ad', '\\u{200b}\\u{200f}\\u{feff}\\u{2028}\\u{2029}\\u{ad}'],
    ['\u3164\u2800\u00a0', '\\u{3164}\\u{2800}\\u{a0}'],
    ['\ud800', '\\u{d800}'],
    ['\u{e0041}', '\\u{e0041}'],
    [Buffer.from([0x61, 0xff]).toString(), 'a\\u{fffd}'],
  ]
  for (const [text, shown] of each) assert.equal(printable(text), shown)
})

test('printable() leaves names of all languages as they are', () => {
  for (const text of ['/sys/fs/bpf', 'a b', 'système', '日本語', 'Ω', 'ไทย', '"{}\\x2d'])
    assert.equal(printable(text), text)
})

test('printableName() is ASCII and cut', () => {
  assert.equal(printableName('né\n'), 'n\\u{e9}\\u{a}')
  assert.equal(printableName('x'.repeat(1000)).length, 128)
})

test('printableJson() is the same document without such characters', () => {
  fc.assert(
    fc.property(fc.dictionary(hostile, hostile), value => {
      // What JSON.parse gives for a key like this is no own property.
      if (Object.hasOwn(value, '__proto__')) return
      for (const indent of [undefined, 2]) {
        const text = printableJson(JSON.stringify(value, null, indent))
        assert.doesNotMatch(text.replaceAll('\n', ''), FORBIDDEN)
        assert.deepEqual(JSON.parse(text), JSON.parse(JSON.stringify(value)))
      }
    }),
  )
  assert.equal(printableJson('{\n  "é": 1\n}'), '{\n  "é": 1\n}')
})

test('columns() keeps each row in a line and each cell in its column', () => {
  assert.deepEqual(
    columns([
      ['A', 'B', 'C'],
      ['long name', 'x', 'y z'],
      ['', '', ''],
    ]),
    ['A          B  C', 'long name  x  y z', ''],
  )
  const [forged] = columns([['/mnt/a\nmnt:[1]  user:[1]  cmds=any', ' x ']])
  assert.equal(forged, '/mnt/a\\u{a}mnt:[1] \\u{20}user:[1] \\u{20}cmds=any  \\u{20}x\\u{20}')
  fc.assert(
    fc.property(fc.tuple(hostile, hostile, hostile), row => {
      const [line] = columns([['w'.repeat(9), 'w'.repeat(9), 'w'], row]).slice(1)
      assert.doesNotMatch(line!, FORBIDDEN)
      assert.ok(line!.trimStart().split(/ {2,}/).length <= 3, line)
    }),
  )
})

test('table() cuts the widest columns where a terminal is too narrow, and nothing in a pipe', () => {
  const rows = [
    ['ID', 'NAME', 'RIGHTS'],
    ['1', 'x'.repeat(20), 'y'.repeat(40)],
  ]
  assert.deepEqual(table(rows, { width: undefined }).map(textOf), columns(rows))
  const cut = table(rows, { width: 40 }).map(textOf)
  assert.deepEqual(cut, [
    'ID  NAME               RIGHTS',
    `1   ${'x'.repeat(16)}\u2026  ${'y'.repeat(16)}\u2026`,
  ])
  for (const width of [1, 10, 30, 60, 80]) {
    const lines = table(rows, { width, indent: '  ' }).map(textOf)
    // Columns of eight characters are cut no further.
    for (const line of lines) assert.ok(line.length <= Math.max(width, 2 + 2 + 8 + 8 + 4), line)
  }
  assert.deepEqual(table(rows, { width: 80 }).map(textOf), columns(rows))
})

test('table() keeps hostile cells harmless where they are cut or coloured', () => {
  fc.assert(
    fc.property(hostile, hostile, fc.integer({ min: 1, max: 60 }), (a, b, width) => {
      const [line] = table([[styled('bad', a), b, 'end']], { width })
      assert.doesNotMatch(textOf(line!), FORBIDDEN)
      assert.ok(textOf(line!).split(/ {2,}/).length <= 4)
    }),
  )
})

/** Without its colours. */
function textOf(line: Line): string {
  if (typeof line === 'string') return line
  return line.map(part => (typeof part === 'string' ? part : part.text)).join('')
}
