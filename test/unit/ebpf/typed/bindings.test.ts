/**
 * Bindings as text: what they say of each kind of type, that names of hostile files stay names, and
 * that compilers of users, old and new, take them for every object of the corpus.
 */
import assert from 'node:assert/strict'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import ts from 'typescript-5.4'
import { compile, declarationsIn } from '../../../../scripts/gen-api.ts'
import { Btf } from '../../../../src/ebpf/btf/btf.ts'
import { BtfBuilder } from '../../../../src/ebpf/btf/builder.ts'
import { type ObjectMap, type ObjectSpec, parseObject } from '../../../../src/ebpf/object/spec.ts'
import { type BindingOptions, objectBindings } from '../../../../src/ebpf/typed/bindings.ts'
import { shapeOf } from '../../../../src/ebpf/typed/shape.ts'
import { stringLiteral } from '../../../../src/ebpf/typed/type-text.ts'
import { FormatError } from '../../../../src/errors.ts'
import { corpusFile, corpusObjects, needsCorpus } from '../../../corpus/corpus.ts'
import { ROOT } from '../../../helpers/machine.ts'
import { Scratch } from '../../../helpers/scratch.ts'

const fixture = (name: string): ObjectSpec =>
  parseObject(readFileSync(join(ROOT, `test/fixtures/${name}.bpf.o`)), { name })

/** A map of one value of that type, as an object would have it. */
function mapOf(name: string, valueTypeId: number, rest: Partial<ObjectMap> = {}): ObjectMap {
  return {
    ...{ name, kind: 'declared', autocreate: true, type: 'hash', keyBytes: 4, valueBytes: 8, maxEntries: 1 },
    ...{ flags: 0, extra: 0n, numaNode: undefined, keyTypeId: 0, valueTypeId, pinByName: false },
    ...{ foreign: undefined, inner: undefined, values: [], ...rest },
  }
}

function specOf(b: BtfBuilder, parts: Partial<ObjectSpec>): ObjectSpec {
  const bytes = b.build()
  return {
    ...{ name: 'made', littleEndian: true, license: '', programs: [], functions: [], maps: [], externs: [] },
    ...{ arena: undefined, btf: { bytes, types: Btf.parse(bytes) }, ...parts },
  }
}

test('objectBindings() of the fixture is the file that tests compile and run', () => {
  const path = join(ROOT, 'test/fixtures/typed.ts')
  const { text, types } = objectBindings(fixture('typed'), {
    header: 'Written by test/unit/ebpf/typed/bindings.test.ts with BPFTOKEN_TEST_UPDATE=1.',
    library: '../../src/ebpf/index.ts',
  })
  if (process.env['BPFTOKEN_TEST_UPDATE'] === '1') writeFileSync(path, text)
  assert.equal(text, readFileSync(path, 'utf8'))
  assert.deepEqual(Object.fromEntries(types), {
    mode: 'Mode',
    level: 'Level',
    address: 'Address',
    event: 'Event',
    key: 'Key',
    config: 'Config',
  })
})

test('objectBindings() writes each kind of type as readValue gives it', () => {
  const b = new BtfBuilder()
  const [u8, char, u32] = [b.int('unsigned char', 1), b.int('char', 1), b.int('unsigned int', 4)]
  const [s64, wide, odd] = [b.int('long', 8, { signed: true }), b.int('__int128', 16), b.int('odd', 3)]
  const anonymous = b.union('', 8, [
    { name: 'a', type: u32, bitOff: 0 },
    { name: 'b', type: s64, bitOff: 0 },
  ])
  const declared = [
    ['u8', u8],
    ['s64', s64],
    ['wide', wide],
    ['flag', b.int('_Bool', 1, { bool: true })],
    ['ratio', b.float('double', 8)],
    ['pointer', b.ptr(0)],
    ['text', b.array(b.const(char), u32, 16)],
    ['lines', b.array(b.array(char, u32, 16), u32, 2)],
    ['mac', b.array(u8, u32, 6)],
    ['ids', b.array(b.array(s64, u32, 2), u32, 3)],
    ['unions', b.array(anonymous, u32, 2)],
    ['color', b.enum('color', { RED: 0, BLUE: -1 })],
    ['big', b.enum64('big', { TOP: 2n ** 63n })],
    ['nameless', b.enum('', { ONE: 1 })],
    ['alias', b.typedef('pair_t', b.struct('', 8, [{ name: '', type: anonymous, bitOff: 0 }]))],
    ['nothing', b.struct('nothing', 0, [])],
  ] as const
  const bad = b.struct('bad', 3, [{ name: 'odd', type: odd, bitOff: 0 }])
  const maps = [...declared.map(([name, id]) => mapOf(name, id)), mapOf('unreadable', bad), mapOf('bytes', 0)]
  const { text } = objectBindings(specOf(b, { maps }))
  const written = Object.fromEntries(
    [...text.matchAll(/^ {4}(\w+): TypedMap<Uint8Array, (.*)>$/gm)].map(([, name, type]) => [name, type]),
  )
  assert.deepEqual(written, {
    ...{ u8: 'number', s64: 'bigint', wide: 'bigint', flag: 'boolean', ratio: 'number', pointer: 'bigint' },
    ...{ text: 'string', lines: 'string[]', mac: 'Uint8Array', ids: 'bigint[][]' },
    ...{ unions: '({ a: number; b: bigint })[]', color: 'Color', big: 'Big', nameless: 'number' },
    ...{ alias: 'PairT', nothing: 'Nothing', unreadable: 'Uint8Array', bytes: 'Uint8Array' },
  })
  assert.match(text, /export const Color = \{\n {2}RED: 0,\n {2}BLUE: -1,\n\} as const/)
  assert.match(text, /export const Big = \{\n {2}TOP: 9223372036854775808n,\n\} as const/)
  assert.match(text, /export interface PairT \{\n {2}a: number\n {2}b: bigint\n\}/)
  const bytes = objectBindings(specOf(b, { maps }), { chars: 'bytes' }).text
  assert.match(bytes, /text: TypedMap<Uint8Array, Uint8Array>/)
})

