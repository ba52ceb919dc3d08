/** readOwnFile() and replaceOwnFile(): whose files they take, and what stays of one. */
import assert from 'node:assert/strict'
import {
  chmodSync,
  chownSync,
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { readOwnFile, replaceOwnFile } from '../../../src/cli/own-file.ts'
import { Scratch } from '../../helpers/scratch.ts'

const isRoot = process.geteuid!() === 0
const MAX = 100
const text = (name: string): string => readFileSync(name, 'utf8')

test('replaceOwnFile() keeps owner, group and mode, and leaves nothing beside it', () => {
  using scratch = new Scratch()
  const name = scratch.write('file', 'old')
  if (isRoot) chownSync(name, 0, 1234)
  chmodSync(name, 0o604)
  const link = join(scratch.path, 'link')
  symlinkSync('file', link)
  replaceOwnFile(readOwnFile(link, MAX), Buffer.from('new'))
  assert.equal(text(name), 'new')
  const { uid, gid, mode } = statSync(name)
  assert.deepEqual([uid, mode & 0o7777], [process.geteuid!(), 0o604])
  if (isRoot) assert.equal(gid, 1234)
  assert.deepEqual(readdirSync(scratch.path).sort(), ['file', 'link'])
})

test('replaceOwnFile() replaces nothing that was changed meanwhile', () => {
  using scratch = new Scratch()
  const name = scratch.write('file', 'old')
  for (const change of ['odd', 'longer']) {
    writeFileSync(name, 'old')
    const file = readOwnFile(name, MAX)
    writeFileSync(name, change)
    assert.throws(() => replaceOwnFile(file, Buffer.from('new')), { code: 'BPFTOKEN_CONFLICT' })
    assert.equal(text(name), change)
  }
  assert.deepEqual(readdirSync(scratch.path), ['file'])
})

test('readOwnFile() refuses what others may write to or exchange, and what is none', () => {
  using scratch = new Scratch()
  const name = scratch.write('file', 'old')
  const denied = (why: RegExp) =>
    assert.throws(() => readOwnFile(name, MAX), { code: 'BPFTOKEN_DENIED', message: why })
  for (const mode of [0o620, 0o602]) {
    chmodSync(name, mode)
    denied(/others than its owner may write to it \(mode 6[02][02]\)/)
  }
  chmodSync(name, 0o600)
  chmodSync(scratch.path, 0o777)
  denied(/others than its owner may write to it \(mode 777\)/)
  chmodSync(scratch.path, 0o1777)
  assert.equal(readOwnFile(name, MAX).bytes.toString(), 'old', 'in a sticky one nobody exchanges it')
  chmodSync(scratch.path, 0o700)
  linkSync(name, join(scratch.path, 'other'))
  denied(/it has 2 names/)
  assert.throws(() => readOwnFile(join(scratch.path, 'none'), MAX), { code: 'BPFTOKEN_NOT_FOUND' })
  assert.throws(() => readOwnFile(scratch.path, MAX), { code: 'BPFTOKEN_DENIED', message: /no plain file/ })
  assert.throws(() => readOwnFile(scratch.write('long', 'x'.repeat(MAX + 1)), MAX), {
    code: 'BPFTOKEN_FORMAT',
  })
})

test("readOwnFile() refuses another user's file, and one in another user's directory", {
  skip: !isRoot && 'needs root',
}, () => {
  using scratch = new Scratch()
  const name = scratch.write('file', 'old')
  chownSync(name, 1234, 0)
  assert.throws(() => readOwnFile(name, MAX), { message: /it belongs to user 1234, not to root/ })
  const directory = join(scratch.path, 'theirs')
  mkdirSync(join(directory, 'root'), { recursive: true })
  chownSync(directory, 1234, 0)
  const inside = join(directory, 'root/file')
  writeFileSync(inside, 'old')
  assert.throws(() => readOwnFile(inside, MAX), {
    message: /theirs" is not changed: it belongs to user 1234/,
  })
  chownSync(directory, 0, 0)
  assert.equal(readOwnFile(inside, MAX).bytes.toString(), 'old')
})
