/** Who listens for datagrams at a path, as the service manager and journald do. */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { createInterface, type Interface } from 'node:readline'
import { compiled } from '../../../scripts/compiled.ts'

export class Receiver implements AsyncDisposable {
  readonly #child: ChildProcess
  readonly #lines: AsyncIterator<string>
  readonly #reader: Interface

  static async at(path: string): Promise<Receiver> {
    const receiver = new Receiver(path)
    assert.equal((await receiver.#lines.next()).value, 'bound')
    return receiver
  }

  private constructor(path: string) {
    this.#child = spawn(compiled(join(__dirname, 'receive.c')), [path], {
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    this.#reader = createInterface(this.#child.stdout!)
    this.#lines = this.#reader[Symbol.asyncIterator]()
  }

  async next(): Promise<string> {
    return Buffer.from((await this.#lines.next()).value as string, 'hex').toString()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const ended = once(this.#child, 'close')
    this.#child.stdin!.end()
    this.#reader.close()
    this.#child.stdout!.resume()
    await ended
  }
}
