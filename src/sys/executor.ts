/**
 * The client of native/executor/: a process of ours that enters the namespaces of others, since
 * Node, with its threads, cannot. It is asked over a socket, and Node's event loop goes on
 * meanwhile.
 *
 * One executor does one plan at a time. `borrowExecutor` gives one that is idle, or starts one.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { readFileSync, readlinkSync, statSync } from 'node:fs'
import { type BpftokenError, ConflictError, NotFoundError, NotSupportedError } from '../errors.ts'
import {
  EXECUTOR_VERSION,
  executor_action,
  executor_answer,
  executor_entry,
  executor_hello,
  executor_mount,
  executor_plan,
  executor_undone,
  KINDS,
  type Kind,
  MAX_ACTIONS,
  MESSAGE_BYTES,
  OPS,
  type Op,
  SLOTS,
  type Slot,
} from './executor-layout.ts'
import { failure } from './failure.ts'
import type { Fd } from './fd.ts'
import { native } from './native.ts'
import { readable, type Watch, watchReadable } from './poll.ts'
import { executorPath } from './prebuilt.ts'
import { procFields, procNumbers } from './proc-file.ts'
import { recvFds, sendFds, socketPair } from './socket.ts'
import { unlessGone } from './tasks.ts'

export interface RawAction {
  readonly op: Op
  readonly number?: number | undefined
  readonly more?: number | undefined
  /** Bytes where it need not be UTF-8. */
  readonly text?: readonly (string | Uint8Array)[] | undefined
}

export interface RawPlan {
  readonly actions: readonly RawAction[]
  /** Of the target, for kernels without pidfd ioctls. */
  readonly pid: number
  /** Group of the child that enters the target's namespaces; its user is their owner. */
  readonly gid: number
  /** For all actions together; undoing has as long again. */
  readonly deadlineMs: number
  /** Lent for the plan. */
  readonly slots: Readonly<Partial<Record<Slot, Fd>>>
  /** Which descriptors the answer shall bring. */
  readonly give?: readonly Slot[]
}

/** A mount as the target's mount namespace has it. */
export interface SeenMount {
  readonly mountId: number
  readonly device: string
  readonly fsType: string
  readonly root: string
  /** As its mount namespace names it. */
  readonly path: string
  readonly superOptions: string[]
  /** Whether what was looked at is its root directory, and not one below that. */
  readonly atRoot: boolean
}

export interface Undone {
  readonly op: Op
  /** 0, or -errno. */
  readonly result: number
}

export interface Answer {
  /** Index of the action that failed; undefined: none did. */
  readonly failed: number | undefined
  /** 0 or -errno of each action that was tried. */
  readonly results: readonly number[]
  /** In the order in which it was undone. */
  readonly undone: readonly Undone[]
  /** Of the actions LOOK. */
  readonly mounts: readonly SeenMount[]
  /** The caller closes them. */
  readonly given: Readonly<Partial<Record<Slot, Fd>>>
  /** What was done waits for `keep` or `undo`. */
  readonly held: boolean
}

/** Something that an executor had begun when it died. The caller closes the descriptor. */
export interface Unfinished {
  readonly op: Op
  readonly fd: Fd
}

/**
 * The executor has died, was killed, or was left behind, since it hangs; with what it had begun.
 */
export class ExecutorLost extends ConflictError {
  readonly unfinished: readonly Unfinished[]

  /** `hanging`: its process id, when it is still there. */
  constructor(unfinished: readonly Unfinished[], hanging?: number) {
    super(
      hanging === undefined
        ? 'The process that executes delegations has died'
        : `The process that executes delegations hangs, and was left behind (process ${hanging})`,
      {
        context: { pid: hanging },
        hint:
          hanging === undefined
            ? 'Look in the kernel log for why (out of memory?), and try again'
            : `It was sent SIGKILL, and ends when the kernel lets go of it: see /proc/${hanging}/stack`,
      },
    )
    this.unfinished = unfinished
  }
}

