/** bpftoken-nri, as `make build` made it. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { eventually } from './eventually.ts'
import { ROOT } from './machine.ts'

export const HOOK = join(ROOT, 'build/Release/bpftoken-hook')

export interface LogLine {
  readonly message: string
  readonly [field: string]: unknown
}

/** A process of it. Ended, if it has not ended by itself, when disposed of. */
export class NriPlugin implements AsyncDisposable {
  readonly #process: ChildProcess
  #log = ''

  constructor(
    runtime: { readonly nri: string; readonly socket?: string },
    daemon: { readonly socket: string },
    ...more: string[]
  ) {
    const words = ['--nri', runtime.nri, '--socket', daemon.socket, '--hook', HOOK]
    // A busy machine is no reason to refuse.
    words.push('--patience', '1500', '--json', ...more)
    if (runtime.socket !== undefined) words.push('--cri', runtime.socket)
    this.#process = spawn(process.execPath, [join(ROOT, 'dist/nri/main.js'), ...words], {
      stdio: ['ignore', 'ignore', 'pipe'],
    })
    this.#process.stderr!.setEncoding('utf8').on('data', text => {
      this.#log += text
    })
  }

  get pid(): number {
    return this.#process.pid!
  }

  get text(): string {
    return this.#log
  }

  get log(): LogLine[] {
    return this.#log
      .split('\n')
      .slice(0, -1)
      .map(line => JSON.parse(line) as LogLine)
  }

  /** Once it has said this so often. */
  async said(message: string, times = 1): Promise<void> {
    const count = (): number => this.log.filter(line => line.message === message).length
    await eventually(() => count() >= times || this.#process.exitCode !== null, `${message}: ${this.#log}`)
    if (count() < times) throw new Error(this.#log)
  }

  /** The runtime calls it for each container from now on. */
  async ready(times = 1): Promise<this> {
    await this.said('the runtime tells what it has', times)
    return this
  }

  async kill(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    if (this.#process.exitCode !== null || this.#process.signalCode !== null) return
    const exited = once(this.#process, 'exit')
    this.#process.kill(signal)
    await exited
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill()
  }
}
