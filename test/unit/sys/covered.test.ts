import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { coverage } from '../../../src/sys/covered.ts'
import type { Place } from '../../../src/sys/mountinfo.ts'

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

/** The same, said as plainly as it can be: by looking at all siblings on the way up. */
function plainCoverage(mounts: readonly Place[]): (mount: Place) => boolean {
  const childrenOf = ({ mountId }: Place): Place[] =>
    mounts.filter(({ mountId: id, parentId }) => parentId === mountId && id !== mountId)
  const parentOf = ({ mountId, parentId }: Place): Place | undefined =>
    parentId === mountId ? undefined : mounts.find(other => other.mountId === parentId)
  const isHidden = (mount: Place): boolean => {
    const parent = parentOf(mount)
    if (parent === undefined) return false
    const onRoot = parentOf(parent) === undefined
    if (onRoot && mount.path === parent.path) return true
    const siblings = childrenOf(parent)
    const hides = (other: Place, i: number): boolean =>
      other !== mount &&
      !(onRoot && other.path === parent.path) &&
      (other.path === mount.path
        ? i > siblings.indexOf(mount)
        : mount.path.startsWith(other.path === '/' ? '/' : `${other.path}/`))
    return siblings.some(hides) || isHidden(parent)
  }
  return mount =>
    (parentOf(mount) !== undefined && childrenOf(mount).some(({ path }) => path === mount.path)) ||
    isHidden(mount)
}

test('coverage() says of any tree what looking at all siblings says', () => {
  const path = fc.constantFrom('/', '/a', '/a/b', '/a/b/c', '/a-b', '/d')
  const tree = fc
    .array(fc.tuple(fc.nat(), path), { maxLength: 14 })
    .map(rows => [
      { mountId: 1, parentId: 0, path: '/' },
      ...rows.map(([parent, at], i) => ({ mountId: i + 2, parentId: 1 + (parent % (i + 1)), path: at })),
    ])
  fc.assert(
    fc.property(tree, mounts => {
      const fast = coverage(mounts)
      const plain = plainCoverage(mounts)
      for (const mount of mounts) assert.equal(fast(mount), plain(mount), `mount ${mount.mountId}`)
    }),
    { numRuns: 3000 },
  )
})

test('coverage() takes ten thousand binds on each other without trouble', () => {
  const mounts = [
    { mountId: 1, parentId: 0, path: '/' },
    ...Array.from({ length: 10_000 }, (_, i) => ({ mountId: i + 2, parentId: i + 1, path: '/a' })),
  ]
  const isCovered = coverage(mounts)
  assert.equal(mounts.filter(isCovered).length, 9_999)
})
