/** That a newcomer who opens a folder finds there what it is for. */
import assert from 'node:assert/strict'
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join, relative, resolve } from 'node:path'
import { test } from 'node:test'
import { Scratch } from '../../helpers/scratch.ts'

const ROOT = resolve(__dirname, '../../..')
const TOP = ['src', 'test', 'scripts', 'bench', 'bpf', 'native', 'packaging', 'examples', 'docs']

/** Made, not written. */
const MADE = ['bench/bin']

/** All folders at and below `folder` that hold anything. */
function foldersOf(root: string, folder: string): string[] {
  const below = readdirSync(join(root, folder), { withFileTypes: true })
  if (below.length === 0 || MADE.includes(folder)) return []
  return [
    folder,
    ...below.filter(entry => entry.isDirectory()).flatMap(({ name }) => foldersOf(root, join(folder, name))),
  ]
}

/** A README that says something below its heading, or an index.ts that opens with a comment. */
function saysWhatItIsFor(folder: string): boolean {
  const has = (name: string, form: RegExp): boolean =>
    existsSync(join(folder, name)) && form.test(readFileSync(join(folder, name), 'utf8'))
  return has('README.md', /^# .+\n\n\s*\S/) || has('index.ts', /^\/\*\*[^/]*\w/)
}

/** A folder of unit tests is for what the folder of src of the same name is for. */
function mirrors(root: string, folder: string): boolean {
  const path = relative('test/unit', folder)
  return !path.startsWith('..') && path !== '' && existsSync(join(root, 'src', path))
}

test('each folder says what it is for, in its README.md or at the top of its index.ts', () => {
  const folders = TOP.flatMap(top => foldersOf(ROOT, top))
  assert.ok(folders.length > 50)
  assert.deepEqual(
    folders.filter(folder => !mirrors(ROOT, folder) && !saysWhatItIsFor(join(ROOT, folder))),
    [],
  )
})

test('a folder of unit tests is one of src, or says what it is for', () => {
  using scratch = new Scratch()
  const root = scratch.path
  for (const folder of ['src/a', 'test/unit/a', 'test/unit/b', 'test/a'])
    mkdirSync(join(root, folder), { recursive: true })
  assert.equal(mirrors(root, 'test/unit/a'), true)
  for (const folder of ['test/unit', 'test/unit/b', 'test/a', 'src/a'])
    assert.equal(mirrors(root, folder), false, folder)
})

test('saysWhatItIsFor() takes a README or an index that says something, and nothing less', () => {
  using scratch = new Scratch()
  const says = (name: string, text: string): boolean => {
    const folder = join(scratch.path, dirname(name))
    mkdirSync(folder, { recursive: true })
    writeFileSync(join(scratch.path, name), text)
    return saysWhatItIsFor(folder)
  }
  assert.equal(says('a/README.md', '# a\n\nWhat it is for.\n'), true)
  assert.equal(says('b/index.ts', '/**\n * What it is for.\n */\nexport {}\n'), true)
  assert.equal(says('c/README.md', '# c\n'), false)
  assert.equal(says('d/index.ts', 'export {}\n'), false)
  assert.equal(says('e/e.ts', '/** Not where one looks. */\n'), false)
})
