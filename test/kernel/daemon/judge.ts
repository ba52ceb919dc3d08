/**
 * A server that does nothing but tell who asks: a line of words is a question to the Peer of the
 * connection, a line of JSON is its answer.
 */

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { chmodSync } from 'node:fs'
import { createServer, Socket } from 'node:net'
import { join } from 'node:path'
import { Peer } from '../../../src/daemon/peer.ts'
import type { Accounts } from '../../../src/delegation/subject.ts'
import type { BpftokenError } from '../../../src/errors.ts'
import type { Fd } from '../../../src/sys/fd.ts'
import { descriptorOf } from '../../../src/sys/peer.ts'
import { Scratch } from '../../helpers/scratch.ts'
import { policyWith } from '../delegation/lab.ts'
import type { Workload } from '../delegation/workload.ts'

const NOBODY_KNOWN: Accounts = { uidOf: () => undefined, gidOf: () => undefined }
const ASKS_FOR_ALL = [{ ...policyWith({}), subjects: [{ executable: '/a', label: 'a' }] }]
const SOCK_STREAM = 1
const AF_UNIX = 1

export interface Answer {
  readonly ok?: unknown
  readonly code?: string
  readonly message?: string
}

async function answer(peer: Peer, [what, word = '']: string[]): Promise<unknown> {
  const number = Number(word)
  switch (what) {
    case 'root':
      return peer.isRoot
    case 'owner':
      return peer.owner
    case 'facts':
      return (await peer.who()).facts
    case 'subject': {
      const subject = await peer.subject(ASKS_FOR_ALL)
      assert.deepEqual(peer.subjectAgain(ASKS_FOR_ALL, subject), subject)
      return subject
    }
    case 'take': {
      using taken = await peer.take(number)
      return taken.number > 2
    }
    default: {
      using target = await peer.recipient(
        what === 'self' ? { self: true } : what === 'pid' ? { pid: number } : { pidfd: number },
      )
      peer.requireOwn(target)
      return target.facts.pid
    }
  }
}

export class Judge implements AsyncDisposable {
  readonly #scratch = new Scratch()
  readonly #open = new Set<Socket>()
  readonly #server = createServer(socket => this.#serve(socket))
  readonly path = join(this.#scratch.path, 'judge.sock')

  static async start(): Promise<Judge> {
    const judge = new Judge()
    await once(judge.#server.listen(judge.path), 'listening')
    chmodSync(judge.path, 0o666)
    return judge
  }

  #serve(socket: Socket): void {
    let peer: Peer
    try {
      peer = Peer.of(descriptorOf(socket), NOBODY_KNOWN)
    } catch (error) {
      socket.end(`${JSON.stringify(refusal(error))}\n`)
      return
    }
    this.#open.add(socket)
    socket.on('error', () => {})
    socket.on('close', () => {
      peer[Symbol.dispose]()
      this.#open.delete(socket)
    })
    socket.on('data', async line => {
      const said = await answer(peer, line.toString().trim().split(' ')).then(ok => ({ ok }), refusal)
      socket.write(`${JSON.stringify(said)}\n`)
    })
  }

  /** Has the workload connect: the number of its descriptor. */
  async connect(workload: Workload): Promise<number> {
    const address = Buffer.concat([Buffer.from([AF_UNIX, 0]), Buffer.from(this.path), Buffer.alloc(1)])
    const socket = await workload.must('socket', AF_UNIX, SOCK_STREAM, 0)
    await workload.must('connect', socket, address, address.length)
    return socket
  }

  /** Has the workload connect, and gives us its connection: we speak, and it is judged. */
  async line(workload: Workload): Promise<Line> {
    const socket = await this.connect(workload)
    const line = new Line(await workload.give(socket))
    await workload.must('close', socket)
    return line
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#open) socket.destroy()
    this.#server.close()
    await once(this.#server, 'close')
    this.#scratch[Symbol.dispose]()
  }
}

function refusal(error: unknown): Answer {
  const { code, message } = error as BpftokenError
  return { code: code ?? 'none', message }
}

/** One end of a connection to the judge. */
export class Line implements Disposable {
  readonly #socket: Socket

  /** Takes the descriptor. */
  constructor(connection: Fd) {
    this.#socket = new Socket({ fd: connection.release() })
    this.#socket.on('error', () => {})
  }

  async ask(question: string): Promise<Answer> {
    this.#socket.write(`${question}\n`)
    const [bytes] = (await once(this.#socket, 'data')) as [Buffer]
    return JSON.parse(bytes.toString()) as Answer
  }

  [Symbol.dispose](): void {
    this.#socket.destroy()
  }
}

/** Has the workload itself ask, by a connection of its. */
export async function askBy(workload: Workload, socket: number, question: string): Promise<Answer> {
  const line = Buffer.from(`${question}\n`)
  await workload.must('write', socket, line, line.length)
  const { result, bytes } = await workload.called('read', socket, Buffer.alloc(4096), 4096)
  return JSON.parse(bytes[0]!.subarray(0, result).toString()) as Answer
}
