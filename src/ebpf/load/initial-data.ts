/**
 * Global variables before loading: what `LoadOptions.constants` and `.variables` say, put into the
 * contents of their sections. Pure.
 *
 * The verifier sees constants as the numbers that they are, and drops the branches that they rule
 * out. So they have to be set before programs are loaded, and cannot be set afterwards.
 */
import { ConflictError, InputError, NotFoundError } from '../../errors.ts'
import { printDeclaration } from '../btf/print.ts'
import type { TypedValue } from '../btf/typed-value.ts'
import { GlobalVariables } from '../object/global-variables.ts'
import type { ObjectMap, ObjectSpec } from '../object/spec.ts'
import type { MapChoice } from './maps.ts'

/** Values of global variables, by their names. */
export type Initial = Readonly<Record<string, TypedValue>>

type What = 'constant' | 'variable'

interface Place {
  readonly map: ObjectMap
  readonly variables: GlobalVariables
  /** Of its variables, which are not all that an arena has. */
  readonly sizeBytes: number
  readonly contents: Uint8Array | undefined
}

const SHOWN_NAMES = 20

/**
 * Contents of the sections that have such variables, by the names of their maps; those of an arena are
 * its global variables alone. InputError: a
 * value does not fit its variable, or the variable is of the other kind. NotFoundError: there is
 * none of that name. ConflictError: several have it, or its section is not made here.
 */
export function initialData(
  spec: ObjectSpec,
  { constants = {}, variables = {} }: { readonly constants?: Initial; readonly variables?: Initial },
  choices: Readonly<Record<string, MapChoice>>,
): Map<string, Uint8Array> {
  const contents = new Map<string, Uint8Array>()
  const set = (what: What, values: Initial): void => {
    if (Object.keys(values).length === 0) return
    const places = placesOf(spec, what)
    for (const [name, value] of Object.entries(values)) {
      const { map, variables: section, sizeBytes, contents: own } = placeOf(spec, places, what, name)
      requireMade(map, choices[map.name], what, name)
      let bytes = contents.get(map.name)
      if (bytes === undefined) {
        bytes = new Uint8Array(sizeBytes)
        const from = choices[map.name]?.contents ?? own
        if (from !== undefined) bytes.set(from.subarray(0, bytes.length))
        contents.set(map.name, bytes)
      }
      put(spec, section, bytes, what, name, value)
    }
  }
  set('constant', constants)
  set('variable', variables)
  return contents
}

function placesOf(spec: ObjectSpec, what: What): Place[] {
  const types = spec.btf?.types
  if (types === undefined)
    throw new InputError(`The object does not describe its variables, so no ${what} has a name`, {
      hint: 'Compile it with -g, or give the bytes of the whole section as contents of its map',
    })
  const { arena } = spec
  return spec.maps.flatMap((map): Place[] => {
    const { kind, valueTypeId, valueBytes: sizeBytes, contents } = map
    if (valueTypeId !== 0 && ['rodata', 'data', 'bss'].includes(kind))
      return [{ map, variables: new GlobalVariables(types, valueTypeId), sizeBytes, contents }]
    if (arena === undefined || arena.map !== map.name || arena.typeId === 0) return []
    const variables = new GlobalVariables(types, arena.typeId)
    return [{ map, variables, sizeBytes: arena.sizeBytes, contents: arena.contents }]
  })
}

function isOf({ map }: Place, what: What): boolean {
  return (map.kind === 'rodata') === (what === 'constant')
}

function placeOf(spec: ObjectSpec, places: readonly Place[], what: What, name: string): Place {
  const found = places.filter(({ variables }) => variables.all.has(name))
  const right = found.filter(place => isOf(place, what))
  if (right.length > 1)
    throw new ConflictError(`The object has several variables "${name}"`, {
      context: { variable: name, sections: right.map(({ map }) => map.name).join(', ') },
      hint: 'Rename one of them; statics of one name cannot be told apart',
    })
  if (right[0] !== undefined) return right[0]
  const other = found[0]
  if (other !== undefined)
    throw new InputError(
      what === 'constant'
        ? `"${name}" is no constant: it is in section "${other.map.name}"`
        : `"${name}" is a constant: it is in section "${other.map.name}"`,
      {
        context: { variable: name, section: other.map.name },
        hint:
          what === 'constant'
            ? 'Set it as one of `variables`, or declare it `const volatile` in the program'
            : 'Set it as one of `constants`',
      },
    )
  throw missing(spec, places, what, name)
}

function missing(spec: ObjectSpec, places: readonly Place[], what: What, name: string): NotFoundError {
  if (spec.externs.some(extern => extern.kind === 'kconfig' && extern.name === name))
    return new NotFoundError(`"${name}" is no ${what}, but comes from the kernel's configuration`, {
      context: { variable: name },
      hint: 'Give its value as one of `kconfig`',
    })
  const names = places
    .filter(place => isOf(place, what))
    .flatMap(({ variables }) => [...variables.all.keys()])
  const shown = names.slice(0, SHOWN_NAMES).join(', ')
  const more = names.length > SHOWN_NAMES ? ` and ${names.length - SHOWN_NAMES} more` : ''
  return new NotFoundError(`The object has no ${what} "${name}"`, {
    context: { variable: name },
    hint:
      names.length > 0
        ? `It has: ${shown}${more}`
        : what === 'constant'
          ? 'It has none. Declare it `const volatile`, or the compiler puts its value into the code'
          : 'It has none',
  })
}

/** Fail closed: what is set must reach the programs. */
function requireMade(map: ObjectMap, choice: MapChoice | undefined, what: What, name: string): void {
  const why =
    choice?.use !== undefined
      ? 'is another one that was handed in'
      : (choice?.create ?? map.autocreate)
        ? undefined
        : 'is not made'
  if (why === undefined) return
  throw new ConflictError(`Cannot set ${what} "${name}": its map "${map.name}" ${why}`, {
    context: { variable: name, map: map.name },
    hint: 'Leave the value out, or have the map made',
  })
}

function put(
  spec: ObjectSpec,
  section: GlobalVariables,
  bytes: Uint8Array,
  what: What,
  name: string,
  value: TypedValue,
): void {
  try {
    section.set(bytes, name, value)
  } catch (error) {
    if (!(error instanceof RangeError) && !(error instanceof TypeError)) throw error
    // "Cannot set "port": " is how they begin.
    throw new InputError(error.message.replace('Cannot set', `Cannot set ${what}`), {
      cause: error,
      context: { variable: name, section: section.section },
      hint: `It is declared as "${printDeclaration(spec.btf!.types, section.all.get(name)!.typeId, name)}"`,
    })
  }
}
