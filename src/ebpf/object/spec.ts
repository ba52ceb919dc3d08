/**
 * An object file as pure data: `parseObject(bytes)`. The same on every machine; nothing of the
 * kernel is asked.
 *
 * Stage two of three: elf.ts reads bytes, this says what they mean, object.ts makes kernel objects
 * of it. Objects in the other byte order come out the same, to be inspected; only their data stay
 * as they were.
 */
import { FormatError } from '../../errors.ts'
import type { Btf } from '../btf/btf.ts'
import { BtfEditor, swapBtf, swapWords } from '../btf/editor.ts'
import { type Elf, type ElfSection, EM_BPF, ET_REL, parseElf, SHT } from '../elf/elf.ts'
import { parseExtInfo } from './ext-info.ts'
import { collectExterns, type ExternSpec, type Externs } from './externs.ts'
import { type FunctionSpec, Functions } from './functions.ts'
import { correctDatasecs, type DataKind, dataKind, dataMap } from './global-data.ts'
import {
  btfMaps,
  isLegacyMaps,
  legacyMaps,
  legacySymbols,
  type MapDefinition,
  type PlacedMap,
} from './map-def.ts'
import { legacySection, type SectionRule, sectionName } from './section-names.ts'
import { isStructOps, type StructOps, structOpsMaps } from './struct-ops.ts'

export interface ObjectMap extends MapDefinition {
  /** `declared`: by the program's author as a map. */
  readonly kind: 'declared' | 'struct_ops' | DataKind
  /** Global data: what the map holds from the start; undefined: zeros. */
  readonly contents?: Uint8Array
  readonly structOps?: StructOps
  /** Whether it is made unless the loader is told otherwise. */
  readonly autocreate: boolean
}

export interface ObjectProgram {
  readonly name: string
  /** Without a leading `?`. */
  readonly section: string
  /**
   * What the section's name says; undefined: nothing that is known, so the type has to be given.
   */
  readonly rule: SectionRule | undefined
  /** What the section's name says to attach to. */
  readonly target: string | undefined
  /**
   * Whether it is loaded unless the loader is told otherwise: false for sections that begin with
   * `?`.
   */
  readonly autoload: boolean
  /** Number of its code in `functions`. */
  readonly function: number
}

/** The variables of section `.addr_space.1`, which lie in the object's arena. */
export interface ArenaData {
  /** Name of the map. */
  readonly map: string
  /** 0: there are none. */
  readonly sizeBytes: number
  /** What they hold from the start; empty: zeros. */
  readonly contents: Uint8Array
  /** Data section of the object's BTF that describes them; 0: not described. */
  readonly typeId: number
}

export interface ObjectSpec {
  /** Prefix of the names of global data's maps. */
  readonly name: string
  readonly littleEndian: boolean
  readonly license: string
  readonly programs: readonly ObjectProgram[]
  readonly functions: readonly FunctionSpec[]
  readonly maps: readonly ObjectMap[]
  readonly externs: readonly ExternSpec[]
  /** Global data in memory that programs share with who loads them; undefined: no arena. */
  readonly arena: ArenaData | undefined
  /** The object's types, corrected so that a kernel takes them. */
  readonly btf: { readonly bytes: Uint8Array; readonly types: Btf } | undefined
}

const TEXT = '.text'
const ARENA_DATA = '.addr_space.1'
const PAGE_BYTES = 4096

function bad(message: string): FormatError {
  return new FormatError('BPF object', message)
}

/** Reads an object file. `name` is what its maps are called after, without `.o`. Keeps `bytes`. */
export function parseObject(bytes: Uint8Array, options: { name?: string } = {}): ObjectSpec {
  const elf = parseElf(bytes)
  if (elf.type !== ET_REL) throw bad(`ELF type is ${elf.type}, not ${ET_REL}, relocatable`)
  // Old compilers left the machine at 0.
  if (elf.machine !== EM_BPF && elf.machine !== 0) throw bad(`machine is ${elf.machine}, not ${EM_BPF}, BPF`)
  if (elf.symbols.length === 0) throw bad('has no symbols; was it stripped?')

  const functions = new Functions(elf)
  const editor = openBtf(elf)
  const ext = elf.sections.find(({ name }) => name === '.BTF.ext')?.data
  if (editor !== undefined && ext !== undefined && ext.length > 0)
    functions.annotate(parseExtInfo(elf.littleEndian ? ext : swapWords(ext)), off => editor.string(off))
  const externs = collectExterns(elf, editor)
  const btf = editor && correct(elf, editor, functions.all)

  const { maps, mapAt, dataAt } = collectMaps(elf, btf?.types, externs, functions)
  const arena = arenaOf(elf, maps, btf?.types)
  functions.resolve({
    map: (section, off) => mapAt.get(section)?.get(off),
    data: section => dataAt.get(section),
    arena: section => arena !== undefined && elf.sections[section]?.name === ARENA_DATA,
  })
  if (btf !== undefined) functions.bindExceptionCallbacks(btf.types)
  return {
    name: options.name ?? '',
    littleEndian: elf.littleEndian,
    license: licenseOf(elf),
    programs: programsOf(elf, functions, maps),
    functions: functions.all,
    maps,
    externs: externs.all,
    arena,
    btf,
  }
}

function openBtf(elf: Elf): BtfEditor | undefined {
  const data = elf.sections.find(({ name }) => name === '.BTF')?.data
  if (data === undefined || data.length === 0) return undefined
  return new BtfEditor(elf.littleEndian ? data : swapBtf(data))
}

