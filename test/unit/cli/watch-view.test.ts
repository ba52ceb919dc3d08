import assert from 'node:assert/strict'
import { test } from 'node:test'
import { changeText, namedValues, restOf, valueText } from '../../../src/cli/watch-view.ts'
import type { Reading, Row } from '../../../src/ebpf/watch/counters.ts'

const reading = (
  map: string,
  kind: Reading['kind'],
  rows: readonly Row[],
  more = 0,
  cut = false,
): Reading => ({
  ...{ map, kind, rows, more, cut },
  perCpu: false,
})

test('each row has the name that a person gives it', () => {
  const names = namedValues([
    reading('.bss', 'variables', [{ key: 'packets', value: 1 }]),
    reading('total', 'array', [{ key: 0, value: 1 }]),
    reading('ports', 'array', [
      { key: 0, value: 1 },
      { key: 80, value: 1 },
    ]),
    reading('flows', 'hash', [
      { key: { port: 80 }, value: 1 },
      { key: '7f000001', value: 1 },
    ]),
  ]).map(({ name }) => name)
  assert.deepEqual(names, [
    'packets',
    'total',
    'ports[0]',
    'ports[80]',
    'flows{"port":80}',
    'flows[7f000001]',
  ])
})

test('a change is told of numbers only', () => {
  assert.equal(changeText(3, 5), '+2')
  assert.equal(changeText(5, 3), '-2')
  assert.equal(changeText(5, 5), '')
  assert.equal(changeText(undefined, 5), '')
  assert.equal(changeText('a', 'b'), '')
})

test('long values are cut, and what is left out is said', () => {
  assert.equal(valueText('x'.repeat(300)).length, 200)
  assert.equal(valueText({ a: 1 }), '{"a":1}')
  assert.deepEqual(
    restOf([reading('a', 'hash', [], 3), reading('b', 'hash', [], 3, true), reading('c', 'hash', [])]),
    ['a: 3 more', 'b: it has more elements than are looked at'],
  )
})
