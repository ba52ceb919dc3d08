/** Which files the audit is in, and the reading of all of them, in order. */
import { join } from 'node:path'
import { type AuditRecord, decodeRecord } from './audit-record.ts'
import { codeOf, type Files, type OpenFile } from './files.ts'
import { linesOf } from './lines-of.ts'

export const AUDIT_FILE = 'audit.jsonl'
export const NEW_AUDIT_FILE = 'audit.jsonl.new'

/** `audit-000000000001.jsonl`: its first record is number 1. */
const FULL_FILE = /^audit-([0-9]{12,16})\.jsonl$/

export function fullFileName(first: number): string {
  return `audit-${String(first).padStart(12, '0')}.jsonl`
}

export interface AuditFile {
  readonly name: string
  /** Number of its first record; undefined: the one that grows. */
  readonly first: number | undefined
}

/** The oldest first, and the one that grows last, if it is there. */
export async function auditFiles(files: Files, directory: string): Promise<readonly AuditFile[]> {
  const names = await files.list(directory)
  const full = names
    .flatMap(name => {
      const found = FULL_FILE.exec(name)
      return found === null ? [] : [{ name, first: Number(found[1]) }]
    })
    .sort((a, b) => a.first - b.first)
  return names.includes(AUDIT_FILE) ? [...full, { name: AUDIT_FILE, first: undefined }] : full
}

/** A line, and the record that it is; undefined: it is none, or not as it was written. */
export interface AuditLine {
  readonly file: string
  readonly text: string
  readonly complete: boolean
  readonly end: number
  readonly record: AuditRecord | undefined
}

export async function* auditLines(files: Files, directory: string, name: string): AsyncGenerator<AuditLine> {
  const file = await files.open(join(directory, name), 'read')
  try {
    for await (const { text, complete, end } of linesOf(file))
      yield { file: name, text, complete, end, record: complete ? decodeRecord(text) : undefined }
  } finally {
    await file.close()
  }
}

/** More than is ever written at once. */
const FIRST_WINDOW_BYTES = 1024 * 1024

export interface LastRecord {
  readonly record: AuditRecord
  /** Where it ends. */
  readonly end: number
}

/**
 * The last record of a file that was on the disk for sure, or may have been. What can be read
 * behind a gap, of the same batch as the gap, was never acknowledged. Undefined: no line of the
 * file is a record.
 */
export async function lastRecord(file: OpenFile): Promise<LastRecord | undefined> {
  const size = await file.size()
  for (let window = FIRST_WINDOW_BYTES; ; window *= 4) {
    const from = Math.max(0, size - window)
    let last: LastRecord | undefined
    for await (const { text, complete, end } of linesOf(file, from)) {
      const record = complete ? decodeRecord(text) : undefined
      if (record !== undefined && (last === undefined || !isTorn(record, last.record))) last = { record, end }
    }
    if (last !== undefined || from === 0) return last
  }
}

/** Whether between the two something is missing that was being written together with the later. */
function isTorn(record: AuditRecord, last: AuditRecord): boolean {
  return record.seq > last.seq + 1 && (record.batch === last.batch || record.batch === last.seq + 1)
}

/** The same of a file by name; undefined also: there is none. */
export async function lastRecordOf(files: Files, path: string): Promise<LastRecord | undefined> {
  let file: OpenFile
  try {
    file = await files.open(path, 'read')
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return undefined
    throw error
  }
  try {
    return await lastRecord(file)
  } finally {
    await file.close()
  }
}
