/**
 * USDT probes of an executable or library: where they are, and where their arguments are. Pure.
 *
 * Whoever compiled the file left a note for each place of a probe (section `.note.stapsdt`): its
 * address, that of its semaphore, its provider and name, and where each argument is at that moment,
 * in the assembler's words. Layout: systemtap, wiki "UserSpaceProbeImplementation"; the words are
 * read as libbpf does, src/usdt.c (v1.8).
 */
import { FormatError, NotSupportedError } from '../../errors.ts'
import type { Executable } from '../elf/executable.ts'
import { printable } from '../printable.ts'

/** One place of a probe. */
export interface UsdtNote {
  readonly provider: string
  readonly name: string
  /** Byte of the file. */
  readonly off: bigint
  /** Byte of the file of the counter of who watches; 0: it has none, and is always on. */
  readonly semaphoreOff: bigint
  /** In the assembler's words: `-4@%eax 8@$5`. */
  readonly args: string
}

const NOTES = '.note.stapsdt'
const BASE = '.stapsdt.base'
const OWNER = 'stapsdt'
const TYPE = 3
const NOTE_HEADER_BYTES = 12
/** Addresses: of the place, of `BASE` when the note was made, of the semaphore. */
const ADDRESSES_BYTES = 24

/** Every place of every probe, in the file's order. FormatError: notes that are no such notes. */
export function usdtNotes(file: Executable): UsdtNote[] {
  const section = file.section(NOTES)
  if (section === undefined) return []
  const bytes = file.contents(section)
  const base = file.section(BASE)?.address
  const notes: UsdtNote[] = []
  for (let at = 0; at + NOTE_HEADER_BYTES <= bytes.length; ) {
    const [ownerBytes, bodyBytes] = [file.u32(section.off + at), file.u32(section.off + at + 4)]
    const ownerAt = at + NOTE_HEADER_BYTES
    const bodyAt = ownerAt + aligned(ownerBytes)
    const end = bodyAt + bodyBytes
    if (end > bytes.length)
      throw new FormatError('USDT', `${file.path}: a note runs past its section`, { off: at })
    const isOurs =
      file.u32(section.off + at + 8) === TYPE &&
      bytes.toString('latin1', ownerAt, ownerAt + ownerBytes) === `${OWNER}\0`
    if (isOurs) notes.push(noteOf(file, bytes.subarray(bodyAt, end), section.off + bodyAt, base))
    at = bodyAt + aligned(bodyBytes)
  }
  return notes
}

function aligned(bytes: number): number {
  return Math.ceil(bytes / 4) * 4
}

function noteOf(file: Executable, body: Buffer, off: number, base: bigint | undefined): UsdtNote {
  const [provider, name, args] =
    body.length < ADDRESSES_BYTES ? [] : body.toString('latin1', ADDRESSES_BYTES).split('\0')
  if (provider === undefined || name === undefined || args === undefined)
    throw new FormatError('USDT', `${file.path}: a note has no provider, name or arguments`, { off })
  const [place, noted, semaphore] = [file.u64(off), file.u64(off + 8), file.u64(off + 16)]
  const probe = shownText(`${provider}:${name}`)
  // prelink moves the file's addresses, but does not know of notes.
  const moved = base === undefined || noted === 0n ? 0n : base - noted
  const segment = file.segmentAt(place + moved)
  if (segment === undefined || !segment.executable)
    throw new FormatError('USDT', `${file.path}: probe ${probe} is where no code is`, { off })
  return {
    provider,
    name,
    off: place + moved - segment.address + segment.off,
    semaphoreOff: semaphore === 0n ? 0n : semaphoreOff(file, semaphore, probe, off),
    args: args === ':' ? '' : args,
  }
}

const MAX_SHOWN = 200

function shownText(text: string): string {
  return printable(text.length > MAX_SHOWN ? `${text.slice(0, MAX_SHOWN)}...` : text)
}

function semaphoreOff(file: Executable, address: bigint, probe: string, off: number): bigint {
  const segment = file.segmentAt(address)
  if (segment === undefined || segment.executable)
    throw new FormatError('USDT', `${file.path}: the semaphore of probe ${probe} is where no data is`, {
      off,
    })
  return address - segment.address + segment.off
}

/** As enum __bpf_usdt_arg_type in libbpf's usdt.bpf.h. */
const CONSTANT = 0
const REGISTER = 1
const MEMORY = 2
/** Base, index and scale; since libbpf 1.7. */
const INDEXED = 3

