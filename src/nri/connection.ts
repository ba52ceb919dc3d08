/** The plugin and its runtime, for as long as the plugin runs: registers, and again when the runtime is back. */

import { connect, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { create, toBinary } from '@bufbuild/protobuf'
import { UnreachableError } from '../errors.ts'
import { RegisterPluginRequestSchema } from './messages/nri_pb.ts'
import type { Answer } from './ttrpc.ts'
import { TtrpcLink } from './ttrpc.ts'

export const PLUGIN_NAME = 'bpftoken'
const SERVICE = 'nri.pkg.api.v1alpha1.Runtime'
/** As the runtime itself has it for plugins. */
const REGISTER_MS = 5000
const FIRST_DELAY_MS = 100
const MAX_DELAY_MS = 5000

export interface ConnectionParts {
  /** Where the runtime listens. */
  readonly socket: string
  /** Two digits: runtimes call plugins in the order of these. */
  readonly index: string
  /** Of one connection: from its beginning to its end. */
  plugin(): { readonly answer: Answer } & Disposable
  /** For the log: it is there; it is not, once until it is there again. */
  readonly told: { registered(): void; lost(why: Error): void }
  readonly signal: AbortSignal
}

/** Returns when the signal is aborted. */
export async function stayRegistered(parts: ConnectionParts): Promise<void> {
  const { signal, told } = parts
  let delay = FIRST_DELAY_MS
  let isLost = false
  while (!signal.aborted) {
    let registered = false
    const why = await once(parts, () => {
      registered = true
      isLost = false
      told.registered()
    })
    if (signal.aborted) return
    if (!isLost) told.lost(why)
    isLost = true
    delay = registered ? FIRST_DELAY_MS : Math.min(2 * delay, MAX_DELAY_MS)
    await sleep(delay, undefined, { signal }).catch(() => {})
  }
}

/** One connection to its end; gives why it ended. */
async function once(parts: ConnectionParts, registered: () => void): Promise<Error> {
  const { socket, index, signal } = parts
  let connection: Socket
  try {
    connection = await connected(socket, signal)
  } catch (error) {
    return error as Error
  }
  using plugin = parts.plugin()
  using link = new TtrpcLink(connection, plugin.answer)
  const end = (): void => link[Symbol.dispose]()
  signal.addEventListener('abort', end, { once: true })
  try {
    const request = create(RegisterPluginRequestSchema, { pluginName: PLUGIN_NAME, pluginIdx: index })
    await link.call(SERVICE, 'RegisterPlugin', toBinary(RegisterPluginRequestSchema, request), REGISTER_MS)
    registered()
    return (await link.ended) ?? new UnreachableError('The runtime has ended the connection')
  } catch (error) {
    return error as Error
  } finally {
    signal.removeEventListener('abort', end)
  }
}

function connected(path: string, signal: AbortSignal): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect({ path, signal })
    socket.once('connect', () => {
      socket.off('error', reject)
      resolve(socket)
    })
    socket.once('error', reject)
  })
}
