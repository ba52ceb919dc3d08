/**
 * Why the guard refused something: its event, beside what is known of the delegation. Pure.
 *
 * An event does not hold how much was asked for, nor the attach type of a program. What is said to
 * be there is of now, and not of the moment of the event.
 */
import { type SeenEvent, suggestAdditions } from '../guard/suggest.ts'
import type { PolicyEdit } from '../policy/edit.ts'
import { DEFAULT_LIMITS, LIMIT_PATHS, type Limits } from '../policy/policy.ts'
import { RIGHT_LISTS, type RightList } from '../policy/policy-yaml.ts'
import { formatSize } from '../policy/quantity.ts'

export interface JudgedEvent extends SeenEvent {
  readonly name: string
  /** The delegation that has most of the guard's table. */
  readonly holder?: number | undefined
}

/** What is known of the delegation that the event is of. */
export interface KnownDelegation {
  readonly state: 'live' | 'revoked' | 'expired' | 'ended'
  readonly capabilities?: readonly string[]
  readonly limits?: Limits
  readonly live?: { readonly tokens: number; readonly programs: number; readonly maps: number }
  /** Bytes of its maps. */
  readonly mapBytes?: bigint
}

export interface EventExplanation {
  /** `map_create hash "flows"` */
  readonly call: string
  /** `would-refuse`: a permissive policy let it through. */
  readonly verdict: string
  /** Undefined: it was let through, or it is not told. */
  readonly errno: string | undefined
  /** `guard-` and the guard's reason; `none`: it refused nothing. */
  readonly cause: string
  readonly needed: string
  readonly found: string
  /** The smallest change of a policy; undefined: none, or it cannot be told. */
  readonly edit: PolicyEdit | undefined
  /** What the event leaves open about that, or why none can be told. */
  readonly caution: string | undefined
}

export function explainEvent(event: JudgedEvent, known: KnownDelegation | undefined): EventExplanation {
  const { verdict, reason, point, cmd, type, name } = event
  const what = [cmd ?? point, type, name === '' ? undefined : JSON.stringify(name)]
  const call = what.filter(part => part !== undefined).join(' ')
  if (reason === 'none')
    return {
      ...{ call, verdict, errno: undefined, cause: 'none', needed: 'nothing more' },
      ...{ found: 'the guard had nothing against it', edit: undefined, caution: undefined },
    }
  const { edit, caution } = changeFor(event, known)
  const ended = known?.state === 'live' || known === undefined ? '' : `; the delegation is ${known.state} now`
  return {
    ...{ call, verdict, errno: verdict === 'refused' ? errnoOf(event) : undefined },
    ...{ cause: `guard-${reason}`, needed: neededFor(event, edit), found: foundFor(event, known) + ended },
    ...{ edit, caution },
  }
}

const COUNTED: Readonly<Record<string, keyof typeof DEFAULT_LIMITS>> = {
  tokens: 'tokens',
  maps: 'maps',
  programs: 'programs',
}

function changeFor(
  event: JudgedEvent,
  known: KnownDelegation | undefined,
): Pick<EventExplanation, 'edit' | 'caution'> {
  const field = COUNTED[event.reason]
  if (field !== undefined && known?.limits !== undefined) {
    const limit = known.limits[field] ?? DEFAULT_LIMITS[field]
    return { edit: { path: LIMIT_PATHS[field], value: limit + 1 }, caution: undefined }
  }
  const { additions, unanswered } = suggestAdditions([event])
  const [addition] = additions
  if (addition === undefined) return { edit: undefined, caution: unanswered[0]?.why }
  return { edit: { path: addition.path, value: addition.value }, caution: addition.caution }
}

/** See docs/guard.md, "What it holds to". */
function errnoOf({ reason, point }: JudgedEvent): string | undefined {
  if (['tokens', 'maps', 'map-bytes', 'programs', 'instructions'].includes(reason)) return 'EDQUOT'
  if (reason === 'full') return 'ENOSPC'
  if (reason === 'no-ability') return 'ENOENT'
  if (reason === 'rights' || point === 'token_cmd' || point === 'token_capable') return 'EPERM'
  return point === 'protect' ? undefined : 'EACCES'
}