/**
 * Beyond what doing and undoing may take: an executor that has not answered then is not going to.
 */
const SLACK_MS = 5000
/**
 * How long an executor that was killed may take to be gone. One that sleeps in the kernel never is.
 */
const EXIT_MS = 2000
/** The same for a child of it. */
const CHILD_EXIT_MS = 1000
/** How long an executor may take to let go of a plan that has ended, before it is given up. */
const CLEAN_MS = 5000
const INCOMING = new Uint8Array(MESSAGE_BYTES)
const OUTGOING = new Uint8Array(MESSAGE_BYTES)
const NO_FDS: Fd[] = []

interface Waiting {
  readonly resolve: (answer: Answer) => void
  readonly reject: (error: Error) => void
  readonly paused: Paused | undefined
}

/**
 * What is done at an action PAUSE, the one with index `at`, before the plan goes on; when it
 * throws, it does not.
 */
export type Paused = (executor: Executor, at: number) => void | Promise<void>

export class Executor implements Disposable {
  readonly pid: number
  readonly #child: ChildProcess
  readonly #socket: Fd
  readonly #journal: Fd
  readonly #watch: Watch
  #waiting: Waiting | undefined
  #refused: BpftokenError | undefined
  #lost = false
  #serial = 0
  /** Plans that were sent, and of which it has not let go yet. */
  #plans = 0
  #whenFree: (() => void) | undefined

  /**
   * Starts one, without waiting for it. NotFoundError: it was not built. The caller disposes of it.
   */
  static start(how: { readonly proc?: boolean } = {}): Executor {
    const [socket, theirs] = socketPair()
    const [journal, journalIn] = socketPair()
    try {
      const child = spawn(executorPath(), how.proc === true ? ['proc'] : [], {
        stdio: ['ignore', 'ignore', 'ignore', theirs.number, journalIn.number, journal.number],
        // Away from our terminal and its signals; it ends with our end of the socket.
        detached: true,
        env: {},
        cwd: '/',
      })
      child.on('error', () => {}) // The socket ends then; so whoever asks learns of it.
      if (child.pid === undefined)
        throw new NotFoundError('Cannot start bpftoken-executor', {
          hint: 'Install bpftoken again, or build the clone',
        })
      child.unref()
      return new Executor(child, socket, journal)
    } catch (error) {
      socket.close()
      journal.close()
      throw error
    } finally {
      theirs.close()
      journalIn.close()
    }
  }

  private constructor(child: ChildProcess, socket: Fd, journal: Fd) {
    this.pid = child.pid!
    this.#child = child
    this.#socket = socket
    this.#journal = journal
    this.#watch = watchReadable(socket, () => this.#read())
    this.#watch.keepAlive(false)
  }

  /** Whether it can be asked. */
  get alive(): boolean {
    return !this.#lost
  }

  /**
   * Runs the plan. When the answer says `held`, `keep` or `undo` comes next, and nothing else.
   * Aborting undoes what was done, and the answer then says ECANCELED. ExecutorLost: it died.
   */
  async run(plan: RawPlan, signal?: AbortSignal, paused?: Paused): Promise<Answer> {
    const { bytes, fds } = encodePlan(plan, ++this.#serial)
    const answer = this.#ask(4 * plan.deadlineMs + SLACK_MS, paused, () => {
      if (this.#send(bytes, fds)) this.#plans++
    })
    if (signal === undefined) return answer
    const cancel = (): void => this.#word('CANCEL')
    signal.addEventListener('abort', cancel)
    try {
      return await answer
    } finally {
      signal.removeEventListener('abort', cancel)
    }
  }

  /** What was done stays, whatever becomes of us. */
  keep(): void {
    this.#word('KEEP')
  }

