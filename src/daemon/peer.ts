/**
 * Who asks: the process that connected, held by pidfd as long as its connection is, and what the
 * kernel says of it now.
 *
 * Whoever has a connection speaks as the process that opened it: it can be passed on, and programs
 * that are started inherit it. So it is worth no more than that process is at this moment. One that
 * has exited, or is of another user since (it executed a setuid program, or gave up being root),
 * may nothing: what the program it has become may do is not for who holds the socket.
 *
 * Nothing here waits for the asker. What is read of it takes neither its mmap_lock nor the lock that
 * an execve(2) holds (see src/delegation/subject.ts), and asks no file system. pidfd_getfd(2) does
 * wait for an execve(2), which its user can have last for ever; so it runs beside the event loop.
 */
import { type Accounts, subjectOf } from '../delegation/subject.ts'
import { openTarget, type Target } from '../delegation/target.ts'
import { DeniedError, InputError, NotFoundError, SyscallError } from '../errors.ts'
import type { Policy } from '../policy/policy.ts'
import type { Fact, SubjectFacts } from '../policy/subject.ts'
import type { Fd } from '../sys/fd.ts'
import { hasPowerOver } from '../sys/namespace.ts'
import { identityOf } from '../sys/open.ts'
import { type PeerCredentials, peerCredentials, peerPidfd } from '../sys/peer.ts'
import { procFields, procNumbers } from '../sys/proc-file.ts'
import { namespaceOf, openProcess, type ProcessHandle, readProc, stillAlive } from '../sys/process.ts'
import { INITIAL_USER_NAMESPACE, ownNamespace } from '../sys/self.ts'
import { takeFdInTime } from '../sys/take-fd.ts'
import { CAPABILITIES } from '../uapi/constants.ts'
import { DESCRIPTORS, isWithin, PROCESS_IDS, parseWithin, USER_IDS } from '../uapi/number-range.ts'
import type { Asker, AskerFacts } from './asker.ts'

const TAKE_TIMEOUT_MS = 1000

/** What is read of the asker at one moment. */
interface Now {
  readonly status: ReadonlyMap<string, string>
  readonly userNamespace: string
  readonly isAdmin: boolean
}

export class Peer implements Asker, Disposable {
  readonly #connected: PeerCredentials
  readonly #process: ProcessHandle
  readonly #accounts: Accounts

  /**
   * The peer of a connected Unix socket, by its number: to be called when it connects, before a
   * byte of it is read. The caller disposes of it when the connection ends. DeniedError: it has
   * exited already, or has no number in our pid namespace. SyscallError ENOPROTOOPT: the kernel is
   * older than Linux 6.5.
   */
  static of(descriptor: number, accounts: Accounts): Peer {
    const connected = peerCredentials(descriptor)
    if (!isWithin(PROCESS_IDS, connected.pid) || !isWithin(USER_IDS, connected.uid))
      throw new DeniedError('Whoever connected has no number in this pid namespace', {
        context: { ...connected },
      })
    let pidfd: Fd
    try {
      pidfd = peerPidfd(descriptor)
    } catch (error) {
      if (error instanceof SyscallError && ['EINVAL', 'ESRCH', 'ENODATA'].includes(error.errnoName))
        throw gone(connected, error)
      throw error
    }
    return new Peer(connected, pidfd, accounts)
  }

  private constructor(connected: PeerCredentials, pidfd: Fd, accounts: Accounts) {
    this.#connected = connected
    this.#process = { pid: connected.pid, pidfd, [Symbol.dispose]: () => pidfd.close() }
    this.#accounts = accounts
  }

  get uid(): number {
    return this.#connected.uid
  }

  /**
   * Whether it could lend without us: user 0 with CAP_SYS_ADMIN in the initial user namespace. User 0
   * of a container that has no user namespace has it not. Read anew; DeniedError as `facts`.
   */
  get isRoot(): boolean {
    return this.#isRoot(this.#now())
  }

