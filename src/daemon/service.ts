/**
 * What the daemon does, whoever decodes the request: one function for each route of
 * src/api/routes.ts. It knows no HTTP. Requests are validated before; refusals and failures are
 * thrown as coded errors.
 */
import type { RouteAnswer, RouteEvent, RouteName, RouteRequest } from '../api/routes.ts'
import type { Asker } from './asker.ts'

export interface Call {
  /** Who asks, as the kernel says of the peer of this connection now. */
  readonly asker: Asker
  /** Aborted when whoever asks has gone, or the daemon stops. */
  readonly signal: AbortSignal
  /** As the asker gave it: up to 128 printable characters of ASCII. */
  readonly idempotencyKey: string | undefined
  /** To be called before what waits for others, which holds up nobody of the same user then. */
  readonly waits?: (() => void) | undefined
}

/** An answer with the HTTP status that stands for it in the table of routes. */
export interface Answered<N extends RouteName> {
  readonly status: number
  readonly body: RouteAnswer<N>
}

type Handler<N extends RouteName> = (call: Call, request: RouteRequest<N>) => Promise<Answered<N>>

type Streamed = { [N in RouteName]: RouteEvent<N> extends never ? never : N }[RouteName]

export interface Service {
  readonly handlers: { readonly [N in RouteName]: Handler<N> }
  /** Of routes that stream: events until the signal of the call is aborted. */
  readonly streams: {
    readonly [N in Streamed]: (call: Call, request: RouteRequest<N>) => AsyncIterable<RouteEvent<N>>
  }
}
