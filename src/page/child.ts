/**
 * The process that browsers speak to. It is started with a connection to the one that is the
 * daemon's client, as its descriptor 3, and ends with it.
 *
 * It loads all that it needs and begins to listen as who started it. Then, before the first
 * connection is taken, it becomes another user for good. To become that user by itself, instead of
 * being started as it, keeps it from being traced or read by other processes of that user: the
 * kernel makes a process that changes its ids undumpable.
 */
import { Socket } from 'node:net'
import { type Ask, documentsIn, lineOf, MAX_TOLD_CHARS, type Setup, type Told } from './asks.ts'
import { readFiles } from './files.ts'
import { PageServer } from './server.ts'
import { Sessions } from './sessions.ts'

const CONNECTION = 3
/** Of a Unix socket: nobody else is to connect. */
const UMASK = 0o177

class Asking {
  readonly #connection: Socket
  readonly #waiting: ((told: Told) => void)[] = []

  constructor(connection: Socket) {
    this.#connection = connection
  }

  /** Answers come in the order of what was asked. */
  ask(ask: Ask): Promise<Told> {
    return new Promise(resolve => {
      this.#waiting.push(resolve)
      this.#connection.write(lineOf(ask))
    })
  }

  told(told: Told): void {
    this.#waiting.shift()?.(told)
  }
}

function become({ uid, gid }: { readonly uid: number; readonly gid: number }): void {
  process.setgroups!([])
  process.setgid!(gid)
  process.setuid!(uid)
  const [groups, ids] = [process.getgroups!(), [process.getuid!(), process.geteuid!()]]
  const gids = [process.getgid!(), process.getegid!()]
  if (ids.some(id => id !== uid) || [...gids, ...groups].some(id => id !== gid))
    throw new Error('it keeps the ids of who started it')
}

async function serve(connection: Socket): Promise<void> {
  const asking = new Asking(connection)
  const documents = documentsIn(connection, MAX_TOLD_CHARS)
  const { listen, host, doors, ids } = (await documents.next()).value as Setup
  try {
    const server = new PageServer({
      sessions: new Sessions(doors.map(({ role, digest }) => ({ role, digest: Buffer.from(digest, 'hex') }))),
      files: readFiles(),
      ask: ask => asking.ask(ask),
      host,
    })
    process.umask(UMASK)
    const reached = await server.listen(listen)
    if (ids !== undefined) become(ids)
    connection.write(lineOf({ host: reached }))
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    connection.end(lineOf({ failed: code ?? message }))
    return
  }
  for await (const told of documents) asking.told(told as Told)
}

process.chdir('/')
const connection = new Socket({ fd: CONNECTION, readable: true, writable: true })
connection.on('error', () => {})
void serve(connection).then(
  () => process.exit(0),
  () => process.exit(1),
)