  #isRoot({ userNamespace, isAdmin }: Now): boolean {
    return this.uid === 0 && userNamespace === INITIAL_USER_NAMESPACE && isAdmin
  }

  facts(): AskerFacts {
    return this.#look(() => {
      const { status, userNamespace } = this.#read()
      const { executable, cgroup, unit, label } = subjectOf(this.#process, {}, this.#accounts)
      const loginUid = loginUidFrom(readIfThere(this.#process, 'loginuid'))
      this.#requireSame(status)
      return {
        ...this.#connected,
        ...known('loginUid', loginUid),
        ...known('executable', told(executable)),
        ...known('cgroup', told(cgroup)),
        ...known('unit', told(unit)),
        ...known('label', told(label)),
        userNamespace,
      }
    })
  }

  subject(policies: readonly Policy[]): SubjectFacts {
    this.#now()
    const subjects = policies.flatMap(policy => policy.subjects ?? [])
    const found = this.#look(() => subjectOf(this.#process, { subjects }, this.#accounts))
    // It may have changed while the rest was read.
    this.#now()
    return found
  }

  /**
   * A copy of one of its descriptors, by number. The caller closes it. InputError: it has none such;
   * TimeoutError: it is in the middle of an execve(2) that does not end.
   */
  async take(descriptor: number): Promise<Fd> {
    requireDescriptor(descriptor)
    this.#now()
    const taken = await takeFdInTime(this.#process, descriptor, TAKE_TIMEOUT_MS).catch(error => {
      if (error instanceof SyscallError && error.errnoName === 'EBADF')
        throw new InputError(`The asker has no descriptor ${descriptor}`, {
          context: { descriptor, asker: this.#process.pid },
          cause: error,
        })
      return this.#look(() => {
        throw error
      })
    })
    try {
      // What another program has opened, which it has become meanwhile, is not the asker's to give.
      this.#now()
      return taken
    } catch (error) {
      taken.close()
      throw error
    }
  }

  /**
   * The process that a recipient means. The caller disposes of it. DeniedError: the asker counts
   * processes otherwise than we; InputError: its descriptor is none of a process; NotFoundError: the
   * process has exited; ConflictError: it cannot be lent to.
   */
  recipient(recipient: { pid: number } | { pidfd: number } | { self: true }): Target {
    this.#now()
    if ('pid' in recipient) return this.#byNumber(recipient.pid)
    return openTarget('self' in recipient ? this.#self() : this.#byPidfd(recipient.pidfd))
  }

  #byNumber(pid: number): Target {
    if (!isWithin(PROCESS_IDS, pid))
      throw new InputError('This cannot be the number of a process', { context: { pid } })
    if (this.#look(() => namespaceOf(this.#process, 'pid')) !== ownNamespace('pid'))
      throw new DeniedError(
        'A process can be named by its number from the pid namespace of the daemon alone',
        {
          context: { pid, asker: this.#process.pid },
          hint: 'Open a pidfd of the process, and give the number of that descriptor',
        },
      )
    return openTarget(pid)
  }

  /** It has kept its number, for it lives after that was opened. */
  #self(): ProcessHandle {
    return opened(this.#process.pid, () => this.#look(() => stillAlive(this.#process)))
  }

  /**
   * Without taking it. Its fdinfo names a process by number; that one is held; and then it is held
   * against what the asker's descriptor is: a pidfd has the same identity as every other of that
   * process or thread, ever since Linux 6.9, and no other file has.
   */
  #byPidfd(descriptor: number): ProcessHandle {
    requireDescriptor(descriptor)
    const context = { descriptor, asker: this.#process.pid }
    const none = new InputError(`Descriptor ${descriptor} of the asker is no pidfd of a process that runs`, {
      context,
    })
    const text = readIfThere(this.#process, `fdinfo/${descriptor}`)
    const pid = parseWithin(PROCESS_IDS, procFields(text ?? '').get('Pid') ?? '')
    if (pid === undefined) throw none
    return opened(pid, held => {
      let theirs: string
      try {
        theirs = identityOf(`/proc/${this.#process.pid}/fd/${descriptor}`)
      } catch (cause) {
        this.#look(() => stillAlive(this.#process))
        if (cause instanceof SyscallError) throw none
        throw cause
      }
      this.#look(() => stillAlive(this.#process))
      if (
        theirs !== identityOf(held.pidfd) ||
        procFields(readProc(held, 'status')).get('Tgid') !== String(pid)
      )
        throw none
    })
  }

  hold(): Peer {
    this.#now()
    return new Peer(this.#connected, this.#self().pidfd, this.#accounts)
  }

  requireOwn(target: Target): void {
    const now = this.#now()
    if (this.#isRoot(now)) return
    const { userNamespace, isAdmin } = now
    const own = hasPowerOver(target.userNamespace, { userNamespace, uid: this.uid, isAdmin })
    // A namespace that it lies in cannot have been another's of that number, for it lives.
    this.#look(() => stillAlive(this.#process))
    if (!own)
      throw new DeniedError(
        `User ${this.uid} has no power over the user namespace of process ${target.facts.pid}`,
        {
          context: {
            uid: this.uid,
            asker: this.#process.pid,
            pid: target.facts.pid,
            userNamespace: target.facts.userNamespace,
          },
          hint: 'Ask for a process in a user namespace that you made yourself',
        },
      )
  }

  [Symbol.dispose](): void {
    this.#process[Symbol.dispose]()
  }

  #now(): Now {
    return this.#look(() => this.#read())
  }

  /**
   * The status first, then the namespace: nobody comes back from a user namespace to one above, but
   * whoever makes one has all capabilities in it. So capabilities that were had in one are never
   * taken for those in one above.
   */
  #read(): Now {
    const status = procFields(readProc(this.#process, 'status'))
    const userNamespace = namespaceOf(this.#process, 'user')
    this.#requireSame(status)
    return { status, userNamespace, isAdmin: hasCapability(status.get('CapEff'), CAPABILITIES.CAP_SYS_ADMIN) }
  }

  /** All four ids of user and group: real, effective, saved, file system. */
  #requireSame(status: ReadonlyMap<string, string>): void {
    const { pid, uid, gid } = this.#connected
    for (const [line, id] of [
      ['Uid', uid],
      ['Gid', gid],
    ] as const) {
      const ids = procNumbers(status.get(line) ?? '') ?? []
      if (ids.length === 4 && ids.every(one => one === id)) continue
      throw new DeniedError(
        `Process ${pid} connected as ${line === 'Uid' ? 'user' : 'group'} ${id}, and has ids ${ids.join(' ')} now`,
        { context: { pid, uid, gid }, hint: 'Connect again' },
      )
    }
  }

  /** That it has exited is not that something is not found. */
  #look<T>(look: () => T): T {
    try {
      return look()
    } catch (error) {
      if (error instanceof NotFoundError) throw gone(this.#connected, error)
      throw error
    }
  }
}

function gone({ pid, uid }: PeerCredentials, cause: unknown): DeniedError {
  return new DeniedError(`Process ${pid}, which connected, has exited`, {
    context: { pid, uid },
    hint: 'Keep the process that connects until it has its answer',
    cause,
  })
}

/** Process `pid`, if `prove` finds nothing against it. */
function opened(pid: number, prove: (held: ProcessHandle) => void): ProcessHandle {
  const held = openProcess(pid)
  try {
    prove(held)
    return held
  } catch (error) {
    held[Symbol.dispose]()
    throw error
  }
}

function requireDescriptor(descriptor: number): void {
  if (!isWithin(DESCRIPTORS, descriptor))
    throw new InputError('This cannot be the number of a descriptor', { context: { descriptor } })
}

/** Undefined: there is no such file, since this kernel or the process has none of it. */
function readIfThere(process: ProcessHandle, name: string): string | undefined {
  try {
    return readProc(process, name)
  } catch (error) {
    if (!(error instanceof NotFoundError)) throw error
    // It may be the process that has gone.
    stillAlive(process)
    return undefined
  }
}

/** (uid_t)-1: nobody has logged in. */
export function loginUidFrom(text: string | undefined): number | undefined {
  return parseWithin(USER_IDS, text?.trim() ?? '')
}

/** Of a line of capabilities of /proc/PID/status: hexadecimal, bit n is capability n. */
export function hasCapability(line: string | undefined, capability: number): boolean {
  return /^[0-9a-f]{16}$/.test(line ?? '') && ((BigInt(`0x${line}`) >> BigInt(capability)) & 1n) === 1n
}

function told<T>(fact: Fact<T>): T | undefined {
  return 'is' in fact ? fact.is : undefined
}

function known<K extends string, T>(key: K, value: T | undefined): { [P in K]?: T } {
  return (value === undefined ? {} : { [key]: value }) as { [P in K]?: T }
}
