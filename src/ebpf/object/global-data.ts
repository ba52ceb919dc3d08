/**
 * Global variables of an object: sections `.data`, `.rodata`, `.bss` and `.kconfig` as maps of one
 * value. Pure.
 *
 * Clang leaves sizes and offsets in the BTF of these sections at zero, so they are filled in here
 * from the symbols. Source: libbpf, btf_fixup_datasec and bpf_object__init_internal_map.
 */
import { FormatError } from '../../errors.ts'
import { bpf_map_flags } from '../../uapi/bpf.ts'
import type { Btf, BtfDatasec, BtfRef } from '../btf/btf.ts'
import type { BtfEditor } from '../btf/editor.ts'
import { type Elf, type ElfSection, SHT, STB, STT, STV } from '../elf/elf.ts'
import { emptyMap, type MapDefinition } from './map-def.ts'

export type DataKind = 'data' | 'rodata' | 'bss' | 'kconfig'

const LINKAGE_STATIC = 0
const LINKAGE_GLOBAL = 1
const MAX_VALUE_BYTES = 2 ** 31 - 1

/** Which global data a section holds; undefined: none. */
export function dataKind({ name, type }: Pick<ElfSection, 'name' | 'type'>): DataKind | undefined {
  const is = (kind: string) => name === kind || name.startsWith(`${kind}.`)
  if (type === SHT.PROGBITS && is('.data')) return 'data'
  if (type === SHT.PROGBITS && is('.rodata')) return 'rodata'
  if (type === SHT.NOBITS && is('.bss')) return 'bss'
  return undefined
}

/** Fills in sizes and offsets of data sections, and hides what the linker was told to hide. */
export function correctDatasecs(elf: Elf, btf: BtfEditor): void {
  const variables = new Map(
    elf.symbols
      .filter(({ type, bind }) => type === STT.OBJECT && (bind === STB.GLOBAL || bind === STB.WEAK))
      .map(symbol => [symbol.name, symbol]),
  )
  const sections = new Map(elf.sections.map(section => [section.name, section]))
  for (const id of btf.original.ofKind('datasec')) {
    const datasec = btf.original.type(id) as BtfDatasec
    if (datasec.name === '.kconfig' || datasec.name === '.ksyms') continue
    const unset = datasec.size === 0
    const sizeBytes = unset ? (sections.get(datasec.name)?.sizeBytes ?? 0) : datasec.size
    if (sizeBytes > MAX_VALUE_BYTES) throw tooBig(datasec.name, sizeBytes)
    if (unset) btf.setWord(id, 2, sizeBytes)
    const vars = datasec.vars.map(({ type, off, size }) => {
      const variable = btf.original.type(type) as BtfRef
      const symbol = variable.linkage === LINKAGE_GLOBAL ? variables.get(variable.name) : undefined
      if (symbol === undefined) return { type, off, size }
      if (symbol.visibility === STV.HIDDEN || symbol.visibility === STV.INTERNAL)
        btf.setWord(type, 3, LINKAGE_STATIC)
      return { type, off: unset ? symbol.value : off, size }
    })
    // The kernel wants them in order of their places.
    vars.sort((a, b) => a.off - b.off)
    for (const [i, { type, off, size }] of vars.entries())
      for (const [n, word] of [type, off, size].entries()) btf.setWord(id, 3 + i * 3 + n, word)
  }
}

function tooBig(name: string, bytes: number): FormatError {
  return new FormatError('BPF object', `section "${name}" of ${bytes} bytes is too big for a map`)
}

/** The map for a section of global data. `btf` is the corrected one. */
export function dataMap(
  kind: DataKind,
  name: string,
  valueBytes: number,
  btf: Btf | undefined,
): MapDefinition {
  if (valueBytes > MAX_VALUE_BYTES) throw tooBig(name, valueBytes)
  const valueTypeId = btf?.find(name, 'datasec')[0] ?? 0
  const readOnly = kind === 'rodata' || kind === 'kconfig' ? bpf_map_flags.BPF_F_RDONLY_PROG : 0
  const shared = btf !== undefined && valueTypeId !== 0 && hasGlobal(btf, valueTypeId)
  const map = emptyMap(name)
  map.type = 'array'
  map.keyBytes = 4
  map.valueBytes = valueBytes
  map.maxEntries = 1
  map.valueTypeId = valueTypeId
  map.flags = readOnly | (shared ? bpf_map_flags.BPF_F_MMAPABLE : 0)
  return map
}

/** Only variables that others may see are worth a mapping, which costs whole pages. */
function hasGlobal(btf: Btf, datasec: number): boolean {
  const { vars } = btf.type(datasec) as BtfDatasec
  return vars.some(({ type }) => (btf.type(type) as BtfRef).linkage !== LINKAGE_STATIC)
}
