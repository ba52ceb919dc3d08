/** Files that the command line names: read within their bound, whatever kind they are. */
import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { symlinkSync } from 'node:fs'
import { test } from 'node:test'
import { readInput } from '../../../src/cli/input-file.ts'
import { FormatError, NotFoundError, TimeoutError } from '../../../src/errors.ts'
import { Scratch } from '../../helpers/scratch.ts'

const bounds = { what: 'thing', maxBytes: 100_000, hint: 'Give another', silenceMs: 200 }

function fifo(scratch: Scratch): string {
  const path = `${scratch.path}/fifo`
  execFileSync('mkfifo', [path])
  return path
}

test('readInput() reads a file as large as its bound, and none that is a byte larger', () => {
  using scratch = new Scratch()
  const content = Buffer.alloc(bounds.maxBytes, 'x')
  assert.ok(readInput(scratch.write('fits', content), bounds).equals(content))
  assert.equal(readInput(scratch.write('empty', ''), bounds).length, 0)
  const larger = scratch.write('larger', Buffer.alloc(bounds.maxBytes + 1))
  assert.throws(() => readInput(larger, bounds), FormatError)
})

test('readInput() refuses devices without an end, and files with a size that is not true', () => {
  assert.throws(() => readInput('/dev/zero', bounds), FormatError)
  assert.throws(() => readInput('/dev/full', bounds), FormatError)
  assert.equal(readInput('/dev/null', bounds).length, 0)
  // Of size 0, says stat(2).
  assert.match(readInput('/proc/self/status', bounds).toString(), /^Name:/)
  assert.throws(() => readInput('/proc/self/status', { ...bounds, maxBytes: 10 }), FormatError)
})

test('readInput() says what is wrong with a path', () => {
  for (const [path, errno] of [
    ['/no/such/file', /ENOENT/],
    ['/', /EISDIR/],
  ] as const)
    assert.throws(
      () => readInput(path, bounds),
      (error: unknown) =>
        error instanceof NotFoundError && errno.test(error.message) && error.hint === bounds.hint,
    )
})

test('readInput() takes plain files only where it is told so, and links and pipes elsewhere', () => {
  using scratch = new Scratch()
  const plain = scratch.write('plain', 'content')
  const link = `${scratch.path}/link`
  symlinkSync(plain, link)
  const plainOnly = { ...bounds, plainOnly: true }
  assert.equal(readInput(plain, plainOnly).toString(), 'content')
  assert.equal(readInput(link, bounds).toString(), 'content')
  assert.throws(() => readInput(link, plainOnly), /ELOOP/)
  for (const path of [fifo(scratch), '/dev/null'])
    assert.throws(() => readInput(path, plainOnly), /is no plain file/)
})

test('readInput() does not wait for ever for a pipe that nobody writes to', () => {
  using scratch = new Scratch()
  const path = fifo(scratch)
  assert.throws(() => readInput(path, bounds), TimeoutError)
})

test('readInput() does not wait for ever for a pipe that somebody holds and does not write to', async () => {
  using scratch = new Scratch()
  const path = fifo(scratch)
  const writer = spawn('sh', ['-c', 'exec 3<>"$0"; echo ready; exec sleep 60', path], {
    stdio: ['ignore', 'pipe', 'ignore'],
  })
  try {
    await once(writer.stdout!, 'data')
    assert.throws(() => readInput(path, bounds), TimeoutError)
  } finally {
    writer.kill('SIGKILL')
    await once(writer, 'exit')
  }
})

test('readInput() reads a pipe whose writer comes later, to its end or its bound', async () => {
  using scratch = new Scratch()
  const path = fifo(scratch)
  const patient = { ...bounds, silenceMs: 30_000 }
  for (const [script, expected] of [
    ['sleep 0.2; { echo one; sleep 0.2; echo two; } > "$0"', 'one\ntwo\n'],
    ['yes > "$0"', undefined],
  ] as const) {
    const writer = spawn('sh', ['-c', script, path], { stdio: 'ignore' })
    const exited = once(writer, 'exit')
    if (expected === undefined) assert.throws(() => readInput(path, patient), FormatError)
    else assert.equal(readInput(path, patient).toString(), expected)
    await exited
  }
})
