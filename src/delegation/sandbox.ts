/**
 * A program in its own user, mount, cgroup and (unless it shares the host's) network namespace,
 * held before its first instruction until the delegation is in place. native/launch.c makes the
 * namespaces. It forks: `child` here is the parent, which stays and watches over the program.
 */
import { type ChildProcess, type StdioOptions, spawn } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { constants, endianness } from 'node:os'
import type { Duplex, Writable } from 'node:stream'
import {
  type BpftokenError,
  ConflictError,
  InputError,
  NotFoundError,
  SyscallError,
  TimeoutError,
} from '../errors.ts'
import { launcherPath } from '../sys/prebuilt.ts'
import { procFields } from '../sys/proc-file.ts'
import { kill, openProcess, type ProcessHandle, requireOwnProc } from '../sys/process.ts'
import { CAPABILITIES } from '../uapi/constants.ts'
import { errnoName } from '../uapi/errno.ts'
import { isWithin, USER_IDS } from '../uapi/number-range.ts'
import { planCgroup, restUnsupported } from './rest.ts'

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
  /** If the program's user may not enter it, the program starts in `/`. */
  readonly cwd?: string
  /** For descriptors 0 to 2; the program gets no others. */
  readonly stdio?: StdioOptions
  /**
   * Kill what the program leaves behind once it has ended, or we have. Needs a writable cgroup2.
   * Since Linux 5.14.
   */
  readonly killRest?: boolean
  /** With `killRest`: its own cgroup, as `planCgroup` gives it. Default: planned by itself. */
  readonly cgroup?: string
  /** If the program stays in the session of our terminal: when it stops, stop us with it. */
  readonly stopTogether?: boolean
  readonly timeoutMs?: number
}

export interface Exit {
  /** 128 + n for a real-time signal n, which has no name here. */
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
}

export interface Released {
  /** The program's user may not enter the working directory: it starts in `/`. */
  readonly inRoot: boolean
}

/** How long the namespaces may take to come up. */
const TIMEOUT_MS = 10_000

/** The launcher's own environment. The launcher is root, so it does not get the program's. */
const NO_ENVIRONMENT: NodeJS.ProcessEnv = {}

export class Sandbox implements Disposable {
  readonly pid: number
  readonly exited: Promise<Exit>
  /** Whoever watches over the program; its standard streams are those of the program. */
  readonly child: ChildProcess
  /** Whether the program stays in the session of our terminal, whose Ctrl-C it gets without us. */
  readonly sharesTerminal: boolean
  readonly #process: ProcessHandle
  readonly #watcher: Watcher
  readonly #control: Duplex
  readonly #environment: Buffer
  readonly #timeoutMs: number
  readonly #cgroup: string | undefined

  private constructor(watcher: Watcher, ready: Ready, spec: SandboxSpec, cgroup: string | undefined) {
    this.child = watcher.child
    this.pid = ready.process.pid
    this.exited = watcher.programExit
    this.sharesTerminal = ready.sharesTerminal
    this.#process = ready.process
    this.#watcher = watcher
    this.#control = watcher.control
    this.#environment = environmentBytes(spec.env ?? {})
    this.#timeoutMs = timeoutOf(spec)
    this.#cgroup = cgroup
  }

  /**
   * Makes the namespaces and maps the ids. The program does not run yet. The caller disposes of it.
   */
  static async start(spec: SandboxSpec): Promise<Sandbox> {
    requireOwnProc()
    refuseIds(spec)
    const cgroup = spec.killRest === true ? (spec.cgroup ?? planCgroup(spec)) : undefined
    const watcher = await Watcher.start(spec, cgroup)
    let sandbox: Sandbox | undefined
    try {
      sandbox = new Sandbox(watcher, await readyOf(watcher, timeoutOf(spec)), spec, cgroup)
      const inside = (id: number): number => (spec.identity === 'same' ? id : 0)
      // The watcher still waits for it, so its number cannot have gone to another process.
      writeFileSync(`/proc/${sandbox.pid}/uid_map`, `${inside(spec.uid)} ${spec.uid} 1\n`)
      writeFileSync(`/proc/${sandbox.pid}/gid_map`, `${inside(spec.gid)} ${spec.gid} 1\n`)
      return sandbox
    } catch (error) {
      if (sandbox === undefined) watcher.letGo()
      sandbox?.[Symbol.dispose]()
      throw error
    }
  }

  /** The program's standard input, where it is a pipe. */
  get stdin(): Writable | null {
    return this.child.stdin
  }

