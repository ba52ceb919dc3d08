/** Global variables that are set before loading: what reaches the bytes, and what is refused. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { initialData } from '../../../../src/ebpf/load/initial-data.ts'
import { GlobalVariables } from '../../../../src/ebpf/object/global-variables.ts'
import { type ObjectSpec, parseObject } from '../../../../src/ebpf/object/spec.ts'
import { ConflictError, InputError, NotFoundError } from '../../../../src/errors.ts'
import { ROOT } from '../../../helpers/machine.ts'

const spec: ObjectSpec = parseObject(readFileSync(join(ROOT, 'test/fixtures/typed.bpf.o')), { name: 'typed' })

function read(section: string, bytes: Uint8Array, name: string): unknown {
  const map = spec.maps.find(one => one.name === section)!
  return new GlobalVariables(spec.btf!.types, map.valueTypeId).get(bytes, name)
}

test('initialData() sets constants of every kind, and leaves the others as the object has them', () => {
  const constants = {
    port: 65535,
    mode: 'MODE_DROP',
    prefix: 'abc',
    shift: -128,
    enabled: false,
    limit: 2n ** 64n - 1n,
    defaults: { peers: [{ port: 7 }, { v4: 0x0100007f, port: 8 }], high: 8191, delta: -16, label: 'x' },
  }
  const found = initialData(spec, { constants }, {})
  assert.deepEqual([...found.keys()], ['.rodata'])
  const bytes = found.get('.rodata')!
  const { defaults, ...plain } = constants
  for (const [name, value] of Object.entries({
    ...plain,
    mode: 7,
    prefix: new TextEncoder().encode('abc\0\0\0\0\0'),
  }))
    assert.deepEqual(read('.rodata', bytes, name), value, name)
  const got = read('.rodata', bytes, 'defaults') as typeof defaults & { port: number }
  assert.deepEqual([got.high, got.delta, got.peers.map(peer => peer.port)], [8191, -16, [7, 8]])
  assert.equal(got.port, 1, 'a member that was not given is as the object has it')
  const before = spec.maps.find(one => one.name === '.rodata')!.contents!
  assert.equal(read('.rodata', before, 'port'), 443, 'the spec is as it was')
})

test('initialData() sets variables of several sections, and nothing where nothing is asked', () => {
  const found = initialData(spec, { variables: { total: 5, config: { mode: 'MODE_COUNT' } } }, {})
  assert.deepEqual([...found.keys()].sort(), ['.bss', '.data'])
  assert.equal(read('.bss', found.get('.bss')!, 'total'), 5n)
  const config = read('.data', found.get('.data')!, 'config') as { mode: number; port: number }
  assert.deepEqual([config.mode, config.port], [3, 8080])
  assert.equal(initialData(spec, {}, {}).size, 0)
})

test('initialData() sets variables of an arena, also where the file has no bytes for them', () => {
  const file = readFileSync(join(ROOT, 'test/fixtures/modern/arena-list.bpf.o'))
  const list = parseObject(file, { name: 'list' })
  const zeros: ObjectSpec = { ...list, arena: { ...list.arena!, contents: new Uint8Array() } }
  for (const [of, x] of [
    [list, 3],
    [zeros, 0],
  ] as const) {
    const found = initialData(of, { variables: { nodes: 5, origin: { y: 9 } } }, {})
    assert.deepEqual([...found.keys()], ['arena'])
    const bytes = found.get('arena')!
    assert.equal(bytes.length, list.arena!.sizeBytes)
    const variables = new GlobalVariables(list.btf!.types, list.arena!.typeId)
    assert.deepEqual(variables.get(bytes, 'nodes'), 5)
    assert.deepEqual(variables.get(bytes, 'origin'), { x, y: 9 })
  }
  assert.throws(() => initialData(list, { constants: { nodes: 5 } }, {}), InputError)
})

test('initialData() begins with contents that were given', () => {
  const contents = new Uint8Array(spec.maps.find(one => one.name === '.rodata')!.valueBytes).fill(0xff)
  const bytes = initialData(spec, { constants: { port: 1 } }, { '.rodata': { contents } }).get('.rodata')!
  assert.deepEqual([read('.rodata', bytes, 'port'), read('.rodata', bytes, 'limit')], [1, 2n ** 64n - 1n])
})

test('initialData() refuses what does not fit, with the declaration as hint', () => {
  for (const [constants, message, hint] of [
    [
      { port: 65536 },
      /Cannot set constant "port": the value takes 0 to 65535, not 65536/,
      /unsigned short|__u16/,
    ],
    [{ port: -1 }, /0 to 65535/, /port/],
    [{ port: 1.5 }, /whole number/, /port/],
    [{ port: '80' }, /takes a whole number, not string/, /port/],
    [{ enabled: 1 }, /takes a boolean, not number/, /enabled/],
    [{ mode: 'MODE_NONE' }, /MODE_OFF, MODE_COUNT, MODE_DROP.*not "MODE_NONE"/, /enum mode/],
    [{ prefix: '123456789' }, /takes 8 bytes, not 9/, /prefix\[8\]/],
    [{ defaults: { peers: [{ port: 1 }] } }, /peers takes 2 elements, not 1/, /struct config/],
    [{ defaults: { high: 8192 } }, /high takes 0 to 8191/, /struct config/],
    [{ defaults: { nothing: 1 } }, /no member "nothing"/, /struct config/],
  ] as const)
    assert.throws(
      () => initialData(spec, { constants }, {}),
      (error: unknown) => {
        assert.ok(error instanceof InputError)
        assert.match(error.message, message)
        assert.match(error.hint!, hint)
        return true
      },
    )
})

test('initialData() says where a name is that was looked for in the wrong place', () => {
  const refused = (
    what: Parameters<typeof initialData>[1],
    Kind: typeof InputError | typeof NotFoundError | typeof ConflictError,
    hint: RegExp,
    choices: Parameters<typeof initialData>[2] = {},
    of = spec,
  ): void =>
    assert.throws(
      () => initialData(of, what, choices),
      (error: unknown) => error instanceof Kind && hint.test(error.hint!),
    )
  refused({ constants: { total: 1 } }, InputError, /const volatile/)
  refused({ variables: { port: 1 } }, InputError, /constants/)
  refused({ constants: { prot: 1 } }, NotFoundError, /It has: .*port/)
  refused({ constants: { __proto__x: 1 } }, NotFoundError, /It has/)
  refused({ constants: { port: 1 } }, ConflictError, /have the map made/, { '.rodata': { create: false } })
  refused({ constants: { port: 1 } }, InputError, /-g/, {}, { ...spec, btf: undefined })
  const network = parseObject(readFileSync(join(ROOT, 'test/fixtures/network.bpf.o')))
  refused({ constants: { CONFIG_HZ: 1 } }, NotFoundError, /kconfig/, {}, network)
})
