/**
 * Who asks: the process that connected, held by pidfd as long as its connection is, and what the
 * kernel says of it now.
 *
 * Whoever has a connection speaks as the process that opened it: it can be passed on, and programs
 * that are started inherit it. So it is worth no more than that process is at this moment. One that
 * has exited, or is of another user since (it executed a setuid program, or gave up being root),
 * may nothing: what the program it has become may do is not for who holds the socket.
 *
 * Nothing here has the daemon wait for the asker. What is read at once takes neither its mmap_lock nor
 * what an execve(2) holds, and asks no file system. The rest is done beside the event loop, and in
 * time: see src/sys/in-time.ts for what is which.
 */
import { readFileSync, statSync } from 'node:fs'
import { type Accounts, cgroupOf, type Shown, shownInTime, subjectAgain } from '../delegation/subject.ts'
import { openTargetInTime, type Target } from '../delegation/target.ts'
import { Owned } from '../ebpf/owned.ts'
import { DeniedError, InputError, NotFoundError, SyscallError } from '../errors.ts'
import type { Policy } from '../policy/policy.ts'
import type { Fact, SubjectFacts } from '../policy/subject.ts'
import { userShare } from '../registry/asker-facts.ts'
import type { Fd } from '../sys/fd.ts'
import { namespaceInTime, takeFdInTime } from '../sys/in-time.ts'
import {
  hasPowerOver,
  heldNamespace,
  heldNamespaceName,
  ownerOf,
  uniqueNamespaceId,
} from '../sys/namespace.ts'
import { type PeerCredentials, peerCredentials, peerPidfd } from '../sys/peer.ts'
import { type ProcFields, procFields, procNumbers } from '../sys/proc-file.ts'
import {
  openProcess,
  openProcessOf,
  openSame,
  type ProcessHandle,
  readProc,
  stillAlive,
  uniqueIdOf,
} from '../sys/process.ts'
import { INITIAL_USER_NAMESPACE, ownNamespace } from '../sys/self.ts'
import { CAPABILITIES } from '../uapi/constants.ts'
import { DESCRIPTORS, isWithin, PROCESS_IDS, parseWithin, USER_IDS } from '../uapi/number-range.ts'
import type { Asker, AskerFacts } from './asker.ts'
import { PATIENCE_MS } from './clock.ts'

/** What is read of the asker at one moment. */
interface Now {
  readonly status: ProcFields
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

  /**
   * One that has connected to a daemon before us, by what it kept of it. The caller disposes of it.
   * DeniedError: it has exited, or is no more the user that connected.
   */
  static again({ pid, uid, gid }: PeerCredentials, uniqueId: bigint, accounts: Accounts): Peer {
    const connected = { pid, uid, gid }
    try {
      const peer = new Peer(connected, openProcessOf(pid, uniqueId).pidfd, accounts)
      try {
        peer.confirm()
        return peer
      } catch (error) {
        peer[Symbol.dispose]()
        throw error
      }
    } catch (error) {
      if (error instanceof NotFoundError) throw gone(connected, error)
      throw error
    }
  }

  private constructor(connected: PeerCredentials, pidfd: Fd, accounts: Accounts) {
    this.#connected = connected
    this.#process = { pid: connected.pid, pidfd, [Symbol.dispose]: () => pidfd.close() }
    this.#accounts = accounts
  }

  get uid(): number {
    return this.#connected.uid
  }

  get uniqueId(): bigint {
    return uniqueIdOf(this.#process)
  }

  /**
   * Whether it could lend without us: user 0 with CAP_SYS_ADMIN in the initial user namespace. User 0
   * of a container that has no user namespace has it not. Read anew; DeniedError as `who`.
   */
  get isRoot(): boolean {
    return this.#isRoot(this.#now())
  }

  get owner(): string {
    const owner = this.#look(() => this.#owner())
    this.#now()
    return owner
  }

  #owner(): string {
    using namespace = heldNamespace(this.#process, 'user')
    return ownerOf(namespace) ?? userShare(this.uid)
  }

  #namespaceId(): string | undefined {
    using namespace = heldNamespace(this.#process, 'user')
    return uniqueNamespaceId(namespace)?.toString()
  }

  #isRoot({ userNamespace, isAdmin }: Now): boolean {
    return this.uid === 0 && userNamespace === INITIAL_USER_NAMESPACE && isAdmin
  }

  confirm(): void {
    this.#now()
  }

