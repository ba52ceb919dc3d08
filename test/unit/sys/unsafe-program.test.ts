/** What root's runtimes may call: a program that root alone can replace. */
import assert from 'node:assert/strict'
import { chmodSync, chownSync, mkdirSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { unsafeProgram } from '../../../src/sys/unsafe-program.ts'
import { Scratch } from '../../helpers/scratch.ts'

test('unsafeProgram() finds what others than root could replace, and lets the rest pass', {
  skip: process.geteuid?.() === 0 ? false : 'needs root',
}, () => {
  using scratch = new Scratch()
  assert.equal(unsafeProgram(scratch.write('good', '', 0o755)), undefined)
  assert.match(unsafeProgram(scratch.write('plain', '', 0o644))!, /is not executable/)
  assert.match(unsafeProgram(`${scratch.path}/none`)!, /there is no/)
  const open = scratch.write('open', '', 0o755)
  chmodSync(open, 0o777)
  assert.match(unsafeProgram(open)!, /^others than its owner may write to it \(mode 777\)$/)
  const link = join(scratch.path, 'link')
  symlinkSync(join(scratch.path, 'good'), link)
  assert.match(unsafeProgram(link)!, /a symbolic link leads to it/)
  const foreign = scratch.write('foreign', '', 0o755)
  chownSync(foreign, 1000, 1000)
  assert.match(unsafeProgram(foreign)!, /^it belongs to user 1000, not to root$/)
  const folder = join(scratch.path, 'folder')
  mkdirSync(folder)
  const inside = scratch.write('folder/inside', '', 0o755)
  assert.equal(unsafeProgram(inside), undefined)
  chmodSync(folder, 0o777)
  assert.equal(unsafeProgram(inside), `${folder}: others than its owner may write to it (mode 777)`)
  chmodSync(folder, 0o1777)
  assert.equal(unsafeProgram(inside), undefined, 'in a sticky one nobody moves what is root’s')
})
