/**
 * Programs that bpftoken-launchd starts for users: see native/launchd/launchd.h, which has what is
 * said between us. It knows no policy, and does what we say; so it is asked only for whom a policy
 * names that says `launch: allowed`. Its namespaces are root's: that they were made for an asker is
 * known here alone, and as long as the program waits for its loan.
 *
 * The connection to it is held until then. Should we end, it is closed, and nothing is started.
 */
import { readFileSync } from 'node:fs'
import { openTargetInTime, type Target } from '../delegation/target.ts'
import { Owned } from '../ebpf/owned.ts'
import { BusyError, ConflictError, DeniedError, NotSupportedError, TimeoutError } from '../errors.ts'
import type { Capability } from '../policy/policy.ts'
import { unixAddress } from '../sys/datagram.ts'
import { check } from '../sys/failure.ts'
import type { Fd } from '../sys/fd.ts'
import { namespaceInTime } from '../sys/in-time.ts'
import { ownerUid } from '../sys/namespace.ts'
import { native } from '../sys/native.ts'
import { inodeOf } from '../sys/open.ts'
import { peerCredentials } from '../sys/peer.ts'
import { readable, type Watch, watchReadable } from '../sys/poll.ts'
import { procFields } from '../sys/proc-file.ts'
import type { ProcessHandle } from '../sys/process.ts'
import { recvFds, sendFds, socket } from '../sys/socket.ts'
import { CAPABILITIES } from '../uapi/constants.ts'
import { ERRNO } from '../uapi/errno.ts'
import { PROCESS_IDS, parseWithin } from '../uapi/number-range.ts'
import type { Asker } from './asker.ts'
import { PATIENCE_MS } from './clock.ts'

const LAUNCHER_SOCKET = '/run/bpftoken/launch.sock'

const AF_UNIX = 1
const SOCK_SEQPACKET = 5
const SOCK_NONBLOCK = 0o4000
const VERSION = 1
const HOST_NETWORK = 1
const IDENTITY = 2
/** More than that it never says. */
const ANSWER_BYTES = 2048
/** For hangs: of processes, namespaces, and of a slow cgroup. */
const ANSWER_MS = 15_000

export interface ToLaunch {
  /** The descriptor of the asker's over which it tells the launcher what to start. */
  readonly control: number
  readonly network: 'own' | 'host'
  /** The program sees the user's own id, and not root's. */
  readonly identity: boolean
}

interface Launch {
  readonly connection: Fd
  /** Held: as long as it is, no other one gets the number of its inode, by which it is known. */
  readonly userNamespace: Fd
  readonly watch: Watch
  readonly asker: bigint
  /** How many hold on to it. */
  holders: number
}

export class Launches implements Disposable {
  readonly #address: Uint8Array
  /** By the name of the user namespace. */
  readonly #waiting = new Map<string, Launch>()

  constructor(path = LAUNCHER_SOCKET) {
    this.#address = unixAddress(path)
  }

