/** embeddedObjects(): finds every object between anything, and nothing else. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { embeddedObjects } from '../../../../src/ebpf/elf/embedded-objects.ts'
import { FormatError } from '../../../../src/errors.ts'
import { corpusFile, corpusObjects, needsCorpus } from '../../../corpus/corpus.ts'
import { xdpObject } from '../../../helpers/xdp-object.ts'

const found = (bytes: Uint8Array) => embeddedObjects(bytes).map(one => [one.off, one.bytes.length])

test('embeddedObjects() takes an object file as a whole', () => {
  const object = xdpObject()
  assert.deepEqual(found(object), [[0, object.length]])
  // What a linker or a package put behind it is the reader's business.
  const padded = Buffer.concat([object, Buffer.alloc(7)])
  assert.deepEqual(found(padded), [[0, padded.length]])
})

test('embeddedObjects() finds objects between other things, at any byte', () => {
  const object = xdpObject()
  const garbage = Buffer.from('\x7fELF\x02\x7fELF\x02\x01\x01 and so on', 'latin1')
  const file = Buffer.concat([garbage, object, garbage, object, object, garbage])
  const first = garbage.length
  const second = first + object.length + garbage.length
  assert.deepEqual(
    found(file),
    [first, second, second + object.length].map(off => [off, object.length]),
  )
  assert.deepEqual(embeddedObjects(file)[0]!.bytes, object as Uint8Array)
})

test('embeddedObjects() finds nothing in what is cut off, no BPF or not relocatable', () => {
  const before = Buffer.from('before')
  const changed = (off: number, value: number) => {
    const object = xdpObject()
    object[off] = value
    return Buffer.concat([before, object])
  }
  assert.deepEqual(found(Buffer.concat([before, xdpObject().subarray(0, -1)])), [])
  assert.deepEqual(found(changed(18, 62)), [])
  assert.deepEqual(found(changed(16, 2)), [])
  assert.deepEqual(found(changed(58, 65)), [])
  assert.deepEqual(found(new Uint8Array()), [])
})

test('embeddedObjects() refuses many headers over one table', () => {
  const object = xdpObject()
  // 32768 sections far behind, of which the last is too long: each header costs a look at all of
  // them.
  const count = 0x8000
  const file = Buffer.alloc(64 * 200 + 64 * count)
  file.writeBigUInt64LE(2n ** 62n, file.length - 64 + 32)
  for (let i = 1; i <= 200; i++) {
    object.copy(file, i * 64 - 64, 0, 64)
    file.writeBigUInt64LE(BigInt(64 * 200 - (i - 1) * 64), i * 64 - 64 + 40)
    file.writeUInt16LE(count, i * 64 - 64 + 60)
  }
  assert.throws(() => embeddedObjects(file), FormatError)
})

test('embeddedObjects() finds every object of the corpus again, in one file', needsCorpus(), () => {
  const objects = corpusObjects().map(object => readFileSync(corpusFile(object)))
  const parts: Buffer[] = []
  const places: [number, number][] = []
  let off = 0
  for (const [i, bytes] of objects.entries()) {
    const gap = Buffer.alloc(1 + (i % 13), i)
    places.push([off + gap.length, bytes.length])
    off += gap.length + bytes.length
    parts.push(gap, bytes)
  }
  const again = new Set(found(Buffer.concat(parts)).map(String))
  // Objects of very old compilers, without a machine, are found only as files.
  const machine = (bytes: Buffer) => bytes.readUInt16LE(18) !== 0
  const missing = places.filter((place, i) => machine(objects[i]!) && !again.has(String(place)))
  assert.deepEqual(missing, [])
})
