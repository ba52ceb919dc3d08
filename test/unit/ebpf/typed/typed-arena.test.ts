/** Values anywhere in an arena, in memory that stands for one: what is found, and what is refused. */
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import fc from 'fast-check'
import { parseObject } from '../../../../src/ebpf/object/spec.ts'
import { arenaTypes } from '../../../../src/ebpf/typed/arena-types.ts'
import { objectBindings } from '../../../../src/ebpf/typed/bindings.ts'
import { shapeOf } from '../../../../src/ebpf/typed/shape.ts'
import { TypedArena } from '../../../../src/ebpf/typed/typed-arena.ts'
import { FormatError, InputError, NotFoundError } from '../../../../src/errors.ts'
import { ROOT } from '../../../helpers/machine.ts'

const spec = parseObject(readFileSync(join(ROOT, 'test/fixtures/modern/arena-list.bpf.o')), { name: 'list' })

interface Node {
  next: bigint
  weight: bigint
  id: number
  colour: number
  name: string
  spots: { x: number; y: number }[]
}
interface Types {
  node: Node
  spot: { x: number; y: number }
  __u32: number
}

const ADDRESS = 0x7f35_fffe_0000n
const NODE_BYTES = 64
const PAGES = 4096

/** An arena of one page, of which `guard` bytes on each side are not its own. */
function made(guard = 64): {
  arena: TypedArena<Types>
  all: Uint8Array
  bytes: Uint8Array
  gone: () => void
} {
  const all = new Uint8Array(guard + PAGES + guard).fill(0xee)
  let bytes = all.subarray(guard, guard + PAGES).fill(0)
  const raw = {
    address: ADDRESS,
    get bytes() {
      return bytes
    },
  }
  const gone = () => {
    bytes = new Uint8Array(0)
  }
  return { arena: new TypedArena<Types>(raw, spec.btf!.types, 'text'), all, bytes, gone }
}

/** Its size, as C has it: 48 bytes. */
const SIZE = 48

test('at() reads and writes through what a pointer leads to', () => {
  const { arena, bytes } = made()
  const node = arena.at('node', ADDRESS + 128n)
  node.id = 7
  node.name = 'seven'
  node.weight = 1n << 63n
  node.spots[2]!.y = 9
  assert.deepEqual([bytes[128 + 16], bytes[128 + 15], bytes[128 + 24]], [7, 0x80, 's'.charCodeAt(0)])
  assert.equal(arena.at('node', ADDRESS + 128n).spots[2]!.y, 9)
  bytes[128 + 16] = 8
  assert.equal(node.id, 8)
  arena.set('spot', ADDRESS, { x: 1, y: 2 })
  arena.set('__u32', ADDRESS + 8n, 2 ** 32 - 1)
  assert.deepEqual([...bytes.subarray(0, 12)], [1, 0, 2, 0, 0, 0, 0, 0, 255, 255, 255, 255])
  assert.equal(arena.at('__u32', ADDRESS), 0x20001)
  assert.throws(() => arena.set('spot', ADDRESS, { x: 65536 }), RangeError)
})

test('array() and bytes() are as long as they are asked to be, in place', () => {
  const { arena, bytes } = made()
  const spots = arena.array('spot', ADDRESS + 16n, 3)
  spots[2]!.x = 0x1234
  assert.equal(spots.length, 3)
  assert.deepEqual([bytes[24], bytes[25]], [0x34, 0x12])
  assert.throws(() => {
    spots[3] = { x: 1, y: 1 }
  }, RangeError)
  arena.bytes(ADDRESS, 2).fill(5)
  assert.deepEqual([bytes[0], bytes[1], bytes[2]], [5, 5, 0])
  assert.equal(arena.array('spot', ADDRESS + BigInt(PAGES), 0).length, 0)
  for (const count of [-1, 1.5, Number.NaN, 2 ** 60]) {
    assert.throws(() => arena.array('spot', ADDRESS, count), InputError)
    assert.throws(() => arena.bytes(ADDRESS, count), InputError)
  }
})

