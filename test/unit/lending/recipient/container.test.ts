/** Which container a name means, and what of an engine's answer is believed. */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { ConflictError, FormatError, NotFoundError } from '../../../../src/errors.ts'
import { chooseContainer, runOf } from '../../../../src/lending/recipient/container.ts'
import type { Container } from '../../../../src/lending/recipient/container-list.ts'
import { parseDockerDetails, parseDockerList } from '../../../../src/lending/recipient/docker.ts'
import { parsePodmanList } from '../../../../src/lending/recipient/podman.ts'

const id = (start: string): string => start.padEnd(64, '0')

function container(start: string, names: string[], more: Partial<Container> = {}): Container {
  return { source: 'Podman', id: id(start), names, pid: 4711, state: 'running', startedAt: 1000, ...more }
}

describe('chooseContainer() and runOf()', () => {
  const choose = (all: Container[], name: string) => runOf(chooseContainer(all, name), name)
  const web = container('abc1', ['web'])
  const other = container('abc2', ['other'], { pid: 4712 })

  test('finds by name, by id and by the beginning of an id', () => {
    for (const name of ['web', web.id, 'abc1']) assert.equal(choose([web, other], name).pid, 4711, name)
    assert.match(choose([web], 'web').what, /^container web \(abc100000000\) of Podman$/)
  })

  test('takes a name before the beginning of an id', () => {
    const named = container('ffff', ['abc1'], { pid: 1 })
    assert.equal(choose([web, named], 'abc1').pid, 1)
  })

  test('refuses a name of several, with all of them, and takes the id of one', () => {
    const twin = container('ddd', ['web'], { source: 'Docker', pid: 5 })
    assert.throws(
      () => choose([web, twin], 'web'),
      (error: Error) => {
        assert.ok(error instanceof ConflictError)
        assert.match(error.message, /several.*abc100000000\) of Podman.*ddd000000000\) of Docker/)
        return true
      },
    )
    assert.throws(() => choose([web, other], 'abc'), ConflictError)
    assert.equal(choose([web, twin], 'ddd').pid, 5)
  })

  test('one that two sockets tell of is one', () => {
    assert.equal(choose([web, { ...web, source: 'Docker' }], 'web').pid, 4711)
  })

  test('says who is there where nobody has the name', () => {
    assert.throws(
      () => choose([web, other], 'wev'),
      (error: Error) => {
        assert.ok(error instanceof NotFoundError)
        assert.match(error.message, /"wev".*web \(abc100000000\) of Podman, running.*other/)
        return true
      },
    )
    assert.throws(() => choose([], 'web'), NotFoundError)
  })

  test('refuses one that does not run', () => {
    const stopped = container('abc1', ['web'], { pid: undefined, state: 'exited' })
    assert.throws(() => choose([stopped], 'web'), /Container web .* is exited/)
  })

  test('refuses one of which nobody says since when it runs', () => {
    assert.throws(() => choose([container('abc1', ['web'], { startedAt: undefined })], 'web'), FormatError)
  })

  test('another run of it has another identity', () => {
    const { identity } = choose([web], 'web')
    assert.equal(choose([web], 'web').identity, identity)
    for (const more of [{ pid: 4713 }, { startedAt: 2000 }, { id: id('abc3') }])
      assert.notEqual(choose([{ ...web, ...more }], 'web').identity, identity)
  })
})

describe('parsePodmanList()', () => {
  const one = { Id: id('a'), Names: ['web'], Pid: 7, State: 'running', StartedAt: 1795770595 }

  test('takes what podman ps prints', () => {
    assert.deepEqual(parsePodmanList(JSON.stringify([one])), [
      { source: 'Podman', id: id('a'), names: ['web'], pid: 7, state: 'running', startedAt: 1795770595000 },
    ])
    for (const empty of ['[]', 'null', '', '\n']) assert.deepEqual(parsePodmanList(empty), [])
  })

  test('has no process for one that does not run, and for no number of a process', () => {
    for (const more of [{ State: 'exited' }, { Pid: 0 }, { Pid: -1 }, { Pid: 2 ** 32 + 7 }, { Pid: '7' }])
      assert.equal(parsePodmanList(JSON.stringify([{ ...one, ...more }]))[0]?.pid, undefined)
  })

  test('drops names that cannot be names, and refuses what is no list of containers', () => {
    const names = ['ok', '', '-x', 'a/b', 'a\nb', 7, 'x'.repeat(256)]
    assert.deepEqual(parsePodmanList(JSON.stringify([{ ...one, Names: names }]))[0]?.names, ['ok'])
    for (const text of ['{', '{}', '[1]', '[null]', '[{}]', '[{"Id":"../../x"}]', '"x"'])
      assert.throws(() => parsePodmanList(text), FormatError, text)
  })
})

describe('Docker', () => {
  const listed = { Id: id('d'), Names: ['/web'], State: 'running' }
  const state = { Status: 'running', Running: true, Paused: false, Pid: 9, StartedAt: '2026-01-01T00:00:00Z' }

  test('parseDockerList() and parseDockerDetails() take what the daemon says', () => {
    const [one] = parseDockerList(JSON.stringify([listed]))
    assert.deepEqual(one?.names, ['web'])
    assert.equal(one?.pid, undefined)
    const detailed = parseDockerDetails(JSON.stringify({ Id: id('d'), State: state }), one!)
    assert.equal(detailed.pid, 9)
    assert.equal(detailed.startedAt, Date.UTC(2026, 0, 1))
  })

  test('has no process for one that is paused or has ended, and refuses the answer of another', () => {
    const [one] = parseDockerList(JSON.stringify([listed]))
    const pidOf = (more: object): number | undefined =>
      parseDockerDetails(JSON.stringify({ Id: id('d'), State: { ...state, ...more } }), one!).pid
    assert.equal(pidOf({}), 9)
    for (const more of [{ Running: false }, { Paused: true }, { Pid: 0 }])
      assert.equal(pidOf(more), undefined)
    for (const text of ['{}', `{"Id":"${id('e')}","State":{}}`, '[]', 'x'])
      assert.throws(() => parseDockerDetails(text, one!), FormatError, text)
  })
})
