/**
 * Daemons that do not speak as Docker does: each is told of in words, and none holds us for ever.
 */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { FormatError, NotSupportedError, TimeoutError } from '../../../../src/errors.ts'
import { askDockerAt } from '../../../../src/lending/recipient/docker.ts'
import { Scratch } from '../../../helpers/scratch.ts'

const scratch = new Scratch()
after(() => scratch[Symbol.dispose]())

let count = 0

/** What `ask` gives while a daemon does this to whoever asks it. */
async function asking<T>(answer: (socket: Socket) => void, ask: (path: string) => Promise<T>): Promise<T> {
  const path = join(scratch.path, `${++count}.sock`)
  const sockets = new Set<Socket>()
  const server = createServer(socket => {
    sockets.add(socket.on('error', () => {}))
    socket.once('data', () => answer(socket))
  }).listen(path)
  await once(server, 'listening')
  try {
    return await ask(path)
  } finally {
    for (const socket of sockets) socket.destroy()
    server.close()
    await once(server, 'close')
  }
}

/** Writes it again and again, until the other side has gone. */
function repeat(socket: Socket, text: string): void {
  const timer = setInterval(() => socket.write(text), 10)
  socket.once('close', () => clearInterval(timer))
}

const ID = 'd'.repeat(64)
const LIST = JSON.stringify([{ Id: ID, Names: ['/web'], State: 'running' }])
const OK = `HTTP/1.1 200 OK\r\nContent-Length: ${LIST.length}\r\n\r\n`
/** Nobody waits so long: it is to be over before. */
const LONG_MS = 600_000
const SHORT_MS = 300

type Daemon = readonly [what: string, answer: (socket: Socket) => void, error: RegExp, kind: unknown]

describe('askDockerAt()', () => {
  const refused: readonly Daemon[] = [
    [
      'changes the protocol',
      socket =>
        socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: tcp\r\n\r\n'),
      /another protocol/,
      FormatError,
    ],
    ['closes the connection', socket => socket.end(), /closed the connection/, NotSupportedError],
    ['stops in its answer', socket => socket.end(`${OK}[`), /cut short/, FormatError],
    ['speaks no HTTP', socket => socket.end('what?\r\n\r\n'), /no HTTP/, FormatError],
    [
      'fails',
      socket => socket.end('HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n'),
      /status 500/,
      NotSupportedError,
    ],
    [
      'does not stop',
      socket => {
        socket.write('HTTP/1.1 200 OK\r\n\r\n')
        const more = (): boolean =>
          socket.write(Buffer.alloc(1 << 20, ' '), () => !socket.destroyed && more())
        more()
      },
      /more than \d+ bytes/,
      FormatError,
    ],
  ]
  for (const [what, answer, error, kind] of refused)
    test(`refuses a daemon that ${what}`, async () => {
      await assert.rejects(
        asking(answer, path => askDockerAt(path, LONG_MS)),
        (thrown: Error) => {
          assert.ok(thrown instanceof (kind as typeof Error), thrown.stack)
          assert.match(thrown.message, error)
          return true
        },
      )
    })

  const endless: readonly [string, (socket: Socket) => void][] = [
    ['says nothing', () => {}],
    ['is always about to answer', socket => repeat(socket, 'HTTP/1.1 102 Processing\r\n\r\n')],
    [
      'answers a byte at a time',
      socket => {
        socket.write('HTTP/1.1 200 OK\r\n\r\n[')
        repeat(socket, ' ')
      },
    ],
  ]
  for (const [what, answer] of endless)
    test(`gives up a daemon that ${what}, once its time is over`, async () => {
      await assert.rejects(
        asking(answer, path => askDockerAt(path, SHORT_MS)),
        TimeoutError,
      )
    })

  test('takes an answer in parts, and the details within the same time', async () => {
    const state = { Running: true, Pid: 9, Status: 'running', StartedAt: 'x' }
    let asked = 0
    const answer = (socket: Socket): void => {
      const text = ++asked === 1 ? LIST : JSON.stringify({ Id: ID, State: state })
      socket.write(`HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: ${text.length}\r\n\r\n`)
      for (const byte of text) socket.write(byte)
      socket.end()
    }
    await asking(answer, async path => {
      const docker = await askDockerAt(path, LONG_MS)
      assert.deepEqual(
        docker?.containers.map(({ id, names }) => [id, names]),
        [[ID, ['web']]],
      )
      assert.equal((await docker!.details(docker!.containers[0]!)).pid, 9)
    })
  })

  test('the time for the list is also that for the details', async () => {
    let asked = 0
    const answer = (socket: Socket): void => {
      if (++asked === 1) socket.end(`${OK}${LIST}`)
    }
    await asking(answer, async path => {
      const docker = await askDockerAt(path, 10 * SHORT_MS)
      await assert.rejects(docker!.details(docker!.containers[0]!), TimeoutError)
    })
  })

  test('says undefined where nobody listens', async () => {
    assert.equal(await askDockerAt(join(scratch.path, 'nobody.sock')), undefined)
  })
})
