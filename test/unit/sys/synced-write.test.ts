/** Writes that are on the disk when they return. */
import assert from 'node:assert/strict'
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { writeSynced } from '../../../src/sys/synced-write.ts'

test('writeSynced() writes at its place, and throws what Node throws where it cannot', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'bpftoken-write-'))
  const path = join(directory, 'file')
  const [writable, readable] = [openSync(path, 'wx'), openSync(path, 'r')]
  try {
    assert.equal(await writeSynced(writable, Buffer.from('one two'), 0), 7)
    assert.equal(await writeSynced(writable, Buffer.from('six'), 4), 3)
    assert.equal(readFileSync(path, 'utf8'), 'one six')
    await assert.rejects(writeSynced(readable, Buffer.from('x'), 0), { code: 'EBADF', syscall: 'write' })
    assert.equal(readFileSync(path, 'utf8'), 'one six')
  } finally {
    closeSync(writable)
    closeSync(readable)
    rmSync(directory, { recursive: true })
  }
})
