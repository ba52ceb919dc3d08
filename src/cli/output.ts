/** What the commands print: aligned columns for people, one JSON document for programs. */
import { BpftokenError, EXIT } from '../errors.ts'

export function print(text: string): void {
  process.stdout.write(`${text}\n`)
}

export function printJson(value: unknown): void {
  const withoutBigints = (_: string, v: unknown): unknown =>
    typeof v === 'bigint' ? `0x${v.toString(16)}` : v
  print(JSON.stringify(value, withoutBigints, 2))
}

/** A note about what is going on: on stderr, so that stdout stays the program's or the answer's. */
export function note(text: string): void {
  process.stderr.write(`bpftoken: ${text}\n`)
}

/** Rows in aligned columns, the last one ragged. */
export function columns(rows: readonly (readonly string[])[]): string {
  const widths: number[] = []
  for (const row of rows)
    row.forEach((cell, i) => {
      widths[i] = Math.max(widths[i] ?? 0, cell.length)
    })
  return rows
    .map(row => row.map((cell, i) => (i === row.length - 1 ? cell : cell.padEnd(widths[i]!))).join('  '))
    .join('\n')
}

/** Tells of a failure on stderr and gives the exit status for it. */
export function reportError(error: unknown, json: boolean): number {
  const ours = error instanceof BpftokenError
  if (json) {
    const body = ours
      ? error.toJSON()
      : { code: 'BPFTOKEN_INTERNAL', message: String((error as Error)?.message ?? error) }
    process.stderr.write(`${JSON.stringify({ error: body })}\n`)
  } else if (ours) {
    note(error.message)
    for (let cause = error.cause; cause instanceof Error; cause = cause.cause)
      note(`  because: ${cause.message}`)
    if (error.hint !== undefined) note(`  next: ${error.hint}`)
  } else {
    // Not one of ours: a defect. The stack is what a report needs.
    note(`internal error: ${(error as Error)?.stack ?? error}`)
  }
  return ours ? error.exitStatus : EXIT.failed
}