function neededFor({ reason, type }: JudgedEvent, edit: PolicyEdit | undefined): string {
  if (reason === 'capability') return `capability ${type} in the rights that were lent`
  const counted = COUNTED[reason]
  if (counted !== undefined) return `room for one more within ${LIMIT_PATHS[counted]}`
  if (edit !== undefined) return `${edit.path}: ${listOf(edit) === undefined ? '' : 'with '}${edit.value}`
  return NEEDED[reason] ?? 'what the guard asks for'
}

function listOf({ path }: PolicyEdit): RightList | undefined {
  return RIGHT_LISTS.find(name => path === `spec.rights.${name}`)
}

const NEEDED: Readonly<Record<string, string>> = {
  'no-delegator': 'a program that may delegate',
  'not-marked': 'a context that was marked by who may delegate',
  'no-ability': 'an ability of that name',
  'beyond-abilities': 'masks within the abilities that were named',
  rights: 'a right that is lent to the cgroup',
  stranger: 'a task of the user namespace that was lent to',
  elsewhere: 'the place where it was lent',
  unregistered: 'a bpffs or token that the guard saw made',
  revoked: 'a delegation that is not revoked',
  expired: 'a delegation whose time is not over',
  'map-bytes': 'room within spec.limits.mapBytes',
  instructions: 'a program within spec.limits.instructions',
  cgroup: 'a task in the cgroup that the delegation is bound to',
  reopened: 'a token that is used as it was made or passed',
  full: "room in the guard's table of 65536 records",
  'old-mount': 'a context of fsopen(2)',
  digest: 'a program whose digest spec.programs.digests has',
  function: 'an attach target that spec.targets.functions has',
  lists: 'abilities of which at most one has lists of digests or functions',
  'beyond-parent': 'rights and limits that the delegation it is derived from still has',
  'no-keeper': 'a task that has said that it means to change the guard',
  mismatch: "the guard's own record of the object",
  'not-own': "what is one's own",
  unreadable: 'a value in memory that is there when the call begins',
}

function foundFor({ reason, type, holder }: JudgedEvent, known: KnownDelegation | undefined): string {
  const { capabilities, limits, live } = known ?? {}
  if (reason === 'capability')
    return capabilities === undefined ? `${type} was not lent` : `lent: ${capabilities.join(', ') || 'none'}`
  const field = COUNTED[reason]
  if (field !== undefined && limits !== undefined) {
    const stated = limits[field] === undefined ? ', by default' : ''
    const inUse = live === undefined ? '' : `, of which ${live[field]} are in use now`
    return `${LIMIT_PATHS[field]}: ${limits[field] ?? DEFAULT_LIMITS[field]}${stated}${inUse}`
  }
  if (reason === 'map-bytes' && limits?.mapBytes !== undefined) {
    const inUse =
      known?.mapBytes === undefined ? '' : `, of which ${formatSize(known.mapBytes)} are in use now`
    return `${LIMIT_PATHS.mapBytes}: ${formatSize(limits.mapBytes)}${inUse}`
  }
  if (reason === 'instructions' && limits?.instructions !== undefined)
    return `${LIMIT_PATHS.instructions}: ${limits.instructions}`
  if (reason === 'full' && holder !== undefined) return `most of it is of delegation ${holder}`
  return FOUND[reason] ?? 'it is not so'
}

const FOUND: Readonly<Record<string, string>> = {
  rights: 'it is not lent to the cgroup',
  outlives: 'spec.revocable: true, and nothing of ours would undo that attachment',
  network: "spec.network: own, and the task is in the host's network",
  cgroup: 'another cgroup',
  elsewhere: 'spec.sharing.bindMount: false, and a bpffs that was moved, copied or bound',
  stranger: 'spec.sharing.passToken: false, and a task of another user namespace',
  revoked: 'it was revoked',
  expired: 'its time was over',
  unregistered: 'one that was made before the guard, or without it',
}
