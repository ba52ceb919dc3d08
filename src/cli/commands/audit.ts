/** bpftoken audit: who asked for what, what was decided and made, and how it ended. */
import type { Client, RouteAnswer } from '../../client/client.ts'
import { EXIT } from '../../errors.ts'
import { daemonAt, type SocketOptions } from '../daemon/reach.ts'
import { print, printJson, warn, word } from '../output.ts'

interface QueryOptions extends SocketOptions {
  since?: string
  loan?: string
  json?: boolean
}

type AuditRecord = RouteAnswer<'audit'>['records'][number]

/** In one answer. */
const PAGE = 1000

export async function query(options: QueryOptions): Promise<number> {
  using daemon = await daemonAt(options)
  for await (const record of records(daemon, options))
    if (options.json === true) printJson(record, 'compact')
    else print(recordLine(record))
  return EXIT.ok
}

export async function exportAll(options: QueryOptions): Promise<number> {
  using daemon = await daemonAt(options)
  for await (const record of records(daemon, options)) printJson(record, 'compact')
  return EXIT.ok
}

async function* records(daemon: Client, { since, loan }: QueryOptions): AsyncGenerator<AuditRecord> {
  for (let after: number | undefined; ; ) {
    const page = await daemon.audit({ query: { since, loan, after, limit: PAGE } })
    yield* page.records
    if (page.records.length === 0) return
    after = page.next
  }
}

/** Pure. */
export function recordLine({ seq, at, event, loan, request, facts }: AuditRecord): string {
  const told = Object.entries(facts).map(([name, value]) => `${name}=${valueText(value)}`)
  return [seq, at, event, loan, request, ...told].filter(part => part !== undefined).join(' ')
}

function valueText(value: unknown): string {
  return word(typeof value === 'string' ? value : JSON.stringify(value))
}

/** Exit 1: the chain is broken. */
export async function verify(options: SocketOptions & { json?: boolean }): Promise<number> {
  using daemon = await daemonAt(options)
  const verdict = await daemon.verifyAudit()
  const { intact, records, from, head, fault } = verdict
  if (options.json === true) printJson(verdict)
  else if (intact) print(`intact: ${records} records from ${from} on; the last is ${head}`)
  else
    warn(
      `not intact: ${fault === undefined ? 'it cannot be told where' : `record ${fault.seq}: ${fault.message}`}`,
    )
  return intact ? EXIT.ok : EXIT.failed
}