/** Where an argument is when its probe is hit. */
export interface UsdtArgument {
  readonly kind: typeof CONSTANT | typeof REGISTER | typeof MEMORY | typeof INDEXED
  /** 1, 2, 4 or 8. */
  readonly bytes: number
  readonly signed: boolean
  /** The constant, or what is added to the register. */
  readonly value: bigint
  /** Byte offsets into struct pt_regs. */
  readonly register: number
  readonly index: number
  /** The index counts 2^scale bytes. */
  readonly scale: number
}

interface Machine {
  /** Undefined: no such register. */
  readonly register: (name: string) => number | undefined
  readonly forms: readonly RegExp[]
}

// biome-ignore format: one register a line
const X64: readonly (readonly [number, string])[] = [
  [0, 'r15'], [8, 'r14'], [16, 'r13'], [24, 'r12'], [48, 'r11'], [56, 'r10'], [64, 'r9'], [72, 'r8'],
]
// biome-ignore format: a table
const X64_REGISTERS: ReadonlyMap<string, number> = new Map([
  ...X64.flatMap(([off, name]) => ['', 'd', 'w', 'b'].map(size => [name + size, off] as const)),
  ...(['rbp', 'ebp', 'bp', 'bpl'].map(name => [name, 32] as const)),
  ...(['rbx', 'ebx', 'bx', 'bl'].map(name => [name, 40] as const)),
  ...(['rax', 'eax', 'ax', 'al'].map(name => [name, 80] as const)),
  ...(['rcx', 'ecx', 'cx', 'cl'].map(name => [name, 88] as const)),
  ...(['rdx', 'edx', 'dx', 'dl'].map(name => [name, 96] as const)),
  ...(['rsi', 'esi', 'si', 'sil'].map(name => [name, 104] as const)),
  ...(['rdi', 'edi', 'di', 'dil'].map(name => [name, 112] as const)),
  ...(['rip', 'eip'].map(name => [name, 128] as const)),
  ...(['rsp', 'esp', 'sp', 'spl'].map(name => [name, 152] as const)),
])

const SP_OFF = 31 * 8

/**
 * Machines by e_machine. Each form has the groups `size`, and of `value`, `register`, `index`,
 * `scale` those that it has; what has a register and `[` or `(` is memory.
 */
const MACHINES: Readonly<Record<number, Machine>> = {
  62: {
    register: name => X64_REGISTERS.get(name),
    forms: [
      /\s*(?<size>-?\d)@(?<value>-?\d{1,20})?\s*(?<memory>\()\s*%(?<register>\w+)\s*,\s*%(?<index>\w+)\s*(?:,\s*(?<scale>\d+)\s*)?\)\s*/y,
      /\s*(?<size>-?\d)@(?<value>-?\d{1,20})?\s*(?<memory>\()\s*%(?<register>\w+)\s*\)\s*/y,
      /\s*(?<size>-?\d)@%(?<register>\w+)\s*/y,
      /\s*(?<size>-?\d)@\$(?<value>-?\d{1,20})\s*/y,
    ],
  },
  183: {
    register: name => {
      if (name === 'sp') return SP_OFF
      const number = /^[xw](\d{1,2})$/.exec(name)?.[1]
      return number === undefined || Number(number) > 30 ? undefined : Number(number) * 8
    },
    forms: [
      /\s*(?<size>-?\d)@(?<memory>\[)\s*(?<register>\w+)\s*(?:,\s*(?<value>-?\d{1,20})\s*)?\]\s*/y,
      /\s*(?<size>-?\d)@(?<value>-?\d{1,20})\s*/y,
      /\s*(?<size>-?\d)@(?<register>[a-z]\w*)\s*/y,
    ],
  },
}

const MAX_ARGUMENTS = 12

/**
 * The arguments of a note. NotSupportedError: they are in words that nobody here understands, or of
 * another machine.
 */
