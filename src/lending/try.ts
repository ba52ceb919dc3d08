/** Trying an object: where its programs can attach under a loan, in namespaces of their own. */
import { planCgroup } from '../delegation/rest.ts'
import {
  isForCgroups,
  isForDevices,
  isForNetkit,
  type Placement,
  placementsOf,
  type Wish,
} from '../ebpf/attach/placement.ts'
import { attachesItself } from '../ebpf/attach/section.ts'
import type { ObjectProgram, ObjectSpec } from '../ebpf/object/spec.ts'
import { ConflictError, NotSupportedError } from '../errors.ts'
import { PROGRAM_CLASSES } from '../policy/kernel-classes.ts'

/** A program that is loaded and attached to nothing. */
export interface Idle {
  readonly program: string
  readonly why: string
  /** Attaching it needs rights on the host that no delegation gives. */
  readonly needsHost: boolean
}

export interface TrialPlan {
  readonly places: readonly Placement[]
  readonly idle: readonly Idle[]
  /** Wishes that no program fits. */
  readonly unmet: readonly Wish[]
}

export interface TrialPlaces {
  /** What the caller wishes; empty: what suits each program. */
  readonly wishes: readonly Wish[]
  /** The network is one of its own, of which one device is known: loopback. */
  readonly ownNetwork: boolean
  /** The loader's own cgroup; undefined: it has none. */
  readonly cgroup: string | undefined
}

/**
 * Where each program goes. Pure. NotFoundError: a wish names a program that is not among these.
 * ConflictError: two XDP programs for one device.
 */
export function planTrial(
  spec: ObjectSpec,
  programs: readonly ObjectProgram[],
  places: TrialPlaces,
): TrialPlan {
  const wished = placementsOf(programs, places.wishes)
  const chosen = new Set(wished.places.map(({ program }) => program))
  const idle: Idle[] = []
  const own: Placement[] = []
  const callees = calledByTail(spec)
  for (const program of programs) {
    if (chosen.has(program.name)) continue
    const lot = lotOf(program, places, callees)
    if ('place' in lot && places.wishes.length === 0) own.push(lot.place)
    else if ('place' in lot)
      idle.push({ program: program.name, why: 'it is not among what is to be attached', needsHost: false })
    else idle.push({ program: program.name, ...lot })
  }
  const all = [...wished.places, ...own]
  requireOneXdp(all)
  const hosted = all.flatMap(({ program }) => {
    const facts = programs.find(({ name }) => name === program)!
    return usesPerfEvents(facts) ? [{ program, why: PERF_EVENT, needsHost: true }] : []
  })
  return {
    places: all.filter(({ program }) => !hosted.some(one => one.program === program)),
    idle: [...hosted, ...idle],
    unmet: wished.unmet,
  }
}

const PERF_EVENT =
  'perf_event_open(2), by which it attaches, asks for CAP_PERFMON on the host, where no token counts'

function usesPerfEvents({ rule }: ObjectProgram): boolean {
  return ['kprobe', 'ksyscall', 'uprobe', 'tracepoint'].includes(rule?.autoAttach ?? '')
}

type Lot = { readonly place: Placement } | Omit<Idle, 'program'>

const idleFor = (why: string): Lot => ({ why, needsHost: false })

function lotOf(program: ObjectProgram, places: TrialPlaces, callees: ReadonlySet<string>): Lot {
  const { name, rule } = program
  const type = rule?.type ?? ''
  const at = (spec: Placement['spec']): Lot => ({ place: { program: name, spec } })
  if (callees.has(name)) return idleFor('other programs jump to it')
  if (type === 'struct_ops')
    return { why: 'its struct_ops map is registered for the whole host, which is not tried', needsHost: true }
  if (rule?.autoAttach === 'iter') return idleFor('it runs when somebody reads it')
  // Before all places, for a type whatever it attaches to.
  if (PROGRAM_CLASSES[type]?.reach === 'network' && !places.ownNetwork)
    return idleFor("nothing of the host's network is taken unasked, and no device or netns is named")
  if (attachesItself(program)) return at(undefined)
  if (type === 'sk_lookup' || type === 'flow_dissector')
    return at({ kind: 'netns', path: '/proc/self/ns/net' })
  if (isForCgroups(type))
    return places.cgroup === undefined
      ? idleFor('the loader has no cgroup of its own here, and no other is named')
      : at({ kind: 'cgroup', path: places.cgroup })
  const direction = rule?.attachType === 'tcx_egress' ? 'egress' : 'ingress'
  const isTcx = type === 'sched_cls' && !isForNetkit(program)
  if (!isForDevices(program) && !isTcx) return idleFor('there is nothing here that it could attach to')
  return at(isTcx ? { kind: 'tcx', device: 'lo', direction } : { kind: 'xdp', device: 'lo' })
}

/** Programs that a program array holds from the start. */
function calledByTail({ maps }: ObjectSpec): ReadonlySet<string> {
  return new Set(maps.flatMap(({ values }) => values.flatMap(one => ('program' in one ? [one.program] : []))))
}

function requireOneXdp(places: readonly Placement[]): void {
  const taken = new Map<string, string>()
  for (const { program, spec } of places) {
    if (spec?.kind !== 'xdp') continue
    const other = taken.get(spec.device)
    if (other !== undefined)
      throw new ConflictError(
        `"${other}" and "${program}" both attach to device ${spec.device}, which takes one XDP program`,
        {
          context: { device: spec.device, programs: `${other},${program}` },
          hint: 'Load one of them only, or name the one that attaches there',
        },
      )
    taken.set(spec.device, program)
  }
}

/** A cgroup for the loader alone, yet to be made; undefined: it cannot have one here. */
export function ownCgroup(user: { readonly uid: number; readonly gid: number }): string | undefined {
  try {
    return planCgroup(user)
  } catch (error) {
    if (!(error instanceof NotSupportedError)) throw error
    return undefined
  }
}
