/**
 * A program in its own user, mount and (unless it shares the host's) network namespace, held before its
 * first instruction until the delegation is in place. The namespaces are made by native/launch.c.
 */
import { type ChildProcess, type StdioOptions, spawn } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import type { Duplex } from 'node:stream'
import {
  type BpftokenError,
  ConflictError,
  NotFoundError,
  SyscallError,
  TimeoutError,
  UsageError,
} from '../errors.ts'
import { launcherPath } from '../sys/native.ts'
import { requireOwnProc } from '../sys/process.ts'
import { CAPABILITIES } from '../uapi/constants.ts'
import { errnoName } from '../uapi/errno.ts'

export interface SandboxSpec {
  readonly command: readonly [string, ...string[]]
  /** Unprivileged host ids that root inside stands for. Never 0. */
  readonly uid: number
  readonly gid: number
  readonly network: 'own' | 'host'
  /** Capabilities inside the namespace, e.g. `bpf`; all others are dropped for good. */
  readonly capabilities: readonly string[]
  readonly env?: NodeJS.ProcessEnv
  readonly cwd?: string
  readonly stdio?: StdioOptions
  readonly timeoutMs?: number
}

export interface Exit {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
}

/** How long the namespaces may take to come up. */
const TIMEOUT_MS = 10_000

export class Sandbox implements Disposable {
  readonly pid: number
  readonly exited: Promise<Exit>
  readonly child: ChildProcess
  readonly #control: Duplex
  readonly #timeoutMs: number

  private constructor(child: ChildProcess, timeoutMs: number) {
    this.child = child
    this.pid = child.pid!
    this.#control = child.stdio[3] as Duplex
    this.#timeoutMs = timeoutMs
    this.exited = new Promise(resolve => child.once('exit', (code, signal) => resolve({ code, signal })))
  }

  /** Makes the namespaces and maps root. The program does not run yet. The caller disposes of it. */
  static async start(spec: SandboxSpec): Promise<Sandbox> {
    requireOwnProc()
    // Fail closed: host root inside would make every other limit void.
    if (spec.uid === 0 || spec.gid === 0)
      throw new ConflictError('A sandboxed program never runs as host root', {
        context: { uid: spec.uid, gid: spec.gid },
        hint: 'Name an ordinary user with --user',
      })
    const caps = spec.capabilities.reduce((mask, name) => mask | (1n << BigInt(capabilityBit(name))), 0n)
    const stdio = spec.stdio ?? ['inherit', 'inherit', 'inherit']
    const child = spawn(launcherPath(), ['3', spec.network, caps.toString(16), ...spec.command], {
      stdio: [...(stdio as ['inherit', 'inherit', 'inherit']), 'pipe'],
      ...(spec.env === undefined ? {} : { env: spec.env }),
      ...(spec.cwd === undefined ? {} : { cwd: spec.cwd }),
    })
    await new Promise<void>((resolve, reject) => {
      child.once('spawn', resolve)
      child.once('error', cause =>
        reject(new NotFoundError('Cannot start bpftoken-launch', { cause, hint: 'Run make build' })),
      )
    })
    const sandbox = new Sandbox(child, spec.timeoutMs ?? TIMEOUT_MS)
    try {
      await sandbox.#expectReady()
      // Our own unreaped child: its number cannot have gone to another process.
      writeFileSync(`/proc/${child.pid}/uid_map`, `0 ${spec.uid} 1\n`)
      writeFileSync(`/proc/${child.pid}/gid_map`, `0 ${spec.gid} 1\n`)
      return sandbox
    } catch (error) {
      sandbox[Symbol.dispose]()
      throw error
    }
  }

  /** Lets the program run; resolves once it does. SyscallError `execve`: it cannot be executed. */
  async release(): Promise<void> {
    const answer = this.#read()
    this.#control.write('g')
    const text = await answer
    if (text !== undefined) throw launchFailure(text)
  }

  async #expectReady(): Promise<void> {
    const text = await this.#read()
    if (text === 'n') return
    throw text === undefined
      ? new ConflictError('bpftoken-launch ended before it was ready')
      : launchFailure(text)
  }

  /** The next message, or undefined at the end of file. */
  #read(): Promise<string | undefined> {
    const control = this.#control
    return new Promise((resolve, reject) => {
      const timer = setTimeout(
        () =>
          finish(() => reject(new TimeoutError(`The sandbox gave no answer within ${this.#timeoutMs} ms`))),
        this.#timeoutMs,
      )
      const onData = (data: Buffer): void => finish(() => resolve(data.toString()))
      const onEnd = (): void => finish(() => resolve(undefined))
      function finish(settle: () => void): void {
        clearTimeout(timer)
        control.off('data', onData).off('end', onEnd).off('error', onEnd)
        control.pause()
        settle()
      }
      control.on('data', onData).on('end', onEnd).on('error', onEnd)
      control.resume()
    })
  }

  /** Passes a signal on to the program. */
  signal(signal: NodeJS.Signals): void {
    this.child.kill(signal)
  }

  /** Kills the program if it still runs; its namespaces and what is mounted in them go with it. */
  [Symbol.dispose](): void {
    this.#control.destroy()
    if (this.child.exitCode === null && this.child.signalCode === null) this.child.kill('SIGKILL')
  }
}

function capabilityBit(name: string): number {
  const bit = (CAPABILITIES as Readonly<Record<string, number>>)[`CAP_${name.toUpperCase()}`]
  if (bit === undefined)
    throw new UsageError(`There is no capability "${name}"`, {
      hint: 'Name it as in capabilities(7), without CAP_',
    })
  return bit
}

/** What launch.c said: `e`, the operation, and its errno. */
function launchFailure(text: string): BpftokenError {
  const [, operation, errno] = /^e(\S+) (\d+)$/.exec(text) ?? []
  if (operation === undefined) return new ConflictError(`bpftoken-launch said ${JSON.stringify(text)}`)
  return new SyscallError(
    { call: operation, errno: Number(errno), errnoName: errnoName(Number(errno)) },
    { hint: LAUNCH_HINTS[operation] },
  )
}

const LAUNCH_HINTS: Readonly<Record<string, string>> = {
  unshare: 'See sysctl user.max_user_namespaces and kernel.unprivileged_userns_clone, and run as root',
  setgroups: 'Run as root',
  execve: 'Give a program that exists and that its user may execute',
}