  /**
   * Has the namespaces made, in which the program waits. The caller disposes of the target: if the
   * loan is not made by then, and nobody else holds on to it, nothing is started. NotSupportedError:
   * no launcher answers; DeniedError: the asker is not who it
   * was, or confined by what its program would leave; InputError: it has no such descriptor.
   */
  async start(asker: Asker, { control, network, identity }: ToLaunch): Promise<Target> {
    using begun = new Owned()
    using theirs = await asker.take(control)
    const connection = begun.add(this.#connect())
    const flags = (network === 'host' ? HOST_NETWORK : 0) | (identity ? IDENTITY : 0)
    asker.handOver((pidfd, { uid, gid }) => {
      const request = new Uint8Array(new Uint32Array([VERSION, flags, uid, gid]).buffer)
      sendFds(connection, request, [pidfd, theirs])
    })
    const target = begun.add(await openTargetInTime(await answerOf(connection), PATIENCE_MS))
    const userNamespace = begun.add(await namespaceInTime(target.process, 'user', PATIENCE_MS))
    const id = `user:[${inodeOf(userNamespace)}]`
    // It is in the ones that it was made with, and stays there: it waits, and only then is the user's.
    if (id !== target.facts.userNamespace || ownerUid(userNamespace) !== 0)
      throw new ConflictError('What the launcher has started is not where it was started')
    asker.confirm()
    // It says nothing more: to be readable means that it has gone.
    const watch = watchReadable(connection, () => this.#end(id))
    watch.keepAlive(false)
    const launch = { connection, userNamespace, watch, asker: asker.uniqueId, holders: 1 }
    this.#waiting.set(id, launch)
    begun.moveTo(new Owned())
    return {
      ...target,
      [Symbol.dispose]: () => {
        target[Symbol.dispose]()
        this.#letGo(id, launch)
      },
    }
  }

  /** Whether the target waits for a loan that this asker asks for. */
  isFor(asker: Asker, { facts }: Target): boolean {
    const launch = this.#waiting.get(facts.userNamespace)
    return launch !== undefined && launch.asker === asker.uniqueId
  }

  /** It waits on, while this is not disposed of. Of any other target it does nothing. */
  hold({ facts: { userNamespace } }: Target): Disposable {
    const launch = this.#waiting.get(userNamespace)
    if (launch !== undefined) launch.holders++
    return {
      [Symbol.dispose]: () => {
        if (launch !== undefined) this.#letGo(userNamespace, launch)
      },
    }
  }

  /** The loan is in place: its program starts, with these capabilities. */
  release({ facts: { userNamespace } }: Target, capabilities: readonly Capability[]): void {
    const launch = this.#waiting.get(userNamespace)
    if (launch === undefined) return
    const word = new DataView(new ArrayBuffer(9))
    word.setUint8(0, 'g'.charCodeAt(0))
    word.setBigUint64(1, maskOf(capabilities), true)
    try {
      sendFds(launch.connection, new Uint8Array(word.buffer), [])
    } catch {
      // It has gone, and the program with it: the loan ends as others do whose namespace has gone.
    }
    this.#end(userNamespace)
  }

  [Symbol.dispose](): void {
    for (const id of [...this.#waiting.keys()]) this.#end(id)
  }

  #letGo(id: string, launch: Launch): void {
    if (--launch.holders === 0 && this.#waiting.get(id) === launch) this.#end(id)
  }

  #end(id: string): void {
    const launch = this.#waiting.get(id)
    if (launch === undefined) return
    this.#waiting.delete(id)
    launch.watch[Symbol.dispose]()
    launch.connection.close()
    launch.userNamespace.close()
  }

  #connect(): Fd {
    const connection = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK)
    try {
      const result = native().connect(connection.number, this.#address)
      if (result === -ERRNO['EAGAIN']!)
        throw new BusyError('Too many wait for the launcher', { hint: 'Try again later' })
      if ([-ERRNO['ENOENT']!, -ERRNO['ECONNREFUSED']!].includes(result))
        throw new NotSupportedError('No launcher answers on this machine: it starts programs of users', {
          reason: 'launcher-missing',
        })
      check('connect', 'connect', result, 'the socket of the launcher')
      if (peerCredentials(connection.number).uid !== 0)
        throw new DeniedError("What answers at the launcher's socket is not root's")
      return connection
    } catch (error) {
      connection.close()
      throw error
    }
  }
}

/** The process that waits. The caller disposes of it. */
async function answerOf(connection: Fd): Promise<ProcessHandle> {
  await readable(connection, AbortSignal.timeout(ANSWER_MS)).catch(() => {
    throw new TimeoutError('The launcher gave no answer in time')
  })
  const bytes = new Uint8Array(ANSWER_BYTES)
  const { length, fds } = recvFds(connection, bytes)
  using held = new Owned()
  for (const fd of fds) held.add(fd)
  const text = Buffer.from(bytes.subarray(0, length)).toString()
  if (text.startsWith('r')) throw new DeniedError(`The launcher starts nothing: ${text.slice(1)}`)
  const [pidfd] = fds
  if (text !== 'p' || pidfd === undefined || fds.length !== 1)
    throw new ConflictError('The launcher ended before it had answered', { hint: "See the system's log" })
  const info = procFields(readFileSync(`/proc/self/fdinfo/${pidfd.number}`, 'utf8'))
  const pid = parseWithin(PROCESS_IDS, info.get('Pid') ?? '')
  if (pid === undefined) throw new ConflictError('What the launcher has started has exited')
  held.moveTo(new Owned())
  return { pid, pidfd, [Symbol.dispose]: () => pidfd.close() }
}

function maskOf(capabilities: readonly Capability[]): bigint {
  return capabilities.reduce(
    (mask, name) =>
      mask | (1n << BigInt(CAPABILITIES[`CAP_${name.toUpperCase()}` as keyof typeof CAPABILITIES])),
    0n,
  )
}
