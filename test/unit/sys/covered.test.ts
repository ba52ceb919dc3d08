import assert from 'node:assert/strict'
import { test } from 'node:test'
import { coverage } from '../../../src/sys/covered.ts'

/** `id parent path` in the order of mountinfo; gives the ids that no path leads to. */
function covered(table: string): number[] {
  const mounts = table
    .trim()
    .split('\n')
    .map(line => {
      const [mountId, parentId, path] = line.trim().split(' ')
      return { mountId: Number(mountId), parentId: Number(parentId), path: path! }
    })
  return mounts.filter(coverage(mounts)).map(({ mountId }) => mountId)
}

test('a plain tree covers nothing', () => {
  assert.deepEqual(covered('1 0 /\n2 1 /sys\n3 2 /sys/fs/bpf\n4 1 /s\n5 1 /sys-x'), [])
})

test('a mount on a mount covers it and what is below it', () => {
  assert.deepEqual(covered('1 0 /\n2 1 /sys\n3 2 /sys/fs/bpf\n4 3 /sys/fs/bpf'), [3])
  assert.deepEqual(covered('1 0 /\n2 1 /sys\n3 2 /sys/fs/bpf\n4 2 /sys'), [2, 3])
  assert.deepEqual(covered('1 0 /\n2 1 /sys\n3 2 /sys/fs/bpf\n4 2 /sys/fs'), [3])
})

test('what lies on the root of a process is out of its reach, and covers nothing of it', () => {
  assert.deepEqual(covered('1 0 /\n2 1 /sys\n3 1 /\n4 3 /x'), [3, 4])
  assert.deepEqual(covered('1 1 /\n2 1 /sys'), [])
})

test('of two on one directory the later one is seen', () => {
  assert.deepEqual(covered('1 0 /\n2 1 /a\n3 1 /a'), [2])
})

test('a table that was read while it changed ends nobody in a circle', () => {
  assert.deepEqual(covered('1 2 /a\n2 1 /a'), [1, 2])
})
