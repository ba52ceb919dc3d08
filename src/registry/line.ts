/**
 * One line of a file of ours: `["SUM",NUMBER,BATCH,BODY]`, itself JSON, and in ASCII alone, so that
 * a terminal that it is printed on shows it as it is. Pure.
 *
 * NUMBER counts the lines of the file from 1. BATCH is the number of the first of those lines that
 * were written together: a line of a later batch proves that all earlier ones were on the disk. SUM
 * is CRC-32 of `NUMBER,BATCH,BODY` in eight hex digits.
 */
import { crc32 } from 'node:zlib'

/** Longer lines are not written, and are damage where they are read. */
export const MAX_LINE_BYTES = 1024 * 1024

export interface Line {
  readonly number: number
  readonly batch: number
  /** JSON. */
  readonly body: string
}

/** JSON in which everything but printable ASCII is `\uXXXX`. */
export function asciiJson(value: unknown): string {
  const json = JSON.stringify(value)
  if (/^[\x20-\x7e]*$/.test(json)) return json
  return json.replace(/[^\x20-\x7e]/g, unit => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`)
}

/** With its end of line. */
export function encodeLine({ number, batch, body }: Line): string {
  const summed = `${number},${batch},${body}`
  return `["${sumOf(summed)}",${summed}]\n`
}

const SUM_END = 12

/** Of a line without its end; undefined: it is none of ours, or not as it was written. */
export function decodeLine(text: string): Line | undefined {
  if (!text.startsWith('["') || !text.endsWith(']') || text.slice(10, SUM_END) !== '",') return undefined
  if (!/^[\x20-\x7e]*$/.test(text)) return undefined
  const summed = text.slice(SUM_END, -1)
  if (sumOf(summed) !== text.slice(2, 10)) return undefined
  const found = /^([1-9][0-9]{0,14}),([1-9][0-9]{0,14}),/.exec(summed)
  if (found === null) return undefined
  return { number: Number(found[1]), batch: Number(found[2]), body: summed.slice(found[0].length) }
}

function sumOf(text: string): string {
  return crc32(text).toString(16).padStart(8, '0')
}
