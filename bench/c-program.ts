/**
 * The C side of a comparison: compiled here, then asked for measurements over its stdin and stdout.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import path from 'node:path'
import { createInterface, type Interface } from 'node:readline'

const SOURCES = path.join(__dirname, 'c')
const BINARIES = path.join(__dirname, 'bin')

/** Compiles bench/c/NAME.c; gives the path of the program. */
export function compile(name: string): string {
  mkdirSync(BINARIES, { recursive: true })
  const binary = path.join(BINARIES, name)
  const flags = ['-std=gnu11', '-D_GNU_SOURCE', '-O2', '-Wall', '-Wextra', '-Werror']
  execFileSync('gcc', [...flags, '-o', binary, path.join(SOURCES, `${name}.c`)], { stdio: 'inherit' })
  return binary
}

/** A running program, of bench/c or at an absolute path, that answers each line with one line. */
export class CProgram implements Disposable {
  readonly #child: ChildProcess
  readonly #lines: Interface

  /** `fds` become its descriptors 3, 4, ... */
  constructor(name: string, args: readonly string[], fds: readonly number[] = []) {
    this.#child = spawn(path.isAbsolute(name) ? name : compile(name), args, {
      stdio: ['pipe', 'pipe', 'inherit', ...fds],
    })
    this.#lines = createInterface({ input: this.#child.stdout! })
  }

  get pid(): number {
    return this.#child.pid!
  }

  ask(question: string): Promise<string> {
    const answer = this.said(question)
    this.#child.stdin!.write(`${question}\n`)
    return answer
  }

  /** The line that it says next, or by itself when it has started. */
  said(to = 'its start'): Promise<string> {
    return new Promise((resolve, reject) => {
      const ended = (): void => reject(new Error(`The C program ended at "${to}"`))
      this.#lines.once('close', ended)
      this.#lines.once('line', answer => {
        this.#lines.off('close', ended)
        resolve(answer)
      })
    })
  }

  [Symbol.dispose](): void {
    this.#child.kill()
  }
}
