/**
 * A command that is run and watched, and whose threads wait after a call that was refused, until they
 * have been looked at: a process that ends at once is still there then. `native/hold/` does that by
 * ptrace(2); why so, and not by SIGSTOP, is said there.
 */
import { type ChildProcess, type StdioOptions, spawn } from 'node:child_process'
import type { Socket } from 'node:net'
import { constants } from 'node:os'
import { InputError } from '../errors.ts'
import { holderPath } from '../sys/prebuilt.ts'
import { errnoName } from '../uapi/errno.ts'
import type { Recorder } from './recorder.ts'

/** Where the command's own standard streams lead to: three of them. */
type Streams = readonly ('inherit' | 'ignore' | number)[]

export class HeldCommand {
  readonly #child: ChildProcess
  readonly #control: Socket
  #said = ''
  /** Resolves with its exit status, as a shell has it. InputError: it cannot be run. */
  readonly ended: Promise<number>

  private constructor(child: ChildProcess, name: string) {
    this.#child = child
    this.#control = child.stdio[3] as Socket
    this.#control.on('data', (bytes: Buffer) => {
      this.#said += bytes.toString('latin1')
    })
    // Once it has ended, nobody reads.
    this.#control.on('error', () => {})
    this.ended = new Promise((resolve, reject) => {
      child.once('error', reject)
      // After all that it has said.
      child.once('close', (code, signal) => {
        const errno = this.#number('cannot')
        if (errno === undefined) resolve(code ?? 128 + constants.signals[signal!])
        else
          reject(
            new InputError(`Cannot run ${name}: ${errnoName(errno)}`, {
              context: { errno: errnoName(errno) },
            }),
          )
      })
    })
  }

  /** Runs it under a recorder that `holds`. What is held goes on when it was let go, at the latest after two seconds. */
  static start(
    recorder: Recorder,
    [name, ...rest]: readonly [string, ...string[]],
    streams: Streams,
  ): HeldCommand {
    const stdio = [...streams, 'pipe'] as StdioOptions
    return new HeldCommand(
      recorder.watchForked(() => spawn(holderPath(), [name, ...rest], { stdio })),
      name,
    )
  }

  /** Undefined: its threads can be held; else the errno of ptrace(2). */
  get unheld(): string | undefined {
    const errno = this.#number('free')
    return errno === undefined ? undefined : errnoName(errno)
  }

  /** Of a call that is `held`: the thread has been looked at. */
  letGo(tid: number): void {
    this.#control.write(`${tid}\n`)
  }

  /** A signal for the command. */
  signal(name: NodeJS.Signals): void {
    this.#child.kill(name)
  }

  #number(word: string): number | undefined {
    const line = this.#said.split('\n').find(one => one.startsWith(`${word} `))
    return line === undefined ? undefined : Number(line.slice(word.length + 1))
  }
}
