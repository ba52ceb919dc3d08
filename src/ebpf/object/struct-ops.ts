/**
 * `struct_ops` in an object: a variable of a kernel struct whose function pointers are programs.
 * Pure.
 *
 * The section holds the struct as the compiler knows it; relocations say which member is which
 * program. Source: libbpf, init_struct_ops_maps and bpf_object__collect_st_ops_relos.
 */
import { FormatError } from '../../errors.ts'
import { bpf_map_flags } from '../../uapi/bpf.ts'
import type { Btf, BtfComposite, BtfDatasec, BtfMember } from '../btf/btf.ts'
import type { Elf, ElfSection } from '../elf/elf.ts'
import { lastAtOrBefore, type PlacedMap } from './map-def.ts'

export interface StructOps {
  /** The struct, in the object's BTF. */
  readonly typeId: number
  /** Its contents, with zeros where programs will be. */
  readonly data: Uint8Array
  /** Programs by the name of the member. */
  readonly programs: ReadonlyMap<string, string>
}

export interface StructOpsMap extends PlacedMap {
  readonly structOps: StructOps
  /** False for sections that begin with `?`. */
  readonly autocreate: boolean
}

const SECTION = /^\??\.struct_ops(\.link)?$/

export function isStructOps(name: string): boolean {
  return SECTION.test(name)
}

function bad(map: string, message: string): FormatError {
  return new FormatError('BPF object', `struct_ops "${map}": ${message}`)
}

/**
 * All maps of one such section. `programAt` names the program that starts at a byte of a section.
 */
export function structOpsMaps(
  elf: Elf,
  section: ElfSection,
  btf: Btf,
  programAt: (section: number, off: number) => string | undefined,
): StructOpsMap[] {
  const id = btf.find(section.name, 'datasec')[0]
  if (id === undefined) throw bad(section.name, 'section is not described in BTF')
  const { vars } = btf.type(id) as BtfDatasec
  let end = 0
  // Many variables may be of one struct.
  const membersOf = new Map<number, ReadonlyMap<number, BtfMember>>()
  const found = vars.map(({ type, off }) => {
    const variable = btf.type(type)
    const struct = variable.kind === 'var' ? btf.resolve(variable.type) : undefined
    if (struct?.kind !== 'struct' || struct.name === '') throw bad(variable.name, 'is not a named struct')
    if (off < end || off + struct.size > section.data.length)
      throw bad(variable.name, 'lies outside its section or in another struct')
    end = off + struct.size
    const members =
      membersOf.get(struct.id) ?? new Map(struct.members.map(member => [member.bitOff / 8, member]))
    membersOf.set(struct.id, members)
    return { name: variable.name, struct, off, members, programs: new Map<string, string>() }
  })
  for (const { off, symbol: number } of elf.relocations.get(section.index) ?? []) {
    const of = lastAtOrBefore(found, one => one.off, off)
    const member = of?.members.get(off - of.off)
    if (of === undefined || member === undefined || !isFunctionPointer(btf, member.type))
      throw bad(of?.name ?? section.name, `relocation at byte ${off} is for no function pointer`)
    const symbol = elf.symbols[number]!
    const program = programAt(symbol.section, symbol.value)
    if (program === undefined) throw bad(of.name, `member "${member.name}" is no program`)
    of.programs.set(member.name, program)
  }
  const link = section.name.endsWith('.link') ? bpf_map_flags.BPF_F_LINK : 0
  return found.map(({ name, struct, off, programs }) => ({
    map: {
      ...{ name, type: 'struct_ops', keyBytes: 4, valueBytes: struct.size, maxEntries: 1, flags: link },
      ...{ extra: 0n, numaNode: undefined, keyTypeId: 0, valueTypeId: struct.id },
      ...{ pinByName: false, foreign: undefined, inner: undefined, values: [] },
    },
    section: section.index,
    off,
    structOps: { typeId: struct.id, data: section.data.slice(off, off + struct.size), programs },
    autocreate: !section.name.startsWith('?'),
  }))
}

export function isFunctionPointer(btf: Btf, id: number): boolean {
  const pointer = btf.resolve(id)
  return pointer?.kind === 'ptr' && btf.resolve(pointer.type)?.kind === 'func_proto'
}

/** The member of that name; undefined: the struct has none. */
export function memberNamed(struct: BtfComposite, name: string): BtfComposite['members'][number] | undefined {
  return struct.members.find(member => member.name === name)
}
