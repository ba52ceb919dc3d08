/**
 * What a file of bindings calls: an object that is loaded, and seen through its types.
 *
 *   import { counter } from './counter.ts'
 *   using object = await counter.load(readFileSync('counter.bpf.o'), { constants: { port: 80 } })
 *   for await (const event of object.maps.events) console.log(event.comm)
 *   object.data.config.port = 8080
 *
 * The types are the file's, and the layout is the object's own: `load` compares the two.
 */
import { BpftokenError, ConflictError, NotFoundError } from '../../errors.ts'
import type { Btf, BtfDatasec } from '../btf/btf.ts'
import { type Chars, codecOf } from '../btf/typed-value.ts'
import type { Arena } from '../load/arena.ts'
import type { Initial } from '../load/initial-data.ts'
import type { MapChoice } from '../load/maps.ts'
import { type LoadedObject, type LoadOptions, loadObject, type ProgramChoice } from '../load/object.ts'
import { type BpfMap, MAP_FLAGS } from '../map.ts'
import { type ObjectMap, type ObjectSpec, parseObject } from '../object/spec.ts'
import { Owned } from '../owned.ts'
import type { Program } from '../prog.ts'
import { arenaTypes } from './arena-types.ts'
import { eventTypes } from './event-types.ts'
import { liveValue, type Memory, setLive } from './live-value.ts'
import { mapKind } from './map-kinds.ts'
import { shapeOf } from './shape.ts'
import { TypedArena } from './typed-arena.ts'
import {
  type Input,
  TypedEvents,
  TypedMap,
  TypedPerCpuMap,
  TypedPerfEvents,
  TypedQueue,
  Values,
} from './typed-map.ts'

/** What a file of bindings says of its object. */
export interface ObjectTypes {
  readonly maps: object
  readonly constants: object
  readonly variables: object
  /** Values of the kernel's configuration. */
  readonly settings: object
  /** Types in its arena; left out where it has none. */
  readonly arena?: object
  readonly programs: string
}

type InArena<T extends ObjectTypes> = T extends { readonly arena: infer A extends object }
  ? A
  : Record<never, never>

export interface ObjectShape {
  readonly name: string
  readonly shape: string
  readonly chars: Chars
  readonly events: Readonly<Record<string, string>>
  /** Types in its arena that were asked for by their names. */
  readonly types?: readonly string[]
}

/** `T` with all of it read-only. */
export type Frozen<T> = T extends Uint8Array
  ? T
  : T extends readonly (infer E)[]
    ? readonly Frozen<E>[]
    : T extends object
      ? { readonly [K in keyof T]: Frozen<T[K]> }
      : T

/** All global variables by name: constants to be read, others also to be set. */
export type Data<T extends ObjectTypes> = Frozen<T['constants']> & Frozen<T['settings']> & T['variables']

export interface TypedLoadOptions<T extends ObjectTypes>
  extends Omit<LoadOptions, 'constants' | 'variables' | 'maps' | 'only' | 'programs'> {
  readonly constants?: Input<T['constants']>
  readonly variables?: Input<T['variables']>
  readonly maps?: { readonly [K in (keyof T['maps'] & string) | `.${string}`]?: MapChoice }
  readonly only?: readonly T['programs'][]
  readonly programs?: { readonly [K in T['programs']]?: ProgramChoice }
}

/** An object that is loaded, with its types. Whoever made it disposes of it. */
export class TypedObject<T extends ObjectTypes> implements Disposable {
  readonly loaded: LoadedObject
  /** NotFoundError where a map was not made. */
  readonly maps: T['maps']
  /** NotFoundError where a program was not loaded. */
  readonly programs: { readonly [K in T['programs']]: Program }
  /**
   * Global variables in the memory that programs use: setting one is seen at once. Structs and
   * arrays read and write through. ConflictError: it cannot be set any more.
   */
  readonly data: Data<T>
  readonly #chars: Chars
  #arena: TypedArena<InArena<T>> | undefined
  readonly #owned = new Owned()

