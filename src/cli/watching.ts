/** Watching a loaded object: its counters once a second, its events as they come, until Ctrl-C. */
import { setImmediate as otherEvents, setTimeout as sleep } from 'node:timers/promises'
import { isatty } from 'node:tty'
import type { LoadedObject } from '../ebpf/load/object.ts'
import type { BpfMap } from '../ebpf/map.ts'
import { Owned } from '../ebpf/owned.ts'
import { PerfBuffer } from '../ebpf/perf-events.ts'
import { RingBuffer } from '../ebpf/ringbuf.ts'
import { readCounters } from '../ebpf/watch/counters.ts'
import { eventType, showRecord } from '../ebpf/watch/event-type.ts'
import type { Shown } from '../ebpf/watch/shown.ts'
import { SyscallError } from '../errors.ts'
import { LoopbackTraffic } from './loopback-traffic.ts'
import { warn } from './output.ts'
import { type WatchView, watchView } from './watch-view.ts'

export interface WatchOptions {
  readonly json: boolean
  /** Send packets to ourselves, once a second. */
  readonly ping: boolean
  /** Aborts when nobody wants to watch any more. */
  readonly until: AbortSignal
}

const PERIOD_MS = 1000
const BURST = 256
/** Showing records may make more of them, if the program watches us, too. */
const MAX_LAST_EVENTS = 4096
const STDOUT = 1

/**
 * Shows counters and events until `until` aborts; then the counters once more, and all remaining
 * events.
 */
export async function watch(object: LoadedObject, { json, ping, until }: WatchOptions): Promise<void> {
  const view = watchView({ json, terminal: isatty(STDOUT) })
  using owned = new Owned()
  const traffic = ping ? owned.add(new LoopbackTraffic()) : undefined
  const sources = eventSources(object, owned)
  const failed = new AbortController()
  const signal = AbortSignal.any([until, failed.signal])
  const tasks = [
    countEvery(object, view, traffic, signal),
    ...sources.map(async ({ name, records, show }) => {
      let count = 0
      for await (const record of records(signal)) {
        view.event(name, show(record))
        // Records that come faster than they are shown must not keep signals from us.
        if (++count % BURST === 0) await otherEvents()
      }
    }),
  ]
  // All of them end before the things that they use. If one fails, the others end, too.
  await Promise.all(tasks.map(task => task.catch(reason => failed.abort(reason))))
  if (!until.aborted) throw failed.signal.reason
  for (const { name, drain, show } of sources) drain(record => view.event(name, show(record)))
  view.counters(readCounters(object))
  view.end()
}

interface EventSource {
  readonly name: string
  readonly show: (record: Uint8Array) => Shown
  readonly records: (signal: AbortSignal) => AsyncIterable<Uint8Array>
  /** What is there, but no more than `MAX_LAST_EVENTS`. */
  readonly drain: (take: (record: Uint8Array) => void) => void
}

/** Ring buffers, and perf event arrays for which events may be opened. */
function eventSources(object: LoadedObject, owned: Owned): EventSource[] {
  return [...object.maps].flatMap(([name, map]): EventSource[] => {
    const type = eventType(object.spec, name)
    if (map.type === 'ringbuf') {
      const ring = owned.add(new RingBuffer(map))
      return [
        {
          name,
          show: record => showRecord(type, record),
          records: signal => ring.records({ signal }),
          drain: take => ring.drain(take, MAX_LAST_EVENTS),
        },
      ]
    }
    if (map.type !== 'perf_event_array') return []
    const perf = perfBuffer(name, map, owned)
    if (perf === undefined) return []
    return [
      {
        name,
        show: record => showRecord(type, record, true),
        records: signal => dataOf(perf, signal),
        drain: take => perf.drain(({ data }) => take(data), MAX_LAST_EVENTS),
      },
    ]
  })
}

/** Undefined: we may not open events; the counters are worth watching all the same. */
function perfBuffer(name: string, map: BpfMap, owned: Owned): PerfBuffer | undefined {
  const onLost = (count: number, cpu: number): void =>
    warn(`${name}: ${count} records were lost on CPU ${cpu}`)
  try {
    return owned.add(new PerfBuffer(map, { onLost }))
  } catch (error) {
    if (!(error instanceof SyscallError) || !['EACCES', 'EPERM'].includes(error.errnoName)) throw error
    warn(`${name} is not read: ${error.message}${error.hint === undefined ? '' : `. ${error.hint}`}`)
    return undefined
  }
}

async function* dataOf(perf: PerfBuffer, signal: AbortSignal): AsyncGenerator<Uint8Array> {
  for await (const { data } of perf.records({ signal })) yield data
}

async function countEvery(
  object: LoadedObject,
  view: WatchView,
  traffic: LoopbackTraffic | undefined,
  signal: AbortSignal,
): Promise<never> {
  for (;;) {
    view.counters(readCounters(object))
    traffic?.send()
    await sleep(PERIOD_MS, undefined, { signal })
  }
}
