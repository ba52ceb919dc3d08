import assert from 'node:assert/strict'
import { Duplex } from 'node:stream'
import { suite, test } from 'node:test'
import { create, fromBinary, toBinary } from '@bufbuild/protobuf'
import { FormatError, TimeoutError, UnreachableError } from '../../../src/errors.ts'
import { CONNECTION, frameOf, MESSAGE, type Message, MessageReader } from '../../../src/nri/frames.ts'
import { RequestSchema, ResponseSchema } from '../../../src/nri/messages/ttrpc_pb.ts'
import { type Answer, RefusedCall, TtrpcLink } from '../../../src/nri/ttrpc.ts'

/** Two ends: what one writes the other reads. */
function pair(): [Duplex, Duplex] {
  const ends: Duplex[] = []
  for (const at of [0, 1])
    ends.push(
      new Duplex({
        read() {},
        write(chunk, _, done) {
          ends[1 - at]!.push(chunk)
          done()
        },
        final(done) {
          ends[1 - at]!.push(null)
          done()
        },
        destroy(error, done) {
          ends[1 - at]!.push(null)
          done(error)
        },
      }),
    )
  return ends as [Duplex, Duplex]
}

/** A runtime that speaks what the test says. */
function withRuntime(answer: Answer) {
  const [ours, theirs] = pair()
  const link = new TtrpcLink(ours, answer)
  const reader = new MessageReader()
  const got: Message[] = []
  let wake = (): void => {}
  theirs.on('data', (bytes: Buffer) => {
    got.push(...reader.read(bytes))
    wake()
  })
  const next = async (): Promise<Message> => {
    while (got.length === 0) await new Promise<void>(resolve => (wake = resolve))
    return got.shift()!
  }
  const send = (message: Message): void => void theirs.write(frameOf(message))
  const ask = (stream: number, method: string): void =>
    send({
      ...{ connection: CONNECTION.plugin, stream, type: MESSAGE.request },
      data: toBinary(RequestSchema, create(RequestSchema, { service: 's', method })),
    })
  return { link, theirs, next, send, ask }
}

const answerOf = ({ data }: Message) => fromBinary(ResponseSchema, data)

suite('calls of ttrpc', () => {
  test('the runtime is answered on the stream on which it asked, also out of order', async () => {
    let release = (): void => {}
    const first = new Promise<void>(resolve => (release = resolve))
    const runtime = withRuntime(async method => {
      if (method === 'slow') await first
      return Buffer.from(method)
    })
    runtime.ask(1, 'slow')
    runtime.ask(3, 'quick')
    const quick = await runtime.next()
    assert.deepEqual([quick.stream, Buffer.from(answerOf(quick).payload).toString()], [3, 'quick'])
    release()
    const slow = await runtime.next()
    assert.deepEqual([slow.stream, Buffer.from(answerOf(slow).payload).toString()], [1, 'slow'])
    runtime.link[Symbol.dispose]()
  })

  test('a refusal and a defect are told as a status, and never as an empty answer', async () => {
    const runtime = withRuntime(async method => {
      throw method === 'refused' ? new RefusedCall('not you') : new TypeError('a defect')
    })
    runtime.ask(1, 'refused')
    const refused = answerOf(await runtime.next()).status
    assert.deepEqual([refused?.code, refused?.message], [9, 'not you'])
    runtime.ask(3, 'other')
    const { status } = answerOf(await runtime.next())
    assert.deepEqual([status?.code, status?.message], [2, 'a defect'])
    runtime.link[Symbol.dispose]()
  })

  test('we call the runtime: its answer, its refusal, its silence, its end', async () => {
    const runtime = withRuntime(async () => new Uint8Array())
    const reply = async (fields: object): Promise<void> => {
      const { stream } = await runtime.next()
      const data = toBinary(ResponseSchema, create(ResponseSchema, fields))
      runtime.send({ connection: CONNECTION.runtime, stream, type: MESSAGE.response, data })
    }
    const call = (timeoutMs = 60_000) => runtime.link.call('s', 'm', new Uint8Array(), timeoutMs)
    const [answered] = await Promise.all([call(), reply({ payload: Buffer.from('yes') })])
    assert.equal(Buffer.from(answered).toString(), 'yes')
    await Promise.all([
      assert.rejects(call(), { code: 5, message: 'no such plugin' }),
      reply({ status: { code: 5, message: 'no such plugin' } }),
    ])
    await assert.rejects(call(1), TimeoutError)
    await runtime.next()
    const waits = call()
    runtime.theirs.destroy()
    await assert.rejects(waits, UnreachableError)
    assert.equal(await runtime.link.ended, undefined)
    await assert.rejects(call(), UnreachableError)
  })

  test('what is no NRI ends the connection, and says why', async () => {
    const junk: Record<string, (runtime: ReturnType<typeof withRuntime>) => void> = {
      'a frame of 4 GiB': ({ theirs }) => void theirs.write(Buffer.alloc(8, 0xff)),
      'a request that is no message': ({ send }) =>
        send({
          connection: 1,
          stream: 1,
          type: MESSAGE.request,
          data: Buffer.from('\xff\xff\xff', 'latin1'),
        }),
      'a request where we ask': ({ send }) =>
        send({ connection: 2, stream: 1, type: MESSAGE.request, data: new Uint8Array() }),
      'an answer where we answer': ({ send }) =>
        send({ connection: 1, stream: 1, type: MESSAGE.response, data: new Uint8Array() }),
    }
    for (const [what, make] of Object.entries(junk)) {
      const runtime = withRuntime(async () => new Uint8Array())
      make(runtime)
      assert.ok((await runtime.link.ended) instanceof FormatError, what)
    }
  })

  test('who asks without end while nothing is answered is sent away', async () => {
    const runtime = withRuntime(() => new Promise(() => {}))
    for (let stream = 1; stream < 2 * 1030; stream += 2) runtime.ask(stream, 'm')
    assert.match(String(await runtime.link.ended), /1024 calls wait/)
  })
})
