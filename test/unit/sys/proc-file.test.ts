import assert from 'node:assert/strict'
import { test } from 'node:test'
import { allProcFields, cgroup2Path, procFields, procNumbers } from '../../../src/sys/proc-file.ts'

const LINE_ENDS = ['\r', '\u2028', '\u2029', '\v', '\f', '\u0085']

test('procFields() reads keys and values, and of a name no more than a name', () => {
  const status = procFields('Name:\tcat\nUid:\t1\t2\t3\t4\nGroups:\t4 5 \nEmpty:\t\n\n')
  for (const [key, value] of [
    ['Name', 'cat'],
    ['Uid', '1\t2\t3\t4'],
    ['Groups', '4 5'],
    ['Empty', ''],
    ['id', undefined],
    ['Uid:\t1', undefined],
    ['None', undefined],
  ] as const) {
    assert.equal(status.get(key), value, key)
    assert.equal(status.has(key), value !== undefined, key)
  }
  for (const end of LINE_ENDS) {
    const fields = procFields(`Name:\ta${end}Groups:4242\nGroups:\t7\n`)
    assert.equal(fields.get('Groups'), '7', JSON.stringify(end))
    assert.equal(fields.get('Name'), `a${end}Groups:4242`)
  }
})

test('procFields() gives no key that is there twice', () => {
  const fields = procFields('Uid:\t1\nGid:\t2\nUid:\t1\n')
  assert.equal(fields.get('Uid'), undefined)
  assert.equal(fields.get('Gid'), '2')
})

test('procNumbers() takes decimal numbers between blanks, and nothing else', () => {
  assert.deepEqual(procNumbers('4\t5  6'), [4, 5, 6])
  assert.deepEqual(procNumbers(''), [])
  for (const text of ['4 x', '4,5', '-1', '0x4', '4\r5', '4\u00a05', '12345678901'])
    assert.equal(procNumbers(text), undefined, JSON.stringify(text))
})

test('cgroup2Path() gives the path of version 2, whatever its characters', () => {
  assert.equal(cgroup2Path('1:name=systemd:/x\n0::/a b/c\n'), '/a b/c')
  assert.equal(cgroup2Path('0::/\n'), '/')
  for (const end of LINE_ENDS) assert.equal(cgroup2Path(`0::/a${end}0::/b\n`), `/a${end}0::/b`)
  for (const text of ['', '1:cpu:/x\n', '0::/a\n0::/b\n']) assert.equal(cgroup2Path(text), undefined, text)
})

test('allProcFields() has what procFields() gives, and no key that is there twice', () => {
  const text = 'pos:\t0\nlink_type:\tperf\nname:\ta: b\ntwice:\t1\ntwice:\t2\nno field\n'
  const all = allProcFields(text)
  assert.deepEqual(
    [...all],
    [
      ['pos', '0'],
      ['link_type', 'perf'],
      ['name', 'a: b'],
    ],
  )
  for (const [key, value] of all) assert.equal(procFields(text).get(key), value)
})
