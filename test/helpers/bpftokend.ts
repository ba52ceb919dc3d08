/** Starts the daemon that `make build` made. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, mkdirSync } from 'node:fs'
import { request } from 'node:http'
import { join } from 'node:path'
import { eventually } from './eventually.ts'

export const BPFTOKEND = join(__dirname, '../../dist/daemon/main.js')

/**
 * One process of the daemon, with directories of its own. To dispose of it ends it, if it still
 * runs.
 */
export class Bpftokend implements AsyncDisposable {
  readonly socket: string
  readonly policies: string
  log = ''
  readonly ended: Promise<number | null>
  readonly #process: ReturnType<typeof spawn>

  constructor(directory: string, ...more: string[]) {
    this.socket = join(directory, 'run/s.sock')
    this.policies = join(directory, 'policies')
    mkdirSync(this.policies, { recursive: true })
    chmodSync(this.policies, 0o755)
    // Descriptor 200 plays one that the caller left open by mistake.
    const left = ['-c', 'exec 200<"$0"; exec "$@"', __filename]
    const words = [
      ...[BPFTOKEND, '--socket', this.socket, '--state', join(directory, 'state')],
      ...['--policies', this.policies, '--config', join(directory, 'bpftokend.yaml'), ...more],
    ]
    this.#process = spawn('/bin/bash', [...left, process.execPath, ...words], {
      stdio: ['ignore', 'ignore', 'pipe'],
    })
    this.#process.stderr!.setEncoding('utf8').on('data', text => {
      this.log += text
    })
    this.ended = once(this.#process, 'exit').then(([status]) => status as number | null)
  }

  get pid(): number {
    return this.#process.pid!
  }

  async ready(): Promise<this> {
    await eventually(() => this.log.includes('is ready') || this.#process.exitCode !== null, 'it is ready')
    assert.equal(this.#process.exitCode, null, this.log)
    return this
  }

  kill(signal: NodeJS.Signals): void {
    this.#process.kill(signal)
  }

  get(path: string): Promise<{ status: number; text: string }> {
    return new Promise((resolve, reject) => {
      const req = request({ socketPath: this.socket, path, agent: false }, res => {
        let text = ''
        res.setEncoding('utf8').on('data', part => {
          text += part
        })
        res.on('end', () => resolve({ status: res.statusCode!, text }))
      })
      req.on('error', reject).end()
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.kill('SIGTERM')
    await this.ended
  }
}
