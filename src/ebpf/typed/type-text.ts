/**
 * Types of BTF as TypeScript: what `readValue` gives for them. Pure.
 *
 * Names come from files that anybody may have made. They become text of a program, so each is either
 * made an identifier or written as a string literal of plain ASCII, and none goes into a comment.
 */

import { BpftokenError } from '../../errors.ts'
import type { Btf, BtfComposite, BtfEnum, BtfEnum64, BtfType } from '../btf/btf.ts'
import { type Chars, codecOf, isChar } from '../btf/typed-value.ts'

/** An anonymous type longer than this is declared by itself. */
const MAX_INLINE_CHARS = 2000

type Named = BtfComposite | BtfEnum | BtfEnum64

const IDENTIFIER = /^[A-Za-z_$][A-Za-z0-9_$]*$/
// biome-ignore format: a list
/** Names that mean something in TypeScript, or that the written file uses itself. */
const TAKEN = [
  'any', 'as', 'async', 'await', 'bigint', 'boolean', 'break', 'case', 'catch', 'class', 'const', 'continue', 'debugger',
  'declare', 'default', 'delete', 'do', 'else', 'enum', 'export', 'extends', 'false', 'finally', 'for', 'function', 'get',
  'if', 'implements', 'import', 'in', 'infer', 'instanceof', 'interface', 'is', 'keyof', 'let', 'module', 'namespace',
  'never', 'new', 'null', 'number', 'object', 'of', 'package', 'private', 'protected', 'public', 'readonly', 'require',
  'return', 'set', 'static', 'string', 'super', 'switch', 'symbol', 'this', 'throw', 'true', 'try', 'type', 'typeof',
  'undefined', 'unique', 'unknown', 'using', 'var', 'void', 'while', 'with', 'yield', 'arguments', 'eval',
  'Array', 'BigInt', 'Boolean', 'Buffer', 'Function', 'Infinity', 'NaN', 'Number', 'Object', 'Partial', 'Promise', 'Readonly',
  'Record', 'String', 'Symbol', 'Uint8Array',
  'BpfMap', 'ObjectBinding', 'TypedArena', 'TypedEvents', 'TypedMap', 'TypedPerfEvents', 'TypedPerCpuMap', 'TypedQueue', 'bindingOf',
  '__dirname', '__filename', 'exports', 'globalThis',
]

/** Any text as a string literal, in ASCII. */
export function stringLiteral(text: string): string {
  return `'${text.replace(/[^\x20-\x7e]|['\\]/g, escaped)}'`
}

function escaped(char: string): string {
  if (char === "'" || char === '\\') return `\\${char}`
  return `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`
}

/** A name as a member of an interface. */
export function memberName(name: string): string {
  return IDENTIFIER.test(name) ? name : stringLiteral(name)
}

/** A name as a member of an object that is made: `__proto__` would be something else. */
export function propertyName(name: string): string {
  return name === '__proto__' ? "['__proto__']" : memberName(name)
}

/** `http_event` as `HttpEvent`; whatever no identifier has is left out. */
export function pascalCase(name: string): string {
  const words = name.split(/[^A-Za-z0-9]+/).filter(word => word !== '')
  const joined = words.map(word => word[0]!.toUpperCase() + word.slice(1)).join('')
  return joined === '' || /^[0-9]/.test(joined) ? `T${joined}` : joined
}

/** Names that are given out once each. */
export class Names {
  readonly #taken = new Set<string>(TAKEN)
  /** Where to go on, by what is wanted: numbers below are taken. */
  readonly #next = new Map<string, number>()

  /** `wanted`, or with a number behind it. It has to be an identifier. */
  free(wanted: string): string {
    let name = wanted
    let n = this.#next.get(wanted) ?? 2
    while (this.#taken.has(name)) name = `${wanted}_${n++}`
    this.#next.set(wanted, n)
    this.#taken.add(name)
    return name
  }
}

/** Writes types of one BTF; each that has a name is declared once. */
export class TypeText {
  /** Declarations, in an order in which each name is known. */
  readonly declarations: string[] = []
  /** Names of what is declared, by the names in C. */
  readonly declared = new Map<string, string>()
  readonly #btf: Btf
  readonly #names: Names
  readonly #chars: Chars
  /** What is behind a type's id, written once. */
  readonly #known = new Map<number, string>()
  readonly #memberTexts = new Map<number, ReadonlyMap<string, string>>()

  constructor(btf: Btf, names: Names, chars: Chars) {
    this.#btf = btf
    this.#names = names
    this.#chars = chars
  }