test('objectBindings() names events as it is told, and says what is not there', () => {
  const spec = fixture('network')
  assert.match(objectBindings(spec).text, /events: TypedEvents<Uint8Array>/)
  const typed = fixture('typed')
  assert.match(objectBindings(typed).text, /events: TypedEvents<Event>/)
  const named = objectBindings(typed, { events: { events: 'struct address' } }).text
  assert.match(named, /events: TypedEvents<Address>/)
  assert.match(named, /events: \{ events: 'struct address' \}/)
  assert.match(objectBindings(typed, { types: ['xdp_md'] }).text, /interface XdpMd/)
  for (const options of [
    { events: { events: 'nobody' } },
    { events: { nobody: 'event' } },
    { types: ['struct nobody'] },
  ] as BindingOptions[])
    assert.throws(() => objectBindings(typed, options), { code: 'BPFTOKEN_NOT_FOUND' })
  assert.throws(() => objectBindings(typed, { events: { flows: 'event' } }), { code: 'BPFTOKEN_INPUT' })
})

/** Names that would be code, or end a string or a comment, if they were written as they are. */
const HOSTILE = [
  "'; throw new Error('owned'); '",
  '*/ throw 1 /*',
  '// x\nthrow 2',
  // biome-ignore lint/suspicious/noTemplateCurlyInString: a hostile name
  '${globalThis.owned = 1}',
  '`',
  '\\',
  "\\'",
  '"',
  '\u2028throw 3\u2029',
  '\r\nthrow 4',
  '__proto__',
  'constructor',
  'toString',
  'class',
  'Uint8Array',
  'bindingOf',
  'made',
  'a-b',
  '0',
  ' ',
  '\ud83d\ude00',
  '}: {} }; export const owned = 1; //',
]

/** An object of nothing but hostile names: types, members, values, maps, variables, programs. */
function hostile(): ObjectSpec {
  const b = new BtfBuilder()
  const u32 = b.int('unsigned int', 4)
  const structs = HOSTILE.map(name =>
    b.struct(name, 8, [
      { name, type: u32, bitOff: 0 },
      {
        name: `${name}2`,
        type: b.enum(
          name,
          Object.fromEntries([
            [`${name} value`, 1],
            [name, 2],
          ]),
        ),
        bitOff: 32,
      },
    ]),
  )
  const vars = HOSTILE.map((name, i) => ({ type: b.var(name, structs[i]!), off: i * 8, size: 8 }))
  const section = b.datasec('.data', HOSTILE.length * 8, vars)
  return specOf(b, {
    name: "hostile'; throw 5; '",
    maps: [
      ...HOSTILE.map((name, i) => mapOf(name, structs[i]!)),
      mapOf('.data', section, { kind: 'data' }),
      mapOf('ring', 0, { type: 'ringbuf' }),
    ],
    programs: HOSTILE.map(name => ({
      ...{ name, section: 'xdp', rule: undefined, target: undefined, autoload: true, function: 0 },
    })),
  })
}

