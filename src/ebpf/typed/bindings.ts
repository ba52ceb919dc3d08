/**
 * A TypeScript file from an object: types of its maps, events, global variables and programs, and
 * how to load it with them. Pure. What it calls is in typed-object.ts.
 */
import type { BtfDatasec } from '../btf/btf.ts'
import type { Chars } from '../btf/typed-value.ts'
import type { ObjectMap, ObjectSpec } from '../object/spec.ts'
import { arenaTypes } from './arena-types.ts'
import { eventTypes, typeNamed } from './event-types.ts'
import { mapKind } from './map-kinds.ts'
import { shapeOf } from './shape.ts'
import { memberName, Names, pascalCase, propertyName, stringLiteral, TypeText } from './type-text.ts'

export interface BindingOptions {
  /** Of what the file exports: `counter` makes `counter` and `CounterObject`. The object's by default. */
  readonly name?: string
  /** First line of the file, a comment without its slashes. */
  readonly header?: string
  /** What arrays of char are; `text` by default. */
  readonly chars?: Chars
  /** Names of the types of events, by the maps that they come from. */
  readonly events?: Readonly<Record<string, string>>
  /** Further types to declare, by their names in C; those that `arena` of the object knows, too. */
  readonly types?: readonly string[]
  /** The object file, to be kept in the file as `NAMEBytes`. */
  readonly embed?: Uint8Array
  /** Where the library is imported from; `bpftoken/ebpf` by default. */
  readonly library?: string
}

export interface Bindings {
  readonly text: string
  /** Names of declared types, by their names in C. */
  readonly types: ReadonlyMap<string, string>
}

/**
 * Writes the file. NotFoundError: a type or map that is named is not there. FormatError: types that
 * no compiler makes.
 */
export function objectBindings(spec: ObjectSpec, options: BindingOptions = {}): Bindings {
  const { chars = 'text', events = {}, library = 'bpftoken/ebpf' } = options
  const base = pascalCase(options.name ?? spec.name ?? '')
  const names = new Names()
  const typeName = names.free(`${base}Object`)
  const constName = names.free(base[0]!.toLowerCase() + base.slice(1))
  const bytesName = names.free(`${constName}Bytes`)
  const types = spec.btf && new TypeText(spec.btf.types, names, chars)
  const used = new Set<string>(['bindingOf', 'ObjectBinding'])
  const byMap = eventTypes(spec, events)

  const maps = spec.maps
    .filter(({ kind }) => kind === 'declared' || kind === 'struct_ops')
    .map(map => [map.name, mapText(map, types, byMap, used)] as const)
  const sections = globals(spec, types)
  for (const name of options.types ?? [])
    if (spec.btf !== undefined) types!.of(typeNamed(spec.btf.types, name))
  const inArena = arenaTypes(spec, options.types)
  const arena = [...inArena].flatMap(([name, id]) => {
    const text = types!.of(id)
    return text === undefined ? [] : [[name, text] as const]
  })
  const facts = [
    ['name', stringLiteral(spec.name)],
    ['shape', stringLiteral(shapeOf(spec, [...byMap.values(), ...inArena.values()]))],
    ['chars', stringLiteral(chars)],
    ['events', objectText(events)],
    ...(spec.arena === undefined ? [] : [['types', listText(options.types ?? [])] as const]),
  ] as const
  const imports = [...used].sort().map(name => (name === 'bindingOf' ? name : `type ${name}`))
  const text = [
    ...(options.header === undefined ? [] : [`// ${options.header.replace(/[^\x20-\x7e]/g, '?')}`]),
    `import { ${imports.join(', ')} } from ${stringLiteral(library)}`,
    '',
    ...(types?.declarations ?? []).flatMap(one => [one, '']),
    `export interface ${typeName} {`,
    ...membersText('maps', maps),
    ...membersText('constants', sections.constants),
    ...membersText('variables', sections.variables),
    ...membersText('settings', sections.settings),
    ...(spec.arena === undefined ? [] : membersText('arena', arena)),
    `  programs: ${spec.programs.map(({ name }) => stringLiteral(name)).join(' | ') || 'never'}`,
    '}',
    '',
    `export const ${constName}: ObjectBinding<${typeName}> = bindingOf<${typeName}>({`,
    ...facts.map(([name, value]) => `  ${name}: ${value},`),
    '})',
    ...(options.embed === undefined ? [] : ['', embedded(bytesName, options.embed)]),
    '',
  ].join('\n')
  return { text, types: types?.declared ?? new Map() }
}