  /** Undoes what was done. */
  undo(deadlineMs: number): Promise<Answer> {
    return this.#ask(3 * deadlineMs + SLACK_MS, undefined, () => this.#word('UNDO'))
  }

  #ask(patienceMs: number, paused: Paused | undefined, send: () => void): Promise<Answer> {
    if (this.#refused !== undefined) return Promise.reject(this.#refused)
    if (this.#waiting !== undefined) throw new Error('this executor has a plan already')
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.kill()
        // Nobody can end one that sleeps in the kernel: it is not heard any more.
        this.#end()
      }, patienceMs)
      this.#watch.keepAlive(true)
      const done = (): void => {
        clearTimeout(timer)
        this.#waiting = undefined
        if (!this.#lost) this.#watch.keepAlive(false)
      }
      this.#waiting = {
        resolve: answer => {
          done()
          resolve(answer)
        },
        reject: error => {
          done()
          reject(error)
        },
        paused,
      }
      if (this.#lost) void this.#tellLost()
      else send()
    })
  }

  /** What cannot be sent is to somebody who has gone, which `#read` finds out. */
  #send(bytes: Uint8Array, fds: Fd[]): boolean {
    try {
      sendFds(this.#socket, bytes, fds)
      return true
    } catch (error) {
      if (['EPIPE', 'ECONNRESET'].includes((error as { errnoName?: string }).errnoName ?? '')) this.#end()
      else this.#waiting?.reject(error as Error)
      return false
    }
  }

  #word(kind: Kind): void {
    if (!this.#lost) this.#send(new Uint8Array(new Uint32Array([KINDS.indexOf(kind)]).buffer), NO_FDS)
  }

  /** One message; when there are more, we are called again. */
  #read(): void {
    let length: number
    let fds: Fd[]
    try {
      ;({ length, fds } = recvFds(this.#socket, INCOMING))
    } catch (error) {
      if ((error as { errnoName?: string }).errnoName !== 'EAGAIN') this.#end()
      return
    }
    if (length === 0) this.#end()
    else this.#message(INCOMING.subarray(0, length), fds)
  }

  #message(message: Uint8Array, fds: Fd[]): void {
    const kind = KINDS[new DataView(message.buffer, message.byteOffset).getUint32(0, true)]
    switch (kind) {
      case 'HELLO':
        this.#refused = refusal(message)
        if (this.#refused !== undefined) this.#waiting?.reject(this.#refused)
        break
      case 'PAUSED':
        void this.#pause(executor_answer.decode(message).steps!)
        break
      case 'READY':
        this.#plans--
        this.#tellFree()
        break
      case 'RESULT': {
        const answer = decodeAnswer(message, fds)
        if (this.#waiting === undefined) for (const fd of fds) fd.close()
        else this.#waiting.resolve(answer)
      }
    }
  }

  async #pause(at: number): Promise<void> {
    try {
      await this.#waiting?.paused?.(this, at)
      this.keep()
    } catch {
      this.#word('CANCEL')
    }
  }

  /** Its end of the socket is closed. */
  #end(): void {
    if (this.#lost) return
    this.#lost = true
    this.#watch[Symbol.dispose]()
    if (this.#waiting !== undefined) void this.#tellLost()
    this.#tellFree()
  }

  /** Calls `then` once it has let go of all that its plans gave it, or has died, or is given up. */
  whenFree(then: () => void): void {
    const timer = setTimeout(() => {
      this.kill()
      this.#end()
    }, CLEAN_MS).unref()
    this.#whenFree = () => {
      clearTimeout(timer)
      then()
    }
    this.#tellFree()
  }

  #tellFree(): void {
    if (this.#plans > 0 && !this.#lost) return
    const then = this.#whenFree
    this.#whenFree = undefined
    then?.()
  }

  async #tellLost(): Promise<void> {
    const { unfinished, hangs } = await this.#unfinished()
    const lost = new ExecutorLost(unfinished, hangs ? this.pid : undefined)
    if (this.#waiting !== undefined) this.#waiting.reject(lost)
    else for (const { fd } of unfinished) fd.close()
  }

  /**
   * What the journal says of this plan; what it says of one before was kept. An executor that dies
   * takes its child along, but it may take a moment: until the child is gone, it could do what was
   * asked of it last.
   */
  async #unfinished(): Promise<{ unfinished: Unfinished[]; hangs: boolean }> {
    // The kernel closes the socket first; only then does the child die.
    const hangs = !(await exited(this.#child))
    const found: Unfinished[] = []
    const entry = new Uint8Array(executor_entry.size)
    for (;;) {
      let length: number
      let fds: Fd[]
      try {
        ;({ length, fds } = recvFds(this.#journal, entry))
      } catch {
        break // EAGAIN: that was all.
      }
      const [fd, child] = fds
      if (length === 0 || fd === undefined) break
      const { serial, op } = executor_entry.decode(entry)
      if (serial === this.#serial) found.push({ op: OPS[op!]!, fd })
      else fd.close()
      if (child !== undefined) await killed(child)
    }
    return { unfinished: found, hangs }
  }

  /** Ends it in the middle of whatever it does. */
  kill(): void {
    this.#child.kill('SIGKILL')
  }

  /** It ends when it is done with undoing what nobody has said to keep. */
  [Symbol.dispose](): void {
    if (!this.#lost) {
      this.#lost = true
      this.#watch[Symbol.dispose]()
    }
    this.#socket.close()
    this.#journal.close()
  }

  /** Once it and nothing of it is there any more. False: it hangs, and is not waited for. */
  ended(): Promise<boolean> {
    return exited(this.#child)
  }
}

async function exited(child: ChildProcess): Promise<boolean> {
  const isGone = (): boolean =>
    child.exitCode !== null || child.signalCode !== null || child.pid === undefined
  if (isGone()) return true
  child.ref()
  await new Promise<void>(resolve => {
    const timer = setTimeout(resolve, EXIT_MS)
    child.once('exit', () => {
      clearTimeout(timer)
      resolve()
    })
  })
  child.unref()
  return isGone()
}

/** Kills the process, waits until it is gone, and closes its pidfd. */
async function killed(pidfd: Fd): Promise<void> {
  const SIGKILL = 9
  native().pidfd_send_signal(pidfd.number, SIGKILL, null, 0)
  try {
    await readable(pidfd, AbortSignal.timeout(CHILD_EXIT_MS))
  } catch {
    // It sleeps where a signal cannot wake it; what it was asked for last it will not do any more.
  } finally {
    pidfd.close()
  }
}

/** Why we cannot work with an executor that says this; undefined: we can. */
function refusal(message: Uint8Array): BpftokenError | undefined {
  const hello = executor_hello.decode(message)
  const ours = [
    EXECUTOR_VERSION,
    ...[executor_hello, executor_plan, executor_action, executor_answer, executor_undone, executor_mount].map(
      layout => layout.size,
    ),
  ]
  const its = [
    hello.version,
    hello.hello_bytes,
    hello.plan_bytes,
    hello.action_bytes,
    hello.answer_bytes,
    hello.undone_bytes,
    hello.mount_bytes,
  ]
  if (ours.every((value, i) => value === its[i])) return undefined
  return new NotSupportedError('bpftoken-executor is of another version', {
    context: { ours: ours.join(), its: its.join() },
    hint: 'Install bpftoken again, or build the clone',
  })
}

const encoder = new TextEncoder()
const OP_NUMBERS = new Map(OPS.map((op, i) => [op, i]))

function encodePlan(plan: RawPlan, serial: number): { bytes: Uint8Array; fds: Fd[] } {
  if (plan.actions.length > MAX_ACTIONS) throw failure('executor', 'plan', -7 /* E2BIG */)
  const view = new DataView(OUTGOING.buffer)
  const fds: Fd[] = []
  let slots = 0
  for (let i = 0; i < SLOTS.length; i++) {
    const fd = plan.slots[SLOTS[i]!]
    if (fd === undefined) continue
    slots |= 1 << i
    fds.push(fd)
  }
  const give = (plan.give ?? []).reduce((bits, slot) => bits | (1 << SLOTS.indexOf(slot)), 0)
  const { fields, size } = executor_plan
  fields.kind.set(view, 0, KINDS.indexOf('PLAN'))
  fields.actions.set(view, 0, plan.actions.length)
  fields.pid.set(view, 0, plan.pid)
  fields.deadline_ms.set(view, 0, plan.deadlineMs)
  fields.gid.set(view, 0, plan.gid)
  fields.slots.set(view, 0, slots)
  fields.give.set(view, 0, give)
  fields.serial.set(view, 0, serial)
  let at = size
  for (const action of plan.actions) at = encodeAction(action, view, at)
  return { bytes: OUTGOING.subarray(0, at), fds }
}

function encodeAction({ op, number, more, text }: RawAction, view: DataView, at: number): number {
  const { fields, size } = executor_action
  let next = at + size
  if (text !== undefined) {
    for (const part of text) {
      // Fail closed: a text that ends early for the kernel names another thing.
      if (typeof part === 'string' ? part.includes('\0') : part.includes(0))
        throw new TypeError(`${op}: text with a zero byte`)
      const room = OUTGOING.subarray(next, MESSAGE_BYTES - 8)
      const { read, written } =
        typeof part === 'string' ? encoder.encodeInto(part, room) : copyInto(part, room)
      if (read < part.length) throw failure('executor', op, -7 /* E2BIG */)
      next += written
      OUTGOING[next++] = 0
    }
    // The end of a second text, though it be missing; then up to a multiple of four.
    do OUTGOING[next++] = 0
    while (next % 4 !== 0)
  }
  fields.op.set(view, at, OP_NUMBERS.get(op)!)
  fields.bytes.set(view, at, next - at)
  fields.number.set(view, at, number ?? 0)
  fields.more.set(view, at, more ?? 0)
  return next
}

function copyInto(bytes: Uint8Array, room: Uint8Array): { read: number; written: number } {
  const count = Math.min(bytes.length, room.length)
  room.set(bytes.subarray(0, count))
  return { read: count, written: count }
}

function decodeAnswer(message: Uint8Array, fds: Fd[]): Answer {
  const view = new DataView(message.buffer, message.byteOffset, message.byteLength)
  const { fields, size } = executor_answer
  const failed = fields.failed.get(view, 0)
  const steps = fields.steps.get(view, 0)
  const slots = fields.slots.get(view, 0)
  const results: number[] = []
  let at = size
  for (let i = 0; i < steps; i++, at += 4) results.push(view.getInt32(at, true))
  const undone: Undone[] = []
  for (let i = fields.undone.get(view, 0); i > 0; i--, at += executor_undone.size)
    undone.push({
      op: OPS[executor_undone.fields.op.get(view, at)]!,
      result: executor_undone.fields.result.get(view, at),
    })
  const mounts: SeenMount[] = []
  for (let i = fields.mounts.get(view, 0); i > 0; i--) {
    mounts.push(decodeMount(message, view, at))
    at += executor_mount.fields.bytes.get(view, at)
  }
  const given: Partial<Record<Slot, Fd>> = {}
  let next = 0
  if (slots !== 0)
    SLOTS.forEach((slot, i) => {
      if (((slots >> i) & 1) === 1) given[slot] = fds[next++]!
    })
  return {
    failed: failed < 0 ? undefined : failed,
    results,
    undone,
    mounts,
    given,
    held: fields.held.get(view, 0) > 0,
  }
}

function decodeMount(message: Uint8Array, view: DataView, at: number): SeenMount {
  const { fields, size } = executor_mount
  const text = Buffer.from(message.buffer, message.byteOffset + at + size, fields.bytes.get(view, at) - size)
  const [fsType = '', root = '', path = '', options = ''] = text.toString('utf8').split('\0')
  return {
    mountId: fields.id.get(view, at),
    device: `${fields.device_major.get(view, at)}:${fields.device_minor.get(view, at)}`,
    fsType,
    root,
    path,
    superOptions: options.split(','),
    atRoot: fields.at_root.get(view, at) === 1,
  }
}

// ---- those that there are ----

/** So many are started as they are asked for, and kept. They keep a few processors busy. */
const FEW = 4
/** Who finds them all busy waits so long for one before another is started: some may hang. */
const PATIENCE_MS = 50
/** More plans than this at once wait for one that ends. */
const MOST = 32

interface Queued {
  readonly give: (executor: Executor) => void
  readonly timer: NodeJS.Timeout
}

const idle: Executor[] = []
/** They were given back, and let go of their last plan still. */
const cleaning = new Set<Executor>()
const queue: Queued[] = []
let busy = 0

/** One for the caller alone, until it is given back. */
export async function borrowExecutor(): Promise<Executor> {
  // Waiting for one that is nearly free takes less time than starting one.
  if (idle.length > 0 || (busy < FEW && queue.length >= cleaning.size)) return takeExecutor()
  return new Promise(give => {
    const queued: Queued = {
      give,
      timer: setTimeout(() => {
        if (busy >= MOST) return
        queue.splice(queue.indexOf(queued), 1)
        give(takeExecutor())
      }, PATIENCE_MS),
    }
    queue.push(queued)
  })
}

/** As `borrowExecutor`, at once, and beyond the limit. */
export function takeExecutor(): Executor {
  busy++
  for (let one = idle.pop(); one !== undefined; one = idle.pop()) {
    if (one.alive) return one
    one[Symbol.dispose]()
  }
  return Executor.start()
}

/**
 * Gives it back. It has no plan. The next one gets it when it has let go of the last: that may
 * touch what a target made.
 */
export function returnExecutor(executor: Executor): void {
  busy--
  cleaning.add(executor)
  executor.whenFree(() => {
    cleaning.delete(executor)
    handOn(executor)
  })
}

function handOn(executor: Executor): void {
  if (!executor.alive) executor[Symbol.dispose]()
  const next = queue.shift()
  if (next !== undefined) {
    busy++
    clearTimeout(next.timer)
    next.give(executor.alive ? executor : Executor.start())
  } else if (executor.alive) {
    if (idle.length < FEW) idle.push(executor)
    else executor[Symbol.dispose]()
  }
}

/** Ends those that nobody uses, and waits until they are gone. */
export async function endExecutors(): Promise<void> {
  const unused = [...idle.splice(0), ...cleaning]
  cleaning.clear()
  await Promise.all(
    unused.map(executor => {
      executor[Symbol.dispose]()
      return executor.ended()
    }),
  )
}

/**
 * Whether this process is a child of an executor, ours or another one of root's: it is inside a
 * target's namespaces for a moment, and still in our network. Its parent tells, which is ours, and
 * not its name or program, which it could choose.
 */
export function isExecutorChild(directory: string): boolean {
  const parent = unlessGone(() => procFields(readFileSync(`${directory}/status`, 'utf8')).get('PPid'))
  return (
    unlessGone(() => {
      const status = procFields(readFileSync(`/proc/${parent}/status`, 'utf8'))
      if (procNumbers(status.get('Uid') ?? '-')?.every(uid => uid === 0) !== true) return false
      if (readlinkSync(`/proc/${parent}/ns/user`) !== readlinkSync('/proc/self/ns/user')) return false
      const runs = statSync(`/proc/${parent}/exe`)
      const executor = statSync(executorPath())
      return runs.dev === executor.dev && runs.ino === executor.ino
    }) === true
  )
}
