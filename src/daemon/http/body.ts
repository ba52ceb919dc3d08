/** The body of a request, bounded in length and time. */
import type { IncomingMessage } from 'node:http'
import { RequestError } from '../../errors.ts'
import type { Connection, Connections } from './connections.ts'
import { MAX_BODY_BYTES, tooLong } from './head.ts'

/** RequestError: it is too long, or did not come in time, or the client has gone. */
export async function readBody(
  req: IncomingMessage,
  connection: Connection,
  connections: Connections,
): Promise<Buffer> {
  try {
    return await new Promise<Buffer>((resolve, reject) => {
      const chunks: Buffer[] = []
      let bytes = 0
      connection.readsBody(reject)
      req.on('data', (chunk: Buffer) => {
        bytes += chunk.length
        if (bytes > MAX_BODY_BYTES) reject(tooLong())
        else chunks.push(chunk)
      })
      req.once('end', () => resolve(Buffer.concat(chunks)))
      req.once('error', () => reject(new RequestError(400, 'the body ends early')))
    })
  } catch (error) {
    req.removeAllListeners('data')
    req.pause()
    throw error
  } finally {
    connections.bodyRead(connection)
  }
}
