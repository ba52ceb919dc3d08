/**
 * A record of the audit and its place in the chain. Pure.
 *
 * A line is the record as JSON, in ASCII alone, and its last property is `hash`: SHA-256 over the
 * line as it is without `,"hash":"..."`. `previous` is the hash of the record before, of the first
 * one 64 zeros. So to check a line nobody needs to write JSON in the same way as we do.
 */
import { createHash } from 'node:crypto'
import { InputError } from '../errors.ts'
import { asciiJson } from './line.ts'

export interface AuditEntry {
  /** What happened, e.g. `lend.did`. */
  readonly event: string
  readonly loan?: number | undefined
  readonly request?: number | undefined
  /** JSON. */
  readonly facts: Readonly<Record<string, unknown>>
}

export interface AuditRecord {
  readonly seq: number
  /** Number of the first record that was written to the disk together with this one. */
  readonly batch: number
  readonly at: string
  readonly previous: string
  readonly hash: string
  readonly event: string
  readonly loan?: string
  readonly request?: string
  readonly facts: Readonly<Record<string, unknown>>
}

/** Of which record the chain ends, or is to go on behind. */
export interface AuditHead {
  /** 0: there is none yet. */
  readonly seq: number
  readonly hash: string
}

export const NO_HEAD: AuditHead = { seq: 0, hash: '0'.repeat(64) }
export const MAX_RECORD_BYTES = 64 * 1024

/** The next record, as a line with its end. InputError: it is too long. */
export function encodeRecord(
  entry: AuditEntry,
  head: AuditHead,
  at: string,
  batch: number = head.seq + 1,
): { record: AuditRecord; text: string } {
  const { event, loan, request, facts } = entry
  const bare = {
    seq: head.seq + 1,
    batch,
    at,
    previous: head.hash,
    event,
    ...(loan === undefined ? {} : { loan: `loan-${loan}` }),
    ...(request === undefined ? {} : { request: `request-${request}` }),
    facts,
  }
  const body = asciiJson(bare)
  if (body.length > MAX_RECORD_BYTES)
    throw new InputError(`A record of ${body.length} bytes is too long for the audit`, { context: { event } })
  const hash = sha256(body)
  return { record: { ...bare, hash }, text: `${body.slice(0, -1)},"hash":"${hash}"}\n` }
}

const TAIL = /,"hash":"([0-9a-f]{64})"\}$/

/** Of a line without its end; undefined: it is none of ours, or not as it was written. */
export function decodeRecord(text: string): AuditRecord | undefined {
  const found = TAIL.exec(text)
  if (found === null || !/^[\x20-\x7e]*$/.test(text)) return undefined
  if (sha256(`${text.slice(0, found.index)}}`) !== found[1]) return undefined
  try {
    const record = JSON.parse(text) as AuditRecord
    return isNumber(record.seq) && isNumber(record.batch) && /^[0-9a-f]{64}$/.test(record.previous)
      ? record
      : undefined
  } catch {
    return undefined
  }
}

function isNumber(value: unknown): boolean {
  return Number.isSafeInteger(value) && (value as number) > 0
}

function sha256(text: string): string {
  return createHash('sha256').update(text, 'latin1').digest('hex')
}
