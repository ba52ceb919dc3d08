/** Which bytes the daemon takes for JSON. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { readJson } from '../../../../src/daemon/http/json.ts'

const read = (text: string) => readJson(Buffer.from(text))

/** What is refused, why, and its twin that is taken. */
const REFUSED: readonly [bad: string | Buffer, why: RegExp, good: string][] = [
  ['{"a":1,"a":2}', /has the name "a" twice in one object \(at character 7\)/, '{"a":1,"b":{"a":2}}'],
  ['{"a":1,"\\u0061":2}', /twice/, '{"a":1,"\\u0062":2}'],
  ['[{"a":{"b":1},"a":2}]', /twice/, '[{"a":{"b":1}},{"a":2}]'],
  ['{"a":["a","a"],"a":1}', /twice/, '{"a":["a","a"],"b":"a"}'],
  ['{"__proto__":1,"__proto__":2}', /twice/, '{"__proto__":1}'],
  ['[9007199254740992]', /beyond 2\^53 - 1/, '[9007199254740991]'],
  ['[-9007199254740993]', /beyond/, '[-9007199254740991]'],
  ['[1e400]', /whole/, '[1]'],
  ['[1.0]', /whole/, '[-1]'],
  ['[0.99999999999999999999]', /whole/, '[0]'],
  ['["\\ud800"]', /half of a surrogate pair/, '["\\ud83d\\ude00"]'],
  ['{"\\udc00":1}', /half of a surrogate pair/, '{"😀":1}'],
  ['\ufeff{}', /byte order mark/, '{}'],
  [Buffer.from([0x22, 0xff, 0x22]), /not UTF-8/, '"ÿ"'],
  [Buffer.from([0x22, 0xed, 0xa0, 0x80, 0x22]), /not UTF-8/, '"퟿"'],
  [Buffer.from([0x22, 0xc0, 0x80, 0x22]), /not UTF-8/, '"\\u0000"'],
  ['['.repeat(17) + ']'.repeat(17), /nested more than 16 deep/, '['.repeat(16) + ']'.repeat(16)],
  ['{"a":'.repeat(100_000), /is not JSON/, '{"a":{}}'],
  ['', /is not JSON/, 'null'],
  ['{"a":1,}', /is not JSON/, '{"a":1}'],
  ["{'a':1}", /is not JSON/, '{"a":"\'"}'],
  ['[NaN]', /is not JSON/, '[null]'],
  ['{} {}', /is not JSON/, ' {} '],
  ['["a\nb"]', /is not JSON/, '["a\\nb"]'],
]

test('readJson() refuses what two readers can understand in two ways, and takes its twin', () => {
  for (const [bad, why, good] of REFUSED) {
    assert.throws(() => readJson(Buffer.from(bad)), { code: 'BPFTOKEN_INPUT', message: why }, String(bad))
    assert.deepEqual(read(good), JSON.parse(good), good)
  }
})

test('readJson() says nothing of the body itself but the name that stands twice, as one line', () => {
  const secret = 'secret\u001b[2J'
  assert.throws(
    () => read(`{"${JSON.stringify(secret).slice(1, -1)}":1,"${JSON.stringify(secret).slice(1, -1)}":2}`),
    (error: Error) => /^[\x20-\x7e]*$/.test(error.message),
  )
  assert.throws(
    () => read('{"password": hunter2}'),
    (error: Error) => !error.message.includes('hunter'),
  )
})

test('readJson() reads as JSON.parse does all that JSON.stringify writes, if its numbers are whole', () => {
  const { tree } = fc.letrec<{ tree: unknown }>(tie => ({
    tree: fc.oneof(
      { maxDepth: 5 },
      fc.maxSafeInteger(),
      fc.string({ unit: 'grapheme' }),
      fc.boolean(),
      fc.constant(null),
      fc.array(tie('tree'), { maxLength: 4 }),
      fc.dictionary(fc.string({ unit: 'grapheme' }), tie('tree'), { maxKeys: 4 }),
    ),
  }))
  fc.assert(
    fc.property(tree, value => {
      const text = JSON.stringify(value)
      assert.deepEqual(read(text), JSON.parse(text))
    }),
  )
})
