/**
 * A task that uses tokens until it is refused: hammer.c, as root of the borrower's user namespace.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { createInterface, type Interface } from 'node:readline'
import { compiled } from '../../scripts/compiled.ts'
import type { Fd } from '../../src/sys/fd.ts'
import { bpf_attr_map_create } from '../../src/uapi/bpf.ts'
import { errnoName } from '../../src/uapi/errno.ts'
import { eventually } from '../helpers/eventually.ts'
import { mapAttr } from '../kernel/delegation/attributes.ts'

export interface Hammered {
  readonly made: number
  /** By the clock of process.hrtime: when the last call that succeeded began. */
  readonly lastNs: bigint
  readonly errno: string
}

export class Hammer implements Disposable {
  readonly result: Promise<Hammered>
  ended = false
  /** How many rounds it has reported. */
  #rounds = 0
  readonly #child: ChildProcess

  private constructor(child: ChildProcess, lines: Interface) {
    this.#child = child
    this.result = new Promise((resolve, reject) => {
      lines.on('line', line => {
        if (line === 'go') {
          this.#rounds++
          return
        }
        const { made, last, errno } = JSON.parse(line) as { made: number; last: string; errno: number }
        resolve({ made, lastNs: BigInt(last), errno: errnoName(-errno) })
      })
      child.once('close', () => reject(new Error('a hammer ended without a word')))
    })
    this.result.then(
      () => {
        this.ended = true
      },
      () => {},
    )
  }

  /**
   * Waits until it has used each of its tokens again, in a round that began after this call; or was
   * refused.
   */
  async again(): Promise<void> {
    const rounds = this.#rounds
    await eventually(() => this.ended || this.#rounds >= rounds + 2, 'a hammer makes no progress')
  }

  /**
   * Starts one that inherits the tokens. When this returns it has used each of them once. `pid`: a
   * process in the user namespace of the tokens.
   */
  static async start(pid: number, tokens: readonly Fd[]): Promise<Hammer> {
    const attr = Buffer.from(mapAttr('hash', 0)).toString('hex')
    const words = [attr, String(bpf_attr_map_create.fields.map_token_fd.off), String(tokens.length)]
    // Nobody but root of the namespace: the host's root would go on without the token, by its own
    // capabilities.
    const inside = ['-t', String(pid), '-U', compiled(join(__dirname, 'hammer.c')), ...words]
    const child = spawn('nsenter', inside, {
      stdio: ['ignore', 'pipe', 'inherit', ...tokens.map(({ number }) => number)],
    })
    const lines = createInterface({ input: child.stdout! })
    const [first] = (await once(lines, 'line')) as [string]
    if (first !== 'go') throw new Error(`a hammer was refused at once: ${first}`)
    return new Hammer(child, lines)
  }

  [Symbol.dispose](): void {
    this.#child.kill('SIGKILL')
  }
}