function listText(texts: readonly string[]): string {
  return `[${texts.map(stringLiteral).join(', ')}]`
}

function objectText(texts: Readonly<Record<string, string>>): string {
  const members = Object.entries(texts).map(([name, text]) => `${propertyName(name)}: ${stringLiteral(text)}`)
  return members.length === 0 ? '{}' : `{ ${members.join(', ')} }`
}

function membersText(name: string, members: readonly (readonly [name: string, text: string])[]): string[] {
  if (members.length === 0) return [`  ${name}: Record<never, never>`]
  return [`  ${name}: {`, ...members.map(([one, text]) => `    ${memberName(one)}: ${text}`), '  }']
}

function embedded(name: string, bytes: Uint8Array): string {
  return `export const ${name}: Uint8Array = Buffer.from(\n  '${Buffer.from(bytes).toString('base64')}',\n  'base64',\n)`
}

function mapText(
  map: ObjectMap,
  types: TypeText | undefined,
  events: ReadonlyMap<string, number>,
  used: Set<string>,
): string {
  const use = (name: string): string => {
    used.add(name)
    return name
  }
  const of = (id: number): string => types?.of(id) ?? 'Uint8Array'
  switch (mapKind(map.type)) {
    case 'events':
      return `${use('TypedEvents')}<${of(events.get(map.name) ?? 0)}>`
    case 'perf-events':
      return `${use('TypedPerfEvents')}<${of(events.get(map.name) ?? 0)}>`
    case 'queue':
      return `${use('TypedQueue')}<${of(map.valueTypeId)}>`
    case 'keyed':
      return `${use('TypedMap')}<${of(map.keyTypeId)}, ${of(map.valueTypeId)}>`
    case 'per-cpu':
      return `${use('TypedPerCpuMap')}<${of(map.keyTypeId)}, ${of(map.valueTypeId)}>`
    case 'raw':
      return use('BpfMap')
  }
}

type Members = (readonly [name: string, text: string])[]

/** Global variables by what may be done with them. Those that cannot be told apart are left out. */
function globals(
  spec: ObjectSpec,
  types: TypeText | undefined,
): { constants: Members; variables: Members; settings: Members } {
  const all = { constants: [] as Members, variables: [] as Members, settings: [] as Members }
  if (types === undefined) return all
  const btf = spec.btf!.types
  const varsOf = (kind: ObjectMap['kind'], id: number) =>
    (btf.type(id) as BtfDatasec).vars
      .filter(one => btf.kind(one.type) === 'var')
      .map(one => ({ kind, name: btf.name(one.type), type: one.type }))
  const found = spec.maps.flatMap(({ kind, valueTypeId }) =>
    kind === 'declared' || kind === 'struct_ops' || valueTypeId === 0 ? [] : varsOf(kind, valueTypeId),
  )
  if (spec.arena !== undefined && spec.arena.typeId !== 0) found.push(...varsOf('data', spec.arena.typeId))
  const counts = new Map<string, number>()
  for (const { name } of found) counts.set(name, (counts.get(name) ?? 0) + 1)
  for (const { kind, name, type } of found) {
    const text = counts.get(name) === 1 ? types.of(type) : undefined
    if (text === undefined) continue
    const where = kind === 'rodata' ? all.constants : kind === 'kconfig' ? all.settings : all.variables
    where.push([name, text])
  }
  return all
}
