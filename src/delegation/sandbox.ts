/**
 * A program in its own user, mount, cgroup and (unless it shares the host's) network namespace,
 * held before its first instruction until the delegation is in place. The namespaces are made by
 * native/launch.c.
 */
import { type ChildProcess, type StdioOptions, spawn } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { endianness } from 'node:os'
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
import { endingSignal, openProcess, type ProcessHandle, requireOwnProc } from '../sys/process.ts'
import { CAPABILITIES } from '../uapi/constants.ts'
import { errnoName } from '../uapi/errno.ts'
import { isWithin, USER_IDS } from '../uapi/number-range.ts'
import { Rest } from './rest.ts'

export interface SandboxSpec {
  readonly command: readonly [string, ...string[]]
  /** Unprivileged host ids that the program runs as, from 1 to 4294967294. */
  readonly uid: number
  readonly gid: number
  /**
   * Whom the program sees itself as: user 0 and group 0, or (`same`) `uid` and `gid`. Default:
   * `root`.
   */
  readonly identity?: 'root' | 'same'
  readonly network: 'own' | 'host'
  /** Capabilities inside the namespace, e.g. `bpf`; all others are dropped for good. */
  readonly capabilities: readonly string[]
  /** All of the program's environment. Default: empty. The program is looked for in its PATH. */
  readonly env?: NodeJS.ProcessEnv
  /** Where the program's user may not come to, the program starts in `/`. */
  readonly cwd?: string
  /** For descriptors 0 to 2; the program gets no others. */
  readonly stdio?: StdioOptions
  /**
   * Kill what the program leaves behind once it has ended, or we have. Needs a writable cgroup2.
   * Since Linux 5.14.
   */
  readonly killRest?: boolean
  readonly timeoutMs?: number
}

export interface Exit {
  /** 128 + n for a real-time signal n, which has no name here (before Linux 6.15: 0). */
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
}

export interface Released {
  /** The program's user may not enter the working directory: it starts in `/`. */
  readonly inRoot: boolean
}

/** How long the namespaces may take to come up. */
const TIMEOUT_MS = 10_000

/** What the launcher gets as its own environment: it is root, and the program's is not its own. */
const NO_ENVIRONMENT: NodeJS.ProcessEnv = {}

export class Sandbox implements Disposable {
  readonly pid: number
  readonly exited: Promise<Exit>
  readonly child: ChildProcess
  readonly #process: ProcessHandle
  readonly #control: Duplex
  readonly #environment: Buffer
  readonly #timeoutMs: number
  readonly #rest: Rest | undefined
  #sharesTerminal = false

  private constructor(
    child: ChildProcess,
    process: ProcessHandle,
    spec: SandboxSpec,
    rest: Rest | undefined,
  ) {
    this.child = child
    this.pid = child.pid!
    this.#control = child.stdio[3] as Duplex
    this.#environment = environmentBytes(spec.env ?? {})
    this.#timeoutMs = spec.timeoutMs ?? TIMEOUT_MS
    this.#rest = rest
    this.#process = process
    this.exited = new Promise(resolve =>
      child.once('exit', (code, signal) => resolve(this.#exitOf(code, signal))),
    )
  }

  /**
   * Makes the namespaces and maps the ids. The program does not run yet. The caller disposes of it.
   */
  static async start(spec: SandboxSpec): Promise<Sandbox> {
    requireOwnProc()
    refuseIds(spec)
    const rest = spec.killRest === true ? await Rest.prepare() : undefined
    let sandbox: Sandbox | undefined
    try {
      const child = spawn(launcherPath(), launcherArguments(spec, rest), {
        stdio: [...threeOf(spec.stdio), 'pipe'],
        env: NO_ENVIRONMENT,
        ...(spec.cwd === undefined ? {} : { cwd: spec.cwd }),
      })
      // At once: Node has not yet waited for it, so the number is its own.
      const process = child.pid === undefined ? undefined : openProcess(child.pid)
      await new Promise<void>((resolve, reject) => {
        child.once('spawn', resolve)
        child.once('error', (cause: NodeJS.ErrnoException) => {
          reject(
            new NotFoundError('Cannot start bpftoken-launch', { cause, hint: START_HINTS[cause.code ?? ''] }),
          )
        })
      })
      sandbox = new Sandbox(child, process!, spec, rest)
      await sandbox.#expectReady()
      const inside = (id: number): number => (spec.identity === 'same' ? id : 0)
      // Our own unreaped child: its number cannot have gone to another process.
      writeFileSync(`/proc/${child.pid}/uid_map`, `${inside(spec.uid)} ${spec.uid} 1\n`)
      writeFileSync(`/proc/${child.pid}/gid_map`, `${inside(spec.gid)} ${spec.gid} 1\n`)
      return sandbox
    } catch (error) {
      if (sandbox === undefined) rest?.[Symbol.dispose]()
      sandbox?.[Symbol.dispose]()
      throw error
    }
  }

  /** Whether the program stays in the session of our terminal, whose Ctrl-C it gets without us. */
  get sharesTerminal(): boolean {
    return this.#sharesTerminal
  }

  /**
   * Lets the program run; resolves once it does. SyscallError `execve`: it cannot be executed;
   * ENOENT: there is none.
   */
  async release(): Promise<Released> {
    const answer = this.#readAll()
    this.#control.write(this.#environment)
    const text = await answer
    const inRoot = text.startsWith('d')
    const failure = inRoot ? text.slice(1) : text
    if (failure !== '') throw launchFailure(failure)
    return { inRoot }
  }

  /**
   * With `killRest`: once the program has ended, kills what it left behind and resolves when that
   * is gone. TimeoutError: something does not die; it is killed as soon as the kernel lets it die.
   */
  async ended(): Promise<Exit> {
    const exit = await this.exited
    await this.#rest?.end(this.#timeoutMs)
    return exit
  }

  async #expectReady(): Promise<void> {
    const text = await this.#read()
    this.#sharesTerminal = text === 't'
    if (text === 'n' || text === 't') return
    throw text === undefined
      ? new ConflictError('bpftoken-launch ended before it was ready')
      : launchFailure(text)
  }

  /** All that is said until the end of file. */
  async #readAll(): Promise<string> {
    let all = ''
    for (let text = await this.#read(); text !== undefined; text = await this.#read()) all += text
    return all
  }

  /** What is said next, or undefined at the end of file. */
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

  /**
   * Passes a signal on to the program; one that is typed also to what the program has started, as a
   * terminal does.
   */
  signal(signal: NodeJS.Signals): void {
    const isTyped = signal === 'SIGINT' || signal === 'SIGQUIT'
    if (this.#sharesTerminal || !isTyped || !this.#isRunning()) this.child.kill(signal)
    // Our own unreaped child, which leads a session of its own: the number of its group is still
    // its own.
    else process.kill(-this.pid, signal)
  }

  /** Of a signal that Node does not know it says 0, as of success. */
  #exitOf(code: number | null, signal: NodeJS.Signals | null): Exit {
    const unnamed = code === 0 && !this.#process.pidfd.closed ? endingSignal(this.#process) : undefined
    return unnamed ? { code: 128 + unnamed, signal: null } : { code, signal }
  }

  #isRunning(): boolean {
    return this.child.exitCode === null && this.child.signalCode === null
  }

