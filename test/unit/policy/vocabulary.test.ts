import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ANY_MASK, hasWord, vocabularyFrom } from '../../../src/policy/vocabulary.ts'
import { ENUMS, VOCABULARY } from './sample-kernel.ts'

test('vocabularyFrom() lower-cases names without their prefix', () => {
  assert.equal(VOCABULARY.cmds.bitOfName.get('prog_load'), 5)
  assert.equal(VOCABULARY.maps.bitOfName.get('array'), 2)
  assert.equal(VOCABULARY.progs.bitOfName.get('xdp'), 6)
  assert.equal(VOCABULARY.attachs.bitOfName.get('xdp'), 37)
})

test('vocabularyFrom() takes the first name as canonical and accepts its aliases', () => {
  assert.equal(VOCABULARY.cmds.nameOfBit.get(10), 'prog_test_run')
  assert.equal(VOCABULARY.cmds.bitOfName.get('prog_run'), 10)
})

test('vocabularyFrom() drops sentinels and values past 63', () => {
  assert.equal(VOCABULARY.cmds.bitOfName.has('common_attrs'), false)
  assert.equal(VOCABULARY.cmds.unfit.get('common_attrs'), 65536)
  assert.equal(
    [...VOCABULARY.cmds.bitOfName.keys()].some(name => name.includes('max')),
    false,
  )
  assert.ok(VOCABULARY.cmds.known < ANY_MASK)
})

test('vocabularyFrom() is not confused by names of Object.prototype', () => {
  const vocabulary = vocabularyFrom({ ...ENUMS, bpf_cmd: {} })
  assert.equal(hasWord(vocabulary, 'cmds', ANY_MASK, 'constructor'), false)
})

test('hasWord() is true only for a set bit with that name', () => {
  assert.equal(hasWord(VOCABULARY, 'cmds', 1n << 5n, 'prog_load'), true)
  assert.equal(hasWord(VOCABULARY, 'cmds', 1n << 5n, 'map_create'), false)
  assert.equal(hasWord(VOCABULARY, 'cmds', ANY_MASK, 'nonsense'), false)
})
