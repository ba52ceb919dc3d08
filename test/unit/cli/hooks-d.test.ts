/** The file by which Podman calls our hook, and what of its configuration is in the way. */
import assert from 'node:assert/strict'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { HOOK_SECONDS } from '../../../src/api/container-words.ts'
import { hookDocument, hooksDirIn, hooksDirs } from '../../../src/cli/hooks-d.ts'
import { Scratch } from '../../helpers/scratch.ts'

test('hookDocument() is for containers that have an annotation of ours, and for one stage', () => {
  const document = JSON.parse(hookDocument('/usr/lib/x/bpftoken-hook', undefined))
  assert.deepEqual(document.hook, {
    path: '/usr/lib/x/bpftoken-hook',
    args: ['bpftoken-hook'],
    timeout: HOOK_SECONDS,
  })
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
