/** The runtime's side of NRI, as far as a test of the plugin needs one. */
import type { Socket } from 'node:net'
import { create, fromBinary, toBinary } from '@bufbuild/protobuf'
import { CONNECTION, frameOf, MESSAGE, type Message, MessageReader } from '../../src/nri/frames.ts'
import { RequestSchema, ResponseSchema } from '../../src/nri/messages/ttrpc_pb.ts'

/** What a runtime says to a plugin that registers, and what it is answered. */
export function talkTo(socket: Socket): (method: string, payload: Uint8Array) => Promise<Uint8Array> {
  const reader = new MessageReader()
  const waiting = new Map<number, (message: Message) => void>()
  let stream = 1
  socket.on('data', (bytes: Buffer) => {
    for (const message of reader.read(bytes))
      if (message.type === MESSAGE.response) waiting.get(message.stream)?.(message)
      // It registers.
      else
        socket.write(
          frameOf({
            ...message,
            type: MESSAGE.response,
            data: toBinary(ResponseSchema, create(ResponseSchema)),
          }),
        )
  })
  return async (method, payload) => {
    const at = stream
    stream += 2
    const answer = new Promise<Message>(resolve => waiting.set(at, resolve))
    const data = toBinary(RequestSchema, create(RequestSchema, { service: 's', method, payload }))
    socket.write(frameOf({ connection: CONNECTION.plugin, stream: at, type: MESSAGE.request, data }))
    const { status, payload: got } = fromBinary(ResponseSchema, (await answer).data)
    if (status !== undefined && status.code !== 0) throw new Error(status.message)
    return got
  }
}
