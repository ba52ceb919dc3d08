/** Lists of digests in the guard's maps, which are in memory here. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { readLists, sweepLists, writeTerms } from '../../../src/guard/lists.ts'
import type { GuardMaps } from '../../../src/guard/maps.ts'
import { DEFAULT_TERMS, type Terms } from '../../../src/policy/policy.ts'
import { tables } from './memory.ts'

const [ONE, TWO, THREE] = ['1', '2', '3'].map(digit => `tag:${digit.repeat(16)}`) as [string, string, string]

const NOTHING = { masks: { cmds: 0n, maps: 0n, progs: 0n, attachs: 0n }, capabilities: [] }
const listing = (...digests: string[]): Terms => ({
  ...DEFAULT_TERMS,
  rights: NOTHING,
  programs: { digests },
})

function guard() {
  const maps = { tables: tables() } as unknown as GuardMaps
  const { policies } = maps.tables
  return {
    maps,
    install: (name: string, terms: Terms): void => writeTerms(maps, terms, raw => policies.set(name, raw)),
    remove: (name: string): void => {
      policies.delete(name)
      sweepLists(maps)
    },
    number: (name: string): bigint => policies.get(name)!.digests,
    members: (name: string) => readLists(maps, policies.get(name)!).digests,
  }
}

test('the same digests are the same list, in whatever order; others are another one', () => {
  const { install, number, members } = guard()
  install('a', listing(ONE, TWO))
  install('b', listing(TWO, ONE, TWO))
  install('c', listing(ONE))
  install('d', listing())
  install('e', { ...listing(), programs: { digests: 'any' } })
  assert.equal(number('a'), number('b'))
  assert.equal(new Set(['a', 'c', 'd', 'e'].map(number)).size, 4)
  assert.equal(number('e'), 0n)
  assert.notEqual(number('d'), 0n, 'an empty list refuses all')
  assert.deepEqual([members('a'), members('d'), members('e')], [[ONE, TWO], [], 'any'])
})

test('a list stays for the others that name it, and goes with the last one', () => {
  const { maps, install, remove, members } = guard()
  install('a', listing(ONE, TWO))
  install('b', listing(TWO, ONE))
  install('c', listing(THREE))
  remove('a')
  assert.deepEqual(members('b'), [ONE, TWO])
  remove('b')
  assert.deepEqual([...maps.tables.digests.keys()].length, 1, 'that of c')
})

test('a list that another process names while it is removed is there in the end', () => {
  for (const isNamed of [true, false]) {
    const { maps, install, remove } = guard()
    const { digests } = maps.tables
    install('a', listing(ONE, TWO))
    const remove_ = digests.delete.bind(digests)
    let calls = 0
    digests.delete = key => {
      // Before the first, which the other process does not see: it finds both, and writes them again.
      if (calls++ === 0 && isNamed) install('b', listing(ONE, TWO))
      return remove_(key)
    }
    remove('a')
    assert.ok(calls >= 2)
    assert.equal([...digests.keys()].length, isNamed ? 2 : 0)
  }
})
