/** One request and its answer, between the server and the endpoint that answers. */
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { MeteredRoute } from '../meter.ts'
import type { Peer } from './connections.ts'

export interface Exchange {
  readonly req: IncomingMessage
  readonly res: ServerResponse
  readonly query: Readonly<Record<string, string>>
  readonly params: Readonly<Record<string, string>>
  readonly peer: Peer
  /** Whose share of the daemon it takes; undefined: nobody's, as root's. */
  readonly owner: string | undefined
  /** Aborted when the client has gone; for what only waits or streams, also when the daemon stops. */
  readonly signal: AbortSignal
  /** The body; undefined: there is none. */
  body(): Promise<Uint8Array | undefined>
}

/** What was answered, for the log: words of ours, and ids. */
export interface Outcome {
  readonly status: number
  readonly facts?: Readonly<Record<string, string>>
}

export interface Endpoint {
  readonly name: MeteredRoute
  /** It changes something, or decides: each call is in the log. */
  readonly acts: boolean
  answer(exchange: Exchange): Promise<Outcome>
}
