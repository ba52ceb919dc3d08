/**
 * The daemon's log: one line for each thing that happened, with its facts as fields. Text that
 * clients chose is escaped, so that it neither ends a line nor moves a terminal's cursor. pino is
 * loaded by the first line, which a daemon that starts as it should writes after it is ready.
 */
import type { Writable } from 'node:stream'
import type { Logger } from 'pino'
import { printableJson } from '../ebpf/printable.ts'

export const LEVELS = ['debug', 'info', 'notice', 'warn', 'error', 'fatal'] as const
export type Level = (typeof LEVELS)[number]

/** Of syslog(3). */
export const PRIORITY: Readonly<Record<Level, number>> = {
  fatal: 2,
  error: 3,
  warn: 4,
  notice: 5,
  info: 6,
  debug: 7,
}

export type Fields = object

/** As pino has it: the facts, then the words. */
export type Log = Readonly<Record<Level, (facts: Fields, message: string) => void>> & {
  /** Whether lines of this level are written. */
  wants(level: Level): boolean
}

/** Where lines go. `line` is JSON in one line, of printable characters, without its end. */
export interface Destination {
  write(level: Level, line: string): void
}

/** pino counts upwards; its steps leave room. */
const PINO_LEVEL: Readonly<Record<Level, number>> = {
  debug: 20,
  info: 30,
  notice: 35,
  warn: 40,
  error: 50,
  fatal: 60,
}
const LEVEL_OF = new Map(Object.entries(PINO_LEVEL).map(([name, number]) => [number, name as Level]))

/** Lines below `least` are not written. */
export function createLog(least: Level, destination: Destination): Log {
  let made: Logger<Level> | undefined
  const logger = (): Logger<Level> => {
    made ??= pinoLogger(least, destination)
    return made
  }
  const wants = (level: Level): boolean => PINO_LEVEL[level] >= PINO_LEVEL[least]
  const at =
    (level: Level) =>
    (facts: Fields, message: string): void => {
      if (wants(level)) logger()[level](facts, message)
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

function pinoLogger(least: Level, destination: Destination): Logger<Level> {
  const { pino } = require('pino') as typeof import('pino')
  const stream = {
    lastLevel: 0,
    /** By this property pino tells the level of each line before it. */
    [pino.symbols.needsMetadataGsym as symbol]: true,
    write(line: string): void {
      destination.write(LEVEL_OF.get(stream.lastLevel) ?? 'error', printableJson(line.trimEnd()))
    },
  }
  return pino<Level>(
    {
      level: least,
      customLevels: PINO_LEVEL,
      useOnlyCustomLevels: true,
      base: null,
      messageKey: 'message',
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: label => ({ level: label }) },
      serializers: { error: errorFacts, err: errorFacts },
    },
    stream,
  )
}

/** All there is of an error, with its causes, for whoever has to find the defect. */
function errorFacts(error: unknown, depth = 0): unknown {
  if (!(error instanceof Error)) return String(error)
  const { name, message, stack, cause } = error
  return {
    name,
    message,
    ...('code' in error && { code: error.code }),
    ...('context' in error && { context: error.context }),
    stack,
    ...(cause !== undefined && depth < 4 && { cause: errorFacts(cause, depth + 1) }),
  }
}

/** What waits for a reader of standard error that has stopped reading. */
const MAX_WAITING_BYTES = 1 << 20

/**
 * Lines to a stream, such as standard error, with the priority that systemd reads where `marked`.
 * When its reader does not read, lines are dropped, and the next that is written says how many: the
 * daemon does not wait for it.
 */
export function streamDestination(stream: Writable, marked: boolean): Destination {
  let dropped = 0
  return {
    write(level, line) {
      const prefix = marked ? `<${PRIORITY[level]}>` : ''
      if (stream.writableLength > MAX_WAITING_BYTES) {
        dropped++
        return
      }
      if (dropped > 0) {
        stream.write(
          `${marked ? '<4>' : ''}{"level":"warn","message":"lines were dropped","lines":${dropped}}\n`,
        )
        dropped = 0
      }
      stream.write(`${prefix}${line}\n`)
    },
  }
}
