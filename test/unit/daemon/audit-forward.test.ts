/** What waits for journald while the audit is read. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import { AuditForward } from '../../../src/daemon/audit-forward.ts'
import type { AuditRecord } from '../../../src/registry/audit-record.ts'

/** An audit whose first record is damaged; `comes`: another is written while it is read. */
async function concernWith(comes: boolean): Promise<string | undefined> {
  const head = { seq: 1, hash: '' }
  const record = { seq: 2, at: '', event: 'a.b', hash: '', facts: {} } as unknown as AuditRecord
  const written: AuditRecord[] = []
  let tell = (_: AuditRecord): void => {}
  const audit = {
    ...{ head, startsAfter: 0 },
    onRecord(listener: typeof tell) {
      tell = listener
      return () => {}
    },
    async query({ after = 0 }: { after?: number | undefined } = {}) {
      const records = written.filter(({ seq }) => seq > after)
      if (comes && written.length === 0) {
        written.push(record)
        head.seq = record.seq
        tell(record)
      }
      return { records, next: records.at(-1)?.seq ?? after }
    },
  }
  // Nobody takes anything there.
  using forward = new AuditForward(audit, { socket: '/dev/null/none', retryMs: 60_000 })
  for (let i = 0; i < 10; i++) await turn()
  return forward.concern
}

test('a record that comes while damaged ones are read is not taken for sent', async () => {
  assert.match((await concernWith(true)) ?? 'none', /^1 records/)
  assert.equal(await concernWith(false), undefined)
})
