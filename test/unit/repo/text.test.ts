/** What must not stand in the repository, and what its documents point at. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { basename, dirname, join, resolve } from 'node:path'
import { test } from 'node:test'

const ROOT = resolve(__dirname, '../../..')
// A package from npm has no .git; its files are checked before it is made.
const inGit = existsSync(join(ROOT, '.git')) ? {} : { skip: 'not a git clone' }

const FOREIGN: readonly [what: string, pattern: RegExp][] = [
  ['a path of one machine', /\/(?:home|Users)\/[a-z]\w*\/|\/root\/\.|\/work\/(?:main|shared)\b/],
  ['a package registry', /https?:\/\/[\w.-]*(?:registry|artifact|mirror|nexus|verdaccio)[\w.-]*\//i],
]

function foreign(text: string): string[] {
  return FOREIGN.filter(([, pattern]) => pattern.test(text)).map(([what]) => what)
}

/** Those that can be read as text; this file holds the patterns themselves. */
function trackedFiles(): string[] {
  const listed = execFileSync('git', ['ls-files', '-z'], { cwd: ROOT, encoding: 'utf8' })
  return listed
    .split('\0')
    .filter(name => name !== '' && existsSync(join(ROOT, name)) && resolve(ROOT, name) !== __filename)
}

test('no file names a path of one machine or a package registry', inGit, () => {
  const wrong = trackedFiles().flatMap(name =>
    foreign(readFileSync(join(ROOT, name), 'utf8')).map(what => `${name}: ${what}`),
  )
  assert.deepEqual(wrong, [])
})

test('foreign() finds a machine path and a registry, and lets plain text pass', () => {
  assert.deepEqual(foreign('see /home/alice/src'), ['a path of one machine'])
  assert.deepEqual(foreign('"resolved": "https://registry.example.org/zod.tgz"'), ['a package registry'])
  assert.deepEqual(foreign('mounted at /sys/fs/bpf, see https://docs.kernel.org/bpf/'), [])
})

/** Links to files of the repository that do not exist. */
function deadLinks(file: string, text: string): string[] {
  return [...text.matchAll(/\]\((?!\w+:)([^)#\s]+)[^)]*\)/g)]
    .map(([, target]) => target!)
    .filter(target => !existsSync(resolve(ROOT, dirname(file), target)))
}

test('links between documents lead to files that exist', inGit, () => {
  const documents = trackedFiles().filter(name => name.endsWith('.md'))
  assert.ok(documents.length >= 5)
  for (const name of documents)
    assert.deepEqual(deadLinks(name, readFileSync(join(ROOT, name), 'utf8')), [], name)
})

test('deadLinks() finds a link to a missing file, and lets others pass', () => {
  const text = '[a](docs/none.md) [b](README.md#use) [c](https://kernel.org) [d](#here)'
  assert.deepEqual(deadLinks('x.md', text), ['docs/none.md'])
})

/** Folders whose files a document may name by their path. */
const FOLDERS = /^(?:src|test|native|bpf|scripts|docs|bench|examples|packaging|integrations)\//
/** A name alone that can only be one of a file of ours. */
const FILE_NAME = /^[\w-]+(?:\.[\w-]+)*\.(?:ts|cjs|sh|md)$/

/** Paths and names of files in backticks that are none of `files`. */
function deadPaths(text: string, files: readonly string[]): string[] {
  const names = new Set(files.map(file => basename(file)))
  const isThere = (path: string): boolean =>
    path.includes('/')
      ? files.some(file => file === path || file.startsWith(`${path.replace(/\/$/, '')}/`))
      : names.has(path)
  return [...text.matchAll(/`([\w./@-]+)`/g)]
    .map(([, path]) => path!)
    .filter(path => (FOLDERS.test(path) || FILE_NAME.test(path)) && !isThere(path))
}

test('each path in backticks in a document exists', inGit, () => {
  const files = trackedFiles()
  for (const name of files.filter(file => file.endsWith('.md')))
    assert.deepEqual(deadPaths(readFileSync(join(ROOT, name), 'utf8'), files), [], name)
})

test('deadPaths() finds a file and a folder that are not there, and lets others pass', () => {
  const text =
    '`src/a.ts` `src/b.ts` `b.ts` `src/` `src/cli/` `test/x/` `bpftoken/ebpf` `/sys/fs/bpf` `bpf.h`'
  assert.deepEqual(deadPaths(text, ['src/a.ts', 'src/cli/c.ts']), ['src/b.ts', 'b.ts', 'test/x/'])
})
