/**
 * BTF types as C: `printType` one of them, `printTypes` all in an order that a compiler takes.
 * Pure.
 *
 * Names that are no C identifiers are changed into some; of several types with one name the later
 * ones get `___2` and so on, which CO-RE ignores. Padding, packing and alignment are not written,
 * so sizes may differ when it is compiled.
 */
import { FormatError } from '../../errors.ts'
import type { Btf, BtfComposite, BtfEnum, BtfEnum64, BtfFloat, BtfInt, BtfRef, BtfType } from './btf.ts'

/** Types within types; the kernel's own limit for chains is 32. */
const MAX_DEPTH = 64
/**
 * Declarations within one type: anonymous types are written where they are used, so shared ones
 * multiply.
 */
const MAX_PARTS = 200_000
/** Of all that is written, ten times a kernel's: structs may share a long one without a name. */
const MAX_CHARS = 1 << 26

const C_INT = /^(?:(?:char|short|int|long|signed|unsigned|_Bool|__int128) ?)+$/
const C_FLOAT = /^(?:float|double|long double)$/
/** The compiler knows it by itself. */
const BUILTIN = '__builtin_va_list'
// biome-ignore format: a list
const KEYWORDS = new Set(['auto', 'break', 'case', 'char', 'const', 'continue', 'default', 'do', 'double', 'else', 'enum', 'extern', 'float', 'for', 'goto', 'if', 'inline', 'int', 'long', 'register', 'restrict', 'return', 'short', 'signed', 'sizeof', 'static', 'struct', 'switch', 'typedef', 'typeof', 'asm', 'union', 'unsigned', 'void', 'volatile', 'while'])

type Tagged = BtfComposite | BtfEnum | BtfEnum64

/**
 * One type, as it would be declared: `struct pair { ... };`, `typedef unsigned int u32;`, `int
 * (*)(void)`.
 */
export function printType(btf: Btf, id: number): string {
  return new Printer(btf).definition(id)
}

/**
 * All types: structs, unions, enums and typedefs, each after those that it needs. Variables,
 * sections and functions are left out. Throws FormatError for types that no C program could have.
 */
export function printTypes(btf: Btf): string {
  const printer = new Printer(btf)
  for (let id = 1; id <= btf.count; id++) printer.need(id, true)
  for (const kind of ['enum', 'enum64'] as const) for (const id of btf.ofKind(kind)) printer.rest(id)
  return `${printer.text.join('\n\n')}\n`
}

/** `name` as it would be declared with that type: `unsigned short port`, `char name[16]`. */
export function printDeclaration(btf: Btf, typeId: number, name: string): string {
  return new Printer(btf).variable(typeId, name)
}

class Printer {
  readonly text: string[] = []
  readonly #btf: Btf
  readonly #types = new Map<number, BtfType>()
  /** Types that are written, or being written. */
  readonly #begun = new Set<number>()
  readonly #declared = new Set<string>()
  /**
   * The first type by `tag NAME` and by `NAME`. Tags and other names do not get in each other's
   * way.
   */
  readonly #owners = new Map<string, string>()
  readonly #names = new Map<string, string>()
  /** Where to go on with numbers behind a name, by who wants it: those below are taken. */
  readonly #next = new Map<string, number>()
  #parts = 0
  #chars = 0

  constructor(btf: Btf) {
    this.#btf = btf
  }

