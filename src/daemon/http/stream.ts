/**
 * Server-sent events. A stream takes the next event of its source when the client has taken those
 * before: what waits for a slow client is one event and what the socket holds. A client that takes
 * nothing for a while is told so by the last event, and cut.
 */
import type { ServerResponse } from 'node:http'

export const STREAM_TYPE = 'text/event-stream'

export interface StreamTimes {
  /** Between comments that show that the daemon is there. */
  readonly heartbeatMs: number
  /** How long a client may take nothing while there is something for it. */
  readonly slowMs: number
}

/** The last event, `end`, says why there are no more. */
export type End = 'ended' | 'slow' | 'stopping' | 'failed'

export interface StreamEvent {
  readonly id: string | number
  readonly data: unknown
}

/**
 * Writes the events until the source ends, and says why it did. `failed` makes what the client is
 * told of an error of the source. `stopping`: whether the daemon ends it.
 */
export async function writeStream(
  res: ServerResponse,
  events: AsyncIterable<StreamEvent>,
  { heartbeatMs, slowMs }: StreamTimes,
  signal: AbortSignal,
  told: { failed: (error: unknown) => object; stopping: () => boolean },
): Promise<End> {
  res.writeHead(200, {
    'Content-Type': `${STREAM_TYPE}; charset=utf-8`,
    'Cache-Control': 'no-store',
    'X-Content-Type-Options': 'nosniff',
  })
  // A comment, so that the client sees that the stream has begun.
  res.write(':\n\n')
  const heartbeat = setInterval(() => {
    if (!res.writableNeedDrain) res.write(':\n\n')
  }, heartbeatMs).unref()
  let why: End = 'ended'
  let facts: object = {}
  try {
    for await (const { id, data } of events) {
      if (signal.aborted) break
      res.write(`id: ${id}\ndata: ${JSON.stringify(data)}\n\n`)
      if (res.writableNeedDrain && !(await drained(res, slowMs, signal))) {
        if (!signal.aborted) why = 'slow'
        break
      }
    }
  } catch (error) {
    if (!signal.aborted) {
      why = 'failed'
      facts = { problem: told.failed(error) }
    }
  } finally {
    clearInterval(heartbeat)
  }
  if (why === 'ended' && told.stopping()) why = 'stopping'
  if (!res.destroyed) await endWith(res, `event: end\ndata: ${JSON.stringify({ why, ...facts })}\n\n`, slowMs)
  return why
}

/** False: it did not come to that within the time, or nobody waits any more. */
function drained(res: ServerResponse, withinMs: number, signal: AbortSignal): Promise<boolean> {
  return new Promise(resolve => {
    const done = (is: boolean) => (): void => {
      clearTimeout(timer)
      res.off('drain', yes)
      signal.removeEventListener('abort', no)
      resolve(is)
    }
    const yes = done(true)
    const no = done(false)
    const timer = setTimeout(no, withinMs).unref()
    res.once('drain', yes)
    signal.addEventListener('abort', no, { once: true })
  })
}

/** What the client has not taken by then, it does not get. */
function endWith(res: ServerResponse, last: string, withinMs: number): Promise<void> {
  return new Promise(resolve => {
    const timer = setTimeout(() => res.destroy(), withinMs).unref()
    res.once('close', () => {
      clearTimeout(timer)
      resolve()
    })
    res.end(last)
  })
}