  /** Takes ownership of `loaded`. */
  constructor(loaded: LoadedObject, shape: ObjectShape) {
    this.loaded = this.#owned.add(loaded)
    this.maps = mapsOf(loaded, shape, this.#owned) as T['maps']
    this.programs = lazily(
      loaded.spec.programs.map(({ name }) => [name, () => loaded.program(name)]),
    ) as TypedObject<T>['programs']
    this.data = dataOf(loaded, shape.chars, this.#owned) as Data<T>
    this.#chars = shape.chars
  }

  /**
   * What lies in the arena besides global variables, by the pointers to it. NotFoundError: the object
   * has no arena, or one that was handed in.
   */
  get arena(): TypedArena<InArena<T>> {
    this.#arena ??= new TypedArena<InArena<T>>(arenaOf(this.loaded), typesOf(this.loaded), this.#chars)
    return this.#arena
  }

  [Symbol.dispose](): void {
    this.#owned[Symbol.dispose]()
  }
}

/** An object file with its types. */
export class ObjectBinding<T extends ObjectTypes> {
  readonly shape: ObjectShape

  constructor(shape: ObjectShape) {
    this.shape = shape
  }

  /**
   * Reads an object file. ConflictError: it has other maps, variables, events or programs than the
   * types say.
   */
  parse(bytes: Uint8Array): ObjectSpec {
    const spec = parseObject(bytes, { name: this.shape.name })
    this.#require(spec)
    return spec
  }

  /** Loads an object file, or what `parse` made of it. Errors as of `parse` and `loadObject`. */
  async load(object: Uint8Array | ObjectSpec, options: TypedLoadOptions<T> = {}): Promise<TypedObject<T>> {
    const spec = object instanceof Uint8Array ? this.parse(object) : object
    this.#require(spec)
    return this.#bind(await loadObject(spec, options as unknown as LoadOptions & { constants?: Initial }))
  }

  /** Sees a loaded object through its types, and owns it from now on. ConflictError: as `parse`. */
  bind(loaded: LoadedObject): TypedObject<T> {
    this.#require(loaded.spec)
    return this.#bind(loaded)
  }

  #bind(loaded: LoadedObject): TypedObject<T> {
    return new TypedObject<T>(loaded, this.shape)
  }

  #require(spec: ObjectSpec): void {
    const { name, shape, events, types = [] } = this.shape
    const ids = [...eventTypes(spec, events).values(), ...arenaTypes(spec, types).values()]
    if (shapeOf(spec, ids) === shape) return
    throw new ConflictError(`The object is not the "${name}" that its types were written for`, {
      context: { object: name },
      hint: 'Write the types again from this object, or load the one that they are of',
    })
  }
}

/** For files of bindings. */
export function bindingOf<T extends ObjectTypes>(shape: ObjectShape): ObjectBinding<T> {
  return new ObjectBinding<T>(shape)
}

/** Properties that are made when they are first asked for. */
function lazily(all: readonly (readonly [name: string, make: () => unknown])[]): object {
  const object = {}
  for (const [name, make] of all)
    Object.defineProperty(object, name, {
      enumerable: true,
      configurable: true,
      get() {
        const value = make()
        Object.defineProperty(object, name, { enumerable: true, value })
        return value
      },
    })
  return object
}

function mapsOf(loaded: LoadedObject, { chars, events }: ObjectShape, owned: Owned): object {
  const types = loaded.spec.btf?.types
  const byMap = eventTypes(loaded.spec, events)
  return lazily(
    loaded.spec.maps.map(map => [
      map.name,
      () => typedMap(loaded.map(map.name), map, types, chars, byMap.get(map.name) ?? 0, owned),
    ]),
  )
}

