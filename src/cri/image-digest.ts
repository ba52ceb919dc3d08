/** Which image a container was made of, by the runtime's own record of that very container. */
import { create, fromBinary, toBinary } from '@bufbuild/protobuf'
import { FormatError } from '../errors.ts'
import type { GrpcChannel } from './channel.ts'
import { ContainerStatusRequestSchema, ContainerStatusResponseSchema } from './messages/cri_pb.ts'

const METHOD = '/runtime.v1.RuntimeService/ContainerStatus'
/** `REPOSITORY@DIGEST`. Without a repository it is the image's own id, which no registry has. */
const REFERENCE = /^[^@]+@(sha256:[0-9a-f]{64})$/

/**
 * The digest by which a registry names the image, such as `sha256:...`; undefined: the runtime knows
 * none, as of an image that was built or imported here. By the container's id and not by the image's
 * name, which may name another image by now. Throws what `GrpcChannel.call` does.
 */
export async function imageDigestOf(
  channel: Pick<GrpcChannel, 'call'>,
  containerId: string,
  timeoutMs: number,
): Promise<string | undefined> {
  const request = create(ContainerStatusRequestSchema, { containerId })
  const answer = await channel.call(METHOD, toBinary(ContainerStatusRequestSchema, request), timeoutMs)
  const { status } = decoded(answer)
  // Of a beginning of an id a runtime may tell of the container that has it.
  return status?.id === containerId ? REFERENCE.exec(status.imageRef)?.[1] : undefined
}

function decoded(answer: Uint8Array) {
  try {
    return fromBinary(ContainerStatusResponseSchema, answer)
  } catch (cause) {
    throw new FormatError('answer', 'it is no ContainerStatusResponse', { cause: cause as Error })
  }
}
