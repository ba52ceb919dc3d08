import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { test } from 'node:test'
import { kernelBtf } from '../../../src/ebpf/kernel/btf.ts'
import { lookUpNamesBy, MAP_TYPES, type MapType, TypeNames } from '../../../src/ebpf/type-names.ts'
import { VMLINUX_BTF } from '../../../src/uapi/kernel-paths.ts'

type Word = 'one' | 'two'
const names = (enumName = 'test_type') =>
  new TypeNames<Word>('type', { TEST_ONE: 1, TEST_TWO: 2, TEST_ALSO_TWO: 2 }, 'TEST_', enumName)

/** Of a kernel that knows more, and something else by a number of ours. */
const NEWER = new Map([
  ['TEST_OTHER', 1],
  ['TEST_TWO', 5],
  ['TEST_THREE', 3],
  ['TEST_FLAG', 0x4000_0000],
  ['TEST_MINUS', -1],
  ['__MAX_TEST', 4],
])

// First: the next one has another kernel asked.
test('the words of this kernel are found in its own types', {
  skip: existsSync(VMLINUX_BTF) ? false : 'this kernel shows no types',
}, () => {
  assert.ok(kernelBtf().types.count > 0)
  const none = new TypeNames<MapType>('map type', {}, 'BPF_MAP_TYPE_', 'bpf_map_type')
  for (const word of ['hash', 'ringbuf'] as const) {
    assert.equal(none.number(word), MAP_TYPES.number(word))
    assert.equal(none.word(MAP_TYPES.number(word)), word)
  }
  assert.equal(none.word(63), '63')
  assert.throws(() => none.number('max_map_type' as MapType), TypeError)
})

test('what our headers lack, the running kernel is asked for, and only that', t => {
  const asked: string[] = []
  const kernel = (enumName: string) => {
    asked.push(enumName)
    return enumName === 'test_type' ? NEWER : undefined
  }
  lookUpNamesBy(kernel)
  t.after(() => lookUpNamesBy(() => undefined))
  const types = names()
  assert.deepEqual(
    [types.word(1), types.word(2), types.number('two'), types.number('one')],
    ['one', 'two', 2, 1],
  )
  assert.deepEqual(asked, [])
  assert.deepEqual([types.word(3), types.number('three' as Word)], ['three', 3])
  assert.deepEqual(asked, ['test_type'])
  // Numbers stay numbers; a flag and a count are no types.
  assert.deepEqual(
    [types.word(4), types.word(0x4000_0000), types.number('4' as Word)],
    ['4', '1073741824', 4],
  )
  for (const word of ['flag', 'minus', 'max_test', '__proto__', 'constructor'])
    assert.throws(() => types.number(word as Word), {
      name: 'TypeError',
      message: `there is no type "${word}"`,
    })
  assert.deepEqual(types.words(), ['one', 'two'])
  assert.throws(() => names('unknown').number('three' as Word), TypeError)
})
