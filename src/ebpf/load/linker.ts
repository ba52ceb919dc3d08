/**
 * One program made whole: its own code, and behind it every sub-program that it reaches. Pure.
 *
 * The kernel takes a program as one run of instructions. Calls and addresses of functions become
 * distances; the tables of functions and source lines move along. What else an instruction refers
 * to stays a reference, for object.ts to fill in. Source: libbpf, bpf_object__reloc_code and
 * adjust_prog_btf_ext_info.
 */
import { FormatError } from '../../errors.ts'
import { CLASS, OP, PSEUDO, SLOT_BYTES } from '../asm/insn.ts'
import type { CoreRelo } from '../object/ext-info.ts'
import { type FunctionSpec, type JumpTable, LINE_WORDS, type Reference } from '../object/functions.ts'
import { MAX_FUNCTIONS, tooManyFunctions } from '../object/reach.ts'
import type { Records } from '../prog.ts'

/** A reference to something outside the program; `slot` counts in the whole program. */
export type OuterReference = Exclude<Reference, { kind: 'function' | 'broken' | 'jump_table' }>

/** A map that says where `gotox` of a program may lead. */
export interface LinkedJumpTable {
  /** Instructions that load its address. */
  readonly slots: readonly number[]
  /** Slots of the program. */
  readonly targets: Uint32Array
}

export interface LinkedProgram {
  /** Little endian, of its own: it may be changed. */
  readonly code: Uint8Array
  readonly references: readonly OuterReference[]
  readonly jumpTables: readonly LinkedJumpTable[]
  /** CO-RE relocations of each function; their slots count from `slot`. */
  readonly coreRelos: readonly { readonly slot: number; readonly relos: readonly CoreRelo[] }[]
  /** Undefined where the object does not describe every function. */
  readonly funcInfo: Records | undefined
  readonly lineInfo: Records | undefined
}

const CALL = CLASS.JMP | OP.CALL
const FUNC_INFO_WORDS = 2
/** BPF_COMPLEXITY_LIMIT_INSNS; a longer program cannot be loaded. */
const MAX_SLOTS = 1_000_000

/** Links the program that begins with `functions[main]`. FormatError: it cannot be of any use. */
export function linkProgram(functions: readonly FunctionSpec[], main: number): LinkedProgram {
  const { order, starts, slots } = layOut(functions, main)
  const code = new Uint8Array(slots * SLOT_BYTES)
  const view = new DataView(code.buffer)
  const references: OuterReference[] = []
  const jumpTables = new JumpTables()
  const coreRelos: { slot: number; relos: readonly CoreRelo[] }[] = []
  for (const index of order) {
    const one = functions[index]!
    const start = starts.get(index)!
    code.set(one.code, start * SLOT_BYTES)
    for (const reference of one.references) {
      const slot = start + reference.slot
      switch (reference.kind) {
        case 'function':
          pointAt(view, slot, starts.get(reference.target)!)
          break
        case 'jump_table':
          jumpTables.add(slot, reference.table, start - one.slot)
          break
        case 'broken':
          throw new FormatError('BPF object', reference.why)
        default:
          references.push({ ...reference, slot })
      }
    }
    if (one.coreRelos.length > 0) coreRelos.push({ slot: start, relos: one.coreRelos })
  }
  const linked = order.map(index => ({ one: functions[index]!, start: starts.get(index)! }))
  return {
    ...{ code, references, coreRelos, jumpTables: jumpTables.all },
    ...{ funcInfo: funcInfoOf(linked), lineInfo: lineInfoOf(linked) },
  }
}

/** Tables by their place in the object: one that is used twice is made once, as libbpf does. */
class JumpTables {
  readonly #byOff = new Map<number, { slots: number[]; targets: Uint32Array }>()

  get all(): readonly LinkedJumpTable[] {
    return [...this.#byOff.values()]
  }

  /** `moved`: by how many slots the function that uses it is moved. */
  add(slot: number, { off, targets }: JumpTable, moved: number): void {
    const known = this.#byOff.get(off)
    if (known !== undefined) known.slots.push(slot)
    else this.#byOff.set(off, { slots: [slot], targets: targets.map(target => target + moved) })
  }
}

/**
 * Which functions, in which order, at which slots. Depth first, as libbpf does, so that the kernel
 * gives the program the same tag. What the kernel calls by a decl tag comes last.
 */
function layOut(
  functions: readonly FunctionSpec[],
  main: number,
): { order: number[]; starts: Map<number, number>; slots: number } {
  const order: number[] = []
  const starts = new Map<number, number>()
  let slots = 0
  const add = (index: number): void => {
    if (order.length === MAX_FUNCTIONS)
      throw new FormatError('BPF object', tooManyFunctions(functions[main]!.name))
    starts.set(index, slots)
    order.push(index)
    slots += functions[index]!.code.length / SLOT_BYTES
    if (slots > MAX_SLOTS)
      throw new FormatError(
        'BPF object',
        `program "${functions[main]!.name}" has more than ${MAX_SLOTS} instructions`,
      )
  }
  // No deeper than there are functions in a program.
  const visit = (index: number): void => {
    if (starts.has(index)) return
    add(index)
    for (const reference of functions[index]!.references)
      if (reference.kind === 'function') visit(reference.target)
  }
  visit(main)
  const { exceptionCallback } = functions[main]!
  if (exceptionCallback !== undefined) visit(exceptionCallback)
  return { order, starts, slots }
}

/** A call, or a load of an address for a helper that calls back: both take the distance. */
function pointAt(view: DataView, slot: number, target: number): void {
  const at = slot * SLOT_BYTES
  if (view.getUint8(at) !== CALL) {
    view.setUint8(at + 1, (view.getUint8(at + 1) & 0xf) | (PSEUDO.FUNC << 4))
    view.setInt32(at + SLOT_BYTES + 4, 0, true)
  }
  view.setInt32(at + 4, target - slot - 1, true)
}

interface Linked {
  readonly one: FunctionSpec
  readonly start: number
}

function records(words: readonly number[] | Uint32Array, wordsEach: number): Records {
  const data = new Uint8Array(words.length * 4)
  const view = new DataView(data.buffer)
  for (let i = 0; i < words.length; i++) view.setUint32(i * 4, words[i]!, true)
  return { recordBytes: wordsEach * 4, data }
}

/** struct bpf_func_info: slot, type id. The kernel wants one for every function, or none at all. */
function funcInfoOf(linked: readonly Linked[]): Records | undefined {
  if (linked.some(({ one }) => one.typeId === 0)) return undefined
  return records(
    linked.flatMap(({ one, start }) => [start, one.typeId]),
    FUNC_INFO_WORDS,
  )
}

/** struct bpf_line_info. The kernel wants every function to begin with one. */
function lineInfoOf(linked: readonly Linked[]): Records | undefined {
  if (linked.some(({ one }) => one.lines[0] !== 0 || one.lines.length === 0)) return undefined
  const words = new Uint32Array(linked.reduce((sum, { one }) => sum + one.lines.length, 0))
  let at = 0
  for (const { one, start } of linked) {
    words.set(one.lines, at)
    for (const end = at + one.lines.length; at < end; at += LINE_WORDS) words[at]! += start
  }
  return records(words, LINE_WORDS)
}
