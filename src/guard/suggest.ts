/**
 * What a policy would have to say besides, so that the guard allows what it refused or let through
 * in permissive mode. Pure.
 *
 * The guard's events are all that is known. The kernel's masks are no matter of theirs: what a mask
 * lacks is refused before the guard is asked, but for a confined cgroup.
 */
import { CAPABILITIES } from '../policy/policy.ts'

/** One event, or alike ones. */
export interface SeenEvent {
  readonly verdict: string
  readonly point: string
  readonly reason: string
  readonly cmd?: string | undefined
  readonly type?: string | undefined
  readonly task: string
  readonly pid: number
  readonly uid: number
  readonly count: number
}

/** Somebody who was refused, or let through, for one reason. */
export interface Occasion extends Pick<SeenEvent, 'verdict' | 'task' | 'pid' | 'uid' | 'count'> {}

export interface Addition {
  /** The field of a policy, such as `spec.rights.capabilities`. */
  readonly path: string
  /** Of a list one more word, else the value. */
  readonly value: string | boolean
  /** What the events leave open about it. */
  readonly caution?: string
  readonly occasions: readonly Occasion[]
}

/** What was refused, and no addition can be told. */
export interface Unanswered {
  readonly reason: string
  readonly why: string
  readonly occasions: readonly Occasion[]
}

export interface Suggestion {
  readonly additions: readonly Addition[]
  readonly unanswered: readonly Unanswered[]
}

type Answer = Pick<Addition, 'path' | 'value' | 'caution'> | Pick<Unanswered, 'why'>

export function suggestAdditions(events: readonly SeenEvent[]): Suggestion {
  const additions = new Map<
    string,
    Pick<Addition, 'path' | 'value' | 'caution'> & { occasions: Occasion[] }
  >()
  const unanswered = new Map<string, { reason: string; why: string; occasions: Occasion[] }>()
  for (const event of events) {
    if (event.reason === 'none') continue
    for (const answer of answersTo(event)) {
      if ('path' in answer) {
        const key = `${answer.path} ${answer.value}`
        const known = additions.get(key) ?? { ...answer, occasions: [] }
        additions.set(key, known)
        addOccasion(known.occasions, event)
      } else {
        const known = unanswered.get(event.reason) ?? { reason: event.reason, ...answer, occasions: [] }
        unanswered.set(event.reason, known)
        addOccasion(known.occasions, event)
      }
    }
  }
  return {
    additions: [...additions.values()].sort((a, b) => rank(a) - rank(b)),
    unanswered: [...unanswered.values()],
  }
}

function addOccasion(known: Occasion[], { verdict, task, pid, uid, count }: SeenEvent): void {
  const at = known.findIndex(one => one.verdict === verdict && one.pid === pid && one.task === task)
  if (at < 0) known.push({ verdict, task, pid, uid, count })
  else known[at] = { ...known[at]!, count: known[at]!.count + count }
}

/** The fields in the order of a document. */
const PATHS = [
  ...['cmds', 'maps', 'progs', 'attachs', 'capabilities'].map(list => `spec.rights.${list}`),
  ...['spec.sharing.bindMount', 'spec.sharing.passToken', 'spec.revocable', 'spec.network', 'spec.cgroups'],
]

function rank({ path }: Pick<Addition, 'path'>): number {
  return PATHS.indexOf(path)
}

function answersTo({ reason, point, type, cmd }: SeenEvent): Answer[] {
  switch (reason) {
    case 'capability':
      return [
        CAPABILITIES.some(name => name === type)
          ? {
              path: 'spec.rights.capabilities',
              value: type!,
              ...(type === 'perfmon' && {
                caution: 'may be needless: the verifier also asks for it to decide what it lets pass',
              }),
            }
          : { why: 'no token stands in for that capability' },
      ]
    case 'rights':
      return rightsFor(point, type, cmd)
    case 'outlives':
      return [{ path: 'spec.revocable', value: false }]
    case 'network':
      return [{ path: 'spec.network', value: 'host' }]
    case 'cgroup':
      return point === 'attach'
        ? [{ path: 'spec.cgroups', value: 'any' }]
        : [{ why: 'the delegation was bound to a cgroup by whoever lent it, and not by the policy' }]
    case 'elsewhere':
      return [{ path: 'spec.sharing.bindMount', value: true }]
    case 'stranger':
      return [{ path: 'spec.sharing.passToken', value: true }]
    default:
      return [{ why: UNANSWERED[reason] ?? 'no policy allows it' }]
  }
}

/** Of a confined cgroup. */
function rightsFor(point: string, type: string | undefined, cmd: string | undefined): Answer[] {
  if (point === 'map_create' && type !== undefined) return [{ path: 'spec.rights.maps', value: type }]
  if (point === 'command' && cmd !== undefined) return [{ path: 'spec.rights.cmds', value: cmd }]
  if (point === 'prog_load' && type !== undefined)
    return [
      {
        path: 'spec.rights.progs',
        value: type,
        caution: 'if the policy has it, its attach type is missing, which events do not hold',
      },
    ]
  return [{ why: 'the event does not hold which right it was' }]
}

const NO_AMOUNT =
  'the event does not hold how much was asked for: raise the limit by what is known of the workload'

const UNANSWERED: Readonly<Record<string, string>> = {
  tokens: NO_AMOUNT,
  maps: NO_AMOUNT,
  'map-bytes': NO_AMOUNT,
  programs: NO_AMOUNT,
  instructions: NO_AMOUNT,
  expired: 'the event does not hold how long it should have lived: see limits.lifetime',
  digest: "the event holds the program's name and not its digest: see programs.digests",
  function: "the event holds the program's name and not its target: see targets.functions",
  'beyond-parent': 'the delegation that it is derived from has no more',
  'beyond-abilities': 'the event does not hold which bits no named ability gives',
}