test('objectBindings() of hostile names declares, and does nothing else', () => {
  const { text } = objectBindings(hostile(), {
    events: { ring: HOSTILE[0]! },
    header: 'made of x\nthrow 6',
    embed: new Uint8Array([1, 2, 3]),
  })
  assert.match(text, /^[\x20-\x7e\n]*$/)
  const file = ts.createSourceFile('x.ts', text, ts.ScriptTarget.ES2022, true)
  const kinds = new Set(file.statements.map(({ kind }) => ts.SyntaxKind[kind]))
  assert.deepEqual([...kinds].sort(), [
    ...['FirstStatement', 'ImportDeclaration', 'InterfaceDeclaration', 'TypeAliasDeclaration'],
  ])
  // What runs is literals, and the two calls that are ours.
  const calls: string[] = []
  const visit = (node: ts.Node): void => {
    if (ts.isCallExpression(node)) calls.push(node.expression.getText())
    assert.ok(!ts.isTemplateLiteral(node) && !ts.isThrowStatement(node))
    ts.forEachChild(node, visit)
  }
  visit(file)
  assert.deepEqual(calls, ['bindingOf', 'Buffer.from'])
  // And it runs: values of enums are there, `__proto__` among them.
  const { outputText } = ts.transpileModule(text, {
    compilerOptions: { module: ts.ModuleKind.CommonJS, target: ts.ScriptTarget.ES2022 },
  })
  const exported: Record<string, Record<string, unknown>> = {}
  new Function('require', 'exports', outputText)(() => ({ bindingOf: (shape: unknown) => shape }), exported)
  const enums = Object.values(exported).filter(
    one => !(one instanceof Uint8Array) && Object.values(one).includes(2),
  )
  assert.equal(enums.length, HOSTILE.length)
  assert.ok(enums.some(one => Object.hasOwn(one, '__proto__')))
})

test('stringLiteral() gives back any text when it is read as code', () => {
  for (const text of [...HOSTILE, '\0\x7f\xff', '\ud800'])
    assert.equal(new Function(`return ${stringLiteral(text)}`)(), text)
})

test('types that would multiply without end are declared once each', () => {
  const b = new BtfBuilder()
  const u32 = b.int('unsigned int', 4)
  let id = b.struct('', 8, [
    { name: 'long_name_of_the_first_one', type: u32, bitOff: 0 },
    { name: 'long_name_of_the_other_one', type: u32, bitOff: 32 },
  ])
  for (let size = 16; size < 2 ** 24; size *= 2)
    id = b.struct('', size, [
      { name: 'a', type: id, bitOff: 0 },
      { name: 'b', type: id, bitOff: (size / 2) * 8 },
    ])
  const { text } = objectBindings(specOf(b, { maps: [mapOf('big', id)] }))
  assert.ok(text.length < 100_000, `${text.length}`)
})

test('shapeOf() tells objects of other layout apart, and only those', () => {
  const make = (bitOff: number, names = ['a', 'b'], tag = 's'): string => {
    const b = new BtfBuilder()
    const u32 = b.typedef(`t${bitOff}`, b.int('unsigned int', 4))
    const id = b.struct(tag, 16, [
      { name: names[0]!, type: u32, bitOff: 0 },
      { name: names[1]!, type: u32, bitOff },
    ])
    return shapeOf(specOf(b, { maps: [mapOf('m', id)] }))
  }
  assert.equal(make(32), make(32, ['a', 'b'], 'other'), 'names of types do not count')
  assert.notEqual(make(32), make(64))
  assert.notEqual(make(32), make(32, ['a', 'c']))
})

test(
  'bindings of the whole corpus compile under strict, with the oldest and the newest compiler',
  needsCorpus(),
  t => {
    using scratch = new Scratch()
    declarationsIn(scratch.path)
    const files: string[] = []
    const seen = new Set<string>()
    let objects = 0
    for (const object of corpusObjects()) {
      let text: string
      try {
        const spec = parseObject(readFileSync(corpusFile(object)), { name: 'object' })
        const { text: made } = objectBindings(spec)
        text = made
      } catch (error) {
        if (error instanceof FormatError) continue
        throw error
      }
      objects++
      if (seen.has(text)) continue
      seen.add(text)
      const name = `o${object.hash}.ts`
      writeFileSync(join(scratch.path, name), text)
      files.push(name)
    }
    writeFileSync(join(scratch.path, 'hostile.ts'), objectBindings(hostile()).text)
    files.push('hostile.ts')
    t.diagnostic(`${objects} objects, ${files.length} different files`)
    assert.ok(objects > 100)
    const compilerOptions = {
      ...{ noEmit: true, strict: true, target: 'es2022', types: ['node'], skipLibCheck: true },
      ...{ module: 'nodenext', moduleResolution: 'nodenext', exactOptionalPropertyTypes: true },
      ...{
        noUncheckedIndexedAccess: true,
        isolatedModules: true,
        verbatimModuleSyntax: false,
        noUnusedLocals: true,
      },
    }
    for (const compiler of ['typescript-5.4', 'typescript'] as const) {
      const folder = join(scratch.path, compiler)
      mkdirSync(folder)
      const config = { compilerOptions, files: files.map(name => `../${name}`) }
      writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify(config))
      try {
        compile(compiler, ['--pretty', 'false', '-p', folder])
      } catch (error) {
        assert.fail((error as { stdout: string }).stdout.slice(0, 3000))
      }
    }
  },
)