test('list() follows pointers to the end, also those of programs that keep the low half alone', () => {
  const { arena } = made()
  const low = (pointer: bigint): bigint => pointer & 0xffff_ffffn
  const [first, second, third] = [64n, 1024n, 512n].map(off => ADDRESS + off) as [bigint, bigint, bigint]
  arena.set('node', first, { id: 1, next: second })
  arena.set('node', second, { id: 2, next: low(third) })
  arena.set('node', third, { id: 3, next: 0n })
  const ids = (head: bigint): number[] => [...arena.list('node', head, 'next')].map(({ id }) => id)
  assert.deepEqual(ids(first), [1, 2, 3])
  assert.deepEqual(ids(low(first)), [1, 2, 3])
  assert.deepEqual(ids(0n), [])
  // Who takes a node out while it is shown does not lose the way.
  for (const node of arena.list('node', first, 'next')) node.next = 0n
  assert.equal(arena.at('node', second).next, 0n)
  arena.set('node', first, { id: 1, next: second })
  arena.set('node', second, { id: 2, next: first })
  assert.throws(() => ids(first), /FormatError: arena: the list of node .* goes in a circle/)
  arena.set('node', second, { id: 2, next: ADDRESS + 4090n })
  assert.throws(() => ids(first), FormatError)
  assert.throws(() => [...arena.list('node', first, 'id' as 'next')], InputError)
})

test('list() goes round a circle a few times, however large the arena is', () => {
  // 1 GiB, of which only the pages that are touched are there.
  const bytes = new Uint8Array(2 ** 30)
  const arena = new TypedArena<Types>({ address: ADDRESS, bytes }, spec.btf!.types, 'text')
  const at = (i: number): bigint => ADDRESS + BigInt(i * NODE_BYTES)
  // Seven that lead to a circle, which begins at the eighth.
  for (const length of [1, 2, 3, 100]) {
    const count = 7 + length
    for (let i = 0; i < count; i++)
      arena.set('node', at(i), { id: i, next: at(i + 1 === count ? 7 : i + 1) & 0xffff_ffffn })
    let seen = 0
    assert.throws(() => {
      for (const { id } of arena.list('node', at(0), 'next')) {
        if (seen < count) assert.equal(id, seen)
        seen++
      }
    }, /goes in a circle/)
    assert.ok(seen >= count && seen <= 7 + 8 * count, `${seen} structs of a circle of ${length}`)
  }
})

test('list() goes on where a program moves the struct that was passed to the end', () => {
  const { arena } = made()
  const [a, b, c] = [64n, 256n, 512n].map(off => ADDRESS + off) as [bigint, bigint, bigint]
  arena.set('node', a, { id: 1, next: b })
  arena.set('node', b, { id: 2, next: c })
  arena.set('node', c, { id: 3, next: 0n })
  const ids: number[] = []
  for (const node of arena.list('node', a, 'next')) {
    ids.push(node.id)
    if (ids.length > 1) continue
    node.next = 0n
    arena.at('node', c).next = a
  }
  assert.deepEqual(ids, [1, 2, 3, 1])
})

test('a pointer out of the arena is refused, and nothing there is read or written', () => {
  const { arena, all } = made()
  const last = ADDRESS + BigInt(PAGES - SIZE)
  arena.at('node', last).next = 1n
  assert.equal(arena.at('node', last).next, 1n)
  for (const pointer of [
    ...[
      0n,
      1n,
      last + 1n,
      ADDRESS - 1n,
      ADDRESS + BigInt(PAGES),
      ADDRESS + (1n << 32n),
      ADDRESS - (1n << 32n),
    ],
    ...[-1n, 1n << 63n, (1n << 64n) + ADDRESS, 0xffff_ffff_fffe_0000n, last & 0xfffn],
  ]) {
    const wrong = {
      name: 'FormatError',
      message: /^arena: .* does not lead to node in it; it is at 0x7f35fffe0000/,
    }
    assert.throws(() => arena.at('node', pointer), wrong, `${pointer}`)
    assert.throws(() => arena.set('node', pointer, { id: 1 }), wrong, `${pointer}`)
  }
  assert.throws(() => arena.at('node', 5 as unknown as bigint), InputError)
  const around = (bytes: Uint8Array) => assert.ok(bytes.every(byte => byte === 0xee))
  around(all.subarray(0, 64))
  around(all.subarray(-64))
})

