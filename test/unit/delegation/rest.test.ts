import assert from 'node:assert/strict'
import { test } from 'node:test'
import { directoryOf } from '../../../src/delegation/rest.ts'

test('directoryOf() finds our cgroup in what is mounted, and nothing beside it', () => {
  const all = { root: '/', path: '/sys/fs/cgroup' }
  assert.equal(directoryOf(all, '0::/\n'), '/sys/fs/cgroup')
  assert.equal(directoryOf(all, '1:cpu:/x\n0::/a.slice/b.service\n'), '/sys/fs/cgroup/a.slice/b.service')
  const part = { root: '/docker/1', path: '/sys/fs/cgroup' }
  assert.equal(directoryOf(part, '0::/docker/1/in\n'), '/sys/fs/cgroup/in')
  assert.equal(directoryOf(part, '0::/docker/2\n'), undefined)
  assert.equal(directoryOf(all, '0::/a\r0::/b\n'), '/sys/fs/cgroup/a\r0::/b')
  for (const text of ['', '1:cpu:/x\n', '0::/../outside\n', '0::/a (deleted)\n'])
    assert.equal(directoryOf(all, text), undefined, text)
})

test('directoryOf() takes no part of a name for a line', () => {
  const all = { root: '/', path: '/sys/fs/cgroup' }
  for (const end of ['\r', '\u2028', '\u2029', '\u0085', '\v', '\f']) {
    assert.equal(directoryOf(all, `1:cpu:/x${end}0::/forged\n0::/own\n`), '/sys/fs/cgroup/own')
    assert.equal(directoryOf(all, `0::/a${end}b\n`), `/sys/fs/cgroup/a${end}b`)
  }
})
