/** What stories make, as the kernel and the guard have it. */
import type { BpffsInstance, Program } from '../../../src/model/file.ts'
import type { Delegation, GuardMap, GuardProgram, GuardToken } from '../../../src/model/guard/guard.ts'
import type { CgroupName, MapName, Shape } from './step.ts'

/** What is held by several things, and freed with the last of them. */
export interface Held {
  refs: number
  readonly free: () => void
}

export function drop(thing: Held): void {
  if (--thing.refs === 0) thing.free()
}

export interface Mount {
  readonly instance: BpffsInstance
  readonly delegation?: Delegation
  /** Where it is, and whose mount namespace that is of; absent: nowhere. */
  place?: { readonly by: number; readonly name: string }
}

export interface TokenThing extends Held {
  readonly kind: 'token'
  readonly record: GuardToken
  readonly instance: BpffsInstance
}

export interface MapThing extends Held {
  readonly kind: 'map'
  readonly type: MapName
  readonly record: GuardMap
  isFrozen: boolean
  /** What a prog_array has at its one place. */
  prog?: ProgThing
  /** Of a map of sockets: what is attached to it, and by which link. */
  readonly sockets: Map<Shape, { prog: ProgThing; readonly link?: LinkThing }>
  /** Of struct_ops. */
  readonly byLink?: boolean
  control?: { readonly name: number; readonly progs: readonly ProgThing[] }
}

export interface ProgThing extends Held {
  readonly kind: 'prog'
  readonly shape: Shape
  readonly record: GuardProgram
  readonly program: Program
  readonly pins: Set<Mount>
  /** Maps that it holds because they were bound to it. */
  readonly bound: Set<MapThing>
}

/** What something is attached to. */
export type Place =
  | { readonly kind: 'cgroup'; readonly name: CgroupName | 'root' }
  | { readonly kind: 'device' | 'network'; readonly network: number }
  | { readonly kind: 'map'; readonly map: MapThing }
  | { readonly kind: 'iterator' }

export interface LinkThing extends Held {
  readonly kind: 'link'
  prog: ProgThing
  readonly on: Place['kind']
  /** Absent: it is detached. */
  at?: Place
  readonly pins: Set<Mount>
}

/** A link that registers a congestion control; without a map it is detached. */
export interface ControlThing extends Held {
  readonly kind: 'control'
  map?: MapThing
}

/** An iterator that was created by its link. */
export interface IteratorThing extends Held {
  readonly kind: 'iterator'
}

export type Thing = TokenThing | MapThing | ProgThing | LinkThing | ControlThing | IteratorThing