  /** The type of what `readValue` gives; undefined: it gives nothing for it. */
  of(id: number): string | undefined {
    if (id === 0) return undefined
    try {
      codecOf(this.#btf, id, this.#chars)
    } catch (error) {
      if (error instanceof TypeError || error instanceof BpftokenError) return undefined
      throw error
    }
    return this.#text(id, '')
  }

  #text(id: number, alias: string): string {
    const known = this.#known.get(id)
    if (known !== undefined) return known
    const text = this.#write(id, alias)
    this.#known.set(id, text)
    return text
  }

  /** `alias`: the name of a typedef that stands for it. */
  #write(id: number, alias: string): string {
    const type = this.#btf.type(id)
    switch (type.kind) {
      case 'typedef':
        return this.#text(type.type, alias === '' ? type.name : alias)
      case 'const':
      case 'volatile':
      case 'restrict':
      case 'type_tag':
      case 'var':
        return this.#text(type.type, alias)
      case 'int':
        return type.bool ? 'boolean' : type.size > 4 ? 'bigint' : 'number'
      case 'float':
        return 'number'
      case 'array':
        return this.#array(type.type)
      case 'enum':
      case 'enum64':
        return this.#enum(type, alias)
      case 'struct':
      case 'union':
        return this.#composite(type, alias)
      default:
        return 'bigint'
    }
  }

  #array(element: number): string {
    const of = this.#btf.resolve(element)
    if (isOneByte(of)) return this.#chars === 'text' && isChar(this.#btf, element) ? 'string' : 'Uint8Array'
    return `${grouped(this.#text(element, ''))}[]`
  }

  #enum(type: BtfEnum | BtfEnum64, alias: string): string {
    const plain = type.size > 4 ? 'bigint' : 'number'
    if ((type.name || alias) === '' || type.values.length === 0) return plain
    const name = this.#declare(type, alias)
    // The number that an enum of 64 bits has in BTF is a bigint; one that old compilers cut is not.
    const literal = (value: number | bigint): string => (plain === 'bigint' ? `${value}n` : `${value}`)
    const values = new Map(type.values.map(one => [one.name, one.value]))
    const lines = [...values].map(([one, value]) => `  ${propertyName(one)}: ${literal(value)},`)
    this.declarations.push(
      [`export const ${name} = {`, ...lines, '} as const'].join('\n'),
      `export type ${name} = (typeof ${name})[keyof typeof ${name}] | (${plain} & {})`,
    )
    return name
  }

  #composite(type: BtfComposite, alias: string): string {
    if ((type.name || alias) === '') return this.#inline(type)
    const name = this.#declare(type, alias)
    // Known before its members are: none of them can be it, or it would not end.
    this.declarations.push(`export interface ${name} ${this.#body(type, '')}`)
    return name
  }

  /** Written where it is used; what would be long gets a name, so that text does not multiply. */
  #inline(type: BtfComposite): string {
    const members = [...this.#members(type)].map(([name, text]) => `${memberName(name)}: ${text}`)
    const text = members.length === 0 ? '{}' : `{ ${members.join('; ')} }`
    if (text.length <= MAX_INLINE_CHARS) return text
    const name = this.#names.free('Unnamed')
    this.declarations.push(`export interface ${name} {\n  ${members.join('\n  ')}\n}`)
    return name
  }

  #body(type: BtfComposite, indent: string): string {
    const members = [...this.#members(type)]
    if (members.length === 0) return '{}'
    return [
      '{',
      ...members.map(([name, text]) => `${indent}  ${memberName(name)}: ${text}`),
      `${indent}}`,
    ].join('\n')
  }

  /** Members of anonymous ones stand beside the others; of two with one name the later one counts. */
  #members({ id, members }: BtfComposite): ReadonlyMap<string, string> {
    const known = this.#memberTexts.get(id)
    if (known !== undefined) return known
    const found = new Map<string, string>()
    for (const { name, type } of members) {
      const inner = name === '' ? this.#btf.resolve(type) : undefined
      if (inner?.kind === 'struct' || inner?.kind === 'union')
        for (const [below, text] of this.#members(inner)) found.set(below, text)
      else if (name !== '') found.set(name, this.#text(type, ''))
    }
    this.#memberTexts.set(id, found)
    return found
  }

  #declare(type: Named, alias: string): string {
    const original = type.name || alias
    const name = this.#names.free(pascalCase(original))
    if (!this.declared.has(original)) this.declared.set(original, name)
    return name
  }
}

function isOneByte(type: BtfType | undefined): boolean {
  return (type?.kind === 'int' && !type.bool) || type?.kind === 'enum' || type?.kind === 'enum64'
    ? (type as { size: number }).size === 1
    : false
}

function grouped(text: string): string {
  return /^[A-Za-z0-9_$]+(?:\[\])*$/.test(text) ? text : `(${text})`
}
