/** What a hostile workload tries, by the list in SECURITY.md: the list says who refuses it and how, and tests hold it to that. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { ROOT } from '../helpers/machine.ts'

export interface Attempt {
  readonly name: string
  /** The guard's control point and reason; undefined: the kernel itself refuses. */
  readonly guard: { readonly point: string; readonly reason: string } | undefined
  /** Name of the errno, or in words what becomes of it. */
  readonly answer: string
}

const ROW = /^\| (?<name>[^|]+) \| (?:kernel|guard: (?<point>\w+), (?<reason>[\w-]+)) \| (?<answer>[^|]+) \|$/

/** The rows of the table below this heading of SECURITY.md. */
export function readAttempts(heading = 'What a hostile workload cannot do'): Attempt[] {
  const text = readFileSync(join(ROOT, 'SECURITY.md'), 'utf8')
  const section = text.split(/^## /m).find(part => part.startsWith(`${heading}\n`)) ?? ''
  const [, , ...rows] = section.split('\n').filter(line => line.startsWith('|'))
  return rows.map(row => {
    const { name, point, reason, answer } = ROW.exec(row)?.groups ?? {}
    if (name === undefined || answer === undefined) throw new Error(`SECURITY.md has an odd row: ${row}`)
    return { name, guard: point === undefined ? undefined : { point, reason: reason! }, answer }
  })
}