  #type(id: number): BtfType {
    let type = this.#types.get(id)
    if (type === undefined) {
      type = this.#btf.type(id)
      this.#types.set(id, type)
    }
    return type
  }

  /** Writes what has to come before a type is used; `whole`: its size has to be known. */
  need(id: number, whole: boolean, depth = 0): void {
    if (id === 0) return
    if (depth > MAX_DEPTH) throw tooDeep(id)
    const type = this.#type(id)
    switch (type.kind) {
      case 'struct':
      case 'union':
        if (type.name === '') this.#needMembers(type, depth)
        else if (whole) this.#write(type, depth)
        else this.#declare(type.kind, `${type.kind} ${this.#tag(type)}`)
        return
      case 'enum':
      case 'enum64':
        if (type.name !== '') this.#write(type, depth)
        return
      case 'fwd':
        this.#declare(type.kind, `${type.union ? 'union' : 'struct'} ${this.#tag(type)}`)
        return
      case 'typedef':
        this.#write(type, depth)
        if (whole) this.need(type.type, true, depth + 1)
        return
      case 'ptr':
        this.need(type.type, false, depth + 1)
        return
      case 'array':
        this.need(type.type, true, depth + 1)
        return
      case 'func_proto':
        for (const one of [type, ...type.params]) this.need(one.type, false, depth + 1)
        return
      case 'const':
      case 'volatile':
      case 'restrict':
      case 'type_tag':
        this.need(type.type, whole, depth + 1)
    }
  }

  /** An enum without name that nothing has: its values are all that counts. */
  rest(id: number): void {
    if (!this.#begun.has(id)) this.#push(this.definition(id))
  }

  #needMembers(type: BtfComposite, depth: number): void {
    if (this.#begun.has(type.id)) return
    this.#begun.add(type.id)
    for (const { type: id } of type.members) this.need(id, true, depth + 1)
  }

  #declare(kind: string, what: string): void {
    if (this.#declared.has(what)) return
    this.#declared.add(what)
    if (kind !== 'enum') this.#push(`${what};`)
  }

  #write(type: BtfRef | Tagged, depth: number): void {
    if (this.#begun.has(type.id)) return
    this.#begun.add(type.id)
    if (type.kind === 'typedef') {
      if (type.name === BUILTIN) return
      this.need(type.type, false, depth + 1)
    } else if (type.kind === 'struct' || type.kind === 'union')
      for (const { type: id } of type.members) this.need(id, true, depth + 1)
    this.#push(this.definition(type.id))
  }

  #push(text: string): void {
    this.#chars += text.length
    if (this.#chars > MAX_CHARS) throw new FormatError('BTF', 'types are too long to be printed')
    this.text.push(text)
  }

  variable(typeId: number, name: string): string {
    this.#parts = 0
    return this.#declaration(typeId, identifier(name), '', 0)
  }

  definition(id: number): string {
    this.#parts = 0
    if (id === 0) return 'void'
    const type = this.#type(id)
    switch (type.kind) {
      case 'struct':
      case 'union':
      case 'enum':
      case 'enum64':
        return `${this.#body(type, '', 0)};`
      case 'fwd':
        return `${type.union ? 'union' : 'struct'} ${this.#tag(type)};`
      case 'typedef':
        return `typedef ${this.#declaration(type.type, this.#ordinary(type.name, type.id), '', 1)};`
      case 'var':
        return `${type.linkage === 0 ? 'static ' : 'extern '}${this.#declaration(type.type, identifier(type.name), '', 1)};`
      case 'func':
        return `${type.linkage === 0 ? 'static ' : 'extern '}${this.#declaration(type.type, identifier(type.name), '', 1)};`
      case 'datasec':
        return type.vars.map(({ type }) => this.definition(type)).join('\n')
      case 'decl_tag':
        return `__attribute__((btf_decl_tag(${JSON.stringify(type.name)})))`
      default:
        return this.#declaration(id, '', '', 0)
    }
  }

  /** `name` of this type, as C turns it inside out: around a name stands what is done with it. */
  #declaration(id: number, name: string, indent: string, depth: number): string {
    if (depth > MAX_DEPTH || ++this.#parts > MAX_PARTS) throw tooDeep(id)
    const after = name === '' ? '' : ` ${name}`
    if (id === 0) return `void${after}`
    const type = this.#type(id)
    const behind = (target: number, as: string) => this.#declaration(target, as, indent, depth + 1)
    switch (type.kind) {
      case 'ptr': {
        const target = this.#unqualified(type.type)
        const binds = target?.kind === 'array' || target?.kind === 'func_proto'
        return behind(type.type, binds ? `(*${name})` : `*${name}`)
      }
      case 'const':
      case 'volatile':
        if (this.#unqualified(type.type)?.kind === 'ptr') return behind(type.type, `${type.kind}${after}`)
        if (this.#unqualified(type.type)?.kind === 'func_proto') return behind(type.type, name)
        return `${type.kind} ${behind(type.type, name)}`
      case 'restrict':
        return behind(type.type, this.#unqualified(type.type)?.kind === 'ptr' ? `__restrict${after}` : name)
      case 'type_tag':
        return behind(type.type, name)
      case 'array':
        return behind(type.type, `${name}[${type.count}]`)
      case 'func_proto': {
        const params = type.params.map(({ name, type }, i) =>
          type === 0 && name === '' && i > 0 ? '...' : behind(type, name === '' ? '' : identifier(name)),
        )
        return behind(type.type, `${name}(${params.length === 0 ? 'void' : params.join(', ')})`)
      }
      case 'struct':
      case 'union':
      case 'enum':
      case 'enum64':
        if (isEnum(type) && type.name === '') {
          // Values are declared once; where the type is used again, it is the integer that it is.
          if (this.#begun.has(id)) return `${intName(type)}${after}`
          this.#begun.add(id)
        }
        return type.name === ''
          ? `${this.#body(type, indent, depth)}${after}`
          : `${keywordOf(type)} ${this.#tag(type)}${after}`
      case 'fwd':
        return `${type.union ? 'union' : 'struct'} ${this.#tag(type)}${after}`
      case 'typedef':
        return `${type.name === BUILTIN ? BUILTIN : this.#ordinary(type.name, type.id)}${after}`
      case 'int':
        return `${intName(type)}${after}`
      case 'float':
        return `${floatName(type)}${after}`
      default:
        throw new FormatError('BTF', `type id ${id}, a ${type.kind}, cannot be the type of something`)
    }
  }

  /** What qualifiers and tags are about, but not what a typedef stands for. */
  #unqualified(id: number): BtfType | undefined {
    for (let depth = 0; depth < MAX_DEPTH; depth++) {
      if (id === 0) return undefined
      const type = this.#type(id)
      if (!['const', 'volatile', 'restrict', 'type_tag'].includes(type.kind)) return type
      id = (type as BtfRef).type
    }
    throw tooDeep(id)
  }

  #body(type: Tagged, indent: string, depth: number): string {
    const inner = `${indent}\t`
    const name = type.name === '' ? '' : ` ${this.#tag(type)}`
    const lines: string[] = []
    if (!isEnum(type))
      for (const { name, type: id, bitSize } of type.members) {
        const member = this.#declaration(id, name === '' ? '' : identifier(name), inner, depth + 1)
        lines.push(`${inner}${member}${bitSize > 0 ? `: ${bitSize}` : ''};`)
      }
    else
      for (const [i, { name, value }] of type.values.entries()) {
        const suffix = type.kind === 'enum64' ? (type.signed ? 'LL' : 'ULL') : ''
        lines.push(`${inner}${this.#ordinary(name, type.id, i)} = ${value}${suffix},`)
      }
    // A compiler refuses an enum without values.
    if (lines.length === 0 && keywordOf(type) === 'enum') return `enum${name}`
    return [`${keywordOf(type)}${name} {`, ...lines, `${indent}}`].join('\n')
  }

  #tag(type: Tagged | Extract<BtfType, { kind: 'fwd' }>): string {
    // A declaration is of the type that has its name.
    const kind = type.kind === 'fwd' ? (type.union ? 'union' : 'struct') : keywordOf(type)
    const key = type.kind === 'fwd' ? `${kind} declared` : `${type.id}`
    return this.#unique(`tag ${type.name}`, type.name, kind, `tag ${type.name} ${key}`)
  }

  #ordinary(name: string, id: number, value = -1): string {
    return this.#unique(name, name, 'ordinary', `${id} ${value}`)
  }

  /** A name that no other `key` has in its space. */
  #unique(space: string, name: string, kind: string, key: string): string {
    const known = this.#names.get(key)
    if (known !== undefined) return known
    const plain = identifier(name)
    const isTag = kind !== 'ordinary'
    const declared = isTag && key.endsWith(' declared')
    const wanted = `${kind} ${declared} ${plain}`
    let n = this.#next.get(wanted) ?? 1
    let chosen: string
    for (; ; n++) {
      chosen = n === 1 ? plain : `${plain}___${n}`
      const place = isTag ? `tag ${chosen}` : chosen
      const owner = this.#owners.get(place)
      // A struct and its declaration share one name.
      const shares = isTag && (owner === `${kind} declared` || (declared && owner?.startsWith(`${kind} `)))
      if (owner === undefined || shares) {
        if (owner === undefined || !declared)
          this.#owners.set(place, isTag ? `${kind} ${declared ? 'declared' : 'whole'}` : space)
        break
      }
    }
    this.#next.set(wanted, n)
    this.#names.set(key, chosen)
    return chosen
  }
}

