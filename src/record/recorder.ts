/**
 * Watches bpf(2) on the running kernel: loads bpf/recorder.bpf.o and reads what it sees. Nothing
 * stays loaded once it is disposed of.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { attachProgram } from '../ebpf/attach/section.ts'
import { type LoadedObject, loadObject } from '../ebpf/load/object.ts'
import type { BpfMap } from '../ebpf/map.ts'
import { parseObject } from '../ebpf/object/spec.ts'
import { nameFrom } from '../ebpf/object-name.ts'
import { Owned } from '../ebpf/owned.ts'
import { RingBuffer, recordBytes } from '../ebpf/ringbuf.ts'
import { CMDS } from '../ebpf/type-names.ts'
import { ConflictError } from '../errors.ts'
import { readable, watchReadable } from '../sys/poll.ts'
import { procFields } from '../sys/proc-file.ts'
import { openProcess, stillAlive } from '../sys/process.ts'
import { ownNamespace } from '../sys/self.ts'
import { HEAD_BYTES, type SeenCall, seenCall } from './call.ts'

const OBJECT = path.resolve(__dirname, '../../bpf/recorder.bpf.o')

/** Behind the counters of commands. */
const LOST_CALLS = 64
const LOST_PROCESSES = 65
const WATCHED = 1
const ITS_CHILDREN_ONLY = 2

/** What there is besides the calls themselves. */
export interface Tally {
  /** Calls that no capability is about, which are only counted: by command. */
  readonly counted: ReadonlyMap<string, number>
  /** Calls for which there was no room. */
  readonly lostCalls: number
  /** Processes for which there was none, which were not watched. */
  readonly lostProcesses: number
}

/** What is watched from the beginning: a cgroup, a PID namespace, or nothing. */
export interface Watched {
  /** Its id. */
  readonly cgroup?: bigint
  /** Its inode number. */
  readonly pidNamespace?: number
  /** Whether the end of the verifier's log is kept of programs that are refused. */
  readonly logs?: boolean
  /** Whether threads are held whose calls were refused, if `held-command.ts` runs them. */
  readonly holds?: boolean
}

export class Recorder implements Disposable {
  readonly #owned: Owned
  readonly #ring: RingBuffer
  readonly #watched: BpfMap
  readonly #counters: BpfMap
  /** Undefined: none are kept. */
  readonly #logs: BpfMap | undefined
  /** More never lie in the ring at once. */
  readonly #mostAtOnce: number
  readonly #seen: (call: SeenCall) => void

  private constructor(owned: Owned, object: LoadedObject, seen: (call: SeenCall) => void, logs: boolean) {
    this.#owned = owned
    this.#seen = seen
    this.#watched = object.maps.get('watched')!
    this.#counters = object.maps.get('counters')!
    this.#logs = logs ? object.maps.get('logs') : undefined
    const calls = object.maps.get('calls')!
    this.#ring = owned.add(new RingBuffer(calls))
    this.#mostAtOnce = calls.maxEntries / recordBytes(HEAD_BYTES)
    const watch = owned.add(watchReadable(calls.fd, () => this.drain()))
    // The ring alone does not keep Node alive: what is waited for does.
    watch.keepAlive(false)
  }

  /**
   * Begins: `seen` gets each call of what is watched, from Node's event loop. Of a cgroup (its id)
   * that is every process in it and below, of a PID namespace (its inode number) likewise; otherwise
   * nothing yet. A call that was refused comes at once, others within some time, and all that there
   * are by `drain`. `logs`: of programs that are refused, with the end of what the verifier said.
   * Needs CAP_BPF and CAP_PERFMON in the initial user namespace. The caller disposes of it.
   */
  static async start(
    seen: (call: SeenCall) => void,
    { cgroup = 0n, pidNamespace = 0, logs = false, holds = false }: Watched = {},
  ): Promise<Recorder> {
    using owned = new Owned()
    const spec = parseObject(readFileSync(OBJECT), { name: 'recorder' })
    const constants = {
      arm64: process.arch === 'arm64' ? 1 : 0,
      pid_namespace: Number(/\d+/.exec(ownNamespace('pid'))![0]),
      cgroup,
      watched_namespace: pidNamespace,
      keeps_logs: Number(logs),
      holds: Number(holds),
    }
    const object = owned.add(await loadObject(spec, { token: null, constants }))
    const kept = new Owned()
    const recorder = new Recorder(kept, object, seen, logs)
    // The ring first: an event must find who reads it.
    for (const { name } of spec.programs) owned.add(attachProgram(object, name))
    owned.moveTo(kept)
    return recorder
  }

