/**
 * Perf event arrays: records from BPF programs to us, by bpf_perf_event_output(), in one ring for
 * each CPU. `PerfBuffer` opens an event on each, puts it into the map, and reads its ring.
 *
 * A ring buffer (`RingBuffer`) does the same with one ring for all, keeps the order, and wants no
 * event. This is for programs that are older, or that want room for each CPU.
 */
import { setImmediate as oncePolled } from 'node:timers/promises'
import type { Fd } from '../sys/fd.ts'
import { mapShared, PAGE_BYTES } from '../sys/memory.ts'
import { pausePerfOutput, perfEventOpen } from '../sys/perf.ts'
import { watchReadable } from '../sys/poll.ts'
import type { BpfMap } from './map.ts'
import { Owned } from './owned.ts'
import { onlineCpus } from './per-cpu.ts'
import { PerfRing, type SampleVisitor } from './perf-ring.ts'

export type { SampleVisitor }

const PERF_TYPE_SOFTWARE = 1
const PERF_COUNT_SW_BPF_OUTPUT = 10n
const PERF_SAMPLE_RAW = 1n << 10n
const BYTES_PER_CPU = 64 * 1024
const MAX_BYTES_PER_CPU = 1024 * 1024 * 1024

/** What a program wrote in one call. */
export interface PerfRecord {
  readonly cpu: number
  /**
   * A copy. The kernel pads records: up to 7 bytes behind what the program wrote are zeros or
   * remains.
   */
  readonly data: Buffer
}

export interface PerfBufferOptions {
  /** Room on each CPU, in bytes; rounded up to a power of two of pages. 64 KiB by default. */
  readonly bytesPerCpu?: number
  /**
   * Who waits is woken after so many records of a CPU, or once it has more than so many bytes. One
   * record by default. Records that came since are read by the next call or wake-up.
   */
  readonly wakeup?: { readonly events: number } | { readonly bytes: number }
  /** These CPUs only. By default all that are online now; those that come later are not read. */
  readonly cpus?: readonly number[]
  /**
   * Only what programs write while this thread runs, by its number, which of a process's first
   * thread is the process's; 0: ourselves. Its events want no right beyond that of tracing it,
   * unless kernel.perf_event_paranoid is 3 or more.
   */
  readonly pid?: number
  /**
   * New records take the room of old ones: nothing is lost that is new, nobody is woken, and
   * `latest` reads. Since Linux 4.7.
   */
  readonly overwrite?: boolean
  /** Records were lost on a CPU for want of room. Told in order with what was not lost. */
  readonly onLost?: (count: number, cpu: number) => void
}

interface PerCpu {
  readonly cpu: number
  readonly event: Fd
  readonly ring: PerfRing
  /** The event and its memory. */
  readonly held: Owned
}

/**
 * The reading end of a `perf_event_array` map. Since Linux 4.4. perf_event_open(2) of all processes
 * wants CAP_PERFMON in the initial user namespace, which no token gives, or
 * kernel.perf_event_paranoid below 1: EACCES. With `pid` it wants less. EPERM of mmap(2): more
 * memory than kernel.perf_event_mlock_kb and RLIMIT_MEMLOCK allow. Events in the map are replaced,
 * and taken out when this is disposed of, which the caller does, and of the map afterwards.
 */
export class PerfBuffer implements Disposable {
  readonly #map: BpfMap
  readonly #perCpu: PerCpu[] = []
  readonly #overwrite: boolean
  readonly #onLost: PerfBufferOptions['onLost']
  /** Of those who wait for records. */
  readonly #wakeups = new Set<Wakeups>()
  #ended = false
  #lost = 0
  /** Which CPU comes first, so that a busy one does not keep the others waiting. */
  #first = 0

