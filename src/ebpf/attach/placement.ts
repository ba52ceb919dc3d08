/** Which programs of an object attach where, out of what the caller wishes. Pure. */
import { NotFoundError } from '../../errors.ts'
import type { ObjectProgram } from '../object/spec.ts'
import { type AttachSpec, attachesItself } from './section.ts'

/** For one program, or for all of a kind that fits; `auto`: where its section's name says. */
export interface Wish {
  readonly program?: string
  readonly spec: AttachSpec | 'auto'
}

export interface Placement {
  readonly program: string
  /** Undefined: where the section's name says. */
  readonly spec: AttachSpec | undefined
}

export interface Placements {
  readonly places: readonly Placement[]
  /** Wishes that no program fits. */
  readonly unmet: readonly Wish[]
}

/**
 * A program that a wish names attaches there, and to nothing else. NotFoundError: it is not among
 * these.
 */
export function placementsOf(programs: readonly ObjectProgram[], wishes: readonly Wish[]): Placements {
  for (const { program } of wishes)
    if (program !== undefined && !programs.some(({ name }) => name === program))
      throw new NotFoundError(`No program "${program}" is loaded`, {
        context: { program },
        hint: `There are: ${programs.map(({ name }) => name).join(', ') || 'none'}`,
      })
  const named = new Set(wishes.map(({ program }) => program))
  const met = new Set<Wish>()
  const places = programs.flatMap(program =>
    wishes
      .filter(wish =>
        named.has(program.name) ? wish.program === program.name : !wish.program && suits(program, wish.spec),
      )
      .map(wish => {
        met.add(wish)
        return { program: program.name, spec: wish.spec === 'auto' ? undefined : wish.spec }
      }),
  )
  return { places, unmet: wishes.filter(wish => !met.has(wish)) }
}

function suits(program: ObjectProgram, spec: AttachSpec | 'auto'): boolean {
  const type = program.rule?.type
  // What it is, is known to its author only.
  if (type === undefined) return spec !== 'auto'
  if (spec === 'auto') return attachesItself(program)
  switch (spec.kind) {
    case 'xdp':
      return isForDevices(program)
    case 'tcx':
      return type === 'sched_cls' && !isForNetkit(program)
    case 'netkit':
      return isForNetkit(program)
    case 'cgroup':
      return isForCgroups(type)
    case 'netns':
      return type === 'sk_lookup' || type === 'flow_dissector'
  }
}

/** Whether programs of this type attach to a cgroup. */
export function isForCgroups(type: string): boolean {
  return type.startsWith('cgroup_') || type === 'sock_ops'
}

/** A program that was loaded for one end of a netkit device. */
export function isForNetkit({ rule }: ObjectProgram): boolean {
  return rule?.attachType === 'netkit_primary' || rule?.attachType === 'netkit_peer'
}

/** An XDP program for devices, not for the entries of a devmap or cpumap. */
export function isForDevices({ rule }: ObjectProgram): boolean {
  return rule?.type === 'xdp' && rule.attachType === 'xdp'
}