export function usdtArguments(machine: number, args: string): UsdtArgument[] {
  const words = MACHINES[machine]
  const shown = shownText(args)
  const refuse = (why: string): NotSupportedError =>
    new NotSupportedError(`The arguments "${shown}" of a USDT probe ${why}`, {
      context: { args: shown, machine },
    })
  if (words === undefined) throw refuse(`are of machine ${machine}, not x86-64 or arm64`)
  const found: UsdtArgument[] = []
  for (let at = 0; at < args.length; ) {
    const match = firstMatch(words.forms, args, at)
    if (match === undefined) throw refuse(`are not understood from byte ${at} on`)
    const argument = argumentOf(match.groups!, words)
    if (argument === undefined) throw refuse(`have a size, number or register that is not known`)
    found.push(argument)
    at += match[0].length
    if (found.length > MAX_ARGUMENTS) throw refuse(`are more than ${MAX_ARGUMENTS}`)
  }
  return found
}

function firstMatch(forms: readonly RegExp[], text: string, at: number): RegExpExecArray | undefined {
  for (const form of forms) {
    form.lastIndex = at
    const match = form.exec(text)
    if (match !== null) return match
  }
  return undefined
}

function argumentOf(groups: Record<string, string | undefined>, words: Machine): UsdtArgument | undefined {
  const size = Number(groups['size'])
  const bytes = Math.abs(size)
  const [register, index] = [groups['register'], groups['index']].map(name =>
    name === undefined ? 0 : words.register(name),
  )
  const scale = [1, 2, 4, 8].indexOf(Number(groups['scale'] ?? 1))
  if (![1, 2, 4, 8].includes(bytes) || register === undefined || index === undefined || scale === -1)
    return undefined
  const written = BigInt(groups['value'] ?? 0)
  const value = BigInt.asIntN(64, written)
  // Compilers write the same 64 bits with a sign or without.
  if (value !== written && BigInt.asUintN(64, written) !== written) return undefined
  const kind =
    groups['index'] !== undefined
      ? INDEXED
      : groups['memory'] !== undefined
        ? MEMORY
        : groups['register'] !== undefined
          ? REGISTER
          : CONSTANT
  return { kind, bytes, signed: size < 0, value, register, index, scale }
}

/** Where struct __bpf_usdt_arg_spec has what, in bytes. */
interface Layout {
  readonly argumentBytes: number
  readonly register: number
  readonly signed: number
  /** Whether an index can be said. */
  readonly indexed: boolean
}

/**
 * By the size of struct __bpf_usdt_spec, which an object has as its map's value. The first is that
 * of usdt.bpf.h before libbpf 1.7; the bit fields that came then moved all behind them.
 */
const LAYOUTS: ReadonlyMap<number, Layout> = new Map([
  [208, { argumentBytes: 16, register: 12, signed: 14, indexed: false }],
  [304, { argumentBytes: 24, register: 14, signed: 16, indexed: true }],
])

/**
 * struct __bpf_usdt_spec of libbpf's usdt.bpf.h, little-endian, in the layout that has
 * `valueBytes`: 12 arguments; u64 cookie; s16 count. Of an argument: u64 value @0; u8 kind @8; u12
 * index and u4 scale @10 where there are such; s16 register; u8 signed; u8 bits that are not its
 * own. NotSupportedError: there is no such layout, or it has no room for what an argument is.
 */
export function encodeUsdtSpec(
  valueBytes: number,
  args: readonly UsdtArgument[],
  cookie: bigint,
): Uint8Array {
  const layout = LAYOUTS.get(valueBytes)
  if (layout === undefined)
    throw new NotSupportedError(`usdt.bpf.h with ${valueBytes} bytes for each place is not known`, {
      context: { valueBytes },
      hint: "Compile the object with libbpf's header as it is, of 1.0 to 1.8",
    })
  const bytes = new Uint8Array(valueBytes)
  const view = new DataView(bytes.buffer)
  args.forEach((one, i) => {
    const at = i * layout.argumentBytes
    view.setBigInt64(at, one.value, true)
    view.setUint8(at + 8, one.kind)
    view.setInt16(at + layout.register, one.register, true)
    view.setUint8(at + layout.signed, one.signed ? 1 : 0)
    view.setUint8(at + layout.signed + 1, 64 - one.bytes * 8)
    if (one.kind !== INDEXED) return
    if (!layout.indexed)
      throw new NotSupportedError('The object cannot read an argument that lies in an array', {
        hint: 'Compile it with usdt.bpf.h of libbpf 1.7 or newer',
      })
    view.setUint16(at + 10, one.index | (one.scale << 12), true)
  })
  const end = MAX_ARGUMENTS * layout.argumentBytes
  view.setBigUint64(end, cookie, true)
  view.setInt16(end + 8, args.length, true)
  return bytes
}
