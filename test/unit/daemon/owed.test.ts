/** What was done and could not be written: it is kept, told, and written once, in its order. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { LoanBook } from '../../../src/daemon/loan-book.ts'
import { Owed } from '../../../src/daemon/owed.ts'
import { InputError } from '../../../src/errors.ts'
import { Audit } from '../../../src/registry/audit.ts'
import { Registry } from '../../../src/registry/registry.ts'
import { AT, BOOT, DIRECTORY, loan, request } from '../registry/examples.ts'
import { MemoryDisk } from '../registry/memory-disk.ts'

const QUIET = { info() {}, warn() {}, error() {} }
const ENDED = { at: AT, why: 'revoked' } as const

async function opened() {
  const disk = new MemoryDisk()
  const registry = await Registry.open(DIRECTORY, { boot: BOOT, files: disk })
  const audit = await Audit.open(DIRECTORY, { files: disk })
  const owed = new Owed(new LoanBook(registry), audit, () => AT, QUIET)
  return { disk, registry, audit, owed }
}

test('what cannot be written is told, and is written in its order when there is room', async () => {
  const { disk, registry, audit, owed } = await opened()
  await registry.put({ loan: loan(1, { state: 'live' }), request: request(1, { state: 'waiting' }) })
  disk.free = 0
  await owed.putLoan(loan(1, { state: 'ending', ended: ENDED }))
  await owed.putLoan(loan(1, { state: 'ended', ended: ENDED }))
  await owed.putRequest(request(1, { state: 'expired' }))
  await owed.note({ event: 'one', facts: {} })
  disk.free = Infinity
  // Not before the one that waits.
  await owed.note({ event: 'two', facts: { of: 'ours' } })
  assert.deepEqual([owed.loan(1)?.state, owed.request(1)?.state], ['ended', 'expired'])
  assert.deepEqual([registry.loan(1)?.state, registry.request(1)?.state], ['live', 'waiting'])
  assert.match(owed.concern!, /^2 changes and 2 records .* not on the disk: .*ENOSPC/)
  await owed.settle()
  assert.equal(owed.concern, undefined)
  assert.deepEqual([registry.loan(1)?.state, registry.request(1)?.state], ['ended', 'expired'])
  assert.deepEqual([owed.loan(1), owed.request(1)], [undefined, undefined])
  const { records } = await audit.query()
  assert.deepEqual(
    records.map(({ event, facts }) => [event, facts]),
    [
      ['audit.begun', {}],
      ['one', { happened: AT }],
      ['two', { of: 'ours', happened: AT }],
    ],
  )
  owed[Symbol.dispose]()
})

test('with room all is written at once, and nothing is owed', async () => {
  const { registry, audit, owed } = await opened()
  await registry.put({ loan: loan(1) })
  await owed.putLoan(loan(1, { state: 'ended', ended: ENDED }))
  await owed.note({ event: 'one', facts: {} })
  assert.deepEqual([registry.loan(1)?.state, owed.loan(1), owed.concern], ['ended', undefined, undefined])
  assert.deepEqual((await audit.query()).records.at(-1)?.facts, {})
  // What can never be written is refused, not owed.
  await assert.rejects(owed.putLoan(loan(1)), { code: 'BPFTOKEN_CONFLICT' })
  assert.equal(owed.concern, undefined)
})

test('a record that is too long is dropped and logged, and the others of a long time are counted', async () => {
  const { disk, audit, owed } = await opened()
  await owed.note({ event: 'long', facts: { text: 'x'.repeat(70_000) } })
  assert.equal(owed.concern, undefined)
  await assert.rejects(audit.append({ event: 'long', facts: { text: 'x'.repeat(70_000) } }), InputError)
  disk.free = 0
  for (let i = 0; i < 1003; i++) await owed.note({ event: 'one', facts: {} })
  assert.match(owed.concern!, /1003 records/)
  disk.free = Infinity
  await owed.settle()
  assert.equal(owed.concern, undefined)
  const last = (await audit.query({ limit: 10_000 })).records.at(-1)
  assert.deepEqual([last?.event, last?.facts], ['audit.missing', { records: 3 }])
  owed[Symbol.dispose]()
})
