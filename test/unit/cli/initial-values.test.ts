import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { initialValues, parseSetting } from '../../../src/cli/initial-values.ts'
import { parseObject } from '../../../src/ebpf/object/spec.ts'
import { ROOT } from '../../helpers/machine.ts'

test('parseSetting() reads numbers of any size, booleans, text and JSON', () => {
  for (const [text, value] of [
    ['a=80', 80n],
    ['a=-0x10', -16n],
    ['a=18446744073709551615', 2n ** 64n - 1n],
    ['a=true', true],
    ['a=0.5', 0.5],
    ['a=MODE_DROP', 'MODE_DROP'],
    ['a=', ''],
    ['a=b=c', 'b=c'],
    ['a={"port": [1, 2]}', { port: [1, 2] }],
    ['a="7"', '7'],
  ] as const)
    assert.deepEqual(parseSetting(text), ['a', value])
})

test('parseSetting() refuses what has no name, and broken JSON', () => {
  for (const text of ['port', '=1', '', 'a={', 'a=[1'])
    assert.throws(() => parseSetting(text), { code: 'BPFTOKEN_USAGE' })
})

test('initialValues() tells constants from variables, and leaves unknown names to the loader', () => {
  const spec = parseObject(readFileSync(join(ROOT, 'test/fixtures/typed.bpf.o')))
  assert.deepEqual(initialValues(spec, ['port=1', 'total=2', 'nobody=3']), {
    constants: { port: 1n, nobody: 3n },
    variables: { total: 2n },
  })
})
