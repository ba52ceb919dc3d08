/**
 * Hands the audit on to journald as it grows: each record whole, with fields to search by. What
 * journald does not take now is read from the audit again and sent later, in order; only what it has
 * not taken when the daemon ends is never sent, which a gap in the numbers shows.
 */
import type { Audit } from '../registry/audit.ts'
import type { AuditRecord } from '../registry/audit-record.ts'
import { asciiJson } from '../registry/line.ts'
import { JOURNAL_SOCKET, journalEntry, type LogEntry } from '../service/journald.ts'
import { DatagramSender } from '../sys/datagram.ts'

const RETRY_MS = 1000
const PAGE = 256
/** syslog(3): notice, and warning for what was refused or is not as it should be. */
const NOTICE = 5
const WARNING = 4
const WARNINGS = /^(lend\.denied|lend\.failed|loan\.stays|audit\.(cut|damaged|missing))$/

export interface ForwardOptions {
  readonly socket?: string
  readonly retryMs?: number
}

export class AuditForward implements Disposable {
  readonly #audit: Pick<Audit, 'query' | 'onRecord' | 'startsAfter' | 'head'>
  readonly #sender: DatagramSender
  readonly #retryMs: number
  readonly #stop: () => void
  /** Number of the last record that journald has. */
  #last: number
  #catchingUp = false
  #timer: NodeJS.Timeout | undefined
  #ended = false

  /** With what was written since the audit was opened. */
  constructor(
    audit: Pick<Audit, 'query' | 'onRecord' | 'startsAfter' | 'head'>,
    { socket = JOURNAL_SOCKET, retryMs = RETRY_MS }: ForwardOptions = {},
  ) {
    this.#audit = audit
    this.#retryMs = retryMs
    this.#last = audit.startsAfter
    this.#sender = new DatagramSender(socket)
    this.#stop = audit.onRecord(record => this.#take(record))
    if (this.#isBehind) void this.#catchUp()
  }

  /** In a sentence; undefined: journald has all. */
  get concern(): string | undefined {
    if (!this.#isBehind) return undefined
    return `${this.#audit.head.seq - this.#last} records of the audit wait for journald`
  }

  [Symbol.dispose](): void {
    this.#ended = true
    this.#stop()
    clearTimeout(this.#timer)
    this.#timer = undefined
    this.#sender[Symbol.dispose]()
  }

  get #isBehind(): boolean {
    return this.#audit.head.seq > this.#last
  }

  #take(record: AuditRecord): void {
    if (this.#catchingUp || this.#timer !== undefined) return
    // A record of the audit's own was not told of.
    if (record.seq !== this.#last + 1) void this.#catchUp()
    else if (!this.#send(record)) this.#later()
  }

  #send(record: AuditRecord): boolean {
    const sent = this.#sender.send(journalEntry(auditEntry(record), { maxValueBytes: MAX_RECORD }))
    if (sent) this.#last = record.seq
    return sent
  }

  #later(): void {
    if (this.#ended) return
    this.#timer = setTimeout(() => {
      this.#timer = undefined
      void this.#catchUp()
    }, this.#retryMs).unref()
  }

  async #catchUp(): Promise<void> {
    this.#catchingUp = true
    try {
      while (this.#isBehind && !this.#ended) {
        // Those that come meanwhile are for the next page.
        const { seq: readTo } = this.#audit.head
        const { records, next } = await this.#audit.query({ after: this.#last, limit: PAGE })
        for (const record of records) if (this.#ended || !this.#send(record)) return this.#later()
        // Records that are damaged are left out.
        this.#last = records.length === 0 ? readTo : Math.max(this.#last, next)
      }
    } catch {
      // The files cannot be read now, which `status` tells by other means.
      this.#later()
    } finally {
      this.#catchingUp = false
    }
  }
}

const MAX_RECORD = 66 * 1024
/** Of every record: for `journalctl MESSAGE_ID=...`. */
export const AUDIT_MESSAGE_ID = '1f4c0b5be0a94d3f9a7a3c1d6f0d8e52'

/** Pure. BPFTOKEN_AUDIT_RECORD is the line of the file: whoever has them can check the chain. */
export function auditEntry(record: AuditRecord): LogEntry {
  const { seq, at, event, hash, loan, request, facts } = record
  const { asker, by, policy } = facts as {
    asker?: { uid?: unknown }
    by?: { uid?: unknown }
    policy?: unknown
  }
  const uid = asker?.uid ?? by?.uid
  return {
    priority: WARNINGS.test(event) ? WARNING : NOTICE,
    message: ['audit', String(seq), event, ...[loan, request].filter(name => name !== undefined)].join(' '),
    fields: {
      MESSAGE_ID: AUDIT_MESSAGE_ID,
      SYSLOG_IDENTIFIER: 'bpftokend',
      BPFTOKEN_AUDIT_SEQ: seq,
      BPFTOKEN_AUDIT_AT: at,
      BPFTOKEN_AUDIT_EVENT: event,
      BPFTOKEN_AUDIT_HASH: hash,
      BPFTOKEN_LOAN_ID: loan,
      BPFTOKEN_REQUEST_ID: request,
      BPFTOKEN_UID: typeof uid === 'number' ? uid : undefined,
      BPFTOKEN_POLICY: typeof policy === 'string' ? policy : undefined,
      BPFTOKEN_AUDIT_RECORD: asciiJson(record),
    },
  }
}
