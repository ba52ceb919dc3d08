/**
 * A real process that does the system calls we tell it to (workload.c), in a Sandbox or as an
 * ordinary user.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { chmodSync, copyFileSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { compiled } from '../../../scripts/compiled.ts'
import { Sandbox } from '../../../src/delegation/sandbox.ts'
import type { Fd } from '../../../src/sys/fd.ts'
import { readable } from '../../../src/sys/poll.ts'
import { recvFds, sendFds, socketPair } from '../../../src/sys/socket.ts'
import { AT_EMPTY_PATH } from '../../../src/uapi/constants.ts'
import { eventually } from '../../helpers/eventually.ts'
import { BPF_TOKEN_CREATE, mapAttr, tokenAttr } from './attributes.ts'

let directory: string | undefined

/** The compiled program, where every user may reach it. `removeProgram` takes it away again. */
export function program(): string {
  if (directory === undefined) {
    directory = mkdtempSync(path.join(tmpdir(), 'bpftoken-workload-'))
    chmodSync(directory, 0o755)
    copyFileSync(compiled(path.join(__dirname, 'workload.c')), path.join(directory, 'workload'))
  }
  return path.join(directory, 'workload')
}

export function removeProgram(): void {
  if (directory !== undefined) rmSync(directory, { recursive: true })
  directory = undefined
}

/** Behind bytes: write the address of `text` into them. */
export interface Pointer {
  readonly off: number
  readonly text: string | Uint8Array
}

type Argument = number | string | Uint8Array | Pointer

function encode(argument: Argument): string {
  if (typeof argument === 'number') return String(argument)
  if (typeof argument === 'string') return `s${Buffer.from(argument).toString('hex')}`
  if ('text' in argument) return `@${argument.off},${Buffer.from(argument.text).toString('hex')}`
  return `b${Buffer.from(argument).toString('hex')}`
}

export const ALL_CAPS = ['bpf', 'net_admin', 'perfmon', 'sys_admin', 'dac_override', 'setuid', 'sys_ptrace']

export class Workload implements Disposable {
  readonly pid: number
  readonly exited: Promise<unknown>
  readonly #kill: () => void
  readonly #socket: Fd

  private constructor(pid: number, exited: Promise<unknown>, socket: Fd, kill: () => void) {
    this.pid = pid
    this.exited = exited
    this.#socket = socket
    this.#kill = kill
  }

  /** In user and mount namespaces of its own, and by default a network namespace. */
  static async sandboxed(
    how: { capabilities?: readonly string[]; uid?: number; network?: 'own' | 'host' } = {},
  ): Promise<Workload> {
    const [ours, theirs] = socketPair()
    using _ = theirs
    const uid = how.uid ?? 65534
    const sandbox = await Sandbox.start({
      command: [program()],
      uid,
      gid: uid,
      network: how.network ?? 'own',
      capabilities: how.capabilities ?? ALL_CAPS,
      stdio: [theirs.number, 'ignore', 'inherit'],
    })
    await sandbox.release()
    return new Workload(sandbox.pid, sandbox.exited, ours, () => sandbox[Symbol.dispose]())
  }

  /**
   * In our own namespaces, with the capabilities of that user: none but for user 0. `inherited` are
   * its descriptors from 3 on, as if it shared our table of them: no hook is asked.
   */
  static onHost(uid: number, inherited: readonly Fd[] = []): Promise<Workload> {
    return Workload.#spawned([program()], inherited, { uid, gid: uid })
  }

  /**
   * The same as user 0 without any capability: who owns the user namespaces that root makes, and so
   * has every capability in them.
   */
  static powerless(inherited: readonly Fd[] = []): Promise<Workload> {
    return Workload.#spawned(['setpriv', '--bounding-set=-all', '--inh-caps=-all', program()], inherited)
  }

  /**
   * By a program that executes ours at last: `unshare`, `setpriv`. Its number is the first one's.
   */
  static startedBy(...words: [string, ...string[]]): Promise<Workload> {
    return Workload.#spawned([...words, program()], [])
  }