  /**
   * Watches what `start` forks, from its first instruction; this process itself is not watched.
   * `start` must fork before it returns.
   */
  watchForked<T>(start: () => T): T {
    this.#set(process.pid, ITS_CHILDREN_ONLY)
    try {
      return start()
    } finally {
      this.#watched.delete(process.pid)
    }
  }

  /**
   * Watches a process, its threads, all that it has forked and will fork. ConflictError: that is
   * this process.
   */
  watchProcess(pid: number): void {
    if (pid === process.pid)
      throw new ConflictError('A recorder does not watch itself', {
        context: { pid },
        hint: 'Give the number of another process',
      })
    this.#set(pid, WATCHED)
    // Whoever forks from now on is watched with its children. So the older ones are complete once
    // no look finds a new one.
    const found = new Set([pid])
    for (let before = 0; before !== found.size; ) {
      before = found.size
      for (const [child, parent] of parents())
        if (found.has(parent) && !found.has(child) && child !== process.pid) {
          found.add(child)
          this.#set(child, WATCHED)
          // Of one that had ended before, nobody would take the number away, and another gets it.
          if (!existsSync(`/proc/${child}`)) this.#watched.delete(child)
        }
    }
  }

  /**
   * Watches a process as `watchProcess` does, until it ends; or rejects with the signal's reason
   * when it aborts first. NotFoundError: there is none.
   */
  async watchUntilEnd(pid: number, signal: AbortSignal): Promise<void> {
    using process = openProcess(pid)
    this.watchProcess(pid)
    stillAlive(process)
    await readable(process.pidfd, signal)
  }

  /** Processes that are watched and live. */
  living(): number[] {
    return [...this.#watched.keys()].map(key => new DataView(key.buffer, key.byteOffset).getUint32(0, true))
  }

  /** Gives what is there now to `seen`; of those who call faster than we read, no more than that. */
  drain(): void {
    this.#ring.drain(record => {
      const call = seenCall(record)
      const isRefused = call.command === 'prog_load' && call.errno !== undefined
      const logs = isRefused ? this.#logs : undefined
      this.#seen(logs === undefined ? call : { ...call, log: takeLog(logs, call.at) })
    }, this.#mostAtOnce)
  }

  tally(): Tally {
    const values = Array.from({ length: LOST_PROCESSES + 1 }, (_, key) => {
      const value = this.#counters.lookup(key)!
      return Number(new DataView(value.buffer, value.byteOffset).getBigUint64(0, true))
    })
    const counted = values
      .slice(0, LOST_CALLS)
      .flatMap((n, cmd) => (n === 0 ? [] : ([[CMDS.word(cmd), n]] as const)))
    return {
      counted: new Map(counted),
      lostCalls: values[LOST_CALLS]!,
      lostProcesses: values[LOST_PROCESSES]!,
    }
  }

  #set(pid: number, how: number): void {
    this.#watched.update(pid, new Uint8Array(new Uint32Array([how]).buffer))
  }

  [Symbol.dispose](): void {
    this.#owned[Symbol.dispose]()
  }
}

/** Undefined: there was none. */
function takeLog(logs: BpfMap, at: bigint): string | undefined {
  const key = new Uint8Array(BigUint64Array.of(at).buffer)
  const text = logs.lookup(key)
  if (text === undefined) return undefined
  logs.delete(key)
  return nameFrom(text)
}

/** Each process with its parent. */
function* parents(): Generator<readonly [number, number]> {
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue
    try {
      const parent = procFields(readFileSync(`/proc/${name}/status`, 'latin1')).get('PPid')
      if (parent !== undefined) yield [Number(name), Number(parent)]
    } catch {
      // It has ended.
    }
  }
}