  async who(): Promise<{ readonly isRoot: boolean; readonly facts: AskerFacts }> {
    const { userNamespace } = this.#now()
    const { cgroup, unit, owner, userNamespaceId } = this.#look(() => ({
      ...cgroupOf(this.#process),
      owner: this.#owner(),
      userNamespaceId: userNamespace === INITIAL_USER_NAMESPACE ? undefined : this.#namespaceId(),
    }))
    const facts = {
      ...this.#connected,
      ...known('owner', owner === userShare(this.uid) ? undefined : owner),
      ...known(
        'loginUid',
        this.#look(() => loginUidFrom(readIfThere(this.#process, 'loginuid'))),
      ),
      ...known('cgroup', told(cgroup)),
      ...known('unit', told(unit)),
      userNamespace,
      ...known('userNamespaceId', userNamespaceId),
    }
    // It may have changed while the rest was read.
    const now = this.#now()
    if (now.userNamespace !== userNamespace)
      throw new DeniedError('Whoever asks has entered another user namespace meanwhile', {
        hint: 'Ask again',
      })
    return { isRoot: this.#isRoot(now), facts }
  }

  async subject(policies: readonly Pick<Policy, 'subjects'>[]): Promise<SubjectFacts> {
    this.#now()
    return this.subjectAgain(policies, await this.shown(policies))
  }

  shown(policies: readonly Pick<Policy, 'subjects'>[]): Promise<Shown> {
    const subjects = policies.flatMap(policy => policy.subjects ?? [])
    return this.#lookLater(shownInTime(this.#process, { subjects }, PATIENCE_MS))
  }

  subjectAgain(policies: readonly Pick<Policy, 'subjects'>[], before: Shown): SubjectFacts {
    this.#now()
    const subjects = policies.flatMap(policy => policy.subjects ?? [])
    const found = this.#look(() => subjectAgain(this.#process, { subjects }, this.#accounts, before))
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
    const taken = await this.#lookLater(takeFdInTime(this.#process, descriptor, PATIENCE_MS)).catch(error => {
      if (!(error instanceof SyscallError) || error.errnoName !== 'EBADF') throw error
      throw new InputError(`The asker has no descriptor ${descriptor}`, {
        context: { descriptor, asker: this.#process.pid },
        cause: error,
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

  handOver(use: (pidfd: Fd, ids: { readonly uid: number; readonly gid: number }) => void): void {
    this.#now()
    use(this.#process.pidfd, this.#connected)
  }

  /**
   * The process that a recipient means. The caller disposes of it. DeniedError: the asker counts
   * processes otherwise than we, or has no power over that one; InputError: its descriptor is none of
   * a process; ConflictError: it cannot be lent to; NotFoundError, to root: the process has exited.
   * Others than root get one answer for what is not there, what is another's and what is nobody's, so
   * that they learn nothing of processes that are not theirs, and have nobody look at these.
   */
  async recipient(recipient: { pid: number } | { pidfd: number } | { self: true }): Promise<Target> {
    const now = this.#now()
    if ('self' in recipient) {
      const self = this.#look(() => openSame(this.#process))
      return this.#lookLater(openTargetInTime(self, PATIENCE_MS))
    }
    const find = (): ProcessHandle =>
      'pid' in recipient ? this.#byNumber(recipient.pid) : this.#byPidfd(recipient.pidfd)
    if (this.#isRoot(now)) return openTargetInTime(find(), PATIENCE_MS)
    const named = 'pid' in recipient ? `process ${recipient.pid}` : 'that process'
    try {
      const held = find()
      await this.#requirePower(held, now, named)
      return await openTargetInTime(held, PATIENCE_MS)
    } catch (error) {
      throw error instanceof NotFoundError ? this.#noPower(named) : error
    }
  }

  /** Disposes of the process where it throws. */
  async #requirePower(held: ProcessHandle, now: Now, named: string): Promise<void> {
    using begun = new Owned()
    begun.add(held)
    using namespace = await namespaceInTime(held, 'user', PATIENCE_MS).catch(error => {
      // A security module keeps it even from us.
      if (error instanceof SyscallError && ['EACCES', 'EPERM'].includes(error.errnoName))
        throw this.#noPower(named)
      throw error
    })
    if (!this.#hasPowerOver(namespace, now)) throw this.#noPower(named)
    begun.moveTo(new Owned())
  }

  #hasPowerOver(namespace: Fd, { userNamespace, isAdmin }: Now): boolean {
    const own = hasPowerOver(namespace, { userNamespace, uid: this.uid, isAdmin })
    // A namespace that it lies in cannot have been another's of that number, for it lives.
    this.#look(() => stillAlive(this.#process))
    return own
  }

  #noPower(named: string): DeniedError {
    return new DeniedError(`User ${this.uid} has no power over ${named}, or there is none`, {
      context: { uid: this.uid, asker: this.#process.pid },
      hint: 'Ask for a process in a user namespace that you made yourself',
    })
  }

  #byNumber(pid: number): ProcessHandle {
    if (!isWithin(PROCESS_IDS, pid))
      throw new InputError('This cannot be the number of a process', { context: { pid } })
    if (this.#look(() => heldNamespaceName(this.#process, 'pid')) !== ownNamespace('pid'))
      throw new DeniedError(
        'A process can be named by its number from the pid namespace of the daemon alone',
        {
          context: { pid, asker: this.#process.pid },
          hint: 'Open a pidfd of the process, and give the number of that descriptor',
        },
      )
    return openProcess(pid)
  }

  /**
   * Without taking it. Its fdinfo names a process by number; that one is held; and then the fdinfo
   * of both descriptors is compared: every pidfd of one process lies on one inode of one mount, ever
   * since Linux 6.9, and so does no other file. A thread is no recipient.
   */
  #byPidfd(descriptor: number): ProcessHandle {
    requireDescriptor(descriptor)
    const named = this.#descriptorFields(descriptor)
    const pid = parseWithin(PROCESS_IDS, named.get('Pid') ?? '')
    const none = new InputError(`Descriptor ${descriptor} of the asker is no pidfd of a process that runs`, {
      context: { descriptor, asker: this.#process.pid },
    })
    if (pid === undefined) throw none
    const held = openProcess(pid)
    try {
      const ours = procFields(readFileSync(`/proc/self/fdinfo/${held.pidfd.number}`, 'utf8'))
      const theirs = this.#descriptorFields(descriptor)
      const same = (['mnt_id', 'ino', 'Pid'] as const).every(
        key => ours.get(key) !== undefined && ours.get(key) === theirs.get(key),
      )
      if (!same || procFields(readProc(held, 'status')).get('Tgid') !== String(pid)) throw none
      return held
    } catch (error) {
      held[Symbol.dispose]()
      throw error
    }
  }

  /** What the kernel says of a descriptor of the asker; nothing of one that it has not. */
  #descriptorFields(descriptor: number): ProcFields {
    return procFields(this.#look(() => readIfThere(this.#process, `fdinfo/${descriptor}`)) ?? '')
  }

  hold(): Peer {
    this.#now()
    return new Peer(this.#connected, this.#look(() => openSame(this.#process)).pidfd, this.#accounts)
  }

  requireOwn(target: Target): void {
    const now = this.#now()
    if (this.#isRoot(now)) return
    if (!this.#hasPowerOver(target.userNamespace, now)) throw this.#noPower(`process ${target.facts.pid}`)
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
    const before = this.#isOpenToItsUser()
    const status = procFields(readProc(this.#process, 'status'))
    const userNamespace = heldNamespaceName(this.#process, 'user')
    this.#requireSame(status)
    const isAdmin = hasCapability(status.get('CapEff'), CAPABILITIES.CAP_SYS_ADMIN)
    return { status, userNamespace, isAdmin: isAdmin && before && this.#isOpenToItsUser() }
  }

  /**
   * Whether other processes of its user may look into it: the kernel says so by the owner of its
   * files in /proc. A program that was executed and got capabilities by its file's is closed to them
   * (PR_SET_DUMPABLE), though all its ids are as they were. What it has may not be had by whoever
   * else holds the connection.
   */
  #isOpenToItsUser(): boolean {
    const status = statSync(`/proc/${this.#process.pid}/status`, { throwIfNoEntry: false })
    return status?.uid === this.uid
  }

  /** All four ids of user and group: real, effective, saved, file system. */
  #requireSame(status: ProcFields): void {
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
      throw this.#refusal(error)
    }
  }

  async #lookLater<T>(found: Promise<T>): Promise<T> {
    try {
      return await found
    } catch (error) {
      throw this.#refusal(error)
    }
  }

  #refusal(error: unknown): unknown {
    return error instanceof NotFoundError ? gone(this.#connected, error) : error
  }
}

function gone({ pid, uid }: PeerCredentials, cause: unknown): DeniedError {
  return new DeniedError(`Process ${pid}, which connected, has exited`, {
    context: { pid, uid },
    hint: 'Keep the process that connects until it has its answer',
    cause,
  })
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