  /**
   * Two of that user, who share one table of descriptors. The second is the first one's child; each
   * exits when its own is disposed of.
   */
  static async twins(uid: number): Promise<[Workload, Workload]> {
    const [ours, theirs] = socketPair()
    using second = theirs
    const first = await Workload.#spawned([program(), 'twins'], [second], { uid, gid: uid })
    const twin = new Workload(0, first.exited, ours, () => {})
    return [first, new Workload(await twin.must('getpid'), first.exited, ours, () => {})]
  }

  static async #spawned(
    [file, ...words]: [string, ...string[]],
    inherited: readonly Fd[],
    user: { uid?: number; gid?: number } = {},
  ): Promise<Workload> {
    const [ours, theirs] = socketPair()
    using _ = theirs
    const child: ChildProcess = spawn(file, words, {
      ...user,
      stdio: [theirs.number, 'ignore', 'inherit', ...inherited.map(({ number }) => number)],
    })
    const exited = new Promise(resolve => child.once('exit', resolve))
    await new Promise((resolve, reject) => child.once('spawn', resolve).once('error', reject))
    return new Workload(child.pid!, exited, ours, () => child.kill('SIGKILL'))
  }

  async #ask(text: string, fds: Fd[] = []): Promise<{ text: string; fds: Fd[] }> {
    sendFds(this.#socket, Buffer.from(text), fds)
    await readable(this.#socket)
    const data = new Uint8Array(16384)
    const { length, fds: received } = recvFds(this.#socket, data)
    if (length === 0) throw new Error(`the workload exited at: ${text}`)
    return { text: Buffer.from(data.subarray(0, length)).toString(), fds: received }
  }

  /** Result or -errno of a system call of the workload. */
  async call(name: string, ...args: Argument[]): Promise<number> {
    const { text } = await this.#ask(['call', name, ...args.map(encode)].join(' '))
    return Number(text.split(' ')[0])
  }

  /** As `call`, with the byte arrays among its arguments as they are afterwards. */
  async called(name: string, ...args: Argument[]): Promise<{ result: number; bytes: Buffer[] }> {
    const { text } = await this.#ask(['call', name, ...args.map(encode)].join(' '))
    const [result, ...bytes] = text.split(' ')
    return { result: Number(result), bytes: bytes.map(hex => Buffer.from(hex, 'hex')) }
  }

  /**
   * Has it execute another program, with this one argument besides its name, on our socket as its
   * standard input; with `open`, by a descriptor. Resolves when that has begun: it is no workload
   * any more.
   */
  async becomes(file: string, argument: string, open?: number): Promise<void> {
    const words = [Buffer.alloc(24), { off: 0, text: file }, { off: 8, text: argument }, 0]
    const ask =
      open === undefined
        ? ['call', 'execve', encode(file), ...words.map(encode)]
        : ['call', 'execveat', encode(open), encode(''), ...words.map(encode), encode(AT_EMPTY_PATH)]
    sendFds(this.#socket, Buffer.from(ask.join(' ')), [])
    // Unlike the link `exe`, this does not wait for an execve(2) that hangs.
    const comm = (): string => readFileSync(`/proc/${this.pid}/comm`, 'utf8').trim()
    await eventually(() => comm() === path.basename(file), `${file} was not executed`)
  }

  /** As `call`, but a failure fails the test. */
  async must(name: string, ...args: Argument[]): Promise<number> {
    const result = await this.call(name, ...args)
    if (result < 0) throw new Error(`${name}(${args.join(', ')}) of the workload gave ${result}`)
    return result
  }

  /** Passes it a descriptor by SCM_RIGHTS: its number there. */
  async take(fd: Fd): Promise<number> {
    return Number((await this.#ask('take', [fd])).text)
  }

  /** A copy, by SCM_RIGHTS, of its descriptor. The caller closes it. */
  async give(number: number): Promise<Fd> {
    return (await this.#ask(`give ${number}`)).fds[0]!
  }

  async token(root: number): Promise<number> {
    const attr = tokenAttr(root)
    return this.call('bpf', BPF_TOKEN_CREATE, attr, attr.length)
  }

  /** BPF_MAP_CREATE of a small map, with the token unless it is undefined. */
  async map(type: string, token: number | undefined): Promise<number> {
    const attr = mapAttr(type, token)
    return this.call('bpf', 0, attr, attr.length)
  }

  [Symbol.dispose](): void {
    this.#socket.close()
    this.#kill()
  }
}
