/** Starts the launcher that the daemon asks, with a socket of its own. */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, rmSync } from 'node:fs'
import { launchdPath } from '../../src/sys/prebuilt.ts'
import { eventually } from './eventually.ts'

/** To dispose of it ends it. */
export class Launchd implements AsyncDisposable {
  readonly socket: string
  log = ''
  readonly #child: ChildProcess

  /** `around` gives a command line that becomes the one that it is given. */
  constructor(socket: string, around?: (command: readonly string[]) => [string, string[]]) {
    this.socket = socket
    // One that was there before is none to connect to, but its file is.
    rmSync(socket, { force: true })
    const words: [string, ...string[]] = [launchdPath(), '--socket', socket]
    const [command, args] = around?.(words) ?? [words[0], words.slice(1)]
    this.#child = spawn(command, args, { stdio: ['ignore', 'ignore', 'pipe'] })
    this.#child.stderr!.setEncoding('utf8').on('data', text => {
      this.log += text
    })
  }

  get pid(): number {
    return this.#child.pid!
  }

  async ready(): Promise<this> {
    await eventually(() => existsSync(this.socket) || this.#child.exitCode !== null, 'it does not listen')
    assert.equal(this.#child.exitCode, null, this.log)
    return this
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const ended = once(this.#child, 'exit')
    this.#child.kill()
    await ended
  }
}
