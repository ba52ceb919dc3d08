import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { test } from 'node:test'
import { Btf } from '../../../../src/ebpf/btf/btf.ts'
import { BtfBuilder } from '../../../../src/ebpf/btf/builder.ts'
import { printType, printTypes } from '../../../../src/ebpf/btf/print.ts'
import { FormatError } from '../../../../src/errors.ts'

const VMLINUX = '/sys/kernel/btf/vmlinux'

function printed(make: (btf: BtfBuilder) => number): string {
  const builder = new BtfBuilder()
  const id = make(builder)
  return printType(Btf.parse(builder.build()), id)
}

function needsCompiler(): { skip?: string } {
  return spawnSync('gcc', ['--version']).status === 0 ? {} : { skip: 'gcc is not installed' }
}

/** What the compiler says against it. */
function compile(source: string): string {
  const options = ['-std=gnu11', '-w', '-fms-extensions', '-fsyntax-only', '-x', 'c', '-']
  return spawnSync('gcc', options, { input: source, encoding: 'utf8' }).stderr
}

test('printType() turns declarations inside out as C does', () => {
  const int = (btf: BtfBuilder) => btf.int('int', 4, { signed: true })
  assert.equal(
    printed(btf => btf.ptr(btf.array(int(btf), 1, 3))),
    'int (*)[3]',
  )
  assert.equal(
    printed(btf => btf.array(btf.ptr(int(btf)), 1, 3)),
    'int *[3]',
  )
  assert.equal(
    printed(btf => btf.const(btf.ptr(btf.const(int(btf))))),
    'const int *const',
  )
  assert.equal(
    printed(btf =>
      btf.ptr(
        btf.funcProto(0, [
          { name: 'a', type: int(btf) },
          { name: '', type: 0 },
        ]),
      ),
    ),
    'void (*)(int a, ...)',
  )
  assert.equal(
    printed(btf => btf.typedef('callback_t', btf.ptr(btf.funcProto(int(btf), [])))),
    'typedef int (*callback_t)(void);',
  )
  assert.equal(
    printed(btf => btf.func('main', btf.funcProto(int(btf), []))),
    'extern int main(void);',
  )
})

test('printType() writes bit fields and types without name where they are', () => {
  const text = printed(btf => {
    const int = btf.int('int', 4, { signed: true })
    const inner = btf.union('', 4, [{ name: 'c', type: int, bitOff: 0 }])
    return btf.struct('s', 8, [
      { name: 'a', type: int, bitOff: 0, bitSize: 3 },
      { name: '', type: inner, bitOff: 32 },
    ])
  })
  assert.equal(text, 'struct s {\n\tint a: 3;\n\tunion {\n\t\tint c;\n\t};\n};')
})

test('printType() writes values of 64 bits', () => {
  const text = printed(btf => btf.enum64('e', { A: 0xffff_ffff_ffff_ffffn }))
  assert.equal(text, 'enum e {\n\tA = 18446744073709551615ULL,\n};')
})

test('printType() changes names that C does not take', () => {
  assert.equal(
    printed(btf => btf.struct('Vec<u8>; x', 0, [])),
    'struct Vec_u8___x {\n};',
  )
})

test(
  'printTypes() writes what a type needs before it, and different types under different names',
  needsCompiler(),
  () => {
    const builder = new BtfBuilder()
    // ids: 1 outer, 2 pointer to later, 3 typedef, 4 later, 5 int, 6 later again, 7 other
    builder.struct('outer', 16, [
      { name: 'p', type: 2, bitOff: 0 },
      { name: 'l', type: 3, bitOff: 64 },
    ])
    builder.ptr(6)
    builder.typedef('later_t', 4)
    builder.struct('later', 4, [{ name: 'a', type: 5, bitOff: 0 }])
    builder.int('int', 4, { signed: true })
    builder.struct('later', 4, [{ name: 'b', type: 5, bitOff: 0 }])
    builder.enum('e1', { SAME: 1 })
    builder.enum('e2', { SAME: 2 })
    const text = printTypes(Btf.parse(builder.build()))
    assert.equal(compile(text), '')
    assert.match(text, /struct later___2 \{/)
    assert.match(text, /SAME___2 = 2/)
  },
)

test('printTypes() of the running kernel compiles', needsCompiler(), t => {
  if (!existsSync(VMLINUX)) return t.skip(`${VMLINUX} is missing`)
  const source = printTypes(Btf.parse(readFileSync(VMLINUX)))
  assert.equal(compile(source).split('\n')[0], '')
})

test('printType() throws FormatError when types lead round in circles or multiply', () => {
  assert.throws(() => printed(btf => btf.ptr(1)), FormatError)
  assert.throws(() => printed(btf => btf.const(1)), FormatError)
  assert.throws(() => printed(btf => btf.struct('', 8, [{ name: 'a', type: 1, bitOff: 0 }])), FormatError)
  const doubled = (btf: BtfBuilder) => {
    let id = btf.int('int', 4)
    for (let i = 0; i < 40; i++)
      id = btf.struct('', 8, [
        { name: 'a', type: id, bitOff: 0 },
        { name: 'b', type: id, bitOff: 0 },
      ])
    return id
  }
  assert.throws(() => printed(doubled), FormatError)
})
