/**
 * Where the log of a service goes: to journald with its fields, by the native protocol
 * (https://systemd.io/JOURNAL_NATIVE_PROTOCOL/), where our standard error is the journal; else, and
 * while journald does not take it, to standard error as lines.
 */
import { printable } from '../ebpf/printable.ts'
import { InputError } from '../errors.ts'
import { DatagramSender } from '../sys/datagram.ts'

/** syslog(3). */
export type Priority = 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7

export interface LogEntry {
  readonly priority: Priority
  /** May have line breaks. */
  readonly message: string
  /** Names of capitals, digits and underscores, as journald takes them. */
  readonly fields?: Readonly<Record<string, string | number | bigint | boolean | undefined>>
}

export const JOURNAL_SOCKET = '/run/systemd/journal/socket'
/** Half of what a Unix socket takes at first (net.core.wmem_default). */
const MAX_ENTRY_BYTES = 96 * 1024
const MAX_MESSAGE_BYTES = 32 * 1024
const MAX_VALUE_BYTES = 8 * 1024
const MAX_FIELDS = 64
/** journald ignores others, and what begins with an underscore it says itself. */
const FIELD = /^[A-Z][A-Z0-9_]{0,63}$/

/**
 * Pure: an entry as journald reads it. A value with a line break has its length before it, 8 bytes
 * little-endian. What is too long is cut, and what is too much left out. InputError: a field has a
 * name that journald does not take.
 */
export function journalEntry(
  { priority, message, fields = {} }: LogEntry,
  { maxValueBytes = MAX_VALUE_BYTES }: { maxValueBytes?: number } = {},
): Uint8Array {
  const parts = [
    field('MESSAGE', cut(message, MAX_MESSAGE_BYTES)),
    field('PRIORITY', Buffer.from(String(priority))),
  ]
  let bytes = parts.reduce((sum, part) => sum + part.length, 0)
  let count = 0
  for (const [name, value] of Object.entries(fields)) {
    if (!FIELD.test(name) || name === 'MESSAGE' || name === 'PRIORITY')
      throw new InputError('This cannot be the name of a field of the journal', { context: { name } })
    if (value === undefined || ++count > MAX_FIELDS) continue
    const part = field(name, cut(String(value), maxValueBytes))
    if (bytes + part.length > MAX_ENTRY_BYTES) continue
    bytes += part.length
    parts.push(part)
  }
  return Uint8Array.from(Buffer.concat(parts))
}

function field(name: string, value: Buffer): Buffer {
  const end = Buffer.from('\n')
  if (!value.includes(10)) return Buffer.concat([Buffer.from(`${name}=`), value, end])
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(value.length))
  return Buffer.concat([Buffer.from(`${name}\n`), length, value, end])
}

/** At most so many bytes, and no half of a character. */
function cut(text: string, most: number): Buffer {
  const bytes = Buffer.from(text)
  if (bytes.length <= most) return bytes
  let end = most
  while (end > 0 && (bytes[end]! & 0xc0) === 0x80) end--
  return bytes.subarray(0, end)
}

/**
 * Pure: an entry as lines. With `prefixed`, each begins with `<N>`, from which the service manager
 * takes the priority (sd-daemon(3)). What a terminal would obey is escaped.
 */
export function logLines({ priority, message, fields = {} }: LogEntry, prefixed: boolean): string {
  const facts = Object.entries(fields)
    .filter(([, value]) => value !== undefined)
    .slice(0, MAX_FIELDS)
    .map(([name, value]) => `${name}=${JSON.stringify(cut(String(value), MAX_VALUE_BYTES).toString())}`)
  const lines = cut(message, MAX_MESSAGE_BYTES).toString().split('\n')
  lines[0] = [lines[0], ...facts].join(' ')
  return lines.map(line => `${prefixed ? `<${priority}>` : ''}${printable(line)}\n`).join('')
}

/**
 * Whether JOURNAL_STREAM says that this file, our standard error, is the journal: `DEVICE:INODE`.
 * A child that has it from us, and another standard error, must not believe it.
 */
export function isJournal(
  journalStream: string | undefined,
  file: { dev: bigint | number; ino: bigint | number },
): boolean {
  return journalStream === `${file.dev}:${file.ino}`
}

export interface LogOptions {
  /** Our standard error is the journal, see `isJournal`. */
  readonly journal: boolean
  /** Writes to our standard error. */
  readonly write: (text: string) => void
  readonly socket?: string
}

export class LogSink implements Disposable {
  readonly #options: LogOptions
  readonly #sender: DatagramSender | undefined

  constructor(options: LogOptions) {
    this.#options = options
    this.#sender = options.journal ? new DatagramSender(options.socket ?? JOURNAL_SOCKET) : undefined
  }

  write(entry: LogEntry): void {
    if (this.#sender?.send(journalEntry(entry)) === true) return
    this.#options.write(logLines(entry, this.#options.journal))
  }

  [Symbol.dispose](): void {
    this.#sender?.[Symbol.dispose]()
  }
}
