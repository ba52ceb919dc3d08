/** Whether the chain of the audit's records is whole: read from its files, with or without a daemon. */
import { auditFiles, auditLines } from './audit-files.ts'
import { type AuditHead, NO_HEAD } from './audit-record.ts'
import { type Files, REAL_FILES } from './files.ts'

export interface AuditVerdict {
  readonly intact: boolean
  readonly records: number
  /** Number of the first that is still there: 1, unless the oldest files were taken away. */
  readonly from: number
  /** Hash of the last one. */
  readonly head: string
  readonly fault?: { readonly seq: number; readonly message: string }
}

/**
 * Reads the whole history, however long, and says where the chain breaks first. `upTo`: what comes
 * behind this record is still being written. `known`: a head that was kept elsewhere, which the
 * chain must hold.
 */
export async function verifyAudit(
  directory: string,
  {
    files = REAL_FILES,
    upTo = Number.MAX_SAFE_INTEGER,
    known,
  }: { files?: Files; upTo?: number; known?: AuditHead | undefined } = {},
): Promise<AuditVerdict> {
  let head: AuditHead | undefined
  let from = 0
  let records = 0
  let metKnown = known === undefined || known.seq === 0
  const verdict = (fault?: AuditVerdict['fault']): AuditVerdict => ({
    intact: fault === undefined,
    records,
    from,
    head: (head ?? NO_HEAD).hash,
    ...(fault === undefined ? {} : { fault }),
  })
  const broken = (message: string): AuditVerdict => verdict({ seq: (head?.seq ?? 0) + 1, message })
  const pending = [...(await auditFiles(files, directory))]
  for (let at = 0; at < pending.length; at++) {
    const { name } = pending[at]!
    for await (const { record, complete } of auditLines(files, directory, name)) {
      if (head !== undefined && head.seq >= upTo) break
      if (record === undefined)
        return broken(`${name}: ${complete ? 'is not as it was written' : 'ends within a record'}`)
      const wanted = head ?? { seq: record.seq - 1, hash: record.seq === 1 ? NO_HEAD.hash : record.previous }
      if (record.seq !== wanted.seq + 1)
        return broken(`${name}: number ${record.seq} follows number ${wanted.seq}`)
      if (record.previous !== wanted.hash)
        return broken(`${name}: number ${record.seq} follows another record than the one before it`)
      head = { seq: record.seq, hash: record.hash }
      if (records++ === 0) from = record.seq
      if (record.event === 'audit.damaged')
        return verdict({ seq: record.seq, message: `what was before it is damaged: ${record.facts['file']}` })
      if (record.seq === known?.seq) {
        if (record.hash !== known.hash) return broken(`number ${record.seq} is not the one that is known`)
        metKnown = true
      }
    }
  }
  if (!metKnown) return broken(`number ${known!.seq}, which is known, is not there`)
  return verdict()
}
