/**
 * Loading under exactly some rights, to see whether they suffice: a worker in user, mount and
 * network namespaces of its own, lent to for one request at a time. It attaches nothing.
 */
import { createInterface, type Interface } from 'node:readline'
import { DEFAULT_PATH } from '../delegation/actions.ts'
import { delegate } from '../delegation/delegate.ts'
import { Sandbox } from '../delegation/sandbox.ts'
import { openTarget, type Target } from '../delegation/target.ts'
import { ConflictError } from '../errors.ts'
import type { Guard } from '../guard/guard.ts'
import type { Capability } from '../policy/policy.ts'
import type { Masks, Vocabulary } from '../policy/vocabulary.ts'
import { trialPolicy } from './trial-policy.ts'
import { undelegate } from './undelegate.ts'

export interface TrialLabOptions {
  /** Says a line once it is ready, then answers each line with one line. */
  readonly command: readonly [string, ...string[]]
  readonly env: NodeJS.ProcessEnv
  /** An ordinary user of the host, as whom the worker runs. */
  readonly uid: number
  readonly gid: number
  readonly vocabulary: Vocabulary
  /** Undefined: none is installed. */
  readonly guard: Guard | undefined
  /** Aborting it ends what runs, and leaves nothing. */
  readonly signal?: AbortSignal | undefined
}

export interface LabRequest {
  readonly masks: Masks
  readonly capabilities: readonly Capability[]
  /** What the worker is told before its first request and again whenever it changes. */
  readonly subject: string
  readonly line: string
  readonly timeoutMs: number
}

/** Whoever makes it disposes of it: then no process, mount or loan of it is left. */
export class TrialLab implements Disposable {
  readonly #options: TrialLabOptions
  /** A worker for each set of capabilities, which none can get back. */
  readonly #benches = new Map<string, Bench>()

  constructor(options: TrialLabOptions) {
    this.#options = options
  }

  /**
   * What the worker answers while just these rights are lent to it; undefined: nothing in time.
   * Errors are those of `Sandbox.start` and `delegate`; the signal's reason once it is aborted.
   */
  async ask(request: LabRequest): Promise<string | undefined> {
    const { signal } = this.#options
    signal?.throwIfAborted()
    const key = [...request.capabilities].sort().join(',')
    let bench = this.#benches.get(key)
    if (bench === undefined) {
      bench = await Bench.start(this.#options, request.capabilities)
      this.#benches.set(key, bench)
    }
    const answer = await bench.ask(request)
    if (answer === undefined) {
      // It may be in the middle of something, and is not asked again.
      this.#benches.delete(key)
      bench[Symbol.dispose]()
    }
    signal?.throwIfAborted()
    return answer
  }

  /** Resolves once the workers have ended, after it was disposed of. */
  async ended(): Promise<void> {
    await Promise.all([...this.#benches.values()].map(bench => bench.ended()))
  }

  [Symbol.dispose](): void {
    for (const bench of this.#benches.values()) bench[Symbol.dispose]()
  }
}

class Bench implements Disposable {
  readonly #options: TrialLabOptions
  readonly #sandbox: Sandbox
  readonly #target: Target
  readonly #lines: Interface
  #subject: string | undefined

  private constructor(options: TrialLabOptions, sandbox: Sandbox) {
    this.#options = options
    this.#sandbox = sandbox
    this.#target = openTarget(sandbox.pid)
    this.#lines = createInterface({ input: sandbox.child.stdout! })
    // If the worker has ended, its answer is missing, which is told.
    sandbox.stdin!.on('error', () => {})
  }

  static async start(options: TrialLabOptions, capabilities: readonly Capability[]): Promise<Bench> {
    const { command, env, uid, gid, signal } = options
    const sandbox = await Sandbox.start({
      ...{ command, env, uid, gid, capabilities, network: 'own' },
      stdio: ['pipe', 'pipe', 'ignore'],
    })
    let bench: Bench | undefined
    try {
      bench = new Bench(options, sandbox)
      const ready = bench.#line(START_MS, signal)
      await sandbox.release()
      if ((await ready) === undefined) throw new ConflictError('The process that tries objects did not start')
      return bench
    } catch (error) {
      if (bench === undefined) sandbox[Symbol.dispose]()
      bench?.[Symbol.dispose]()
      throw error
    }
  }

  async ask({ masks, capabilities, subject, line, timeoutMs }: LabRequest): Promise<string | undefined> {
    const { guard, vocabulary, signal } = this.#options
    const tell = (text: string): Promise<string | undefined> => {
      const answer = this.#line(timeoutMs, signal)
      this.#sandbox.stdin!.write(`${text}\n`)
      return answer
    }
    if (this.#subject !== subject) {
      if ((await tell(subject)) === undefined) return undefined
      this.#subject = subject
    }
    // Without any right there is nothing to lend.
    if (Object.values(masks).every(mask => mask === 0n)) return tell(line)
    const policy = trialPolicy(masks, capabilities)
    using lender = guard?.lend(policy, { executorOnly: true })
    await delegate(policy, this.#target, vocabulary, { guard: lender, signal })
    const answer = await tell(line)
    // The mount of one that hangs ends with it.
    if (answer !== undefined)
      await undelegate({ recipient: this.#target, path: DEFAULT_PATH, vocabulary, guard })
    else lender?.revoke()
    return answer
  }

  async ended(): Promise<void> {
    await this.#sandbox.exited
  }

  /** Undefined: it said none in time, or has ended, or this was aborted. */
  #line(timeoutMs: number, signal: AbortSignal | undefined): Promise<string | undefined> {
    return new Promise(resolve => {
      const done = (line?: string): void => {
        clearTimeout(timer)
        this.#lines.off('line', done).off('close', none)
        signal?.removeEventListener('abort', none)
        resolve(line)
      }
      const none = (): void => done()
      const timer = setTimeout(none, timeoutMs)
      this.#lines.once('line', done).once('close', none)
      signal?.addEventListener('abort', none)
    })
  }

  [Symbol.dispose](): void {
    this.#lines.close()
    this.#target[Symbol.dispose]()
    this.#sandbox[Symbol.dispose]()
  }
}

/** Node starts within this, also on a busy machine. */
const START_MS = 20_000
