import assert from 'node:assert/strict'
import { test } from 'node:test'
import { disassemble } from '../../../../src/ebpf/asm/disasm.ts'
import {
  encode,
  exit,
  type Insn,
  ldImm64,
  load,
  mov64,
  R0,
  R1,
  store,
} from '../../../../src/ebpf/asm/insn.ts'
import { Btf } from '../../../../src/ebpf/btf/btf.ts'
import { BtfBuilder } from '../../../../src/ebpf/btf/builder.ts'
import { type CoreOutcome, CoreResolver, explainPoison } from '../../../../src/ebpf/core/relo.ts'
import type { CoreRelo } from '../../../../src/ebpf/object/ext-info.ts'
import { ConflictError, FormatError } from '../../../../src/errors.ts'
import { bpf_core_relo_kind as KIND } from '../../../../src/uapi/bpf.ts'

/** Makes one BTF; the last type made is returned with it. */
function types(make: (btf: BtfBuilder) => number): { btf: Btf; id: number } {
  const builder = new BtfBuilder()
  const id = make(builder)
  return { btf: Btf.parse(builder.build()), id }
}

interface Asked {
  kind: keyof typeof KIND
  access?: string
  insn: Insn
  local: (btf: BtfBuilder) => number
  target: (btf: BtfBuilder) => number
  modules?: Btf[]
}

/** Relocates one instruction: what it reads as then. */
function relocate(asked: Asked): { text: string; outcome: CoreOutcome } {
  const local = types(asked.local)
  const target = types(asked.target)
  const code = encode([asked.insn, exit()])
  const relo: CoreRelo = { slot: 0, kind: KIND[asked.kind], typeId: local.id, access: asked.access ?? '0' }
  const modules = (asked.modules ?? []).map((types, i) => ({ name: `module${i}`, types }))
  const resolver = new CoreResolver(local.btf, { name: 'vmlinux', types: target.btf }, () => modules)
  const [outcome] = resolver.apply(code, [relo], 'prog')
  return { text: disassemble(code)[0]!.replace(/^.*?\) /, ''), outcome: outcome! }
}

const u32 = (btf: BtfBuilder) => btf.int('unsigned int', 4)
const u64 = (btf: BtfBuilder) => btf.int('unsigned long', 8)
const s32 = (btf: BtfBuilder) => btf.int('int', 4, { signed: true })

/** struct NAME { field } at a byte. */
const structOf =
  (name: string, field: string, byte: number, type: (btf: BtfBuilder) => number = u32) =>
  (btf: BtfBuilder) =>
    btf.struct(name, 64, [{ name: field, type: type(btf), bitOff: byte * 8 }])

test('apply() moves the offset of a load when the field lies elsewhere', () => {
  const { text, outcome } = relocate({
    kind: 'BPF_CORE_FIELD_BYTE_OFFSET',
    access: '0:0',
    insn: load('u32', R0, R1, 8),
    local: structOf('task', 'pid', 8),
    target: structOf('task', 'pid', 40),
  })
  assert.equal(text, 'r0 = *(u32 *)(r1 +40)')
  assert.equal(outcome.what, 'byte offset of struct task::pid')
})

test('apply() ignores flavours of both sides', () => {
  for (const [from, to] of [
    ['task___old', 'task'],
    ['task', 'task___2'],
    ['task___a', 'task___b'],
  ] as const) {
    const { text } = relocate({
      kind: 'BPF_CORE_FIELD_BYTE_OFFSET',
      access: '0:0',
      insn: mov64(R0, 8),
      local: structOf(from, 'pid', 8),
      target: structOf(to, 'pid', 16),
    })
    assert.equal(text, 'r0 = 16')
  }
})

test('apply() finds fields within anonymous unions and elements of arrays', () => {
  const { text, outcome } = relocate({
    kind: 'BPF_CORE_FIELD_BYTE_OFFSET',
    access: '0:0:3',
    insn: mov64(R0, 12),
    local: btf => {
      const array = btf.array(u32(btf), 1, 4)
      return btf.struct('s', 16, [{ name: 'a', type: array, bitOff: 0 }])
    },
    target: btf => {
      const array = btf.array(u32(btf), 1, 8)
      const inner = btf.union('', 32, [{ name: 'a', type: array, bitOff: 0 }])
      return btf.struct('s', 40, [{ name: '', type: inner, bitOff: 64 }])
    },
  })
  assert.equal(text, 'r0 = 20')
  assert.equal(outcome.what, 'byte offset of struct s::a[3]')
})

