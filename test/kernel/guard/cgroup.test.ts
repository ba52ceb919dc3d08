/** Cgroups as the guard knows them: the level is the kernel's, however the path is written. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmdirSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { InputError, NotFoundError } from '../../../src/errors.ts'
import { findCgroup } from '../../../src/guard/cgroup.ts'
import { cgroupRoot } from '../../../src/lending/recipient/cgroup.ts'

const root = cgroupRoot()
const skip = root === undefined ? 'this machine has no cgroups of version 2' : false

describe('findCgroup()', { skip }, () => {
  const name = `bpftoken-test-${process.pid}`
  const outer = join(root ?? '/', name)
  const inner = join(outer, 'inner')
  const other = join(root ?? '/', `${name}-other`)
  let links: string
  before(() => {
    mkdirSync(inner, { recursive: true })
    mkdirSync(other)
    links = mkdtempSync(join(tmpdir(), 'bpftoken-test-'))
  })
  after(() => {
    for (const directory of [inner, outer, other]) rmdirSync(directory)
    rmSync(links, { recursive: true })
  })

  test('counts the levels that there are, and not those of the text', () => {
    const { id } = findCgroup(outer)
    for (const path of [outer, `${outer}/`, `${outer}/.`, `${inner}/..`, `${inner}/../inner/../../${name}`])
      assert.deepEqual(findCgroup(path), { id, level: 1 }, path)
    assert.equal(findCgroup(`${outer}/./inner`).level, 2)
    symlinkSync(inner, join(links, 'link'))
    assert.deepEqual(findCgroup(join(links, 'link')), findCgroup(inner))
  })

  test('refuses one that is mounted elsewhere, and takes it by its own path', () => {
    execFileSync('mount', ['--bind', inner, other])
    try {
      assert.throws(() => findCgroup(other), InputError)
      assert.equal(findCgroup(inner).level, 2)
    } finally {
      execFileSync('umount', [other])
    }
    assert.equal(findCgroup(other).level, 1)
  })

  test('refuses what is no cgroup, and what is not there', () => {
    assert.throws(() => findCgroup(links), InputError)
    assert.throws(() => findCgroup(join(outer, 'none')), NotFoundError)
  })
})
