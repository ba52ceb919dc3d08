/**
 * The object that comes of linking, while it is made: sections that grow with each object, and
 * symbols in them. Pure.
 */

import { swapCode } from '../asm/swap-code.ts'
import { SHF, SHT } from '../elf/elf.ts'
import type { WrittenSection } from './elf-writer.ts'
import type { ExtKind, Records } from './ext-records.ts'

export interface Variable {
  type: number
  off: number
  size: number
}

export interface Part {
  readonly off: number
  readonly data: Uint8Array
}

/** Where a section of an object went. */
export interface Place {
  readonly section: OutSection
  readonly off: number
  /** Undefined: it has no bytes in the file. */
  readonly part: Part | undefined
}

export interface OutSymbol {
  readonly name: string
  bind: number
  type: number
  visibility: number
  section: OutSection | undefined
  /** Where there is no section: one of `SHN`. */
  special: number
  value: number
  sizeBytes: number
}

/** A section of the result. */
export class OutSection {
  readonly name: string
  /** Undefined: it is in BTF alone, such as `.kconfig`. */
  elf: { readonly type: number; readonly flags: number; readonly entryBytes: number } | undefined
  alignBytes = 0
  sizeBytes = 0
  readonly parts: Part[] = []
  readonly relocations: { off: number; symbol: OutSymbol; type: number }[] = []
  symbol: OutSymbol | undefined
  isDescribed = false
  readonly variables = new Set<Variable>()
  readonly ext = new Map<ExtKind, Records>()

  constructor(name: string) {
    this.name = name
  }

  /** As it is written, without relocations. It has to be in the file. */
  written(littleEndian: boolean): Omit<WrittenSection, 'relocations'> {
    const { name, alignBytes, sizeBytes } = this
    const data = new Uint8Array(this.elf!.type === SHT.NOBITS ? 0 : sizeBytes)
    for (const part of this.parts) data.set(part.data, part.off)
    const isSwapped = !littleEndian && (this.elf!.flags & SHF.EXECINSTR) !== 0
    return { ...this.elf!, name, alignBytes, sizeBytes, data: isSwapped ? swapCode(data) : data }
  }
}