test('apply() takes a place past the end when the array is flexible, and only then', () => {
  const flexible = (last: boolean) => (btf: BtfBuilder) => {
    const int = u32(btf)
    const array = { name: 'a', type: btf.array(int, int, 0), bitOff: 32 }
    const after = last ? [] : [{ name: 'b', type: int, bitOff: 32 }]
    return btf.struct('s', 8, [array, ...after])
  }
  const ask = (last: boolean) =>
    relocate({
      kind: 'BPF_CORE_FIELD_BYTE_OFFSET',
      access: '0:0:5',
      insn: mov64(R0, 24),
      local: flexible(last),
      target: flexible(last),
    })
  assert.equal(ask(true).text, 'r0 = 24')
  assert.throws(() => ask(false), FormatError)
})

test('apply() narrows a load when an unsigned field is smaller, and poisons it when it is signed', () => {
  const ask = (type: (btf: BtfBuilder) => number) =>
    relocate({
      kind: 'BPF_CORE_FIELD_BYTE_OFFSET',
      access: '0:0',
      insn: load('u64', R0, R1, 8),
      local: structOf('s', 'a', 8, u64),
      target: structOf('s', 'a', 24, type),
    })
  assert.equal(ask(u32).text, 'r0 = *(u32 *)(r1 +24)')
  const { text, outcome } = ask(s32)
  assert.equal(text, 'call unknown#195896080')
  assert.ok(outcome.poisoned)
  assert.match(explainPoison(['0: (85) call unknown#195896080'], [outcome]) ?? '', /"struct s::a" cannot be/)
})

test('apply() patches stores of both kinds', () => {
  for (const [insn, wanted] of [
    [store('u32', R1, 4, R0), '*(u32 *)(r1 +12) = r0'],
    [store('u32', R1, 4, 7), '*(u32 *)(r1 +12) = 7'],
  ] as const) {
    const { text } = relocate({
      kind: 'BPF_CORE_FIELD_BYTE_OFFSET',
      access: '0:0',
      insn,
      local: structOf('s', 'a', 4),
      target: structOf('s', 'a', 12),
    })
    assert.equal(text, wanted)
  }
})

test('apply() answers each kind that is about a field', () => {
  const bits = (bitOff: number, bitSize: number) => (btf: BtfBuilder) =>
    btf.struct('s', 16, [{ name: 'a', type: s32(btf), bitOff, bitSize }])
  const ask = (kind: keyof typeof KIND, imm: number) =>
    relocate({ kind, access: '0:0', insn: mov64(R0, imm), local: bits(0, 3), target: bits(37, 5) }).text
  assert.equal(ask('BPF_CORE_FIELD_BYTE_OFFSET', 0), 'r0 = 4')
  assert.equal(ask('BPF_CORE_FIELD_BYTE_SIZE', 4), 'r0 = 4')
  assert.equal(ask('BPF_CORE_FIELD_EXISTS', 1), 'r0 = 1')
  assert.equal(ask('BPF_CORE_FIELD_SIGNED', 1), 'r0 = 1')
  assert.equal(ask('BPF_CORE_FIELD_LSHIFT_U64', 61), 'r0 = 54')
  assert.equal(ask('BPF_CORE_FIELD_RSHIFT_U64', 61), 'r0 = 59')
  // Across the border of an int, eight bytes are read.
  const wide = { local: bits(0, 3), target: bits(30, 5), access: '0:0', insn: mov64(R0, 4) }
  assert.equal(relocate({ ...wide, kind: 'BPF_CORE_FIELD_BYTE_SIZE' }).text, 'r0 = 8')
})

