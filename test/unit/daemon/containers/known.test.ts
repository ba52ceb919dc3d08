/** What is remembered of announced containers: whole lists, parts, who may say it, and how much. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { KnownContainers } from '../../../../src/daemon/containers/known.ts'

const AT = '2026-01-02T03:04:05.000Z'

function announce(known: KnownContainers, runtime: string, ids: string[], more: object = {}): void {
  known.announce({ runtime, whole: false, containers: ids.map(id => ({ id })), ...more }, AT)
}

const idsOf = (known: KnownContainers): string[] => [...known.all()].map(({ id }) => id).sort()

test('a whole list replaces what the same runtime had said, and a part adds to it', () => {
  const known = new KnownContainers(10)
  announce(known, 'nri', ['a', 'b'])
  announce(known, 'other', ['c'])
  announce(known, 'nri', ['d'])
  assert.deepEqual(idsOf(known), ['a', 'b', 'c', 'd'])
  announce(known, 'nri', ['b'], { whole: true })
  assert.deepEqual(idsOf(known), ['b', 'c'])
  assert.equal(known.get('b')!.runtime, 'nri')
})

test('a runtime says what is gone of its own, and of nobody else', () => {
  const known = new KnownContainers(10)
  announce(known, 'nri', ['a'])
  announce(known, 'other', ['b'])
  announce(known, 'nri', [], { gone: ['a', 'b'] })
  assert.deepEqual(idsOf(known), ['b'])
})

test('what another runtime has announced is not taken over, and nothing of that announcement counts', () => {
  const known = new KnownContainers(10)
  announce(known, 'nri', ['a'])
  assert.throws(() => announce(known, 'other', ['b', 'a']), { code: 'BPFTOKEN_CONFLICT' })
  assert.deepEqual(idsOf(known), ['a'])
  announce(known, 'nri', ['a', 'b'])
  assert.deepEqual(idsOf(known), ['a', 'b'])
})

test('no more are remembered than may be; as many are, also in place of others', () => {
  const known = new KnownContainers(2)
  announce(known, 'nri', ['a', 'b'])
  assert.throws(() => announce(known, 'nri', ['c']), { code: 'BPFTOKEN_CONFLICT' })
  assert.deepEqual(idsOf(known), ['a', 'b'])
  announce(known, 'nri', ['c'], { gone: ['a'] })
  assert.deepEqual(idsOf(known), ['b', 'c'])
})