test('whatever a pointer is, it leads into the arena or is refused', () => {
  const { arena, all } = made(NODE_BYTES)
  const near = fc.bigInt({ min: -200n, max: BigInt(PAGES) + 200n }).map(off => ADDRESS + off)
  const any = fc.bigInt({ min: 0n, max: (1n << 64n) - 1n })
  fc.assert(
    fc.property(
      fc.oneof(
        near,
        near.map(pointer => pointer & 0xffff_ffffn),
        any,
      ),
      pointer => {
        let took = true
        try {
          arena.set('node', pointer, { next: 0x5555n, spots: [{}, {}, { y: 3 }] })
        } catch (error) {
          assert.ok(error instanceof FormatError, `${error}`)
          took = false
        }
        const off = (pointer & 0xffff_ffffn) - (ADDRESS & 0xffff_ffffn)
        const inside = off >= 0n && off <= BigInt(PAGES - SIZE)
        const upper = pointer >> 32n
        assert.equal(took, pointer !== 0n && inside && (upper === 0n || upper === ADDRESS >> 32n))
        assert.ok(all.subarray(0, NODE_BYTES).every(byte => byte === 0xee))
        assert.ok(all.subarray(-NODE_BYTES).every(byte => byte === 0xee))
      },
    ),
  )
})

test('what was found in an arena cannot be used once it is unmapped', () => {
  const { arena, gone } = made()
  const node = arena.at('node', ADDRESS)
  const spots = arena.array('spot', ADDRESS, 2)
  gone()
  for (const use of [
    () => node.id,
    () => {
      node.id = 1
    },
    () => spots[0]!.x,
    () => arena.at('node', ADDRESS),
    () => arena.pointerAt(0),
    () => [...arena.list('node', ADDRESS, 'next')],
    // It is said first, whatever else is wrong.
    () => arena.array('spot', ADDRESS, -1),
    () => arena.bytes(ADDRESS, -1),
    () => arena.set('spot', 0n, { x: 1 }),
  ])
    assert.throws(use, { name: 'NotFoundError', message: 'The arena is not mapped any more' })
  assert.throws(() => arena.at('nothing' as 'node', ADDRESS), { message: /not mapped/ })
})

test('pointerAt() gives pointers that lead back, to bytes of the arena alone', () => {
  const { arena } = made()
  arena.at('node', arena.pointerAt(256)).id = 4
  assert.equal(arena.at('node', ADDRESS + 256n).id, 4)
  for (const off of [-1, 0.5, PAGES, Number.NaN]) assert.throws(() => arena.pointerAt(off), FormatError)
  assert.throws(() => arena.at('nothing' as 'node', ADDRESS), NotFoundError)
})

test('objectBindings() of an object with an arena is the file that tests compile and run', () => {
  const path = join(ROOT, 'test/fixtures/modern/arena-list.ts')
  const { text } = objectBindings(spec, {
    header: 'Written by test/unit/ebpf/typed/typed-arena.test.ts with BPFTOKEN_TEST_UPDATE=1.',
    library: '../../../src/ebpf/index.ts',
    types: ['spot'],
  })
  if (process.env['BPFTOKEN_TEST_UPDATE'] === '1') writeFileSync(path, text)
  assert.equal(text, readFileSync(path, 'utf8'))
})

test('bindings have variables of the arena, and the types that its pointers lead to', () => {
  const { text } = objectBindings(spec)
  assert.match(
    text,
    /\n {2}variables: \{\n {4}last: bigint\n {4}origin: Spot\n {4}nodes: number\n {4}head: bigint\n {2}\}/,
  )
  assert.match(text, /\n {2}arena: \{\n {4}node: Node\n {2}\}/)
  assert.match(text, /\n {2}types: \[\],\n/)
  assert.deepEqual([...arenaTypes(spec).keys()], ['node'])
  const more = objectBindings(spec, { types: ['spot', '__u32'] }).text
  assert.match(more, /\n {2}arena: \{\n {4}node: Node\n {4}spot: Spot\n {4}__u32: number\n {2}\}/)
  assert.match(more, /\n {2}types: \['spot', '__u32'\],\n/)
  assert.throws(() => arenaTypes(spec, ['nothing']), NotFoundError)
  // Another layout of what is there alone by pointers is another object.
  assert.notEqual(shapeOf(spec), shapeOf(spec, arenaTypes(spec).values()))
})
