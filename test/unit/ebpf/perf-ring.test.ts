import assert from 'node:assert/strict'
import { test } from 'node:test'
import { PerfRing } from '../../../src/ebpf/perf-ring.ts'
import { FormatError } from '../../../src/errors.ts'

const PAGE = 4096
const HEAD = 1024
const TAIL = 1032
const SAMPLE = 9
const LOST = 2

/** A ring of one page of data, and what the kernel would do to it. */
class Made {
  readonly memory = new ArrayBuffer(2 * PAGE)
  readonly view = new DataView(this.memory)
  readonly bytes = new Uint8Array(this.memory)
  readonly lost: number[] = []
  readonly ring = new PerfRing(this.memory, 3, count => this.lost.push(count))

  position(at: number): bigint {
    return this.view.getBigUint64(at, true)
  }

  put(bytes: Uint8Array): void {
    const head = this.position(HEAD)
    bytes.forEach((byte, i) => {
      this.bytes[PAGE + Number((head + BigInt(i)) & 4095n)] = byte
    })
    this.view.setBigUint64(HEAD, head + BigInt(bytes.length), true)
  }

  seen(limit = Number.POSITIVE_INFINITY): string[] {
    const found: string[] = []
    this.ring.visit((data, start, end, cpu) => {
      assert.equal(cpu, 3)
      found.push(data.toString('latin1', start, end))
    }, limit)
    return found
  }
}

function record(type: number, body: Uint8Array, size = body.length + 8): Uint8Array {
  const bytes = new Uint8Array(8 + body.length)
  const view = new DataView(bytes.buffer)
  view.setUint32(0, type, true)
  view.setUint16(6, size, true)
  bytes.set(body, 8)
  return bytes
}

/** Padded as the kernel does it, so that its length is 4 more than a multiple of 8. */
function sample(text: string, length?: number): Uint8Array {
  const padded = Math.ceil((text.length + 4) / 8) * 8 - 4
  const body = new Uint8Array(4 + padded)
  new DataView(body.buffer).setUint32(0, length ?? padded, true)
  body.set(Buffer.from(text), 4)
  return record(SAMPLE, body)
}

function lost(count: number): Uint8Array {
  const body = new Uint8Array(16)
  new DataView(body.buffer).setBigUint64(8, BigInt(count), true)
  return record(LOST, body)
}

test('PerfRing gives samples in order, over many times its size, also those in two pieces', () => {
  const made = new Made()
  const expected: string[] = []
  const found: string[] = []
  for (let i = 0; i < 400; i++) {
    // The padding is part of what is given.
    const text = `${i}`.padEnd(4 + 8 * (i % 20), '.')
    made.put(sample(text))
    expected.push(text)
    if (i % 3 === 2) found.push(...made.seen())
  }
  found.push(...made.seen())
  assert.deepEqual(found, expected)
  assert.ok(made.position(TAIL) > 4n * BigInt(PAGE))
  assert.equal(made.position(TAIL), made.position(HEAD))
})

test('PerfRing stops at a limit, and gives room back for what was given only', () => {
  const made = new Made()
  for (const text of ['aaaa', 'bbbb', 'cccc']) made.put(sample(text))
  assert.deepEqual(made.seen(1), ['aaaa'])
  assert.equal(made.position(TAIL), 16n)
  assert.deepEqual(made.seen(), ['bbbb', 'cccc'])
  assert.deepEqual(made.seen(), [])
})

test('PerfRing tells what was lost, between what was not', () => {
  const made = new Made()
  made.put(sample('aaaa'))
  made.put(lost(7))
  made.put(record(14, new Uint8Array(8)))
  made.put(sample('bbbb'))
  assert.deepEqual(made.seen(), ['aaaa', 'bbbb'])
  assert.deepEqual(made.lost, [7])
})

test('a visitor that throws loses its own record, not those behind it', () => {
  const made = new Made()
  for (const text of ['aaaa', 'bbbb', 'cccc']) made.put(sample(text))
  let calls = 0
  assert.throws(
    () =>
      made.ring.visit(() => {
        // Even an error as those of the ring are.
        if (++calls === 2) throw new FormatError('test', 'mine')
      }, Number.POSITIVE_INFINITY),
    /mine/,
  )
  assert.deepEqual(made.seen(), ['cccc'])
})

const CORRUPT: Readonly<Record<string, Uint8Array>> = {
  'of no bytes': record(SAMPLE, new Uint8Array(8), 0),
  'that is not aligned': record(SAMPLE, new Uint8Array(8), 13),
  'longer than what is in use': record(SAMPLE, new Uint8Array(8), 4096),
  'whose sample is longer than itself': sample('aaaa', 100),
  'whose sample is as long as can be': sample('aaaa', 0xffff_ffff),
  'without room for a length': record(SAMPLE, new Uint8Array(0)),
  'of lost ones that is too short': record(LOST, new Uint8Array(8)),
}

