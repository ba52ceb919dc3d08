/**
 * The functions of an object, and what their instructions refer to. Pure.
 *
 * An object has sections of code; symbols cut them into functions: programs, and the sub-programs
 * they call. What an instruction refers to by a relocation (a map, a variable, a function, an
 * extern) is kept as a `Reference` by name, to be filled in when it is known. Source: libbpf,
 * bpf_program__record_reloc.
 */
import { FormatError } from '../../errors.ts'
import { CLASS, LD_IMM64, OP, PSEUDO, SLOT_BYTES } from '../asm/insn.ts'
import { swapCode } from '../asm/swap-code.ts'
import type { Btf, BtfRef } from '../btf/btf.ts'
import {
  type Elf,
  type ElfRelocation,
  type ElfSection,
  type ElfSymbol,
  SHF,
  SHN,
  SHT,
  STB,
  STT,
  STV,
} from '../elf/elf.ts'
import type { CoreRelo, ExtInfo, ExtRecords } from './ext-info.ts'
import { isExtern } from './externs.ts'
import { lastAtOrBefore } from './map-def.ts'

/** What an instruction stands for; `slot` is its place in the function or program. */
export type Reference =
  | { readonly kind: 'map'; readonly slot: number; readonly map: string }
  /** A variable, `off` bytes into the value of a map of global data. */
  | { readonly kind: 'data'; readonly slot: number; readonly map: string; readonly off: number }
  | { readonly kind: 'extern'; readonly slot: number; readonly extern: string }
  /** A variable, `off` bytes into the global data of the object's arena. */
  | { readonly kind: 'arena'; readonly slot: number; readonly off: number }
  /** A call or the address of `functions[target]`. */
  | { readonly kind: 'function'; readonly slot: number; readonly target: number }
  | { readonly kind: 'jump_table'; readonly slot: number; readonly table: JumpTable }
  /** Nothing that can be filled in: a program that reaches this function cannot be loaded. */
  | { readonly kind: 'broken'; readonly slot: number; readonly why: string }

/** Where `gotox` may lead: a table of the section `.jumptables`. */
export interface JumpTable {
  /** Byte offset of the table in its section; a program makes one map for all uses of it. */
  readonly off: number
  /** Slots, counted from the start of the section that the function is in. */
  readonly targets: Uint32Array
}

export interface FunctionSpec {
  readonly name: string
  readonly section: string
  /** Number of its section, and its place there in slots. */
  readonly sectionIndex: number
  readonly slot: number
  /** Instructions in little endian, whatever the object's byte order. */
  readonly code: Uint8Array
  readonly linkage: 'static' | 'global' | 'weak'
  /** Global for the linker only; for the verifier it is static. */
  readonly hidden: boolean
  readonly references: readonly Reference[]
  /**
   * Number of the function that the kernel calls when this program throws: a decl tag names it, and
   * no instruction.
   */
  readonly exceptionCallback: number | undefined
  /** Its FUNC in BTF; 0: not known. */
  readonly typeId: number
  /** struct bpf_line_info: slot, file name, line, and line and column, of each statement. */
  readonly lines: Uint32Array
  readonly coreRelos: readonly CoreRelo[]
}

type Draft = { -readonly [K in keyof FunctionSpec]: FunctionSpec[K] }

const TEXT = '.text'

/** Words of struct bpf_line_info. */
export const LINE_WORDS = 4

const CALL = CLASS.JMP | OP.CALL

function bad(message: string): FormatError {
  return new FormatError('BPF object', message)
}

/** Where references lead: filled in before `resolve` is called. */
export interface Places {
  /** Name of the map at a byte of a section; undefined for sections without maps. */
  map(section: number, off: number): string | undefined
  /** Name of the map for a section of global data. */
  data(section: number): string | undefined
  /** Whether a section holds the global data of the object's arena. */
  arena(section: number): boolean
}

const JUMP_TABLES = '.jumptables'
const JUMP_TABLE_ENTRY_BYTES = 8
const EXCEPTION_CALLBACK = 'exception_callback:'

/** All functions of an object, and the ways to find them. */
export class Functions {
  readonly #elf: Elf
  readonly #drafts: Draft[] = []
  /** Functions of a section, by their places. */
  readonly #bySection = new Map<number, Draft[]>()
  readonly #indexes = new Map<Draft, number>()
  /** By place and size. */
  readonly #jumpTables = new Map<string, JumpTable>()
  /** Bytes of the tables of a section. */
  readonly #jumpTableBytes = new Map<number, number>()

