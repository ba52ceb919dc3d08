/** What comes of loading an object. */
import { NotFoundError } from '../../errors.ts'
import type { BpfMap } from '../map.ts'
import type { ObjectSpec } from '../object/spec.ts'
import { Owned } from '../owned.ts'
import type { Program } from '../prog.ts'
import type { Arena } from './arena.ts'

/**
 * Maps and programs of an object, by name. Whoever made it disposes of it; pins and links go on.
 */
export class LoadedObject implements Disposable {
  readonly spec: ObjectSpec
  readonly maps: ReadonlyMap<string, BpfMap>
  readonly programs: ReadonlyMap<string, Program>
  /** What to put into `struct_ops` maps, to register them: see attach-section.ts. */
  readonly structOps: ReadonlyMap<string, Uint8Array>
  /**
   * Memory that the programs share with us; undefined: the object has no arena, or one was handed
   * in.
   */
  readonly arena: Arena | undefined
  /** What was left out without harm to the programs, in sentences for people. */
  readonly warnings: readonly string[]
  readonly #owned = new Owned()

  constructor(
    parts: Pick<LoadedObject, 'spec' | 'maps' | 'programs' | 'structOps' | 'arena' | 'warnings'>,
    /** Given away. */
    owned: Owned,
  ) {
    this.spec = parts.spec
    this.maps = parts.maps
    this.programs = parts.programs
    this.structOps = parts.structOps
    this.arena = parts.arena
    this.warnings = parts.warnings
    owned.moveTo(this.#owned)
  }

  /** NotFoundError: no such map, or it was not made. */
  map(name: string): BpfMap {
    return named(this.maps, name, 'map')
  }

  /** NotFoundError: no such program, or it was not loaded. */
  program(name: string): Program {
    return named(this.programs, name, 'program')
  }

  [Symbol.dispose](): void {
    this.#owned[Symbol.dispose]()
  }
}

function named<T>(all: ReadonlyMap<string, T>, name: string, what: string): T {
  const found = all.get(name)
  if (found !== undefined) return found
  throw new NotFoundError(`The loaded object has no ${what} "${name}"`, {
    context: { [what]: name },
    hint: `It has: ${[...all.keys()].join(', ') || 'none'}`,
  })
}