test('apply() answers each kind that is about a type', () => {
  const ask = (kind: keyof typeof KIND, imm: number, target = structOf('s', 'a', 8)) =>
    relocate({ kind, insn: mov64(R0, imm), local: structOf('s', 'a', 0), target }).text
  assert.equal(ask('BPF_CORE_TYPE_ID_LOCAL', 77), 'r0 = 2')
  assert.equal(ask('BPF_CORE_TYPE_ID_TARGET', 77), 'r0 = 2')
  assert.equal(ask('BPF_CORE_TYPE_EXISTS', 1), 'r0 = 1')
  assert.equal(ask('BPF_CORE_TYPE_SIZE', 64), 'r0 = 64')
  assert.equal(ask('BPF_CORE_TYPE_MATCHES', 1), 'r0 = 1')
  assert.equal(ask('BPF_CORE_TYPE_MATCHES', 1, structOf('s', 'a', 8, s32)), 'r0 = 0')
  for (const [kind, imm] of [
    ['BPF_CORE_TYPE_ID_TARGET', 77],
    ['BPF_CORE_TYPE_EXISTS', 1],
    ['BPF_CORE_TYPE_SIZE', 64],
    ['BPF_CORE_TYPE_MATCHES', 1],
  ] as const)
    assert.equal(ask(kind, imm, structOf('other', 'a', 0)), 'r0 = 0')
})

test('apply() answers each kind that is about a value, also of 64 bits and of the other kind of enum', () => {
  const local = (btf: BtfBuilder) => btf.enum('e', { A: 1, B: 2 })
  const target = (btf: BtfBuilder) => btf.enum64('e', { B___new: 0x1_0000_0002n, A: 1n })
  const ask = (kind: keyof typeof KIND, access: string, insn: Insn, to = target) =>
    relocate({ kind, access, insn, local, target: to })
  assert.equal(ask('BPF_CORE_ENUMVAL_VALUE', '1', ldImm64(R0, 2)).text, 'r0 = 0x100000002')
  assert.equal(ask('BPF_CORE_ENUMVAL_EXISTS', '1', mov64(R0, 1)).text, 'r0 = 1')
  const without = (btf: BtfBuilder) => btf.enum64('e', { A: 1n })
  assert.equal(ask('BPF_CORE_ENUMVAL_EXISTS', '1', mov64(R0, 1), without).text, 'r0 = 0')
  const { outcome } = ask('BPF_CORE_ENUMVAL_VALUE', '1', ldImm64(R0, 2), without)
  assert.ok(outcome.poisoned)
  assert.equal(outcome.what, 'value of enum e::B')
})

test('apply() poisons both slots of a constant, and the relocation tells itself apart', () => {
  const local = types(btf => btf.enum('e', { A: 1 }))
  const target = types(u32)
  const code = encode([mov64(R0, 0), ldImm64(R0, 1), ldImm64(R1, 1), exit()])
  const relo = { kind: KIND.BPF_CORE_ENUMVAL_VALUE, typeId: local.id, access: '0' }
  const outcomes = new CoreResolver(local.btf, { name: 'vmlinux', types: target.btf }).apply(
    code,
    [
      { ...relo, slot: 0 },
      { ...relo, slot: 2 },
    ],
    'prog',
    1,
  )
  assert.deepEqual(
    disassemble(code).map(line => line.replace(/^.*?\) /, '')),
    ['r0 = 0', ...Array(4).fill('call unknown#195896080'), 'exit'],
  )
  const sentence = explainPoison(
    ['3: (85) call unknown#195896080', 'invalid func unknown#195896080'],
    outcomes,
  )
  assert.match(sentence ?? '', /^"enum e::A" does not exist in this kernel/)
  assert.equal(explainPoison(['invalid func unknown#7'], outcomes), undefined)
})

test('apply() throws ConflictError when candidates disagree, and not when they agree', () => {
  const two = (second: number) => (btf: BtfBuilder) => {
    structOf('s', 'a', 8)(btf)
    return structOf('s___2', 'a', second)(btf)
  }
  const ask = (second: number) =>
    relocate({
      kind: 'BPF_CORE_FIELD_BYTE_OFFSET',
      access: '0:0',
      insn: mov64(R0, 0),
      local: structOf('s', 'a', 0),
      target: two(second),
    })
  assert.equal(ask(8).text, 'r0 = 8')
  assert.throws(() => ask(12), ConflictError)
})

