/**
 * The log of a service: one entry for each thing that happened, with its facts as fields. What writes
 * entries, to the journal or to standard error, escapes what clients chose.
 */
import type { Writable } from 'node:stream'
import { BpftokenError } from '../errors.ts'

export const LEVELS = ['debug', 'info', 'notice', 'warn', 'error', 'fatal'] as const
export type Level = (typeof LEVELS)[number]

/** Of syslog(3). */
export const PRIORITY = { debug: 7, info: 6, notice: 5, warn: 4, error: 3, fatal: 2 } as const

type Value = string | number | bigint | boolean

export interface Entry {
  readonly priority: (typeof PRIORITY)[Level]
  readonly message: string
  /** By names as journald takes them. */
  readonly fields: Readonly<Record<string, Value>>
}

/** The facts, then the words. A fact that is an error is told with its causes and its stack. */
export type Log = Readonly<Record<Level, (facts: object, message: string) => void>> & {
  /** Whether entries of this level are written. */
  wants(level: Level): boolean
}

/** Entries below `least` are not written. */
export function createLog(least: Level, sink: { write(entry: Entry): void }): Log {
  const wants = (level: Level): boolean => PRIORITY[level] <= PRIORITY[least]
  const at =
    (level: Level) =>
    (facts: object, message: string): void => {
      if (wants(level)) sink.write({ priority: PRIORITY[level], message, fields: fieldsOf(facts) })
    }
  return {
    wants,
    debug: at('debug'),
    info: at('info'),
    notice: at('notice'),
    warn: at('warn'),
    error: at('error'),
    fatal: at('fatal'),
  }
}

/** Longer ones are a circle. */
const MAX_CAUSES = 4

/** `loanId` is BPFTOKEN_LOAN_ID: the journal has fields of its own, and of others. */
function fieldsOf(facts: object): Record<string, Value> {
  const fields: Record<string, Value> = {}
  for (const [key, value] of Object.entries(facts)) {
    if (value === undefined) continue
    const name = `BPFTOKEN_${key.replace(/([a-z0-9])([A-Z])/g, '$1_$2').toUpperCase()}`
    if (value instanceof Error) Object.assign(fields, errorFields(name, value))
    else fields[name] = isPlain(value) ? value : JSON.stringify(value)
  }
  return fields
}

function isPlain(value: unknown): value is Value {
  return ['string', 'number', 'bigint', 'boolean'].includes(typeof value)
}

/** All there is of an error, for whoever has to find what is wrong. */
function errorFields(name: string, error: Error): Record<string, Value> {
  const chain: Error[] = []
  for (let one: unknown = error; one instanceof Error && chain.length < MAX_CAUSES; one = one.cause)
    chain.push(one)
  const last = chain.at(-1)!
  return {
    [name]: chain.map(one => `${one.name}: ${one.message}`).join('; because: '),
    ...(error instanceof BpftokenError && { [`${name}_CODE`]: error.code }),
    // Of what nobody foresaw; an expected failure says all by itself.
    ...(!(last instanceof BpftokenError) && last.stack !== undefined && { [`${name}_STACK`]: last.stack }),
  }
}

/** What waits for a reader of standard error that has stopped reading. */
const MAX_WAITING_BYTES = 1 << 20

/**
 * Writes to a stream, such as standard error, and does not wait for who reads it: when too much
 * waits, text is dropped, and `dropped` says how often, when there is room again.
 */
export function boundedWriter(stream: Writable, dropped: (times: number) => string): (text: string) => void {
  let times = 0
  return text => {
    if (stream.writableLength > MAX_WAITING_BYTES) {
      times++
      return
    }
    if (times > 0) stream.write(dropped(times))
    times = 0
    stream.write(text)
  }
}
