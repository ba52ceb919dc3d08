/**
 * The client of native/executor/: a process of ours that enters the namespaces of others, since
 * Node, with its threads, cannot. It is asked over a socket, and Node's event loop goes on
 * meanwhile.
 *
 * One executor does one plan at a time. `borrowExecutor` (pool.ts) gives one that is idle, or starts
 * one.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { type BpftokenError, ConflictError, NotFoundError } from '../../errors.ts'
import type { Fd } from '../fd.ts'
import { native } from '../native.ts'
import { readable, type Watch, watchReadable } from '../poll.ts'
import { executorPath } from '../prebuilt.ts'
import { recvFds, sendFds, socketPair } from '../socket.ts'
import { executor_answer, executor_entry, KINDS, type Kind, MESSAGE_BYTES, OPS, type Op } from './layout.ts'
import { type Answer, decodeAnswer, encodePlan, type RawPlan, refusal } from './message.ts'

/** Something that an executor had begun when it died. The caller closes the descriptor. */
export interface Unfinished {
  readonly op: Op
  readonly fd: Fd
}

/**
 * The executor has died, was killed, or was left behind because it hangs. Has what the executor had
 * begun.
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
 * The time beyond what doing and undoing may take. An executor that has not answered then never
 * will.
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

/** Those of this process that have not ended, by number. */
const running = new Set<number>()

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
  /** Plans that were sent and that the executor has not let go of yet. */
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
    running.add(this.pid)
    // Nobody else has its number before it is waited for, of which we are told at once.
    child.once('exit', () => running.delete(this.pid))
  }

  /** Whether that is the number of an executor that this process started, and that has not ended. */
  static isOurs(pid: number): boolean {
    return running.has(pid)
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

  /** Keeps the result, whatever becomes of us. */
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

  /** If a message cannot be sent, the executor has gone, and `#read` finds that out. */
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

  /** A plan that was given up meanwhile is told nothing: the next one would hear it. */
  async #pause(at: number): Promise<void> {
    const plan = this.#waiting
    let word: Kind = 'KEEP'
    try {
      await plan?.paused?.(this, at)
    } catch {
      word = 'CANCEL'
    }
    if (plan === this.#waiting) this.#word(word)
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
   * The journal's entries of this plan; those of an earlier plan were kept. An executor that dies
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

  /** The executor first undoes whatever was not kept, and then ends. */
  [Symbol.dispose](): void {
    if (!this.#lost) {
      this.#lost = true
      this.#watch[Symbol.dispose]()
    }
    this.#socket.close()
    this.#journal.close()
  }

  /**
   * Resolves once the executor and its children are gone. False: it hangs, and is not waited for.
   */
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
    // It sleeps where a signal cannot wake it, and will not do what it was last asked for.
  } finally {
    pidfd.close()
  }
}
