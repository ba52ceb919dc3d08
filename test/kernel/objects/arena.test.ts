/**
 * Structures that a program and its loader share in an arena, by pointers of both: a list whose nodes
 * the program makes on pages of their own.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { Features } from '../../../src/ebpf/kernel/features.ts'
import { loadObject } from '../../../src/ebpf/load/object.ts'
import { parseObject } from '../../../src/ebpf/object/spec.ts'
import { TypedArena } from '../../../src/ebpf/typed/typed-arena.ts'
import { ConflictError, FormatError, InputError, NotFoundError } from '../../../src/errors.ts'
import { openFds, traceFds } from '../../../src/sys/fd.ts'
import { list } from '../../fixtures/modern/arena-list.ts'
import { needsTokens, ROOT } from '../../helpers/machine.ts'

const fixture = (name: string): Buffer => readFileSync(join(ROOT, `test/fixtures/modern/${name}.bpf.o`))
const file = fixture('arena-list')

before(() => traceFds())
after(() => assert.deepEqual(openFds(), []))

function arenaTest(name: string, body: () => Promise<void>): void {
  test(name, needsTokens(), async t => {
    if ((await new Features(null).has('arena')) !== true) return t.skip('this kernel has no arenas')
    await body()
  })
}

arenaTest('what a program makes in its arena is read and changed by the pointers that it keeps', async () => {
  using object = await list.load(file, { token: null, variables: { nodes: 4, origin: { y: 9 } } })
  const { arena, data, programs } = object
  assert.deepEqual([data.head, data.nodes, { ...data.origin }], [0n, 4, { x: 3, y: 9 }])
  for (let i = 0; i < 3; i++) assert.equal((await programs.push.testRun()).returned, 0)
  assert.equal(data.nodes, 7)
  assert.equal(data.last, data.head)

  const nodes = [...arena.list('node', data.head, 'next')]
  assert.deepEqual(
    nodes.map(({ id, name, weight, colour, spots }) => ({ id, name, weight, colour, y: spots[2]!.y })),
    [7, 6, 5].map(id => ({ id, name: `n${id}`, weight: 1n << BigInt(32 + id), colour: 1, y: id * 10 })),
  )
  assert.equal((await programs.sum.testRun()).returned, 18)

  // Each has a page of its own, with room behind it.
  const mine = data.head + 1024n
  arena.set('node', mine, { id: 100, next: data.head })
  data.head = mine
  nodes[2]!.id = 1000
  assert.equal((await programs.sum.testRun()).returned, 100 + 7 + 6 + 1000)
  const { globalsOff, address } = object.loaded.arena!
  assert.equal(object.loaded.arena!.pointerTo('head'), address + BigInt(globalsOff) + headOff())

  nodes[2]!.next = 0x1234n
  assert.throws(() => [...arena.list('node', data.head, 'next')], FormatError)
  nodes[2]!.next = mine
  assert.throws(() => [...arena.list('node', data.head, 'next')], /goes in a circle/)
})

/** Where `head` is among the variables. */
function headOff(): bigint {
  const { btf, arena } = list.parse(file)
  const section = btf!.types.type(arena!.typeId)
  assert.ok(section.kind === 'datasec')
  return BigInt(section.vars.find(({ type }) => btf!.types.name(type) === 'head')!.off)
}

arenaTest('pointers of an arena that chose its address count from there', async () => {
  const spec = parseObject(fixture('arena-at'), { name: 'at' })
  using object = await loadObject(spec, { token: null })
  const raw = object.arena!
  assert.equal(raw.address, 1n << 44n)
  await object.program('point').testRun()
  const self = raw.get('self') as bigint
  assert.equal(self, raw.pointerTo('value'))
  const arena = new TypedArena<{ int: number }>(raw, spec.btf!.types)
  assert.equal(arena.at('int', self), 5)
  arena.set('int', self, 6)
  assert.equal(raw.get('value'), 6)
  assert.throws(() => raw.pointerTo('nothing'), NotFoundError)
})

arenaTest('an arena that is handed in, or gone, is not read', async () => {
  const object = await list.load(file, { token: null })
  const { arena } = object
  {
    using other = await list.load(file, { token: null, maps: { arena: { use: object.loaded.map('arena') } } })
    assert.throws(() => other.arena, NotFoundError)
    assert.throws(() => other.data.head, NotFoundError)
    const variables = { nodes: 1 }
    const again = list.load(file, {
      ...{ token: null, variables, maps: { arena: { use: object.loaded.map('arena') } } },
    })
    await assert.rejects(again, ConflictError)
  }
  await assert.rejects(list.load(file, { token: null, variables: { nodes: -1 } }), InputError)
  assert.equal(arena.at('spot', object.loaded.arena!.pointerTo('origin')).x, 3)
  const raw = object.loaded.arena!
  const pointer = raw.pointerTo('origin')
  object[Symbol.dispose]()
  for (const use of [
    () => arena.at('spot', pointer),
    () => arena.array('spot', pointer, -1),
    () => object.data.head,
    () => {
      object.data.nodes = 1
    },
    () => raw.globals,
    () => raw.get('head'),
    () => raw.set('head', 1n),
    () => raw.pointerTo('head'),
  ])
    assert.throws(use, { name: 'NotFoundError', message: 'The arena is not mapped any more' })
  assert.equal(raw.bytes.length, 0)
})
