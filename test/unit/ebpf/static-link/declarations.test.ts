import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Btf } from '../../../../src/ebpf/btf/btf.ts'
import { BtfBuilder } from '../../../../src/ebpf/btf/builder.ts'
import { Declarations } from '../../../../src/ebpf/static-link/declarations.ts'

/** A variable of a struct that holds another twice, which holds another twice, `depth` times. */
function twofold(depth: number, last: string): { btf: Btf; id: number } {
  const builder = new BtfBuilder()
  let type = builder.struct('s', 0, [])
  for (let i = 0; i < depth; i++)
    type = builder.struct(`s${i}`, 0, [
      { name: 'a', type, bitOff: 0 },
      { name: i === 0 ? last : 'b', type, bitOff: 0 },
    ])
  const id = builder.var('v', type, 'global')
  return { btf: Btf.parse(builder.build()), id }
}

test('structs that share parts are compared once each', { timeout: 30_000 }, () => {
  const a = twofold(50, 'b')
  for (const [last, difference] of [
    ['b', undefined],
    ['c', /member 1 of struct "s0" is "b" and "c"$/],
  ] as const) {
    const b = twofold(50, last)
    const found = new Declarations(a.btf, b.btf).difference(a.id, b.id)
    if (difference === undefined) assert.equal(found, undefined)
    else assert.match(found!, difference)
  }
  const deep = twofold(70, 'b')
  assert.match(new Declarations(deep.btf, deep.btf).difference(deep.id, deep.id)!, /nested too deeply/)
})

test('structs that lead to themselves are compared', () => {
  const list = (member: string): { btf: Btf; id: number } => {
    const builder = new BtfBuilder()
    const next = builder.ptr(2)
    const struct = builder.struct('list', 8, [{ name: member, type: next, bitOff: 0 }])
    const id = builder.var('v', struct, 'global')
    return { btf: Btf.parse(builder.build()), id }
  }
  const [a, b, c] = [list('next'), list('next'), list('other')]
  assert.equal(new Declarations(a.btf, b.btf).difference(a.id, b.id), undefined)
  assert.match(new Declarations(a.btf, c.btf).difference(a.id, c.id)!, /"next" and "other"/)
})
