import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import fc from 'fast-check'
import { FormatError } from '../../../src/errors.ts'
import {
  CONNECTION,
  frameOf,
  MAX_DATA_BYTES,
  MESSAGE,
  type Message,
  MessageReader,
} from '../../../src/nri/frames.ts'

const message = fc.record({
  connection: fc.constantFrom(CONNECTION.plugin, CONNECTION.runtime),
  stream: fc.integer({ min: 0, max: 0xffff_ffff }),
  type: fc.constantFrom(MESSAGE.request, MESSAGE.response),
  data: fc.uint8Array({ maxLength: 300 }),
})

function plain({ connection, stream, type, data }: Message) {
  return { connection, stream, type, data: [...data] }
}

/** All messages in bytes that come in pieces of these lengths, over and over. */
function readIn(pieces: readonly number[], bytes: Uint8Array): Message[] {
  const reader = new MessageReader()
  const found: Message[] = []
  for (let at = 0, i = 0; at < bytes.length; i++) {
    const length = pieces[i % pieces.length]!
    found.push(...reader.read(bytes.subarray(at, at + length)))
    at += length
  }
  return found
}

const header = (connection: number, length: number, ...rest: number[]): Buffer => {
  const bytes = Buffer.alloc(8)
  bytes.writeUInt32BE(connection, 0)
  bytes.writeUInt32BE(length, 4)
  return Buffer.concat([bytes, Buffer.from(rest)])
}

suite('frames of NRI', () => {
  test('a frame has the bytes that containerd sends', () => {
    const frame = frameOf({ connection: 1, stream: 3, type: MESSAGE.response, data: Uint8Array.of(7, 8) })
    const mux = [0, 0, 0, 1, 0, 0, 0, 12]
    assert.deepEqual([...frame], [...mux, 0, 0, 0, 2, 0, 0, 0, 3, 2, 0, 7, 8])
  })

  test('what is written is read, in whatever pieces it comes', () => {
    const pieces = fc.array(fc.integer({ min: 1, max: 400 }), { minLength: 1, maxLength: 5 })
    fc.assert(
      fc.property(fc.array(message, { maxLength: 8 }), pieces, (messages, lengths) => {
        const bytes = Buffer.concat(messages.map(frameOf))
        assert.deepEqual(readIn(lengths, bytes).map(plain), messages.map(plain))
      }),
    )
  })

  test('a message may be spread over frames, with one of the other connection between', () => {
    const [, ...whole] = [frameOf({ connection: 1, stream: 1, type: 1, data: Buffer.from('abc') })].flatMap(
      frame => [frame, frame.subarray(8)],
    )
    const [first, second] = [whole[0]!.subarray(0, 10), whole[0]!.subarray(10)]
    const other = frameOf({ connection: 2, stream: 9, type: 2, data: Buffer.from('x') })
    const bytes = Buffer.concat([header(1, 10), first, other, header(1, 3), second])
    assert.deepEqual(
      readIn([bytes.length], bytes).map(({ stream, data }) => [stream, Buffer.from(data).toString()]),
      [
        [9, 'x'],
        [1, 'abc'],
      ],
    )
  })

  test('lengths beyond the bound, other connections and other types are refused when their header is there', () => {
    const long = MAX_DATA_BYTES + 1
    const longMessage = [
      (long >>> 24) & 255,
      (long >>> 16) & 255,
      (long >>> 8) & 255,
      long & 255,
      0,
      0,
      0,
      1,
      1,
      0,
    ]
    for (const [what, bytes] of Object.entries({
      'a frame of 4 GiB': header(1, 0xffff_ffff),
      'a frame that is one byte too long': header(1, 10 + MAX_DATA_BYTES + 1),
      'a message that is one byte too long': header(1, 10, ...longMessage),
      'connection 0': header(0, 0),
      'connection 3': header(3, 0),
      'a message of a stream': header(1, 10, 0, 0, 0, 0, 0, 0, 0, 1, 3, 0),
      'no type': header(1, 10, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0),
    }))
      assert.throws(() => readIn([bytes.length], bytes), FormatError, what)
    // The twin: the greatest that is taken.
    const greatest = frameOf({ connection: 1, stream: 1, type: 1, data: new Uint8Array(MAX_DATA_BYTES) })
    assert.equal(readIn([1 << 20], greatest)[0]!.data.length, MAX_DATA_BYTES)
    assert.throws(
      () => frameOf({ connection: 1, stream: 1, type: 1, data: new Uint8Array(MAX_DATA_BYTES + 1) }),
      FormatError,
    )
  })

  test('bytes of a hostile peer are read or refused with FormatError', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 400 }), bytes => {
        try {
          for (const { data } of readIn([7], bytes)) assert.ok(data.length <= bytes.length)
        } catch (error) {
          assert.ok(error instanceof FormatError)
        }
      }),
    )
  })
})