  constructor(map: BpfMap, options: PerfBufferOptions = {}) {
    if (map.type !== 'perf_event_array')
      throw new TypeError(`a map of type ${map.type} holds no events: perf_event_array is wanted`)
    this.#map = map
    this.#overwrite = options.overwrite === true
    this.#onLost = options.onLost
    const dataBytes = roundedUp(options.bytesPerCpu ?? BYTES_PER_CPU)
    const wakeup = wakeupOf(options, dataBytes)
    const cpus = options.cpus ?? onlineCpus().filter(cpu => cpu < map.maxEntries)
    try {
      for (const cpu of cpus) this.#open(cpu, dataBytes, wakeup, options.pid)
    } catch (error) {
      this[Symbol.dispose]()
      throw error
    }
  }

  #open(
    cpu: number,
    dataBytes: number,
    wakeup: NonNullable<PerfBufferOptions['wakeup']>,
    pid: number | undefined,
  ): void {
    const event = perfEventOpen(
      {
        type: PERF_TYPE_SOFTWARE,
        config: PERF_COUNT_SW_BPF_OUTPUT,
        samplePeriod: 1n,
        sampleType: PERF_SAMPLE_RAW,
        wakeup,
        userOnly: pid !== undefined,
        writeBackward: this.#overwrite,
      },
      pid ?? -1,
      cpu,
      `output of programs on CPU ${cpu}`,
    )
    using owned = new Owned()
    owned.add(event)
    const mapping = owned.add(mapShared(event, PAGE_BYTES + dataBytes, 0, !this.#overwrite))
    const ring = new PerfRing(mapping.buffer, cpu, (count, on) => this.#tellLost(count, on))
    this.#map.updateFd(cpu, { fd: event })
    const held = new Owned()
    owned.moveTo(held)
    this.#perCpu.push({ cpu, event, ring, held })
  }

  #tellLost(count: number, cpu: number): void {
    this.#lost += count
    this.#onLost?.(count, cpu)
  }

  /** Records that were lost so far for want of room, as far as we have read. */
  get lostCount(): number {
    return this.#lost
  }

  /** The CPUs that are read. */
  get cpus(): number[] {
    return this.#perCpu.map(({ cpu }) => cpu)
  }

  /** The next record of some CPU, copied out; undefined: there is none. Does not wait. */
  read(): PerfRecord | undefined {
    let found: PerfRecord | undefined
    this.visit((data, start, end, cpu) => {
      found = copied(data, start, end, cpu)
    }, 1)
    return found
  }

  /**
   * Gives every record that is there to `take`, `limit` at most, and their number. In order for
   * each CPU, not between them. Does not wait.
   */
  drain(take: (record: PerfRecord) => void, limit?: number): number {
    return this.visit((data, start, end, cpu) => take(copied(data, start, end, cpu)), limit)
  }

  /**
   * The same without a copy or an object for each record: `visit` gets the memory, and where in it
   * the record is. That is good until `visit` returns, which must not read meanwhile.
   */
  visit(visit: SampleVisitor, limit = Number.POSITIVE_INFINITY): number {
    if (this.#overwrite) throw new TypeError('a ring that is overwritten is read by latest()')
    this.#requireOpen()
    const count = this.#perCpu.length
    const first = this.#first++ % Math.max(1, count)
    let seen = 0
    for (let i = 0; i < count && seen < limit && !this.#ended; i++)
      seen += this.#perCpu[(first + i) % count]!.ring.visit(visit, limit - seen)
    return seen
  }

  /**
   * What is in rings that are overwritten: for each CPU, its newest record first. Nothing is
   * written meanwhile: what programs write then is lost.
   */
  latest(): PerfRecord[] {
    if (!this.#overwrite) throw new TypeError('only a ring that is overwritten has latest records')
    this.#requireOpen()
    const found: PerfRecord[] = []
    for (const { event, ring } of this.#perCpu) {
      pausePerfOutput(event, true)
      try {
        ring.visitBackward((data, start, end, cpu) => found.push(copied(data, start, end, cpu)))
      } finally {
        pausePerfOutput(event, false)
      }
    }
    return found
  }

  /** From now on programs cannot write, and get ENOENT, until `resume`. */
  pause(): void {
    for (const { cpu } of this.#perCpu) this.#map.delete(cpu)
  }

  resume(): void {
    for (const { cpu, event } of this.#perCpu) this.#map.updateFd(cpu, { fd: event })
  }

  #requireOpen(): void {
    if (this.#ended) throw new TypeError('the perf buffer is closed')
  }

  /**
   * Every record, as it comes, until this is disposed of: leave the loop, or abort, which throws the
   * signal's reason.
   */
  async *records(options: { signal?: AbortSignal } = {}): AsyncGenerator<PerfRecord> {
    const { signal } = options
    this.#requireOpen()
    using wakeups = new Wakeups(
      this.#perCpu.map(({ event }) => event),
      signal,
    )
    this.#wakeups.add(wakeups)
    try {
      while (!this.#ended) {
        signal?.throwIfAborted()
        const record = this.read()
        if (record !== undefined) yield record
        else await wakeups.next()
      }
    } finally {
      this.#wakeups.delete(wakeups)
    }
  }

  [Symbol.asyncIterator](): AsyncGenerator<PerfRecord> {
    return this.records()
  }

  [Symbol.dispose](): void {
    this.#ended = true
    // Before their events are closed, whose numbers others may get.
    for (const wakeups of this.#wakeups) wakeups[Symbol.dispose]()
    using all = new Owned()
    for (const { cpu, held } of this.#perCpu.splice(0)) {
      all.add(held)
      if (!this.#map.fd.closed) all.add({ [Symbol.dispose]: () => void this.#map.delete(cpu) })
    }
  }
}

/**
 * Waits for any of several perf events. Being ready is told once and then forgotten by the kernel
 * (perf_poll), so that the watches stay for as long as somebody reads.
 */
class Wakeups implements Disposable {
  readonly #watches: Disposable[]
  readonly #signal: AbortSignal | undefined
  #ended = false
  #woken = false
  #polled = false
  #wake: (() => void) | undefined

  constructor(events: readonly Fd[], signal: AbortSignal | undefined) {
    this.#signal = signal
    const wake = (): void => {
      this.#woken = true
      this.#wake?.()
    }
    this.#watches = events.map(event => watchReadable(event, wake))
    signal?.addEventListener('abort', wake)
    this.#watches.push({ [Symbol.dispose]: () => signal?.removeEventListener('abort', wake) })
  }

  /** Returns when there may be something to read, or the signal is aborted. */
  async next(): Promise<void> {
    // What came before the event loop began to watch woke nobody: look once more after that.
    if (!this.#polled) {
      await oncePolled()
      // The first may come before it began, when we are called out of an event.
      await oncePolled()
      this.#polled = true
      return
    }
    if (!this.#woken && !this.#ended && this.#signal?.aborted !== true)
      await new Promise<void>(resolve => {
        this.#wake = resolve
      })
    this.#wake = undefined
    this.#woken = false
  }

  /** Also ends waiting. */
  [Symbol.dispose](): void {
    this.#ended = true
    for (const watch of this.#watches) watch[Symbol.dispose]()
    this.#wake?.()
  }
}

function copied(data: Buffer, start: number, end: number, cpu: number): PerfRecord {
  return { cpu, data: Buffer.from(data.subarray(start, end)) }
}

function roundedUp(bytes: number): number {
  if (!Number.isSafeInteger(bytes) || bytes < 1 || bytes > MAX_BYTES_PER_CPU)
    throw new RangeError(`bytesPerCpu is ${bytes}, and must be 1 to ${MAX_BYTES_PER_CPU}`)
  return PAGE_BYTES * 2 ** Math.max(0, Math.ceil(Math.log2(bytes / PAGE_BYTES)))
}

function wakeupOf({ wakeup }: PerfBufferOptions, dataBytes: number): { events: number } | { bytes: number } {
  if (wakeup === undefined) return { events: 1 }
  const [value, max] = 'bytes' in wakeup ? [wakeup.bytes, dataBytes - 1] : [wakeup.events, 0xffff_ffff]
  if (!Number.isSafeInteger(value) || value < 1 || value > max)
    throw new RangeError(`wakeup is ${value}, and must be 1 to ${max}`)
  return wakeup
}
