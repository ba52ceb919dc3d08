/**
 * A program in a sandbox that answers each line with one line of JSON; and loans to it, of just the
 * masks that a test wants.
 */
import { once } from 'node:events'
import { createInterface, type Interface } from 'node:readline'
import { delegate, undelegate } from '../../../src/delegation/delegate.ts'
import { Sandbox } from '../../../src/delegation/sandbox.ts'
import { openTarget, type Target } from '../../../src/delegation/target.ts'
import type { Masks } from '../../../src/policy/vocabulary.ts'
import { lendingBare, policyWith, vocabulary } from './lab.ts'

const NOBODY = 65534

export class Worker implements Disposable {
  readonly #sandbox: Sandbox
  readonly #target: Target
  readonly #lines: Interface

  private constructor(sandbox: Sandbox) {
    this.#sandbox = sandbox
    this.#target = openTarget(sandbox.pid)
    this.#lines = createInterface({ input: sandbox.child.stdout! })
  }

  /**
   * As an ordinary user with these capabilities inside; ready once it has said a first line. The
   * caller disposes of it, and then waits for `ended`.
   */
  static async start(
    command: readonly [string, ...string[]],
    capabilities: readonly string[],
  ): Promise<Worker> {
    const sandbox = await Sandbox.start({
      command,
      ...{ uid: NOBODY, gid: NOBODY, network: 'own', capabilities, stdio: ['pipe', 'pipe', 'inherit'] },
    })
    const worker = new Worker(sandbox)
    const ready = once(worker.#lines, 'line')
    await sandbox.release()
    await ready
    return worker
  }

  get ended(): Promise<unknown> {
    return this.#sandbox.exited
  }

  /** What it answers where these masks are lent to it by the bare system calls. */
  askBare<T>(line: string, masks: Partial<Masks>): Promise<T> {
    return lendingBare(this.#target, masks, NOBODY, () => this.#ask<T>(line))
  }

  /** What it answers under a delegation of these masks; without masks, under none. */
  async ask<T>(line: string, masks?: Partial<Masks>): Promise<T> {
    if (masks === undefined) return this.#ask(line)
    await delegate(policyWith(masks), this.#target, vocabulary)
    try {
      return await this.#ask(line)
    } finally {
      await undelegate(this.#target, vocabulary)
    }
  }

  async #ask<T>(line: string): Promise<T> {
    const answer = once(this.#lines, 'line') as Promise<[string]>
    this.#sandbox.child.stdin!.write(`${line}\n`)
    return JSON.parse((await answer)[0]) as T
  }

  [Symbol.dispose](): void {
    this.#lines.close()
    this.#target[Symbol.dispose]()
    this.#sandbox[Symbol.dispose]()
  }
}
