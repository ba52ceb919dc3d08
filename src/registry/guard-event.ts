/** What the guard said, as it is kept: alike events are one, with how often. Pure. */
import {
  account,
  type Fields,
  number,
  object,
  optional,
  processId,
  recordNumber,
  text,
  wallTime,
} from './fields.ts'

/** Of one event, without when. */
export interface GuardEventFacts {
  readonly verdict: string
  readonly point: string
  readonly reason: string
  readonly delegation?: number | undefined
  readonly loan?: number | undefined
  readonly uid: number
  readonly pid: number
  readonly task: string
  readonly cmd?: string | undefined
  readonly type?: string | undefined
  readonly name: string
  /** Id of the cgroup, in decimal. */
  readonly cgroup: string
}

export interface KeptEvent extends GuardEventFacts {
  /** Grows, over restarts too. */
  readonly seq: number
  readonly first: string
  readonly last: string
  readonly count: number
}

const word = text(256)

export const keptEvent = object<KeptEvent>({
  seq: number(1, Number.MAX_SAFE_INTEGER),
  first: wallTime,
  last: wallTime,
  count: number(1, Number.MAX_SAFE_INTEGER),
  verdict: word,
  point: word,
  reason: word,
  delegation: optional(recordNumber),
  loan: optional(number(1, Number.MAX_SAFE_INTEGER)),
  uid: account,
  pid: processId,
  task: word,
  cmd: optional(word),
  type: optional(word),
  name: word,
  cgroup: word,
} satisfies Fields<KeptEvent>)

const MAX_WORD_CHARS = 256

/** The same with text cut to what is kept. */
export function boundedFacts(facts: GuardEventFacts): GuardEventFacts {
  const entries = Object.entries(facts).filter(([, value]) => value !== undefined)
  const cut = entries.map(([name, value]) => [
    name,
    typeof value === 'string' ? value.slice(0, MAX_WORD_CHARS) : value,
  ])
  return Object.fromEntries(cut) as unknown as GuardEventFacts
}

/** Equal for events that are folded into one. */
export function foldingKey(event: GuardEventFacts): string {
  const { delegation, point, verdict, reason, uid, pid, type, name } = event
  return JSON.stringify([delegation, point, verdict, reason, uid, pid, type, name])
}
