/** A shell in namespaces of its own: a workload that runs the commands it is given. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface, type Interface } from 'node:readline'

/** How long a command may take before the test gives up: a hang, not slowness. */
const TIMEOUT_MS = 60_000

/** Each of these programs executes the next one, so the shell has the pid of the child. */
const UNSHARE = ['unshare', '--user', '--map-root-user', '--mount', '--net'] as const

export class Shell {
  readonly #child: ChildProcess
  readonly #lines: Interface
  #count = 0

  private constructor(child: ChildProcess) {
    this.#child = child
    this.#lines = createInterface(child.stdout!)
  }

  /**
   * `inside`: a program with arguments that executes the shell in the end, such as setpriv.
   */
  static async start({ inside = [] }: { inside?: readonly string[] } = {}): Promise<Shell> {
    const [command, ...args] = [...UNSHARE, ...inside, 'sh']
    const shell = new Shell(spawn(command, args, { stdio: ['pipe', 'pipe', 'inherit'] }))
    await shell.run('true')
    return shell
  }

  get pid(): number {
    return this.#child.pid!
  }

  /** What the command says, once it has ended; throws when it fails. */
  run(command: string): Promise<string> {
    return this.#tell(command, mark => `${command}\necho "${mark} $?"\n`)
  }

  /** Executes `command`, which ends in executing a shell in its turn. */
  async become(command: string): Promise<void> {
    // This shell may read beyond the line. So nothing is written before the other one has answered.
    await this.#tell(command, mark => `exec ${command} sh -c 'echo "${mark} 0"; exec sh'\n`)
  }

  async #tell(command: string, script: (mark: string) => string): Promise<string> {
    const mark = `end-of-${++this.#count}`
    const said: string[] = []
    const ended = new Promise<string>((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`no end of ${command}`)), TIMEOUT_MS)
      const settle = (done: () => void): void => {
        clearTimeout(timer)
        this.#lines.off('line', onLine).off('close', onClose)
        done()
      }
      const onLine = (line: string): void => {
        if (line.startsWith(mark)) settle(() => resolve(line.slice(mark.length + 1)))
        else said.push(line)
      }
      const onClose = (): void => settle(() => reject(new Error(`the shell ended with ${command}`)))
      this.#lines.on('line', onLine).on('close', onClose)
    })
    this.#child.stdin!.write(script(mark))
    const status = await ended
    if (status !== '0') throw new Error(`${command} ended with ${status}: ${said.join('\n')}`)
    return said.join('\n')
  }

  /** Ends it; its namespaces go with it. */
  async end(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return
    const exited = once(this.#child, 'exit')
    this.#child.kill('SIGKILL')
    await exited
  }
}
