/** The boot cache stays within its bounds, whatever lies in it. */
import assert from 'node:assert/strict'
import { chmodSync, chownSync, mkdirSync, readdirSync, statSync, symlinkSync, utimesSync } from 'node:fs'
import { test } from 'node:test'
import { CACHE_BOUNDS, prune, readEntry } from '../../../src/lending/boot-cache.ts'
import { Scratch } from '../../helpers/scratch.ts'

function entry(scratch: Scratch, name: string, bytes: number, ageSec: number): void {
  const path = scratch.write(name, 'x'.repeat(bytes))
  const time = Date.now() / 1000 - ageSec
  utimesSync(path, time, time)
}

test('prune() keeps the newest entries within the number of files', () => {
  using scratch = new Scratch()
  for (let i = 0; i < 10; i++) entry(scratch, `policy-${i}.json`, 1, i)
  prune(scratch.path, { files: 3, bytes: 100 })
  assert.deepEqual(readdirSync(scratch.path).sort(), ['policy-0.json', 'policy-1.json', 'policy-2.json'])
})

test('prune() keeps the newest entries within the number of bytes', () => {
  using scratch = new Scratch()
  for (let i = 0; i < 10; i++) entry(scratch, `policy-${i}.json`, 40, i)
  prune(scratch.path, { files: 100, bytes: 100 })
  assert.deepEqual(readdirSync(scratch.path).sort(), ['policy-0.json', 'policy-1.json'])
})

test('prune() removes what a writer left long ago, not what one writes now', () => {
  using scratch = new Scratch()
  entry(scratch, '.12-abc', 0, 3600)
  entry(scratch, '.13-abc', 0, 0)
  entry(scratch, 'policy-1.json', 5, 7200)
  prune(scratch.path)
  assert.deepEqual(readdirSync(scratch.path).sort(), ['.13-abc', 'policy-1.json'])
})

test('prune() leaves alone what is no file of ours, and what a link leads to', () => {
  using scratch = new Scratch()
  using elsewhere = new Scratch()
  const target = elsewhere.write('target', 'x')
  mkdirSync(`${scratch.path}/dir`)
  symlinkSync(target, `${scratch.path}/link`)
  entry(scratch, 'policy-1.json', 1, 0)
  prune(scratch.path, { files: 1, bytes: 10 })
  assert.deepEqual(readdirSync(scratch.path).sort(), ['dir', 'link', 'policy-1.json'])
  assert.equal(statSync(target).size, 1)
})

test('an entry alone is within the bounds', () => {
  assert.ok(CACHE_BOUNDS.entryBytes <= CACHE_BOUNDS.bytes)
})

test('readEntry() reads what only root can have written', {
  skip: process.geteuid?.() !== 0 && 'not root',
}, () => {
  using scratch = new Scratch()
  const path = scratch.write('policy-1.json', 'x', 0o600)
  assert.equal(readEntry(path), 'x')
  for (const mode of [0o620, 0o602, 0o666]) {
    chmodSync(path, mode)
    assert.throws(() => readEntry(path), RangeError, mode.toString(8))
  }
  chmodSync(path, 0o600)
  chownSync(path, 65534, 0)
  assert.throws(() => readEntry(path), RangeError)
  symlinkSync(scratch.write('target', 'x', 0o600), `${scratch.path}/link`)
  assert.throws(() => readEntry(`${scratch.path}/link`), RangeError)
})
