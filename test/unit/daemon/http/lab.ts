/**
 * The server with a fake service, on a Unix socket in a directory of its own; and ways to ask it.
 */
import assert from 'node:assert/strict'
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { type IncomingHttpHeaders, request } from 'node:http'
import { connect, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Asker } from '../../../../src/daemon/asker.ts'
import type { Peer } from '../../../../src/daemon/http/connections.ts'
import { DEADLINES, type HttpOptions, HttpServer } from '../../../../src/daemon/http/server.ts'
import type { Meter } from '../../../../src/daemon/meter.ts'
import { Metrics } from '../../../../src/daemon/metrics.ts'
import type { Service } from '../../../../src/daemon/service.ts'
import { createLog, type Entry } from '../../../../src/service/log.ts'
import { eventually } from '../../../helpers/eventually.ts'
import { fakeService } from './fake-service.ts'

export interface Answer {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly text: string
  // biome-ignore lint/suspicious/noExplicitAny: tests look into any document
  readonly json: any
}

export interface Ask {
  readonly method?: string
  readonly body?: unknown
  readonly headers?: Record<string, string>
}

export interface Lab extends AsyncDisposable {
  readonly server: HttpServer
  readonly path: string
  readonly entries: Entry[]
  readonly meter: Metrics
  /** Who the next connections are of. */
  uid: number
  /** Peers that were made and not disposed of. */
  readonly peers: Set<Asker>
  ask(path: string, of?: Ask): Promise<Answer>
  /** Sends bytes as they are, and gives all that comes until the server closes, or `until` does. */
  raw(bytes: string | Buffer, until?: (text: string) => boolean): Promise<string>
  connect(): Socket
}

export type LabOptions = Partial<Omit<HttpOptions, 'log' | 'meter'>> & { service?: Service }

export async function lab(options: LabOptions = {}): Promise<Lab> {
  const before = descriptors()
  const dir = mkdtempSync(join(tmpdir(), 'bpftokend-http-'))
  const path = join(dir, 's')
  const peers = new Set<Asker>()
  const entries: Entry[] = []
  const connections = (): number => it.server.connections
  const gauges = () => ({ liveLoans: 1, waitingRequests: 2, policyFaults: 0, lostEvents: 0 })
  const meter = new Metrics('0.0.0', gauges, connections)
  const server = new HttpServer({
    service: fakeService(),
    meter: meter satisfies Meter,
    metrics: () => meter.read(),
    version: '0.0.0',
    streamTimes: { heartbeatMs: 15_000, slowMs: 10_000 },
    metricsReaders: [],
    checkAnswers: true,
    connections: { perUid: 8, inAll: 12 },
    deadlines: DEADLINES,
    log: createLog('debug', { write: entry => entries.push(entry) }),
    peerOf: () => fakePeer(it.uid, peers),
    ...options,
  })
  await server.listen({ path })
  const it: Lab = {
    server,
    path,
    entries,
    meter,
    uid: 1000,
    peers,
    ask: (target, of = {}) => ask(path, target, of),
    raw: (bytes, until) => raw(path, bytes, until),
    connect: () => connect(path),
    async [Symbol.asyncDispose]() {
      await server.stop(0)
      rmSync(dir, { recursive: true })
      assert.equal(server.connections, 0)
      assert.equal(peers.size, 0, 'a peer is still held')
      await eventually(() => descriptors() <= before, 'a descriptor is still open')
    },
  }
  return it
}

function descriptors(): number {
  return readdirSync('/proc/self/fd').length
}

export function fakePeer(uid: number, held: Set<Asker>): Peer {
  const no = (): never => {
    throw new Error('this peer is none')
  }
  const peer: Peer = {
    uid,
    uniqueId: 1n,
    owner: `user ${uid}`,
    isRoot: uid === 0,
    who: async () => ({
      isRoot: uid === 0,
      facts: { pid: 7, uid, gid: uid, userNamespace: 'user:[1]' },
    }),
    confirm: no,
    subject: no,
    shown: no,
    subjectAgain: no,
    take: no,
    handOver: no,
    recipient: no,
    requireOwn: no,
    hold: no,
    [Symbol.dispose]: () => void held.delete(peer),
  }
  held.add(peer)
  return peer
}

function ask(socketPath: string, path: string, { method, body, headers }: Ask): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const text = body === undefined ? undefined : typeof body === 'string' ? body : JSON.stringify(body)
    const req = request(
      {
        socketPath,
        agent: false,
        path,
        method: method ?? (text === undefined ? 'GET' : 'POST'),
        headers: { ...(text !== undefined && { 'content-type': 'application/json' }), ...headers },
      },
      res => {
        let all = ''
        res.setEncoding('utf8').on('data', chunk => {
          all += chunk
        })
        res.on('error', reject)
        res.on('end', () => {
          const json =
            all !== '' && /json/.test(res.headers['content-type'] ?? '') ? JSON.parse(all) : undefined
          resolve({ status: res.statusCode!, headers: res.headers, text: all, json })
        })
      },
    )
    req.on('error', reject)
    req.end(text)
  })
}

function raw(path: string, bytes: string | Buffer, until?: (text: string) => boolean): Promise<string> {
  return new Promise(resolve => {
    let text = ''
    const socket = connect(path)
    socket.setEncoding('utf8')
    socket.on('data', chunk => {
      text += chunk
      if (until?.(text) === true) socket.destroy()
    })
    socket.on('error', () => {})
    socket.on('close', () => resolve(text))
    socket.write(bytes)
  })
}

/** The status of a raw answer. */
export function statusOf(text: string): number {
  return Number(/^HTTP\/1\.1 (\d{3}) /.exec(text)?.[1] ?? 0)
}