test('apply() asks modules when vmlinux has no type of that name, and only then', () => {
  const module = types(structOf('s', 'a', 32)).btf
  const ask = (target: (btf: BtfBuilder) => number) =>
    relocate({
      kind: 'BPF_CORE_FIELD_BYTE_OFFSET',
      access: '0:0',
      insn: mov64(R0, 0),
      local: structOf('s', 'a', 0),
      target,
      modules: [module],
    })
  assert.equal(ask(u32).text, 'r0 = 32')
  assert.ok(ask(structOf('s', 'b', 8)).outcome.poisoned)
})

test('apply() throws FormatError when the instruction does not hold what was compiled', () => {
  const ask = (insn: Insn) => () =>
    relocate({
      kind: 'BPF_CORE_FIELD_BYTE_OFFSET',
      access: '0:0',
      insn,
      local: structOf('s', 'a', 8),
      target: structOf('s', 'a', 8),
    })
  assert.throws(ask(mov64(R0, 4)), FormatError)
  assert.throws(ask(mov64(R0, R1)), FormatError)
  assert.throws(ask(exit()), FormatError)
  assert.throws(ask(load('u32', R0, R1, 4)), FormatError)
})

test('apply() throws FormatError when the path is hostile', () => {
  const paths = ['', ':', '0:', ':0', '0::0', '-1', '0:1', '0:0:0', '0x0', '99999999999', '4294967295:0']
  for (const access of [...paths, Array(65).fill('0').join(':')])
    assert.throws(
      () =>
        relocate({
          kind: 'BPF_CORE_FIELD_BYTE_OFFSET',
          access,
          insn: mov64(R0, 0),
          local: structOf('s', 'a', 0),
          target: structOf('s', 'a', 0),
        }),
      FormatError,
      access,
    )
})

test('apply() throws FormatError when types lead round in circles', () => {
  const circle = (btf: BtfBuilder) => btf.typedef('t', 1)
  const self = (btf: BtfBuilder) => btf.struct('s', 8, [{ name: '', type: 1, bitOff: 0 }])
  const named = (btf: BtfBuilder) => btf.struct('s', 8, [{ name: 'a', type: 1, bitOff: 0 }])
  const ask = (kind: keyof typeof KIND, access: string, local: (btf: BtfBuilder) => number) => () =>
    relocate({ kind, access, insn: mov64(R0, 1), local, target: local })
  assert.throws(ask('BPF_CORE_FIELD_EXISTS', '0', circle), FormatError)
  assert.throws(ask('BPF_CORE_TYPE_EXISTS', '0', circle), FormatError)
  assert.throws(ask('BPF_CORE_TYPE_MATCHES', '0', named), FormatError)
  // A member of itself is looked for in itself once for each place that a path may have.
  assert.throws(
    () =>
      relocate({
        kind: 'BPF_CORE_FIELD_EXISTS',
        access: '0:0',
        insn: mov64(R0, 1),
        local: structOf('s', 'b', 0),
        target: self,
      }),
    FormatError,
  )
})

test('apply() takes no longer when many ways lead to the same types', () => {
  // Each struct has the next one twice: 2^30 ways.
  const deep = (name: string) => (btf: BtfBuilder) => {
    let id = u32(btf)
    for (let i = 0; i < 30; i++)
      id = btf.struct(i === 29 ? 's' : '', 8, [
        { name: name && 'a', type: id, bitOff: 0 },
        { name: name && 'b', type: id, bitOff: 0 },
      ])
    return id
  }
  const started = performance.now()
  const matched = relocate({
    kind: 'BPF_CORE_TYPE_MATCHES',
    insn: mov64(R0, 1),
    local: deep('named'),
    target: deep('named'),
  })
  assert.equal(matched.text, 'r0 = 1')
  const missing = relocate({
    kind: 'BPF_CORE_FIELD_EXISTS',
    access: '0:0',
    insn: mov64(R0, 1),
    local: structOf('s', 'zz', 0),
    target: deep(''),
  })
  assert.equal(missing.text, 'r0 = 0')
  assert.ok(performance.now() - started < 5000)
})
