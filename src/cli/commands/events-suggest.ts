/** bpftoken events --suggest: what a policy lacked, by the guard's events. */
import { printable } from '../../ebpf/printable.ts'
import { type Occasion, type SeenEvent, type Suggestion, suggestAdditions } from '../../guard/suggest.ts'
import { print, printJson } from '../output.ts'

/** Of one delegation. Undefined: of none. */
interface Group {
  readonly of: string | undefined
  readonly events: SeenEvent[]
}

/** More different events than this are not looked at, which is told. */
const MAX_EVENTS = 100_000

/** Collects events, and tells what they come to. */
export class Suggestions {
  readonly #groups = new Map<string, Group>()
  #seen = 0

  /** `of`: the delegation or loan. */
  add(of: string | undefined, event: SeenEvent): void {
    if (++this.#seen > MAX_EVENTS) return
    const key = of ?? ''
    const group = this.#groups.get(key) ?? { of, events: [] }
    this.#groups.set(key, group)
    group.events.push(event)
  }

  tell(json: boolean): void {
    const found = [...this.#groups.values()]
      .map(({ of, events }) => ({ of, ...suggestAdditions(events) }))
      .filter(({ additions, unanswered }) => additions.length + unanswered.length > 0)
    const leftOut = Math.max(this.#seen - MAX_EVENTS, 0)
    if (json) {
      printJson({ suggestions: found, leftOut })
      return
    }
    if (found.length === 0) print('# Nothing was refused or let through')
    for (const { of, ...suggestion } of found) print(...suggestionText(of, suggestion))
    if (leftOut > 0) print(`# ${leftOut} events more were not looked at`)
  }
}

/** A part of a policy: what is to be added to it. */
function suggestionText(of: string | undefined, { additions, unanswered }: Suggestion): string[] {
  const lines: string[] = []
  let open: readonly string[] = []
  for (const { path, value, caution, occasions } of additions) {
    const keys = path.split('.')
    const isList = keys[1] === 'rights'
    const parents = isList ? keys : keys.slice(0, -1)
    for (const [depth, key] of parents.entries())
      if (open.slice(0, depth + 1).join('.') !== parents.slice(0, depth + 1).join('.'))
        lines.push(`${'  '.repeat(depth)}${key}:`)
    open = parents
    const why = `${occasionsText(occasions)}${caution === undefined ? '' : `; ${caution}`}`
    lines.push(`${'  '.repeat(parents.length)}${isList ? '- ' : `${keys.at(-1)}: `}${value} # ${why}`)
  }
  return [
    `# ${additions.length === 0 ? 'Nothing to add' : 'To be added'} to the policy of ${of ?? 'what has no delegation'}`,
    ...lines,
    ...unanswered.map(({ reason, why, occasions }) => `# ${reason}: ${why}: ${occasionsText(occasions)}`),
  ]
}

const SHOWN = 3

function occasionsText(occasions: readonly Occasion[]): string {
  const shown = occasions
    .slice(0, SHOWN)
    .map(
      ({ verdict, task, pid, uid, count }) =>
        `${verdict === 'would-refuse' ? 'let through' : verdict} ${count === 1 ? 'once' : `${count} times`}: ${printable(task)} (pid ${pid}, uid ${uid})`,
    )
  return [
    ...shown,
    ...(occasions.length > SHOWN ? [`and ${occasions.length - SHOWN} more processes`] : []),
  ].join('; ')
}