  constructor(elf: Elf) {
    this.#elf = elf
    for (const section of elf.sections) if (isCode(section)) this.#bySection.set(section.index, [])
    const code = new Map<number, Uint8Array>()
    for (const symbol of elf.symbols) {
      const section = elf.sections[symbol.section]
      if (symbol.type !== STT.FUNC || section === undefined || !isCode(section)) continue
      let bytes = code.get(section.index)
      if (bytes === undefined) {
        bytes = elf.littleEndian ? section.data : swapCode(section.data)
        code.set(section.index, bytes)
      }
      this.#bySection.get(section.index)!.push(draftOf(symbol, section, bytes))
    }
    for (const drafts of this.#bySection.values()) {
      drafts.sort((a, b) => a.slot - b.slot)
      for (const [i, draft] of drafts.entries()) {
        const before = drafts[i - 1]
        if (before !== undefined && before.slot + before.code.length / SLOT_BYTES > draft.slot)
          throw bad(`functions "${before.name}" and "${draft.name}" overlap`)
        this.#indexes.set(draft, this.#drafts.length)
        this.#drafts.push(draft)
      }
    }
  }

  get all(): readonly FunctionSpec[] {
    return this.#drafts
  }

  /** The function that begins at a slot of a section. */
  at(section: number, slot: number): FunctionSpec | undefined {
    const draft = this.#containing(section, slot)
    return draft?.slot === slot ? draft : undefined
  }

  #containing(section: number, slot: number): Draft | undefined {
    const draft = lastAtOrBefore(this.#bySection.get(section) ?? [], one => one.slot, slot)
    return draft !== undefined && slot < draft.slot + draft.code.length / SLOT_BYTES ? draft : undefined
  }

