import assert from 'node:assert/strict'
import { createServer, type ServerHttp2Stream } from 'node:http2'
import { join } from 'node:path'
import { test } from 'node:test'
import { create, fromBinary, toBinary } from '@bufbuild/protobuf'
import { GrpcChannel, GrpcError } from '../../../src/cri/channel.ts'
import { imageDigestOf } from '../../../src/cri/image-digest.ts'
import {
  ContainerStatusRequestSchema,
  ContainerStatusResponseSchema,
} from '../../../src/cri/messages/cri_pb.ts'
import { FormatError, TimeoutError, UnreachableError } from '../../../src/errors.ts'
import { Scratch } from '../../helpers/scratch.ts'

const HEX = 'ab'.repeat(32)
const DIGEST = `sha256:${HEX}`

/** A channel whose runtime says that of the container `c1`. */
const saying = (imageRef: string, id = 'c1') => ({
  call: async (_: string, message: Uint8Array) => {
    assert.equal(fromBinary(ContainerStatusRequestSchema, message).containerId, 'c1')
    const answer = create(ContainerStatusResponseSchema, { status: { id, imageRef } })
    return toBinary(ContainerStatusResponseSchema, answer)
  },
})

test('imageDigestOf() takes what a registry names, of that very container', async () => {
  for (const [imageRef, digest] of [
    [`registry.example/app@${DIGEST}`, DIGEST],
    [`localhost:5000/a/b@${DIGEST}`, DIGEST],
    // The image's own id.
    [DIGEST, undefined],
    ['registry.example/app:1', undefined],
    [`@${DIGEST}`, undefined],
    [`registry.example/app@sha256:${'AB'.repeat(32)}`, undefined],
    [`registry.example/app@${DIGEST}0`, undefined],
    [`registry.example/app@${DIGEST}\n`, undefined],
    [`a@${DIGEST}@${DIGEST}`, undefined],
    ['', undefined],
  ] as const)
    assert.equal(await imageDigestOf(saying(imageRef), 'c1', 100), digest, imageRef)
  assert.equal(await imageDigestOf(saying(`a@${DIGEST}`, 'c12'), 'c1', 100), undefined)
  const garbage = { call: async () => Uint8Array.of(255, 255, 255) }
  await assert.rejects(imageDigestOf(garbage, 'c1', 100), FormatError)
})

/** Asks a server that does that with each call. */
async function ask(answer: (stream: ServerHttp2Stream) => void): Promise<Uint8Array> {
  using scratch = new Scratch()
  const server = createServer().on('stream', stream => {
    stream.on('error', () => {})
    answer(stream)
  })
  const path = join(scratch.path, 's.sock')
  await new Promise<void>(resolve => server.listen(path, resolve))
  const channel = new GrpcChannel(path)
  try {
    return await channel.call('/a.B/C', Uint8Array.of(1), 500)
  } finally {
    channel[Symbol.dispose]()
    server.close()
  }
}

function finish(stream: ServerHttp2Stream, bytes: Uint8Array, trailers: Record<string, string>): void {
  stream.respond({ ':status': 200 }, { waitForTrailers: true })
  stream.on('wantTrailers', () => stream.sendTrailers(trailers))
  stream.end(bytes)
}

test('a call of gRPC ends with one message, or with the reason why not', async () => {
  const message = Uint8Array.of(0, 0, 0, 0, 2, 7, 8)
  assert.deepEqual(
    new Uint8Array(await ask(stream => finish(stream, message, { 'grpc-status': '0' }))),
    Uint8Array.of(7, 8),
  )
  const refused = ask(stream =>
    finish(stream, new Uint8Array(), { 'grpc-status': '5', 'grpc-message': 'not%20found' }),
  )
  await assert.rejects(
    refused,
    (error: Error) => error instanceof GrpcError && /not found$/.test(error.message),
  )
  for (const bytes of [Uint8Array.of(0, 0, 0, 0, 3, 7, 8), Uint8Array.of(0, 0), new Uint8Array()])
    await assert.rejects(
      ask(stream => finish(stream, bytes, { 'grpc-status': '0' })),
      FormatError,
    )
  await assert.rejects(
    ask(() => {}),
    TimeoutError,
  )
  const endless = new Uint8Array(2 << 20)
  await assert.rejects(
    ask(stream => finish(stream, endless, { 'grpc-status': '0' })),
    FormatError,
  )
  await assert.rejects(
    ask(stream => stream.close(2)),
    UnreachableError,
  )
  const nobody = new GrpcChannel('/nowhere/s.sock')
  await assert.rejects(nobody.call('/a.B/C', Uint8Array.of(1), 500), UnreachableError)
  nobody[Symbol.dispose]()
})