function keywordOf({ kind }: Tagged): 'struct' | 'union' | 'enum' {
  return kind === 'enum64' ? 'enum' : kind
}

function isEnum(type: Tagged): type is BtfEnum | BtfEnum64 {
  return keywordOf(type) === 'enum'
}

/** A name as C takes it. */
function identifier(name: string): string {
  const plain = name.replace(/[^A-Za-z0-9_]/g, '_')
  return /^\d/.test(plain) || KEYWORDS.has(plain) ? `_${plain}` : plain
}

/** Integers of other languages are written as C's of the same size. */
function intName({ name, size, signed }: Pick<BtfInt, 'name' | 'size' | 'signed'>): string {
  if (C_INT.test(name)) return name
  const word = { 1: 'char', 2: 'short', 4: 'int', 8: 'long long', 16: '__int128' }[size]
  if (word === undefined) throw new FormatError('BTF', `no integer of C has ${size} bytes`)
  return `${signed ? 'signed' : 'unsigned'} ${word}`
}

function floatName({ name, size }: BtfFloat): string {
  if (C_FLOAT.test(name)) return name
  return size === 4 ? 'float' : size === 8 ? 'double' : 'long double'
}

function tooDeep(id: number): FormatError {
  return new FormatError('BTF', `type id ${id} is nested too deeply to be printed`)
}
