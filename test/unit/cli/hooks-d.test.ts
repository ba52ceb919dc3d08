/** Which folders Podman reads, and which programs root's containers may call. */
import assert from 'node:assert/strict'
import { chmodSync, chownSync, copyFileSync, mkdirSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { hooksDirs, unsafeProgram } from '../../../src/cli/hooks-d.ts'
import { Scratch } from '../../helpers/scratch.ts'

test('hooksDirs() reads parts of the configuration, too, of which the last counts', () => {
  using scratch = new Scratch()
  const write = (file: string, folder: string): void => {
    const path = join('etc/containers', file)
    mkdirSync(join(scratch.path, path, '..'), { recursive: true })
    scratch.write(path, `[engine]\nhooks_dir = ["${folder}"]\n`)
  }
  const configured = () => hooksDirs(scratch.path).configured
  assert.equal(configured(), undefined)
  write('containers.conf', '/a')
  assert.deepEqual(configured(), { file: '/etc/containers/containers.conf', folders: ['/a'] })
  write('containers.conf.d/2.conf', '/b')
  write('containers.conf.d/1.conf', '/c')
  write('containers.conf.d/3.txt', '/d')
  assert.deepEqual(configured(), { file: '/etc/containers/containers.conf.d/2.conf', folders: ['/b'] })
})

test('unsafeProgram() takes a program of root alone, and none that a link leads to', () => {
  using scratch = new Scratch()
  const program = join(scratch.path, 'program')
  copyFileSync('/bin/true', program)
  chmodSync(program, 0o755)
  assert.equal(unsafeProgram(program), undefined)
  symlinkSync(program, join(scratch.path, 'link'))
  assert.match(unsafeProgram(join(scratch.path, 'link'))!, /a symbolic link leads to it/)
  assert.match(unsafeProgram(join(scratch.path, 'none'))!, /there is no/)
  chownSync(program, 1000, 1000)
  assert.match(unsafeProgram(program)!, /belongs to user 1000/)
})
