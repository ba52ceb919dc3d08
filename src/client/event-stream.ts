/** Server-sent events, as https://html.spec.whatwg.org/multipage/server-sent-events.html has them. */
import { TextDecoder } from 'node:util'
import { FormatError } from '../errors.ts'
import { tooLong } from './exchange.ts'

export interface ServerEvent {
  /** What kind it is; `message` where it does not say. */
  readonly event: string
  readonly data: string
}

/**
 * The events in the bytes, in order. One that the end cuts short is none. FormatError: one has more
 * than `maxBytes`, or the text is no UTF-8.
 */
export async function* eventsIn(
  bytes: AsyncIterable<Uint8Array>,
  maxBytes: number,
): AsyncGenerator<ServerEvent, void, undefined> {
  const decoder = new TextDecoder('utf-8', { fatal: true })
  let event = 'message'
  let data: string[] = []
  let size = 0
  for await (const line of linesIn(bytes, decoder, maxBytes)) {
    size += line.length
    if (size > maxBytes) throw tooLong(maxBytes)
    if (line === '') {
      if (data.length > 0) yield { event, data: data.join('\n') }
      event = 'message'
      data = []
      size = 0
      continue
    }
    const [, field, value = ''] = /^([^:]*)(?:: ?(.*))?$/s.exec(line)!
    if (field === 'event') event = value
    else if (field === 'data') data.push(value)
  }
}

async function* linesIn(
  bytes: AsyncIterable<Uint8Array>,
  decoder: TextDecoder,
  maxBytes: number,
): AsyncGenerator<string, void, undefined> {
  /** A line whose end is not there yet. */
  let parts: string[] = []
  let length = 0
  for await (const chunk of bytes) {
    const lines = decoded(decoder, chunk).split('\n')
    parts.push(lines.shift()!)
    length += parts.at(-1)!.length
    if (length > maxBytes) throw tooLong(maxBytes)
    if (lines.length === 0) continue
    const rest = lines.pop()!
    for (const line of [parts.join(''), ...lines]) yield line.replace(/\r$/, '')
    parts = [rest]
    length = rest.length
  }
}

function decoded(decoder: TextDecoder, chunk: Uint8Array): string {
  try {
    return decoder.decode(chunk, { stream: true })
  } catch {
    throw new FormatError('event', 'its text is no UTF-8')
  }
}
