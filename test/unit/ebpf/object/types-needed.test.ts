/** needTypes(): what leaves a function in its midst needs the object's types below a program. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import * as asm from '../../../../src/ebpf/asm/insn.ts'
import { Btf } from '../../../../src/ebpf/btf/btf.ts'
import { BtfBuilder } from '../../../../src/ebpf/btf/builder.ts'
import type { FunctionSpec } from '../../../../src/ebpf/object/functions.ts'
import type { ObjectSpec } from '../../../../src/ebpf/object/spec.ts'
import { needTypes } from '../../../../src/ebpf/object/types-needed.ts'

const { R0 } = asm
const PLAIN = [asm.mov64(R0, 0), asm.exit()]
const TAIL_CALL = [asm.call('tail_call'), ...PLAIN]
const LOADS = [asm.ldAbs('u16', 12), asm.exit()]

function functionOf(name: string, code: readonly asm.Insn[], calls: readonly number[] = []): FunctionSpec {
  return {
    ...{ name, section: 'tc', sectionIndex: 1, slot: 0, code: asm.assemble(code).bytes },
    ...{ linkage: 'global', hidden: false, exceptionCallback: undefined, typeId: 0 },
    ...{ lines: new Uint32Array(), coreRelos: [] },
    references: calls.map(target => ({ kind: 'function', slot: 0, target })),
  } as FunctionSpec
}

/** What a program of this code needs, which calls a function of that. */
function needed(main: readonly asm.Insn[], sub?: readonly asm.Insn[]): string[] {
  const functions = [
    functionOf('main', main, sub === undefined ? [] : [1]),
    ...(sub === undefined ? [] : [functionOf('sub', sub)]),
  ]
  const bytes = new BtfBuilder().build()
  const program = {
    name: 'main',
    section: 'tc',
    rule: undefined,
    target: undefined,
    autoload: true,
    function: 0,
  }
  const spec = {
    functions,
    maps: [],
    externs: [],
    programs: [program],
    btf: { bytes, types: Btf.parse(bytes) },
  }
  return needTypes(spec as unknown as ObjectSpec, [program])
}

test('a tail call and a load of a packet need types in a function that is called, and not in the program', () => {
  assert.deepEqual(needed(TAIL_CALL), [])
  assert.deepEqual(needed(LOADS), [])
  assert.deepEqual(needed(PLAIN, PLAIN), [])
  assert.deepEqual(needed(PLAIN, TAIL_CALL), ['the tail call of function "sub"'])
  assert.deepEqual(needed(PLAIN, LOADS), ['the load of a packet of function "sub"'])
})