  /**
   * Kills the program if it still runs; its namespaces and what is mounted in them go with its last
   * process.
   */
  [Symbol.dispose](): void {
    this.#control.destroy()
    if (this.#isRunning()) this.child.kill('SIGKILL')
    this.#rest?.[Symbol.dispose]()
    this.#process[Symbol.dispose]()
  }
}

function refuseIds({ uid, gid }: SandboxSpec): void {
  const context = { uid, gid }
  // Fail closed: the kernel would cut a larger number to 32 bits, 4294967296 to 0.
  if (!isWithin(USER_IDS, uid) || !isWithin(USER_IDS, gid))
    throw new UsageError(`${uid}:${gid} are no ids`, {
      context,
      hint: `An id is a whole number from ${USER_IDS.min} to ${USER_IDS.max}`,
    })
  // Fail closed: host root inside would make every other limit void.
  if (uid === 0 || gid === 0)
    throw new ConflictError('A sandboxed program never runs as host root', {
      context,
      hint: 'Name an ordinary user',
    })
}

function launcherArguments(spec: SandboxSpec, rest: Rest | undefined): string[] {
  const caps = spec.capabilities.reduce((mask, name) => mask | (1n << BigInt(capabilityBit(name))), 0n)
  return ['3', spec.network, caps.toString(16), rest?.cgroup ?? '-', ...spec.command]
}

/** The launcher's control socket is the fourth descriptor, and the program gets three. */
function threeOf(stdio: StdioOptions = 'inherit'): Extract<StdioOptions, unknown[]> {
  const three = typeof stdio === 'string' ? [stdio, stdio, stdio] : stdio
  if (three.length !== 3)
    throw new UsageError(`A sandboxed program gets three descriptors, not ${three.length}`)
  return three
}

/** `g`, the number of bytes, and NAME=VALUE with a zero behind each. */
function environmentBytes(env: NodeJS.ProcessEnv): Buffer {
  const words = Object.entries(env).filter(([, value]) => value !== undefined)
  const text = Buffer.from(words.map(([name, value]) => `${name}=${value}\0`).join(''))
  const head = Buffer.alloc(5, 'g')
  new DataView(head.buffer, head.byteOffset).setUint32(1, text.length, endianness() === 'LE')
  return Buffer.concat([head, text])
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

const START_HINTS: Readonly<Record<string, string>> = {
  ENOENT: 'Run make build',
  EMFILE: 'Allow more open files (ulimit -n)',
}

const LAUNCH_HINTS: Readonly<Record<string, string>> = {
  unshare: 'See sysctl user.max_user_namespaces and kernel.unprivileged_userns_clone, and run as root',
  setgroups: 'Run as root',
  execve: 'Give a program that exists and that its user may execute',
  keyctl: 'The program gets a session keyring of its own; see the quota of its user in /proc/key-users',
  uid_map: 'The program would have been host root',
  gid_map: 'The program would have been in the group of host root',
  environment: 'Give the program fewer or shorter variables',
}