for (const [what, bytes] of Object.entries(CORRUPT))
  test(`a record ${what} is an error, is skipped with what is behind it, and later ones are read`, () => {
    const made = new Made()
    made.put(sample('good'))
    made.put(bytes)
    made.put(sample('lost'))
    const seen: string[] = []
    const visit = (): number =>
      made.ring.visit(
        (data, start, end) => seen.push(data.toString('latin1', start, end)),
        Number.POSITIVE_INFINITY,
      )
    assert.throws(visit, FormatError)
    made.put(sample('next'))
    visit()
    assert.deepEqual(seen, ['good', 'next'])
  })

test('positions that cannot be are an error, and what is behind them is read', () => {
  const made = new Made()
  made.view.setBigUint64(HEAD, 1n << 62n, true)
  assert.throws(() => made.seen(), FormatError)
  made.view.setBigUint64(HEAD, (1n << 62n) + 12n, true)
  assert.throws(() => made.seen(), FormatError)
  made.view.setBigUint64(HEAD, 1n << 63n, true)
  made.view.setBigUint64(TAIL, 1n << 63n, true)
  made.put(sample('next'))
  assert.deepEqual(made.seen(), ['next'])
})

/** Any bytes at all: numbers of a simple generator, so that each run is the same. */
test('PerfRing reads memory of any contents without another error, and comes to an end', () => {
  let state = 1
  const random = (below: number): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return state % below
  }
  let errors = 0
  for (let round = 0; round < 2000; round++) {
    const made = new Made()
    const words = new Uint32Array(made.memory, PAGE)
    words.forEach((_, i) => {
      // Types and sizes that may be right are more telling than others.
      words[i] = i % 2 === 0 ? random(16) : random(3) === 0 ? random(2 ** 32) : random(64) * 8 * 65536
    })
    made.view.setBigUint64(TAIL, BigInt(random(PAGE)) & ~7n, true)
    made.view.setBigUint64(HEAD, made.position(TAIL) + BigInt(random(600) * 8), true)
    try {
      made.ring.visit((data, start, end) => {
        assert.ok(start <= end && end <= data.length)
      }, Number.POSITIVE_INFINITY)
    } catch (error) {
      assert.ok(error instanceof FormatError, String(error))
      errors++
    }
    made.ring.visitBackward((data, start, end) => assert.ok(start <= end && end <= data.length))
    assert.equal(made.position(TAIL), made.position(HEAD))
  }
  assert.ok(errors > 100, `${errors} errors`)
})

test('PerfRing reads a ring that is overwritten from its newest record on', () => {
  const made = new Made()
  // The kernel writes towards lower addresses.
  const put = (bytes: Uint8Array): void => {
    const head = BigInt.asUintN(64, made.position(HEAD) - BigInt(bytes.length))
    bytes.forEach((byte, i) => {
      made.bytes[PAGE + Number((head + BigInt(i)) & 4095n)] = byte
    })
    made.view.setBigUint64(HEAD, head, true)
  }
  const latest = (): string[] => {
    const found: string[] = []
    made.ring.visitBackward((data, start, end) => found.push(data.toString('latin1', start, end)))
    return found
  }
  assert.deepEqual(latest(), [])
  for (let i = 0; i < 3; i++) put(sample(`${i}`.padEnd(12, '.')))
  assert.deepEqual(latest(), ['2...........', '1...........', '0...........'])
  for (let i = 3; i < 1000; i++) put(sample(`${i}`.padEnd(12, '.')))
  const found = latest()
  assert.deepEqual(
    found,
    Array.from({ length: found.length }, (_, i) => `${999 - i}`.padEnd(12, '.')),
  )
  assert.equal(found.length, Math.floor(PAGE / 24))
})

test('PerfRing ends where its visitor gives the memory back', () => {
  const made = new Made()
  for (const text of ['aaaa', 'bbbb']) made.put(sample(text))
  let calls = 0
  const count = made.ring.visit(() => {
    calls++
    structuredClone(undefined, { transfer: [made.memory] })
  }, Number.POSITIVE_INFINITY)
  assert.deepEqual([count, calls], [1, 1])
  assert.ok(made.ring.isGone)
})

test('a visitor that reads the same ring is refused, and loses its own record alone', () => {
  const made = new Made()
  for (const text of ['aaaa', 'bbbb']) made.put(sample(text))
  assert.throws(() => made.ring.visit(() => void made.ring.visit(() => {}, 1), 10), {
    name: 'TypeError',
    message: /must not read/,
  })
  assert.deepEqual(made.seen(), ['bbbb'])
})
