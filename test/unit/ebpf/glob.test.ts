import assert from 'node:assert/strict'
import { test } from 'node:test'
import { glob, isGlob } from '../../../src/ebpf/glob.ts'

test('glob takes *, ? and sets, and everything else as it is', () => {
  const cases: [pattern: string, fits: string[], not: string[]][] = [
    ['vfs_*', ['vfs_', 'vfs_read'], ['xvfs_read', 'vfs']],
    ['*', ['', 'a'], []],
    ['a?c', ['abc', 'a.c'], ['ac', 'abbc']],
    ['*open*at*', ['openat', 'do_openxat2'], ['open', 'atopen']],
    ['a.c', ['a.c'], ['abc']],
    ['x[0-9a]y', ['x5y', 'xay'], ['xby', 'xy']],
    ['x[!0-9]y', ['xay'], ['x5y']],
    ['x[y', ['x[y'], ['xy']],
    ['', [''], ['a']],
  ]
  for (const [pattern, fits, not] of cases) {
    for (const name of fits) assert.ok(glob(pattern)(name), `${pattern} ${name}`)
    for (const name of not) assert.ok(!glob(pattern)(name), `${pattern} not ${name}`)
  }
  assert.deepEqual(['a', 'a*', 'a?', 'a[b]'].map(isGlob), [false, true, true, true])
})

test('glob comes to an end for patterns that would take other matchers for ever', () => {
  assert.equal(glob(`${'*a'.repeat(2000)}b`)('a'.repeat(5000)), false)
})
