/** A task that uses tokens until it is refused: hammer.c, as root of the borrower's user namespace. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import type { Fd } from '../../src/sys/fd.ts'
import { bpf_attr_map_create } from '../../src/uapi/bpf.ts'
import { errnoName } from '../../src/uapi/errno.ts'
import { compiled } from '../helpers/compiled.ts'
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
  readonly #child: ChildProcess

  private constructor(child: ChildProcess, result: Promise<Hammered>) {
    this.#child = child
    this.result = result
    void result.then(() => {
      this.ended = true
    })
  }

  /** It inherits the tokens, and has used each of them once when this returns. `pid`: somebody in their user namespace. */
  static async start(pid: number, tokens: readonly Fd[]): Promise<Hammer> {
    const attr = Buffer.from(mapAttr('hash', 0)).toString('hex')
    const words = [attr, String(bpf_attr_map_create.fields.map_token_fd.off), String(tokens.length)]
    // Nobody but root of the namespace: the host's root would go on without the token, by its own capabilities.
    const inside = ['-t', String(pid), '-U', compiled(join(__dirname, 'hammer.c')), ...words]
    const child = spawn('nsenter', inside, {
      stdio: ['ignore', 'pipe', 'inherit', ...tokens.map(({ number }) => number)],
    })
    const lines = createInterface({ input: child.stdout! })
    const [first] = (await once(lines, 'line')) as [string]
    const last = once(lines, 'line') as Promise<[string]>
    if (first !== 'go') throw new Error(`a hammer was refused at once: ${first}`)
    return new Hammer(
      child,
      last.then(([line]) => {
        const { made, last: at, errno } = JSON.parse(line) as { made: number; last: string; errno: number }
        return { made, lastNs: BigInt(at), errno: errnoName(-errno) }
      }),
    )
  }

  [Symbol.dispose](): void {
    this.#child.kill('SIGKILL')
  }
}
