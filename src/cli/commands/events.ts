/** bpftoken events: the guard's verdicts, one line for each. */

import { EXIT, UsageError } from '../../errors.ts'
import type { GuardEvent } from '../../guard/event.ts'
import { Guard } from '../../guard/guard.ts'
import { wallTime } from '../../lending/view.ts'
import { reachDaemon, requireNoneOf } from '../daemon/reach.ts'
import type { EventsOptions } from '../event-options.ts'
import { note, print, printJson, word } from '../output.ts'
import { Suggestions } from './events-suggest.ts'

/** Those of the daemon, which has read them, where it answers; else they are read here, once. */
export async function events(options: EventsOptions): Promise<number> {
  if (options.suggest === true && options.follow === true)
    throw new UsageError('--suggest is about what has been, and --follow about what comes')
  using daemon = await reachDaemon(options, 'bpftoken events')
  if (daemon !== undefined) return (await import('../daemon/events.ts')).eventsThrough(daemon, options)
  const { since, delegation, uid, reason } = options
  requireNoneOf({ since, delegation, uid, reason })
  using guard = Guard.open()
  const suggestions = options.suggest === true ? new Suggestions() : undefined
  const tell = (event: GuardEvent): void => {
    if (suggestions === undefined) tellOf(event)
    else suggestions.add(nameOf(event), { ...event, count: 1 })
  }
  const tellOf = (event: GuardEvent): void =>
    options.json === true ? printJson(eventToJSON(event), 'compact') : print(describeEvent(event))
  for (const event of guard.pastEvents()) tell(event)
  suggestions?.tell(options.json === true)
  if (options.follow === true) {
    const stop = new AbortController()
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => stop.abort())
    try {
      for await (const event of guard.events({ signal: stop.signal })) tell(event)
    } catch (error) {
      if (!stop.signal.aborted) throw error
    }
  }
  const { lostEvents } = guard.totals()
  if (lostEvents > 0n) note(`${lostEvents} events were lost since the guard was installed, for want of room`)
  return EXIT.ok
}

function nameOf({ delegation }: GuardEvent): string | undefined {
  return delegation === undefined ? undefined : `delegation ${delegation}`
}

function eventToJSON({ timeNs, delegation, cgroup, holder, ...rest }: GuardEvent) {
  return {
    time: wallTime(timeNs),
    ...(delegation === undefined ? {} : { delegation: Number(delegation) }),
    ...(holder === undefined ? {} : { holder: Number(holder) }),
    ...rest,
    cgroup,
  }
}

function describeEvent(event: GuardEvent): string {
  const { seq, timeNs, verdict, point, reason, delegation, task, pid, uid, type, name, holder } = event
  const what = [point, type, name === '' ? undefined : `"${name}"`]
    .filter(part => part !== undefined)
    .join(' ')
  const most = holder === undefined ? '' : `, most of it is of delegation ${holder}`
  const why = reason === 'none' ? '' : ` (${reason}${most})`
  const of = delegation === undefined ? '' : ` delegation ${delegation},`
  return `${seq} ${wallTime(timeNs)} ${verdict} ${what}${why}:${of} ${word(task)} ${pid} uid ${uid}`
}
