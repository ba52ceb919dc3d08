import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { test } from 'node:test'
import { shellPath, shellWord } from '../../../src/ebpf/printable.ts'

const WORDS = [
  'a',
  '',
  'a b',
  "it's",
  '$(id)',
  '`id`',
  'x;touch pwned #.o',
  '"',
  '\\',
  '*',
  '~',
  '-n',
  'a\nb',
  '!x',
]

test('a shell reads each word back as it was, and does nothing of it', () => {
  for (const word of WORDS) {
    const read = execFileSync('sh', ['-c', `printf %s ${shellWord(word)}`], { encoding: 'utf8' })
    assert.equal(read, word)
  }
  assert.equal(shellWord('/usr/lib/x@1:2+3.o'), '/usr/lib/x@1:2+3.o')
})

test('a path is no option', () => {
  assert.equal(shellPath('-x y'), "'./-x y'")
  assert.equal(shellPath('x-y'), 'x-y')
})
