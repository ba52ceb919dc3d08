import assert from 'node:assert/strict'
import { chmodSync, mkdirSync, mkdtempSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { prepareSocket } from '../../../src/daemon/socket-file.ts'

const modeOf = (path: string): number => statSync(path).mode & 0o7777

test('prepareSocket() opens a directory that it makes, and leaves one that was there as it is', async t => {
  const base = mkdtempSync(join(tmpdir(), 'bpftokend-socket-'))
  t.after(() => rmSync(base, { recursive: true }))
  const umask = process.umask(0o077)
  t.after(() => process.umask(umask))
  const made = join(base, 'made', 's')
  assert.equal(await prepareSocket(made), true)
  assert.equal(modeOf(dirname(made)), 0o755)
  for (const [mode, reachable] of [
    [0o700, false],
    [0o750, false],
    [0o711, true],
    [0o755, true],
  ] as const) {
    const directory = join(base, mode.toString(8))
    mkdirSync(directory)
    chmodSync(directory, mode)
    assert.equal(await prepareSocket(join(directory, 's')), reachable)
    assert.equal(modeOf(directory), mode)
  }
  const writable = join(base, 'writable')
  mkdirSync(writable)
  chmodSync(writable, 0o777)
  await assert.rejects(prepareSocket(join(writable, 's')), { code: 'BPFTOKEN_INPUT' })
  assert.equal(modeOf(writable), 0o777)
})