function typedMap(
  raw: BpfMap,
  map: ObjectMap,
  types: Btf | undefined,
  chars: Chars,
  eventId: number,
  owned: Owned,
): unknown {
  const values = (id: number, bytes: number): Values<unknown> =>
    new Values(types, types !== undefined && isReadable(types, id, chars) ? id : 0, bytes, chars)
  const value = () => values(map.valueTypeId, raw.valueBytes)
  const key = () => values(map.keyTypeId, raw.keyBytes)
  switch (mapKind(map.type)) {
    case 'events':
      return owned.add(new TypedEvents(raw, values(eventId, 0)))
    case 'perf-events':
      return owned.add(new TypedPerfEvents(raw, values(eventId, 0)))
    case 'queue':
      return new TypedQueue(raw, value())
    case 'keyed':
      return new TypedMap(raw, key(), value())
    case 'per-cpu':
      return new TypedPerCpuMap(raw, key(), value())
    case 'raw':
      return raw
  }
}

/** As the bindings decide it: what has no values is bytes. */
function isReadable(types: Btf, id: number, chars: Chars): boolean {
  if (id === 0) return false
  try {
    codecOf(types, id, chars)
    return true
  } catch (error) {
    if (error instanceof TypeError || error instanceof BpftokenError) return false
    throw error
  }
}

/** All global variables, by name; sections are mapped when something in them is first asked for. */
function dataOf(loaded: LoadedObject, chars: Chars, owned: Owned): object {
  const data = {}
  const types = loaded.spec.btf?.types
  if (types === undefined) return data
  const seen = new Set<string>()
  const add = (memory: Memory, datasecId: number): void => {
    for (const { type, off } of (types.type(datasecId) as BtfDatasec).vars) {
      const name = types.name(type)
      // Statics of one name cannot be told apart: neither is to be seen.
      if (seen.has(name)) delete (data as Record<string, unknown>)[name]
      else if (types.kind(type) === 'var' && isReadable(types, type, chars)) {
        const codec = codecOf(types, type, chars)
        Object.defineProperty(data, name, {
          enumerable: true,
          configurable: true,
          get: () => liveValue(memory, codec, off * 8),
          set: (value: unknown) => setLive(memory, codec, off * 8, value, name),
        })
      }
      seen.add(name)
    }
  }
  for (const map of loaded.spec.maps) {
    if (map.kind === 'declared' || map.kind === 'struct_ops' || map.valueTypeId === 0) continue
    add(sectionMemory(loaded, map, owned), map.valueTypeId)
  }
  const { arena } = loaded.spec
  if (arena !== undefined && arena.typeId !== 0)
    add({ name: arena.map, writable: true, bytes: () => arenaOf(loaded).globals }, arena.typeId)
  return data
}

function arenaOf({ arena, spec }: LoadedObject): Arena {
  if (arena !== undefined) return arena
  throw new NotFoundError(
    spec.arena === undefined
      ? 'The object has no arena'
      : `The arena "${spec.arena.map}" of the object was handed in, or not made`,
    { context: { map: spec.arena?.map }, hint: 'Whoever made an arena has it mapped: ask there' },
  )
}

function typesOf({ spec }: LoadedObject): Btf {
  if (spec.btf !== undefined) return spec.btf.types
  throw new NotFoundError('The object does not describe its types', { hint: 'Compile it with -g' })
}

/**
 * What the section's map holds: mapped where it can be, else looked up each time. Then it cannot be
 * set: all of it would have to be, and what programs write meanwhile would be lost.
 */
function sectionMemory(loaded: LoadedObject, { name, flags, kind }: ObjectMap, owned: Owned): Memory {
  const isMapped = (flags & MAP_FLAGS.BPF_F_MMAPABLE) !== 0
  const writable = isMapped && (kind === 'data' || kind === 'bss')
  let bytes: Uint8Array | undefined
  return {
    name,
    writable,
    bytes() {
      const map = loaded.map(name)
      if (!isMapped) return map.lookup(0)!
      if (bytes === undefined)
        bytes = new Uint8Array(owned.add(map.mmap({ writable })).buffer, 0, map.valueBytes)
      return bytes
    },
  }
}