function correct(
  elf: Elf,
  editor: BtfEditor,
  functions: readonly FunctionSpec[],
): { bytes: Uint8Array; types: Btf } {
  correctDatasecs(elf, editor)
  // The verifier takes a global function on its own, without what its callers know: hidden ones
  // need not suffer that.
  for (const { section, hidden, linkage, typeId } of functions)
    if (section === TEXT && hidden && linkage !== 'static' && typeId !== 0)
      if (editor.original.type(typeId).kind === 'func') editor.setUnits(typeId, 0)
  return editor.buildTypes()
}

function licenseOf(elf: Elf): string {
  const data = elf.sections.find(({ name }) => name === 'license')?.data
  if (data === undefined) return ''
  const end = data.indexOf(0)
  return Buffer.from(end === -1 ? data : data.subarray(0, end)).toString('utf8')
}

interface Maps {
  maps: ObjectMap[]
  /** Names of maps by section and byte. */
  mapAt: Map<number, Map<number, string>>
  /** Names of global data's maps by section. */
  dataAt: Map<number, string>
}

function collectMaps(elf: Elf, btf: Btf | undefined, externs: Externs, functions: Functions): Maps {
  const found: Maps = { maps: [], mapAt: new Map(), dataAt: new Map() }
  const names = new Set<string>()
  const push = (map: ObjectMap) => {
    if (names.has(map.name)) throw bad(`two maps are called "${map.name}"`)
    names.add(map.name)
    found.maps.push(map)
  }
  const add = (map: ObjectMap, { section, off }: Omit<PlacedMap, 'map'>) => {
    push(map)
    const places = found.mapAt.get(section) ?? new Map<number, string>()
    found.mapAt.set(section, places.set(off, map.name))
  }
  const needBtf = (section: ElfSection): Btf => {
    if (btf === undefined) throw bad(`section "${section.name}" wants BTF, and there is none`)
    return btf
  }
  const legacy = elf.sections.some(({ name }) => isLegacyMaps(name)) ? legacySymbols(elf) : undefined
  for (const section of elf.sections) {
    const kind = dataKind(section)
    if (section.name === '.maps') {
      for (const placed of btfMaps(elf, section, needBtf(section)))
        add({ ...placed.map, kind: 'declared', autocreate: true }, placed)
    } else if (isLegacyMaps(section.name)) {
      for (const placed of legacyMaps(elf, section, legacy?.get(section.index)))
        add({ ...placed.map, kind: 'declared', autocreate: true }, placed)
    } else if (isStructOps(section.name) && section.data.length > 0) {
      const programAt = (index: number, off: number) => functions.at(index, off / 8)?.name
      for (const { map, structOps, autocreate, ...place } of structOpsMaps(
        elf,
        section,
        needBtf(section),
        programAt,
      ))
        add({ ...map, kind: 'struct_ops', structOps, autocreate }, place)
    } else if (kind !== undefined && section.sizeBytes > 0) {
      const map = dataMap(kind, section.name, section.sizeBytes, btf)
      const contents = kind === 'bss' ? {} : { contents: section.data }
      push({ ...map, kind, ...contents, autocreate: true })
      found.dataAt.set(section.index, map.name)
    }
  }
  if (externs.kconfigBytes > 0) {
    const map = dataMap('kconfig', '.kconfig', externs.kconfigBytes, btf)
    push({ ...map, kind: 'kconfig', autocreate: true })
  }
  return found
}

/** As libbpf, init_arena_map_data: one arena at most, and big enough for its variables. */
function arenaOf(elf: Elf, maps: readonly ObjectMap[], btf: Btf | undefined): ArenaData | undefined {
  const arenas = maps.filter(({ type }) => type === 'arena')
  const arena = arenas[0]
  if (arena === undefined) return undefined
  if (arenas.length > 1)
    throw bad(`maps "${arena.name}" and "${arenas[1]!.name}" are arenas, and one is all there can be`)
  const section = elf.sections.find(({ name }) => name === ARENA_DATA)
  const sizeBytes = section?.sizeBytes ?? 0
  const room = arena.maxEntries * PAGE_BYTES
  if (sizeBytes > room)
    throw bad(`arena "${arena.name}" of ${room} bytes is too small for variables of ${sizeBytes}`)
  const contents = section?.type === SHT.PROGBITS ? section.data : new Uint8Array()
  return { map: arena.name, sizeBytes, contents, typeId: btf?.find(ARENA_DATA, 'datasec')[0] ?? 0 }
}

function programsOf(elf: Elf, functions: Functions, maps: readonly ObjectMap[]): ObjectProgram[] {
  // An object with the old maps was made for the old loaders, and their idea of names.
  const rules = elf.sections.some(({ name }) => isLegacyMaps(name)) ? legacySection : sectionName
  const wanted = wantedByStructOps(maps)
  return [...functions.all.entries()]
    .filter(([, { section, linkage }]) => section !== TEXT && linkage !== 'static')
    .map(([index, { name, section }]) => {
      const optional = section.startsWith('?')
      const plain = optional ? section.slice(1) : section
      const found = rules(plain)
      const autoload = found?.rule.type === 'struct_ops' ? (wanted.get(name) ?? !optional) : !optional
      return { name, section: plain, rule: found?.rule, target: found?.target, autoload, function: index }
    })
}

/**
 * Programs of struct_ops by name, and whether a map that is made by itself wants them; others are
 * not in it.
 */
function wantedByStructOps(maps: readonly ObjectMap[]): Map<string, boolean> {
  const wanted = new Map<string, boolean>()
  for (const { structOps, autocreate } of maps)
    for (const program of structOps?.programs.values() ?? [])
      wanted.set(program, autocreate || (wanted.get(program) ?? false))
  return wanted
}
