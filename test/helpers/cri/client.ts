/** Asks a runtime by the CRI, as kubelet does, for what a test needs of it. */
import {
  create,
  type DescMessage,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from '@bufbuild/protobuf'
import { GrpcChannel } from '../../../src/cri/channel.ts'
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
export { GrpcError as CriError } from '../../../src/cri/channel.ts'

export class CriClient implements Disposable {
  readonly #channel: GrpcChannel

  constructor(socket: string) {
    this.#channel = new GrpcChannel(socket)
  }

  async call<N extends keyof Calls>(
    name: N,
    input: MessageInitShape<Calls[N][0]>,
  ): Promise<MessageShape<Calls[N][1]>> {
    const [asked, answered] = CALLS[name] as readonly [DescMessage, DescMessage]
    const message = toBinary(asked, create(asked, input as never))
    const answer = await this.#channel.call(`/runtime.v1.RuntimeService/${name}`, message, HANG_MS)
    return fromBinary(answered, answer) as never
  }

  [Symbol.dispose](): void {
    this.#channel[Symbol.dispose]()
  }
}
