/** Ring: records in memory that is made up, taken one by one and where they lie. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Ring } from '../../../src/ebpf/ringbuf.ts'
import { FormatError } from '../../../src/errors.ts'
import { PAGE_BYTES } from '../../../src/sys/memory.ts'

const SIZE = 4096
const BUSY = 0x8000_0000
const DISCARD = 0x4000_0000

const emptyRing = (): Ring =>
  new Ring(new ArrayBuffer(PAGE_BYTES), new ArrayBuffer(PAGE_BYTES + 2 * SIZE), SIZE)

const record = (n: number, length = 8): Uint8Array => new Uint8Array(length).fill(n)

/** What `visit` shows: first byte and length of each. */
function seen(ring: Ring, limit = Number.POSITIVE_INFINITY): [number, number][] {
  const all: [number, number][] = []
  const count = ring.visit((data, start, end) => all.push([data[start]!, end - start]), limit)
  assert.equal(count, all.length)
  return all
}

test('visit() shows what read() would give, and gives the room back', () => {
  const ring = emptyRing()
  for (const n of [1, 2, 3]) assert.ok(ring.write(record(n, n * 5)))
  assert.deepEqual(seen(ring), [
    [1, 5],
    [2, 10],
    [3, 15],
  ])
  assert.equal(ring.consumer[0], ring.producer[0])
  assert.equal(ring.read(), undefined)
  assert.deepEqual(seen(ring), [])
})

test('visit() takes no more than it is asked for, and goes on from there', () => {
  const ring = emptyRing()
  for (const n of [1, 2, 3]) ring.write(record(n))
  assert.deepEqual(seen(ring, 2), [
    [1, 8],
    [2, 8],
  ])
  assert.deepEqual(ring.read(), record(3))
  ring.write(record(4))
  assert.deepEqual(seen(ring, 0), [])
  assert.deepEqual(seen(ring), [[4, 8]])
})

test('visit() stops at a record that is being written, and passes over one that was discarded', () => {
  const ring = emptyRing()
  for (const n of [1, 2, 3]) ring.write(record(n))
  ring.words[16 >> 2] = DISCARD | 8
  ring.words[32 >> 2] = BUSY | 8
  assert.deepEqual(seen(ring), [[1, 8]])
  ring.words[32 >> 2] = 8
  assert.deepEqual(seen(ring), [[3, 8]])
})

test('visit() goes round the end, and over more records than it gives back at once', () => {
  const ring = emptyRing()
  let next = 0
  for (let round = 0; round < 50; round++) {
    let written = 0
    while (ring.write(record(next % 251, 1 + (next % 40)))) {
      next++
      written++
    }
    const got = seen(ring)
    assert.equal(got.length, written)
    for (const [i, [first, length]] of got.entries()) {
      const n = next - written + i
      assert.deepEqual([first, length], [n % 251, 1 + (n % 40)])
    }
  }
  // Positions of 64 bits, beyond what 32 hold.
  const far = emptyRing()
  far.consumer[0] = far.producer[0] = 2n ** 32n - 16n
  for (const n of [1, 2, 3]) far.write(record(n))
  assert.deepEqual(
    seen(far).map(([first]) => first),
    [1, 2, 3],
  )
  assert.equal(far.consumer[0], 2n ** 32n + 32n)
})

test('visit() throws what the taker throws, and that record is taken', () => {
  const ring = emptyRing()
  for (const n of [1, 2, 3]) ring.write(record(n))
  let calls = 0
  const take = (): void => {
    if (++calls === 2) throw new RangeError('enough')
  }
  assert.throws(() => ring.visit(take, 10), RangeError)
  assert.deepEqual(seen(ring), [[3, 8]])
})

for (const [what, take] of [
  ['read', (ring: Ring) => ring.read()],
  ['visit', (ring: Ring) => seen(ring)],
] as const) {
  test(`${what}() refuses a length that cannot be once, and reads on behind it`, () => {
    const ring = emptyRing()
    for (const n of [1, 2]) ring.write(record(n))
    ring.words[0] = 4000
    assert.throws(() => take(ring), FormatError)
    assert.equal(ring.read(), undefined)
    ring.write(record(3))
    assert.deepEqual(ring.read(), record(3))
  })

  test(`${what}() refuses positions that cannot be, and reads on behind them`, () => {
    // The second and third would be taken for 16 and 8 bytes, if 32 bits of them were looked at.
    for (const consumer of [16n, -(2n ** 32n), -(2n ** 40n) + 8n, -4096n - 8n, 4n, 12n]) {
      const ring = emptyRing()
      ring.write(record(1))
      ring.consumer[0] = BigInt.asUintN(64, consumer)
      if (consumer === 16n) {
        assert.equal(ring.read(), undefined)
        continue
      }
      assert.throws(() => take(ring), FormatError, `${consumer}`)
      ring.write(record(2))
      assert.deepEqual(ring.read(), record(2))
    }
  })
}

test('visit() ends where its visitor gives the memory back; reading is refused afterwards', () => {
  const rest = new ArrayBuffer(PAGE_BYTES + 2 * SIZE)
  const consumer = new ArrayBuffer(PAGE_BYTES)
  const ring = new Ring(consumer, rest, SIZE)
  for (const n of [1, 2, 3]) ring.write(record(n))
  let calls = 0
  const count = ring.visit(() => {
    calls++
    structuredClone(undefined, { transfer: [consumer, rest] })
  }, 10)
  assert.deepEqual([count, calls], [1, 1])
  assert.throws(() => ring.read(), { name: 'TypeError', message: 'the ring buffer is closed' })
  assert.throws(() => ring.visit(() => {}, 1), { name: 'TypeError', message: 'the ring buffer is closed' })
})

test('a visitor that reads is refused, and loses its own record alone', () => {
  for (const again of [(ring: Ring) => ring.read(), (ring: Ring) => ring.visit(() => {}, 1)]) {
    const ring = emptyRing()
    for (const n of [1, 2, 3]) ring.write(record(n))
    assert.throws(() => ring.visit(() => void again(ring), 10), {
      name: 'TypeError',
      message: /must not read/,
    })
    assert.deepEqual(
      seen(ring).map(([first]) => first),
      [2, 3],
    )
  }
})

test('remembered() gives what is still in memory, read or not, and takes nothing away', () => {
  const ring = emptyRing()
  const shown = () => ring.remembered(88).map(({ record, end }) => [record[0], Number(end)])
  assert.deepEqual(shown(), [])
  for (const n of [1, 2, 3]) ring.write(record(n, 88))
  assert.deepEqual(ring.read(), record(1, 88))
  const three = [
    [1, 96],
    [2, 192],
    [3, 288],
  ]
  assert.deepEqual(shown(), three)
  assert.deepEqual(shown(), three)
  assert.deepEqual(ring.read(), record(2, 88))
  assert.deepEqual(ring.remembered(80), [], 'records of another length')
  ring.words[192 >> 2] = DISCARD | 88
  assert.deepEqual(shown(), three.slice(0, 2))
})

test('remembered() leaves out what was overwritten, or may be', () => {
  const ring = emptyRing()
  for (let n = 0; n < 100; n++) {
    ring.write(record(n, 88))
    ring.read()
  }
  const ends = ring.remembered(88).map(({ record, end }) => [record[0], Number(end)])
  // 42 whole records of 96 bytes lie within 4096; the next to come would run over the oldest.
  assert.equal(ends.length, 41)
  assert.deepEqual(
    ends,
    Array.from({ length: 41 }, (_, i) => [59 + i, (60 + i) * 96]),
  )
})