  /** Gives each function its part of .BTF.ext. `string` reads the strings of .BTF. */
  annotate(info: ExtInfo, string: (off: number) => string): void {
    const sections = new Map<string, number>()
    for (const { name, index } of this.#elf.sections) if (!sections.has(name)) sections.set(name, index)
    const each = (
      groups: readonly ExtRecords[],
      take: (of: Draft, slot: number, at: number, words: Uint32Array) => void,
    ) => {
      for (const { sectionNameOff, wordsEach, words } of groups) {
        const section = sections.get(string(sectionNameOff))
        if (section === undefined) continue
        let of: Draft | undefined
        for (let at = 0; at < words.length; at += wordsEach) {
          const slot = words[at]! >>> 3
          if ((words[at]! & (SLOT_BYTES - 1)) !== 0)
            throw new FormatError('BTF.ext', `byte ${words[at]} is no instruction`)
          // Records of one function follow each other.
          if (of === undefined || slot < of.slot || slot >= of.slot + of.code.length / SLOT_BYTES)
            of = this.#containing(section, slot)
          // A weak function that another one replaced has no symbol, but may still have records.
          if (of !== undefined) take(of, slot - of.slot, at, words)
        }
      }
    }
    each(info.functions, (of, slot, at, words) => {
      if (slot === 0) of.typeId = words[at + 1]!
    })
    // Counted first: the most numbers by far of an object with types.
    const counts = new Map<Draft, number>()
    each(info.lines, of => counts.set(of, (counts.get(of) ?? 0) + 1))
    for (const [of, count] of counts) of.lines = new Uint32Array(count * LINE_WORDS)
    counts.clear()
    each(info.lines, (of, slot, at, words) => {
      const to = counts.get(of) ?? 0
      of.lines[to] = slot
      for (let word = 1; word < LINE_WORDS; word++) of.lines[to + word] = words[at + word]!
      counts.set(of, to + LINE_WORDS)
    })
    const relos = new Map<Draft, CoreRelo[]>()
    const strings = new Map<number, string>()
    each(info.coreRelos, (of, slot, at, words) => {
      const off = words[at + 2]!
      const access = strings.get(off) ?? string(off)
      strings.set(off, access)
      const relo = { slot, kind: words[at + 3]!, typeId: words[at + 1]!, access }
      const known = relos.get(of)
      if (known === undefined) relos.set(of, [relo])
      else known.push(relo)
    })
    for (const [of, list] of relos) of.coreRelos = list
  }

  /** Finds out what instructions refer to. */
  resolve(places: Places): void {
    for (const [section, drafts] of this.#bySection) {
      const relocations = new Map<Draft, Map<number, ElfRelocation>>()
      const stray = new Set<Draft>()
      for (const relocation of this.#elf.relocations.get(section) ?? []) {
        const slot = Math.floor(relocation.off / SLOT_BYTES)
        const of = this.#containing(section, slot)
        if (of === undefined) continue
        if (relocation.off % SLOT_BYTES !== 0) {
          stray.add(of)
          continue
        }
        const known = relocations.get(of) ?? new Map<number, ElfRelocation>()
        relocations.set(of, known.set(slot - of.slot, relocation))
      }
      for (const draft of drafts) {
        const references = this.#references(draft, relocations.get(draft), places)
        if (stray.has(draft))
          references.push(brokenAt(draft, 0, 'has a relocation that is at no instruction'))
        draft.references = references
      }
    }
  }

  /**
   * Finds what `exception_callback:NAME` names, a decl tag of programs. Source: libbpf,
   * bpf_prog_assign_exc_cb.
   */
  bindExceptionCallbacks(btf: Btf): void {
    const named = new Map<string, string[]>()
    for (const id of btf.ofKind('decl_tag')) {
      const tag = btf.type(id) as BtfRef
      if (tag.component !== -1 || !tag.name.startsWith(EXCEPTION_CALLBACK)) continue
      const of = btf.type(tag.type)
      if (of.kind !== 'func') continue
      const callbacks = named.get(of.name) ?? []
      named.set(of.name, callbacks)
      callbacks.push(tag.name.slice(EXCEPTION_CALLBACK.length))
    }
    if (named.size === 0) return
    /** Functions of `.text`; undefined: several have the name. */
    const texts = new Map<string, Draft | undefined>()
    for (const draft of this.#drafts)
      if (draft.section === TEXT) texts.set(draft.name, texts.has(draft.name) ? undefined : draft)
    for (const draft of this.#drafts) {
      const callbacks = named.get(draft.name)
      if (callbacks === undefined || draft.section === TEXT || draft.linkage === 'static') continue
      // Of several, libbpf binds none, and the verifier says what is wrong.
      if (callbacks.length > 1) continue
      const found = texts.get(callbacks[0]!)
      if (found !== undefined && found.linkage !== 'static' && !found.hidden)
        draft.exceptionCallback = this.#indexes.get(found)!
      else
        draft.references = [
          ...draft.references,
          brokenAt(
            draft,
            0,
            `wants "${callbacks[0]}" for its exceptions, which is no function of ${TEXT} that others may call`,
          ),
        ]
    }
  }

  #references(of: Draft, relocations: Map<number, ElfRelocation> | undefined, places: Places): Reference[] {
    const found: Reference[] = []
    const view = new DataView(of.code.buffer, of.code.byteOffset, of.code.length)
    const slots = of.code.length / SLOT_BYTES
    let used = 0
    for (let slot = 0; slot < slots; slot++) {
      const at = slot * SLOT_BYTES
      const opcode = of.code[at]!
      const source = of.code[at + 1]! >> 4
      const relocation = relocations?.get(slot)
      if (relocation !== undefined) {
        used++
        const symbol = this.#elf.symbols[relocation.symbol]!
        const imm = view.getInt32(at + 4, true)
        found.push(this.#reference(of, slot, { opcode, source, imm }, symbol, places))
      } else if (opcode === CALL && source === PSEUDO.CALL) {
        // A static function of the same section: the distance needs no relocation.
        const target = of.slot + slot + 1 + view.getInt32(at + 4, true)
        found.push(this.#toFunction(of, slot, of.sectionIndex, target))
      }
      if (opcode === LD_IMM64) slot++
    }
    if (used < (relocations?.size ?? 0)) found.push(brokenAt(of, 0, 'has a relocation within a constant'))
    return found
  }

  #reference(
    of: Draft,
    slot: number,
    insn: { opcode: number; source: number; imm: number },
    symbol: ElfSymbol,
    places: Places,
  ): Reference {
    const { opcode, source, imm } = insn
    const refuse = (why: string) => brokenAt(of, slot, why)
    if (opcode !== CALL && opcode !== LD_IMM64)
      return refuse(`instruction 0x${opcode.toString(16)} cannot have a relocation`)
    if (isExtern(symbol)) return { kind: 'extern', slot, extern: symbol.name }
    const what = symbol.name === '' ? `section ${symbol.section}` : `"${symbol.name}"`
    if (symbol.section === SHN.UNDEF) return refuse(`refers to ${what}, which is not defined`)
    if (symbol.section >= SHN.LORESERVE)
      return refuse(`refers to ${what}, which has no place; a global variable wants a value`)
    const { section, value } = symbol
    if (opcode === CALL) {
      if (source !== PSEUDO.CALL) return refuse('a relocation is at a call of a helper')
      return this.#toFunction(of, slot, section, value / SLOT_BYTES + imm + 1)
    }
    if (this.#bySection.has(section)) return this.#toFunction(of, slot, section, (value + imm) / SLOT_BYTES)
    if (places.arena(section)) return { kind: 'arena', slot, off: value + imm }
    if (this.#elf.sections[section]!.name === JUMP_TABLES) {
      const table = this.#jumpTable(symbol)
      return typeof table === 'string' ? refuse(table) : { kind: 'jump_table', slot, table }
    }
    const data = places.data(section)
    if (data !== undefined) return { kind: 'data', slot, map: data, off: value + imm }
    const map = places.map(section, value)
    if (map !== undefined) return { kind: 'map', slot, map }
    return refuse(`refers to ${what} in section "${this.#elf.sections[section]!.name}", where no map is`)
  }

  #toFunction(of: Draft, slot: number, section: number, targetSlot: number): Reference {
    const target = this.at(section, targetSlot)
    return target === undefined
      ? brokenAt(of, slot, `refers to slot ${targetSlot} of section ${section}, where no function begins`)
      : { kind: 'function', slot, target: this.#indexes.get(target as Draft)! }
  }

  /** The table that a symbol names, or why it is none. Entries are byte offsets, of 64 bits. */
  #jumpTable({ name, section, value: off, sizeBytes }: ElfSymbol): JumpTable | string {
    const key = `${section} ${off} ${sizeBytes}`
    const known = this.#jumpTables.get(key)
    if (known !== undefined) return known
    const { data } = this.#elf.sections[section]!
    const whole = off % JUMP_TABLE_ENTRY_BYTES === 0 && sizeBytes % JUMP_TABLE_ENTRY_BYTES === 0
    if (!whole || sizeBytes === 0 || off + sizeBytes > data.length)
      return `jump table "${name}" of ${sizeBytes} bytes at ${off} does not fit its section of ${data.length}`
    const all = (this.#jumpTableBytes.get(section) ?? 0) + sizeBytes
    if (all > data.length) return `jump table "${name}" lies over others`
    this.#jumpTableBytes.set(section, all)
    const view = new DataView(data.buffer, data.byteOffset + off, sizeBytes)
    const targets = new Uint32Array(sizeBytes / JUMP_TABLE_ENTRY_BYTES)
    for (let i = 0; i < targets.length; i++) {
      const target =
        view.getBigUint64(i * JUMP_TABLE_ENTRY_BYTES, this.#elf.littleEndian) / BigInt(SLOT_BYTES)
      if (target > 0xffff_ffffn) return `jump table "${name}" leads to slot ${target}`
      targets[i] = Number(target)
    }
    const table = { off, targets }
    this.#jumpTables.set(key, table)
    return table
  }
}

function brokenAt(of: Draft, slot: number, why: string): Reference {
  return { kind: 'broken', slot, why: `function "${of.name}" at ${slot}: ${why}` }
}

function isCode(section: ElfSection): boolean {
  return section.type === SHT.PROGBITS && (section.flags & SHF.EXECINSTR) !== 0 && section.data.length > 0
}

function draftOf(symbol: ElfSymbol, section: ElfSection, bytes: Uint8Array): Draft {
  const { name, value, sizeBytes } = symbol
  if (
    value % SLOT_BYTES !== 0 ||
    sizeBytes % SLOT_BYTES !== 0 ||
    sizeBytes === 0 ||
    value + sizeBytes > bytes.length
  )
    throw bad(`function "${name}" of ${sizeBytes} bytes at ${value} does not fit section "${section.name}"`)
  return {
    name,
    section: section.name,
    sectionIndex: section.index,
    slot: value / SLOT_BYTES,
    code: bytes.subarray(value, value + sizeBytes),
    linkage: symbol.bind === STB.LOCAL ? 'static' : symbol.bind === STB.WEAK ? 'weak' : 'global',
    hidden: symbol.visibility === STV.HIDDEN || symbol.visibility === STV.INTERNAL,
    references: [],
    exceptionCallback: undefined,
    typeId: 0,
    lines: new Uint32Array(),
    coreRelos: [],
  }
}
