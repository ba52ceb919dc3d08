/**
 * Generates src/guard/layout.ts from the guard's own object, so that our tables are what its
 * programs run with.
 *
 *   npx tsx scripts/gen-guard-layout.ts [--check]
 *
 * The source of all is bpf/guard/abi.h: compile it first (scripts/build-bpf.sh). Structs, enums and
 * numbers come from the types in the object; strings are not among these and are read from the
 * header, and so are the lists of bpf/guard/lists.h. With --check nothing is written: exit status 1
 * if the file is not what would be written.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Btf, BtfComposite, BtfEnum } from '../src/ebpf/btf/btf.ts'
import { parseObject } from '../src/ebpf/object/spec.ts'
import { bpf_attach_type, bpf_cmd, bpf_map_type } from '../src/uapi/bpf.ts'
import { formatted, generate } from './generated.ts'
import { ROOT } from './tree.ts'

const OBJECT = 'bpf/guard.bpf.o'
const HEADER = 'bpf/guard/abi.h'
const LISTS_HEADER = 'bpf/guard/lists.h'
const OUTPUT = 'src/guard/layout.ts'

const PREFIX = 'GUARD_'
const STRUCT_PREFIX = 'guard_'
const NUMBERS = 'guard_number'
const FLAGS = { of: 'guard_flag', as: 'GUARD_FLAGS' }
/** An enum whose words are a policy's: its numbers are 0 and up. */
const CHOICE = { of: 'guard_events', as: 'EVENTS_WORDS', prefix: 'GUARD_EVENTS_' }
/**
 * Enums whose enumerators are words of our output: how these begin, and what stands between the
 * parts of a word.
 */
const WORDS = [
  { of: 'guard_point', as: 'POINTS', prefix: PREFIX, between: '_' },
  { of: 'guard_verdict', as: 'VERDICTS', prefix: PREFIX, between: '-' },
  { of: 'guard_reason', as: 'REASONS', prefix: PREFIX, between: '-' },
]

/** The enumerators of an enum that the object must have. */
function enumerators(types: Btf, name: string): { name: string; value: number }[] {
  const id = types.find(name, 'enum')[0]
  if (id === undefined) throw new Error(`${OBJECT} has no enum ${name}: does name_enums() name it?`)
  return [...(types.type(id) as BtfEnum).values]
}

/**
 * The lines of one struct, those of structs within it first. `done` has the names of the structs
 * that are written.
 */
function structLines(types: Btf, id: number, done: Set<string>): string[] {
  const name = types.name(id)
  if (done.has(name)) return []
  done.add(name)
  const struct = types.type(id) as BtfComposite
  const before: string[] = []
  const fields = struct.members.map(member => {
    const inner = types.resolve(member.type)
    if (inner?.kind === 'struct') before.push(...structLines(types, inner.id, done))
    if (member.bitSize > 0 || member.bitOff % 8 !== 0)
      throw new Error(`${name}.${member.name} is a bit field: the codec has none`)
    return `  ${member.name}: ${maker(types, member.type, member.bitOff / 8)},`
  })
  return [...before, '', `export const ${name} = struct(${struct.size}, {`, ...fields, '})']
}

function maker(types: Btf, id: number, off: number): string {
  const type = types.resolve(id)
  const size = types.sizeof(id)
  if (type?.kind === 'struct') return `nested(${off}, ${type.name})`
  if (type?.kind === 'array') return `bytes(${off}, ${size})`
  if (type?.kind === 'int' && !type.signed) return `u${size * 8}(${off})`
  throw new Error(`There is no codec for a field of kind ${type?.kind ?? 'void'}`)
}

const camelCase = (word: string): string =>
  word.toLowerCase().replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase())

/** What the lists are made of, by the kernel's names. */
const ENUMERATORS: Readonly<Record<string, number>> = { ...bpf_cmd, ...bpf_map_type, ...bpf_attach_type }

/**
 * The macros of lists.h: a mask, or a number. A value is made of BIT(), | and what was defined
 * before; a name that nobody knows is an error.
 */
