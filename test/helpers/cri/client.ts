/**
 * Asks a runtime by the CRI, as kubelet does: gRPC by Node's own HTTP/2, one call at a time is
 * enough for a test. @grpc/grpc-js brings thirty packages for what is a frame of five bytes.
 */

import { type ClientHttp2Session, connect as connectHttp2 } from 'node:http2'
import { connect } from 'node:net'
import {
  create,
  type DescMessage,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from '@bufbuild/protobuf'
import { HANG_MS } from '../eventually.ts'
import * as cri from './cri_pb.ts'

/** Of each call: what is sent, and what comes. */
const CALLS = {
  Version: [cri.VersionRequestSchema, cri.VersionResponseSchema],
  RunPodSandbox: [cri.RunPodSandboxRequestSchema, cri.PodSandboxIdSchema],
  StopPodSandbox: [cri.PodSandboxIdSchema, cri.EmptySchema],
  RemovePodSandbox: [cri.PodSandboxIdSchema, cri.EmptySchema],
  ListPodSandbox: [cri.EmptySchema, cri.ListPodSandboxResponseSchema],
  CreateContainer: [cri.CreateContainerRequestSchema, cri.ContainerIdSchema],
  StartContainer: [cri.ContainerIdSchema, cri.EmptySchema],
  StopContainer: [cri.StopContainerRequestSchema, cri.EmptySchema],
  RemoveContainer: [cri.ContainerIdSchema, cri.EmptySchema],
  ExecSync: [cri.ExecSyncRequestSchema, cri.ExecSyncResponseSchema],
  ContainerStatus: [cri.ContainerStatusRequestSchema, cri.ContainerStatusResponseSchema],
} as const satisfies Record<string, readonly [DescMessage, DescMessage]>

type Calls = typeof CALLS

/** Its message is the runtime's own. */
export class CriError extends Error {}

export class CriClient implements Disposable {
  readonly #session: ClientHttp2Session

  constructor(socket: string) {
    this.#session = connectHttp2('http://localhost', { createConnection: () => connect(socket) })
    // Each call is told of it.
    this.#session.on('error', () => {})
  }

  call<N extends keyof Calls>(
    name: N,
    input: MessageInitShape<Calls[N][0]>,
  ): Promise<MessageShape<Calls[N][1]>> {
    const [asked, answered] = CALLS[name] as readonly [DescMessage, DescMessage]
    const message = toBinary(asked, create(asked, input as never))
    const frame = Buffer.alloc(5 + message.length)
    frame.writeUInt32BE(message.length, 1)
    frame.set(message, 5)
    return new Promise((resolve, reject) => {
      const stream = this.#session.request({
        ':method': 'POST',
        ':path': `/runtime.v1.RuntimeService/${name}`,
        'content-type': 'application/grpc',
        te: 'trailers',
      })
      stream.setTimeout(HANG_MS, () => stream.destroy(new Error(`${name} hangs`)))
      const chunks: Buffer[] = []
      let status: string | undefined
      let said = ''
      const read = (headers: object): void => {
        const { 'grpc-status': code, 'grpc-message': text } = headers as Record<string, string | undefined>
        status = code ?? status
        said = text === undefined ? said : decodeURIComponent(text)
      }
      stream
        .on('response', read)
        .on('trailers', read)
        .on('data', (chunk: Buffer) => chunks.push(chunk))
      stream.once('error', reject).once('end', () => {
        if (status !== '0') reject(new CriError(`${name}: ${said}`))
        else resolve(fromBinary(answered, Buffer.concat(chunks).subarray(5)) as never)
      })
      stream.end(frame)
    })
  }

  [Symbol.dispose](): void {
    this.#session.destroy()
  }
}
