/** bpftoken events, of those that the daemon keeps: to ask for them takes none away. */
import type { Client, RouteAnswer, RouteEvent } from '../../client/client.ts'
import { EXIT } from '../../errors.ts'
import { Suggestions } from '../commands/events-suggest.ts'
import type { EventsOptions } from '../event-options.ts'
import { interruption } from '../interrupted.ts'
import { note, print, printJson, word } from '../output.ts'

/** In one answer. */
const PAGE = 1000

export async function eventsThrough(client: Client, options: EventsOptions): Promise<number> {
  const { since, uid, reason, json = false, follow = false } = options
  const query = { since, uid, reason, delegation: await delegationOf(client, options), limit: PAGE }
  const suggestions = options.suggest === true ? new Suggestions() : undefined
  const tell = (event: GuardEvent): void => {
    if (suggestions !== undefined) suggestions.add(nameOf(event), event)
    else if (json) printJson(event, 'compact')
    else print(eventLine(event))
  }
  let after: number | undefined
  let page: RouteAnswer<'events'>
  do {
    page = await client.events({ query: { ...query, after } })
    page.events.forEach(tell)
    after = page.next
  } while (page.events.length > 0)
  suggestions?.tell(json)
  if (page.lost > 0) note(`${page.lost} events were lost since the guard was installed, for want of room`)
  if (!follow) return EXIT.ok
  const { limit: _, ...wanted } = query
  const signal = interruption()
  for await (const event of client.follow('events', { query: { ...wanted, after } }, { signal })) tell(event)
  return EXIT.ok
}

async function delegationOf(client: Client, { delegation }: EventsOptions): Promise<number | undefined> {
  if (delegation === undefined || 'delegation' in delegation) return delegation?.delegation
  const { record } = await client.showLoan({ params: { id: delegation.loan } })
  // No guard holds to it, so that there is no event of it: zero is no delegation.
  return record?.delegation ?? 0
}

export type GuardEvent = RouteEvent<'events'>

/** Of alike ones how many there were, and until when. */
export function eventLine(event: GuardEvent): string {
  const { seq, first, last, count, verdict, point, type, name, reason, delegation, loan } = event
  const { task, pid, uid } = event
  const what = [point, type, name === '' ? undefined : `"${name}"`].filter(part => part !== undefined)
  const why = reason === 'none' ? '' : ` (${reason})`
  const of = nameOf({ loan, delegation })
  const many = count === 1 ? '' : `, ${count} times until ${last}`
  return `${seq} ${first} ${verdict} ${what.join(' ')}${why}: ${of === undefined ? '' : `${of}, `}${word(task)} ${pid} uid ${uid}${many}`
}

function nameOf({ loan, delegation }: Pick<GuardEvent, 'loan' | 'delegation'>): string | undefined {
  return loan ?? (delegation === undefined ? undefined : `delegation ${delegation}`)
}