export function readLists(header: string): Map<string, bigint | number> {
  const found = new Map<string, bigint | number>()
  const plain = header.replace(/\\\n/g, ' ').replace(/\/\*[\s\S]*?\*\//g, '')
  for (const [, name, value] of plain.matchAll(/^#define ([A-Z_]+)[ \t]+(.+)$/gm)) {
    const text = value!.trim()
    const number = /^\d+$/.test(text) ? Number(text) : ENUMERATORS[text]
    found.set(name!, number ?? maskOf(text, found))
  }
  return found
}

function maskOf(text: string, known: ReadonlyMap<string, bigint | number>): bigint {
  let mask = 0n
  for (const part of text.replace(/^\((.*)\)$/, '$1').split('|')) {
    const bit = /^BIT\((\w+)\)$/.exec(part.trim())?.[1]
    const value = bit === undefined ? known.get(part.trim()) : ENUMERATORS[bit]
    if (value === undefined) throw new Error(`${LISTS_HEADER}: what is ${part.trim()}?`)
    mask |= bit === undefined ? BigInt(value) : 1n << BigInt(value)
  }
  return mask
}

/** The text of src/guard/layout.ts, but for its format. */
function render(types: Btf, header: string, lists: string): string {
  const out = [
    '/**',
    " * The guard's own ABI: keys and values of its maps, and the event record. Times are nanoseconds of CLOCK_BOOTTIME.",
    ' *',
    ` * GENERATED by scripts/gen-guard-layout.ts from ${OBJECT}; do not edit. What each field means is said in ${HEADER}.`,
    ' */',
    "import { bytes, nested, struct, u8, u16, u32, u64 } from '../uapi/codec.ts'",
    '',
  ]
  for (const { name, value } of enumerators(types, NUMBERS)) out.push(`export const ${name} = ${value}`)
  for (const [, name, text] of header.matchAll(/^#define (GUARD_\w+) ("[^"\\]*")$/gm))
    out.push(`export const ${name} = ${text}`)

  out.push('', `/** enum ${FLAGS.of} */`, `export const ${FLAGS.as} = {`)
  for (const { name, value } of enumerators(types, FLAGS.of))
    out.push(`  ${camelCase(name.slice(PREFIX.length))}: ${value},`)
  out.push('} as const')

  const words = enumerators(types, CHOICE.of).map(({ name, value }, i) => {
    if (value !== i) throw new Error(`enum ${CHOICE.of} has a gap before ${name}`)
    return `'${name.slice(CHOICE.prefix.length).toLowerCase()}'`
  })
  out.push('', `/** enum ${CHOICE.of}: a word's place is its number. */`)
  out.push(`export const ${CHOICE.as} = [${words.join(', ')}] as const`)

  out.push('', `/** ${LISTS_HEADER}: bit n of a mask stands for number n of the kernel's enum. */`)
  out.push('export const GUARD_LISTS = {')
  for (const [name, value] of readLists(lists))
    out.push(`  ${camelCase(name)}: ${typeof value === 'bigint' ? `0x${value.toString(16)}n` : value},`)
  out.push('} as const')

  const done = new Set<string>()
  for (const id of [...types.ofKind('struct')].sort((a, b) => (types.name(a) < types.name(b) ? -1 : 1)))
    if (types.name(id).startsWith(STRUCT_PREFIX)) out.push(...structLines(types, id, done))

  for (const { of, as, prefix, between } of WORDS) {
    out.push('', `/** enum ${of}, in our words. */`, `export const ${as} = {`)
    for (const { name, value } of enumerators(types, of))
      out.push(`  ${value}: '${name.slice(prefix.length).toLowerCase().replaceAll('_', between)}',`)
    out.push('} as const')
  }
  return `${out.join('\n')}\n`
}

/** What src/guard/layout.ts should be, by the object and the header as they are. */
export function layoutText(): string {
  const { btf } = parseObject(readFileSync(join(ROOT, OBJECT)), { name: 'guard' })
  if (btf === undefined) throw new Error(`${OBJECT} has no types`)
  const [header, lists] = [HEADER, LISTS_HEADER].map(path => readFileSync(join(ROOT, path), 'utf8'))
  return formatted(OUTPUT, render(btf.types, header!, lists!))
}

function main(args: string[]): number {
  const how = 'npx tsx scripts/gen-guard-layout.ts'
  return generate(OUTPUT, layoutText(), args.includes('--check'), how) ? 0 : 1
}

if (require.main === module) process.exitCode = main(process.argv.slice(2))
