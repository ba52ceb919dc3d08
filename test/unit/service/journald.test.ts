import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { InputError } from '../../../src/errors.ts'
import { isJournal, journalEntry, type LogEntry, logLines } from '../../../src/service/journald.ts'

/** As journald reads it. */
function decode(bytes: Uint8Array): [string, string][] {
  const found: [string, string][] = []
  const data = Buffer.from(bytes)
  for (let at = 0; at < data.length; ) {
    const end = data.indexOf(10, at)
    assert.ok(end >= 0, 'no line ends')
    const equals = data.subarray(at, end).indexOf(61)
    if (equals >= 0) {
      found.push([data.toString('utf8', at, at + equals), data.toString('utf8', at + equals + 1, end)])
      at = end + 1
    } else {
      const length = Number(data.readBigUInt64LE(end + 1))
      found.push([data.toString('utf8', at, end), data.toString('utf8', end + 9, end + 9 + length)])
      assert.equal(data[end + 9 + length], 10)
      at = end + 10 + length
    }
  }
  return found
}

test('journalEntry() has message, priority and fields, with line breaks as they are', () => {
  const entry: LogEntry = {
    priority: 4,
    message: 'two\nlines',
    fields: { LOAN: 'loan-1', UID: 7, GONE: undefined, TRACE: 'a\n\nPRIORITY=0\n' },
  }
  assert.deepEqual(decode(journalEntry(entry)), [
    ['MESSAGE', 'two\nlines'],
    ['PRIORITY', '4'],
    ['LOAN', 'loan-1'],
    ['UID', '7'],
    ['TRACE', 'a\n\nPRIORITY=0\n'],
  ])
})

test('journalEntry() is read as it was written, whatever the values', () => {
  const value = fc.string({ unit: 'binary' })
  const fields = fc.dictionary(
    fc.stringMatching(/^[A-Z][A-Z0-9_]{0,20}$/).filter(name => name !== 'MESSAGE' && name !== 'PRIORITY'),
    value,
  )
  fc.assert(
    fc.property(value, fields, (message, fields) => {
      const expected = [['MESSAGE', message], ['PRIORITY', '6'], ...Object.entries(fields)]
      const utf8 = expected.map(([name, text]) => [name, Buffer.from(text!).toString()])
      assert.deepEqual(decode(journalEntry({ priority: 6, message, fields })), utf8)
    }),
  )
})

test('journalEntry() is bounded, and cuts no character in two', () => {
  const fields = Object.fromEntries(Array.from({ length: 200 }, (_, i) => [`FIELD_${i}`, 'ä'.repeat(50_000)]))
  const bytes = journalEntry({ priority: 3, message: '€'.repeat(100_000), fields })
  assert.ok(bytes.length <= 96 * 1024)
  for (const [, value] of decode(bytes)) assert.ok(!value.includes('\ufffd'))
})

test('journalEntry() refuses names that journald would not take, or that say who logs', () => {
  for (const name of ['', 'a', '_PID', '1A', 'A B', 'A=', 'A\nB', 'MESSAGE', 'PRIORITY', 'A'.repeat(65)])
    assert.throws(() => journalEntry({ priority: 6, message: '', fields: { [name]: 1 } }), InputError, name)
})

test('logLines() gives each line its priority, and no line of its own to a value', () => {
  const entry: LogEntry = { priority: 3, message: 'it\nfailed\u001b[2J', fields: { NAME: 'a\n<0>forged' } }
  assert.equal(logLines(entry, true), '<3>it NAME="a\\n<0>forged"\n<3>failed\\u{1b}[2J\n')
  assert.equal(logLines({ priority: 6, message: 'fine' }, false), 'fine\n')
})

test('isJournal() compares device and inode', () => {
  assert.ok(isJournal('10:123', { dev: 10n, ino: 123n }))
  assert.ok(!isJournal('10:123', { dev: 10n, ino: 124n }))
  assert.ok(!isJournal(undefined, { dev: 10n, ino: 123n }))
})
