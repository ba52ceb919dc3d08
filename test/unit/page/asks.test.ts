import assert from 'node:assert/strict'
import { Readable } from 'node:stream'
import { test } from 'node:test'
import { askIn, documentsIn } from '../../../src/page/asks.ts'

test('askIn() takes a look, and acts on what has a name of the right form', () => {
  for (const ask of [
    { what: 'look' },
    { what: 'approve', of: 'request-1' },
    { what: 'deny', of: 'request-4294967295' },
    { what: 'revoke', of: 'loan-7' },
  ])
    assert.deepEqual(askIn(ask), ask)
})

test('askIn() takes nothing else', () => {
  for (const value of [
    ...[
      null,
      1,
      'look',
      [],
      {},
      { what: 'lend' },
      { what: 'look', of: 'loan-1' },
      { what: 'toString', of: 'loan-1' },
    ],
    ...[{ what: 'approve' }, { what: 'approve', of: 'loan-1' }, { what: 'revoke', of: 'request-1' }],
    ...[
      { what: 'revoke', of: ['loan-1'] },
      { what: 'revoke', of: 'loan-1\n' },
      { what: 'revoke', of: 'loan-1/../x' },
    ],
    ...[
      { what: 'revoke', of: 'loan-0' },
      { what: 'revoke', of: 'loan-1', all: true },
      { what: 'reload', of: 'x' },
    ],
  ])
    assert.equal(askIn(value), undefined, JSON.stringify(value))
})

const read = async (chunks: string[], max = 100): Promise<unknown[]> => {
  const all: unknown[] = []
  for await (const one of documentsIn(Readable.from(chunks.map(text => Buffer.from(text))), max))
    all.push(one)
  return all
}

test('documentsIn() reads lines, however they come; an unfinished one is none', async () => {
  assert.deepEqual(await read(['{"a":', '1}\n{"b"', ':2}\n[', ']\n{"c']), [{ a: 1 }, { b: 2 }, []])
})

test('documentsIn() refuses what is too long, with or without an end, and what is no JSON', async () => {
  await assert.rejects(read(['"', 'x'.repeat(60), 'x'.repeat(60)]), { code: 'BPFTOKEN_FORMAT' })
  await assert.rejects(read([`"${'x'.repeat(200)}"\n`]), { code: 'BPFTOKEN_FORMAT' })
  await assert.rejects(read(['{nope}\n']), { code: 'BPFTOKEN_FORMAT' })
})
