/** Which executables are more than one program. */
import assert from 'node:assert/strict'
import { copyFileSync, linkSync, mkdirSync, symlinkSync } from 'node:fs'
import { test } from 'node:test'
import { breadthOf } from '../../../src/guard/program-names.ts'
import { Scratch } from '../../helpers/scratch.ts'

const kinds = (file: string): string[] => breadthOf(file).map(({ kind }) => kind)

test('breadthOf() has nothing to say of a plain program, also by a path with links in it', () => {
  using scratch = new Scratch()
  mkdirSync(`${scratch.path}/real`)
  copyFileSync('/bin/true', `${scratch.path}/real/tool`)
  copyFileSync('/bin/true', `${scratch.path}/real/other`)
  symlinkSync('real', `${scratch.path}/dir`)
  symlinkSync('nowhere', `${scratch.path}/real/dangling`)
  assert.deepEqual(breadthOf(`${scratch.path}/dir/tool`), [])
})

test('breadthOf() finds the other names of a program, hard and soft', () => {
  using scratch = new Scratch()
  const tool = `${scratch.path}/tool`
  copyFileSync('/bin/true', tool)
  symlinkSync('tool', `${scratch.path}/soft`)
  linkSync(tool, `${scratch.path}/hard`)
  for (const name of ['tool', 'soft', 'hard']) {
    const [found, ...more] = breadthOf(`${scratch.path}/${name}`)
    assert.deepEqual(more, [])
    assert.equal(found?.kind, 'names')
    assert.ok(found?.names !== undefined && found.names.length > 0, name)
    assert.match(found.what, /\/(soft|hard|tool)/)
  }
})

test('breadthOf() finds names by the link that was given, and links in other directories', () => {
  using scratch = new Scratch()
  for (const dir of ['bin', 'lib']) mkdirSync(`${scratch.path}/${dir}`)
  copyFileSync('/bin/true', `${scratch.path}/lib/tool`)
  symlinkSync('../lib/tool', `${scratch.path}/bin/one`)
  assert.deepEqual(kinds(`${scratch.path}/bin/one`), [])
  symlinkSync('../lib/tool', `${scratch.path}/bin/two`)
  assert.deepEqual(kinds(`${scratch.path}/bin/one`), ['names'])
  copyFileSync('/bin/true', `${scratch.path}/lib/far`)
  linkSync(`${scratch.path}/lib/far`, `${scratch.path}/bin/far`)
  assert.match(breadthOf(`${scratch.path}/lib/far`)[0]!.what, /hard links in other directories/)
})

test('breadthOf() knows programs that are many, and those that run what others write', () => {
  using scratch = new Scratch()
  for (const [name, kind] of [
    ['busybox', 'multi-call'],
    ['busybox.static', 'multi-call'],
    ['toybox-x86_64', 'multi-call'],
    ['coreutils', 'multi-call'],
    ['python3.12', 'interpreter'],
    ['node', 'interpreter'],
    ['bash', 'interpreter'],
    ['perl5.36.0', 'interpreter'],
    ['ld-linux-x86-64.so.2', 'interpreter'],
    ['qemu-aarch64-static', 'interpreter'],
  ] as const) {
    copyFileSync('/bin/true', `${scratch.path}/${name}`)
    assert.deepEqual(kinds(`${scratch.path}/${name}`), [kind], name)
  }
  for (const name of ['busyboxer', 'nodemon', 'bashful', 'pythonic', 'incusd', 'ldd2', 'systemd-executor']) {
    copyFileSync('/bin/true', `${scratch.path}/${name}`)
    assert.deepEqual(kinds(`${scratch.path}/${name}`), [], name)
  }
  assert.deepEqual(kinds(scratch.write('script', '#!/bin/sh\n', 0o755)), ['script'])
})
