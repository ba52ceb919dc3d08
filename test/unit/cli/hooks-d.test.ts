/** The file by which Podman calls our hook, and what of its configuration is in the way. */
import assert from 'node:assert/strict'
import { chmodSync, chownSync, mkdirSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { hookDocument, hooksDirIn, hooksDirs, unsafeProgram } from '../../../src/cli/hooks-d.ts'
import { Scratch } from '../../helpers/scratch.ts'

test('hookDocument() is for containers that have an annotation of ours, and for one stage', () => {
  const document = JSON.parse(hookDocument('/usr/lib/x/bpftoken-hook', undefined))
  assert.deepEqual(document.hook, { path: '/usr/lib/x/bpftoken-hook', args: ['bpftoken-hook'] })
  assert.deepEqual(document.stages, ['createRuntime'])
  const [pattern] = Object.keys(document.when.annotations)
  for (const [key, matches] of [
    ['bpftoken.dev/policy', true],
    ['bpftoken.dev/x', true],
    ['bpftokenxdev/policy', false],
    ['a.bpftoken.dev/policy', false],
  ] as const)
    assert.equal(new RegExp(pattern!).test(key), matches, key)
  const elsewhere = JSON.parse(hookDocument('/x', '/run/s.sock'))
  assert.deepEqual(elsewhere.hook.args, ['bpftoken-hook', '--socket', '/run/s.sock'])
})

test('hooksDirIn() reads the list where it is set, and no comment', () => {
  assert.deepEqual(hooksDirIn('[engine]\nhooks_dir = ["/a", \'/b\']\n'), ['/a', '/b'])
  assert.deepEqual(hooksDirIn('hooks_dir=[\n  "/a",\n]'), ['/a'])
  assert.deepEqual(hooksDirIn('hooks_dir = []'), [])
  assert.equal(hooksDirIn('[engine]\n#hooks_dir = ["/a"]\n  # hooks_dir = ["/b"]\n'), undefined)
  assert.equal(hooksDirIn('my_hooks_dir = ["/a"]'), undefined)
  assert.equal(hooksDirIn(''), undefined)
})

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

test('unsafeProgram() finds what others than root could replace, and lets the rest pass', {
  skip: process.geteuid?.() === 0 ? false : 'needs root',
}, () => {
  using scratch = new Scratch()
  assert.equal(unsafeProgram(scratch.write('good', '', 0o755)), undefined)
  assert.match(unsafeProgram(scratch.write('plain', '', 0o644))!, /is not executable/)
  assert.match(unsafeProgram(`${scratch.path}/none`)!, /there is no/)
  const open = scratch.write('open', '', 0o755)
  chmodSync(open, 0o777)
  assert.match(unsafeProgram(open)!, /others than root may write/)
  const link = join(scratch.path, 'link')
  symlinkSync(join(scratch.path, 'good'), link)
  assert.match(unsafeProgram(link)!, /a symbolic link leads to it/)
  const foreign = scratch.write('foreign', '', 0o755)
  chownSync(foreign, 1000, 1000)
  assert.match(unsafeProgram(foreign)!, /belongs to user 1000/)
})
