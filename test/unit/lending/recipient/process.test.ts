/** Which process of a cgroup is lent to, and what systemd says of a unit. */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { ConflictError } from '../../../../src/errors.ts'
import { chooseMember, type Member } from '../../../../src/lending/recipient/cgroup.ts'
import { parseUnitState } from '../../../../src/lending/recipient/unit.ts'

const OURS = 'user:[1]'
const CONTEXT = { cgroup: '/sys/fs/cgroup/x' }

function member(pid: number, user: number, mnt: number, name = 'prog'): Member {
  return { pid, name, userNamespace: `user:[${user}]`, mountNamespace: `mnt:[${mnt}]` }
}

describe('chooseMember()', () => {
  const choose = (...members: Member[]) => chooseMember(members, OURS, 'cgroup x', CONTEXT)

  test('takes the first process outside of our user namespace', () => {
    assert.equal(choose(member(5, 1, 1, 'conmon'), member(9, 2, 2), member(7, 2, 2)).pid, 7)
  })

  test('refuses where such processes are in different user or mount namespaces, and names one of each', () => {
    for (const other of [member(9, 3, 2, 'b'), member(9, 2, 3, 'b')])
      assert.throws(
        () => choose(member(7, 2, 2, 'a\n'), other),
        (error: Error) => {
          assert.ok(error instanceof ConflictError)
          assert.match(error.message, /2 different .*7 "a\\n", 9 "b"/)
          return true
        },
      )
  })

  test('tells an empty cgroup from one without a user namespace of its own', () => {
    assert.throws(() => choose(), /no process runs/)
    assert.throws(
      () => choose(member(5, 1, 2, 'conmon')),
      /no process has a user namespace of its own: 5 "conmon"/,
    )
  })
})

describe('parseUnitState()', () => {
  const said = (more: Record<string, string> = {}): string =>
    Object.entries({
      Id: 'web.service',
      LoadState: 'loaded',
      ActiveState: 'active',
      MainPID: '42',
      ControlGroup: '/system.slice/web.service',
      InvocationID: 'abc',
      ...more,
    })
      .map(([key, value]) => `${key}=${value}`)
      .join('\n')

  test('reads properties', () => {
    assert.deepEqual(parseUnitState(`${said()}\n`), {
      ...{
        loaded: true,
        active: 'active',
        mainPid: 42,
        cgroup: '/system.slice/web.service',
        invocation: 'abc',
      },
    })
  })

  test('has no process and no cgroup where there is none', () => {
    assert.equal(parseUnitState(said({ MainPID: '0' })).mainPid, undefined)
    assert.equal(parseUnitState(said({ MainPID: '4294967338' })).mainPid, undefined)
    assert.equal(parseUnitState(said({ LoadState: 'not-found' })).loaded, false)
    assert.equal(parseUnitState('').loaded, false)
    for (const cgroup of ['', 'x', '/../..', '/a/../b'])
      assert.equal(parseUnitState(said({ ControlGroup: cgroup })).cgroup, undefined, cgroup)
  })
})
