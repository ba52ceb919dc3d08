/** Of which types the records of an object's ring buffers are, for its bindings. Pure. */
import { InputError, NotFoundError } from '../../errors.ts'
import type { Btf, BtfKind } from '../btf/btf.ts'
import type { ObjectMap, ObjectSpec } from '../object/spec.ts'
import { eventType } from '../watch/event-type.ts'

const KINDS: readonly BtfKind[] = ['struct', 'union', 'typedef', 'enum', 'enum64', 'int']

/** The type that is called so in C, with or without `struct`. NotFoundError: there is none. */
export function typeNamed(types: Btf, name: string): number {
  const [, tag, plain = name] = /^(struct|union|enum) (.+)$/.exec(name) ?? []
  for (const kind of tag === undefined ? KINDS : KINDS.filter(one => one.startsWith(tag))) {
    const id = types.find(plain, kind)[0]
    if (id !== undefined) return id
  }
  throw new NotFoundError(`The object has no type "${name}"`, {
    context: { type: name },
    hint: 'Compilers leave out types that nothing names: keep a pointer to it in a global variable',
  })
}

/**
 * Type ids by the names of maps; 0: not known. `named` are those that the caller knows by name;
 * others are as the map says, `__type(value, ...)`, or as the object keeps them for it. InputError: a
 * map that has no events.
 */
export function eventTypes(
  spec: ObjectSpec,
  named: Readonly<Record<string, string>> = {},
): Map<string, number> {
  for (const name of Object.keys(named)) {
    const map = spec.maps.find(one => one.name === name)
    if (map === undefined)
      throw new NotFoundError(`The object has no map "${name}"`, {
        context: { map: name },
        hint: `It has: ${spec.maps.map(one => one.name).join(', ') || 'none'}`,
      })
    if (!hasEvents(map))
      throw new InputError(`Map "${name}" is of type ${map.type}, which has no events`, {
        context: { map: name, type: map.type },
        hint: 'Name a ring buffer or a perf event array',
      })
  }
  const found = new Map<string, number>()
  for (const map of spec.maps) {
    if (!hasEvents(map)) continue
    const name = Object.hasOwn(named, map.name) ? named[map.name] : undefined
    const types = spec.btf?.types
    if (name !== undefined && types === undefined)
      throw new NotFoundError(`The object has no types, so none is called "${name}"`, {
        hint: 'Compile it with -g',
      })
    found.set(map.name, name === undefined ? ownType(spec, map) : typeNamed(types!, name))
  }
  return found
}

/** Ring buffers and perf event arrays. */
export function hasEvents({ type }: ObjectMap): boolean {
  return type === 'ringbuf' || type === 'perf_event_array'
}

function ownType(spec: ObjectSpec, { name, valueTypeId, valueBytes }: ObjectMap): number {
  // Of 4 bytes it is the descriptor that a perf event array holds.
  if (valueTypeId !== 0 && valueBytes > 4) return valueTypeId
  return eventType(spec, name)?.id ?? 0
}