  /**
   * Lets the program run; resolves once it does. SyscallError `execve`: it cannot be executed;
   * ENOENT: there is none.
   */
  async release(): Promise<Released> {
    const answer = readAll(this.#control, this.#timeoutMs)
    this.#control.write(this.#environment)
    const text = await answer
    const inRoot = text.startsWith('d')
    const failure = inRoot ? text.slice(1) : text
    if (failure !== '') throw launchFailure(failure)
    return { inRoot }
  }

  /**
   * Resolves once the program has ended, and with `killRest` what it left behind is gone.
   * TimeoutError: something does not die; it is killed as soon as the kernel lets it die.
   */
  async ended(): Promise<Exit> {
    const exit = await this.exited
    const status = await this.#watcher.ended(this.#timeoutMs)
    if (status !== 0 && this.#cgroup !== undefined)
      throw new ConflictError(`What is left in ${this.#cgroup} could not be killed`, {
        context: { cgroup: this.#cgroup, status: status ?? 'none' },
        hint: `Write 1 to ${this.#cgroup}/cgroup.kill, and remove the directory`,
      })
    return exit
  }

  /**
   * Passes a signal on to the program. Signals that a terminal sends for typed keys also go to the
   * program's process group.
   */
  signal(signal: NodeJS.Signals): void {
    const isTyped = signal === 'SIGINT' || signal === 'SIGQUIT'
    this.#watcher.signal(signal, isTyped && !this.sharesTerminal)
  }

  /**
   * Kills the program if it still runs. Its namespaces, and what is mounted in them, end with its
   * last process.
   */
  [Symbol.dispose](): void {
    this.#watcher.letGo()
    // The watcher does so, too, but not at once.
    if (!this.#process.pidfd.closed) kill(this.#process)
    this.#process[Symbol.dispose]()
  }
}

function refuseIds({ uid, gid }: SandboxSpec): void {
  const context = { uid, gid }
  // Fail closed: the kernel would cut a larger number to 32 bits, 4294967296 to 0.
  if (!isWithin(USER_IDS, uid) || !isWithin(USER_IDS, gid))
    throw new InputError(`${uid}:${gid} are no ids`, {
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

/** The process that stays, and our ends of what it and the program hold: see native/launch.c. */
class Watcher {
  readonly child: ChildProcess
  readonly control: Duplex
  /** How the program ended; where the watcher was killed, the program was, too. */
  readonly programExit: Promise<Exit>
  readonly #lifeline: Duplex
  readonly #gone: Promise<number | null>

  private constructor(child: ChildProcess) {
    this.child = child
    this.control = child.stdio[3] as Duplex
    this.#lifeline = child.stdio[4] as Duplex
    // If it has closed its end already, its status says so.
    this.#lifeline.on('error', () => {})
    this.#gone = new Promise(resolve => child.once('exit', resolve))
    this.programExit = lineOf(this.#lifeline).then(exitOf)
  }

  static async start(spec: SandboxSpec, cgroup: string | undefined): Promise<Watcher> {
    const child = spawn(launcherPath(), launcherArguments(spec, cgroup), {
      stdio: [...threeOf(spec.stdio), 'pipe', 'pipe'],
      env: NO_ENVIRONMENT,
      ...(spec.cwd === undefined ? {} : { cwd: spec.cwd }),
    })
    await new Promise<void>((resolve, reject) => {
      child.once('spawn', resolve)
      child.once('error', (cause: NodeJS.ErrnoException) => {
        reject(
          new NotFoundError('Cannot start bpftoken-launch', { cause, hint: START_HINTS[cause.code ?? ''] }),
        )
      })
    })
    return new Watcher(child)
  }

  /** To the program, or to its process group. */
  signal(signal: NodeJS.Signals, toGroup: boolean): void {
    if (!this.#lifeline.destroyed)
      this.#lifeline.write(Uint8Array.of(constants.signals[signal] | (toGroup ? 0x80 : 0)))
  }

  /** Its exit status, once it has ended. */
  async ended(timeoutMs: number): Promise<number | null> {
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(
        () => reject(new TimeoutError(`What the program left behind did not die within ${timeoutMs} ms`)),
        timeoutMs,
      )
    })
    try {
      return await Promise.race([this.#gone, late])
    } finally {
      clearTimeout(timer)
    }
  }

  /** It soon kills the program, and with `killRest` the processes that the program left. */
  letGo(): void {
    this.control.destroy()
    this.#lifeline.destroy()
  }
}

/** The line that is said, or what there is of it at the end of file, or once we have let go. */
function lineOf(stream: Duplex): Promise<string> {
  let said = ''
  return new Promise(resolve => {
    stream.on('data', (data: Buffer) => {
      said += data.toString()
      if (said.endsWith('\n')) resolve(said)
    })
    stream.once('close', () => resolve(said))
  })
}

function exitOf(said: string): Exit {
  const [, how, number] = /^(exited|killed) (\d+)\n$/.exec(said) ?? []
  if (how === undefined) return { code: null, signal: 'SIGKILL' }
  if (how === 'exited') return { code: Number(number), signal: null }
  const [name] = Object.entries(constants.signals).find(([, value]) => value === Number(number)) ?? []
  return name === undefined
    ? { code: 128 + Number(number), signal: null }
    : { code: null, signal: name as NodeJS.Signals }
}

interface Ready {
  readonly process: ProcessHandle
  readonly sharesTerminal: boolean
}

/** Resolves when the namespaces are there. The caller disposes of the process. */
async function readyOf({ child, control }: Watcher, timeoutMs: number): Promise<Ready> {
  const text = await read(control, timeoutMs)
  if (text === undefined) throw new ConflictError('bpftoken-launch ended before it was ready')
  const [, terminal, pid] = /^([nt])(\d+)$/.exec(text) ?? []
  if (terminal === undefined) throw launchFailure(text)
  const process = openProcess(Number(pid))
  // The number stays its own until its parent has waited for it.
  if (parentOf(process.pid) === child.pid) return { process, sharesTerminal: terminal === 't' }
  process[Symbol.dispose]()
  throw new ConflictError('bpftoken-launch ended before it was ready')
}

/** By a file that no process can have us wait for: the number may be another's by now. */
function parentOf(pid: number): number {
  return Number(procFields(readFileSync(`/proc/${pid}/status`, 'utf8')).get('PPid'))
}

/** All that is said until the end of file. */
async function readAll(control: Duplex, timeoutMs: number): Promise<string> {
  let all = ''
  for (let text = await read(control, timeoutMs); text !== undefined; text = await read(control, timeoutMs))
    all += text
  return all
}

/** What is said next, or undefined at the end of file. */
function read(control: Duplex, timeoutMs: number): Promise<string | undefined> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(
      () => finish(() => reject(new TimeoutError(`The sandbox gave no answer within ${timeoutMs} ms`))),
      timeoutMs,
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

function timeoutOf({ timeoutMs = TIMEOUT_MS }: SandboxSpec): number {
  return timeoutMs
}

function launcherArguments(spec: SandboxSpec, cgroup: string | undefined): string[] {
  const caps = spec.capabilities.reduce((mask, name) => mask | (1n << BigInt(capabilityBit(name))), 0n)
  const job = spec.stopTogether === true ? 'job' : '-'
  return [spec.network, caps.toString(16), cgroup ?? '-', job, ...spec.command]
}

/** The launcher has two sockets behind these, and the program gets three. */
function threeOf(stdio: StdioOptions = 'inherit'): Extract<StdioOptions, unknown[]> {
  const three = typeof stdio === 'string' ? [stdio, stdio, stdio] : stdio
  if (three.length !== 3)
    throw new InputError(`A sandboxed program gets three descriptors, not ${three.length}`)
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
    throw new InputError(`There is no capability "${name}"`, {
      hint: 'Name it as in capabilities(7), without CAP_',
    })
  return bit
}

/** What launch.c said: `e`, the operation, and its errno. */
function launchFailure(text: string): BpftokenError {
  const [, operation, errno] = /^e(\S+) (\d+)$/.exec(text) ?? []
  if (operation === undefined) return new ConflictError(`bpftoken-launch said ${JSON.stringify(text)}`)
  const failure = new SyscallError(
    { call: operation, errno: Number(errno), errnoName: errnoName(Number(errno)) },
    { hint: LAUNCH_HINTS[operation] },
  )
  const why = CGROUP_FAILURES[operation]
  return why === undefined ? failure : restUnsupported(why, failure)
}

const START_HINTS: Readonly<Record<string, string>> = {
  ENOENT: 'Install bpftoken again, or build the clone',
  EMFILE: 'Allow more open files (ulimit -n)',
}

/** Steps that only `killRest` takes. */
const CGROUP_FAILURES: Readonly<Record<string, string>> = {
  mkdir: 'no cgroup can be made below our own',
  'cgroup.kill': 'this kernel has no cgroup.kill',
  'cgroup.procs': 'the program cannot be put into a cgroup below our own',
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
