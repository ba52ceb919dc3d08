/** The audit in the journal: whole, in order, and without a gap however journald comes and goes. */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { join } from 'node:path'
import { test } from 'node:test'
import { AuditForward } from '../../../src/daemon/audit-forward.ts'
import { Audit } from '../../../src/registry/audit.ts'
import { type AuditRecord, decodeRecord } from '../../../src/registry/audit-record.ts'
import { Scratch } from '../../helpers/scratch.ts'
import { leavesNothing } from '../delegation/leaves-nothing.ts'
import { Receiver } from './receiver.ts'

leavesNothing()

/** Fields of an entry whose values have no line breaks. */
function fieldsOf(entry: string): Map<string, string> {
  const pairs = entry
    .trimEnd()
    .split('\n')
    .map(line => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)] as const)
  return new Map(pairs)
}

/** The chain as whoever has the journal alone can check it. */
function checked(entry: string): AuditRecord {
  const record = decodeRecord(fieldsOf(entry).get('BPFTOKEN_AUDIT_RECORD') ?? '')
  assert.ok(record !== undefined, 'the record is not as it was written')
  return record
}

const asker = { uid: 1000, pid: 7 }

test('each record is an entry with fields to search by, and the line of the file', async () => {
  using scratch = new Scratch()
  const socket = join(scratch.path, 'journal')
  await using journal = await Receiver.at(socket)
  const audit = await Audit.open(scratch.path)
  using _forward = new AuditForward(audit, { socket })
  assert.equal(checked(await journal.next()).event, 'audit.begun')
  const evil = 'a\nPRIORITY=0\nMESSAGE=forged\u001b[2J'
  await audit.append({
    event: 'lend.denied',
    loan: 3,
    request: 4,
    facts: { asker, policy: 'dev', comment: evil },
  })
  const entry = await journal.next()
  const fields = fieldsOf(entry)
  assert.deepEqual(
    [...fields.keys()].filter(name => !/HASH|_AT$|RECORD|MESSAGE_ID/.test(name)),
    [
      ...['MESSAGE', 'PRIORITY', 'SYSLOG_IDENTIFIER', 'BPFTOKEN_AUDIT_SEQ', 'BPFTOKEN_AUDIT_EVENT'],
      ...['BPFTOKEN_LOAN_ID', 'BPFTOKEN_REQUEST_ID', 'BPFTOKEN_UID', 'BPFTOKEN_POLICY'],
    ],
  )
  assert.deepEqual(
    ['MESSAGE', 'PRIORITY', 'BPFTOKEN_LOAN_ID', 'BPFTOKEN_UID'].map(name => fields.get(name)),
    ['audit 2 lend.denied loan-3 request-4', '4', 'loan-3', '1000'],
  )
  assert.equal(checked(entry).facts['comment'], evil)
  // As long as a record may be.
  await audit.append({ event: 'long', facts: { text: 'x'.repeat(65_000) } })
  const long = checked(await journal.next())
  assert.equal((long.facts['text'] as string).length, 65_000)
  assert.equal(long.previous, checked(entry).hash)
  await audit.close()
})

test('while journald is away records wait, and come in order when it is back, over a new file too', async () => {
  using scratch = new Scratch()
  const socket = join(scratch.path, 'journal')
  const audit = await Audit.open(scratch.path, { maxBytes: 3000 })
  using forward = new AuditForward(audit, { socket, retryMs: 20 })
  for (let i = 0; i < 30; i++) await audit.append({ event: `e${i}`, facts: { asker } })
  assert.match(forward.concern ?? '', /^\d+ records of the audit wait for journald$/)
  const seen: AuditRecord[] = []
  {
    await using journal = await Receiver.at(socket)
    while (seen.at(-1)?.seq !== audit.head.seq) seen.push(checked(await journal.next()))
    assert.equal(forward.concern, undefined)
    // More than a socket holds: it is sent as fast as it is read.
    for (let i = 0; i < 50; i++) await audit.append({ event: `f${i}`, facts: { text: 'x'.repeat(20_000) } })
    while (seen.at(-1)?.seq !== audit.head.seq) seen.push(checked(await journal.next()))
  }
  assert.ok(seen.some(({ event }) => event === 'audit.continued'))
  for (const [i, record] of seen.entries()) {
    assert.equal(record.seq, i + 1)
    if (i > 0) assert.equal(record.previous, seen[i - 1]!.hash)
  }
  await audit.append({ event: 'away', facts: {} })
  // With the record that begins another file.
  assert.equal(forward.concern, '2 records of the audit wait for journald')
  await audit.close()
})

test('what an audit says when it is opened is handed on, and of what was there before nothing', async () => {
  using scratch = new Scratch()
  const socket = join(scratch.path, 'journal')
  const first = await Audit.open(scratch.path)
  await first.append({ event: 'before', facts: {} })
  await first.close()
  const { appendFileSync } = await import('node:fs')
  appendFileSync(join(scratch.path, 'audit.jsonl'), '{"seq":3,"torn')
  await using journal = await Receiver.at(socket)
  const audit = await Audit.open(scratch.path)
  using _forward = new AuditForward(audit, { socket })
  const cut = checked(await journal.next())
  assert.equal(cut.event, 'audit.cut')
  const { sha256 } = cut.facts as { sha256: string }
  assert.equal(sha256, createHash('sha256').update('{"seq":3,"torn').digest('hex'))
  await audit.append({ event: 'after', facts: {} })
  assert.equal(checked(await journal.next()).event, 'after')
  await audit.close()
})
