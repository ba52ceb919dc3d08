/** Watching a loaded object: its counters once a second, its events as they come, until Ctrl-C. */
import { setImmediate as otherEvents, setTimeout as sleep } from 'node:timers/promises'
import { isatty } from 'node:tty'
import type { LoadedObject } from '../ebpf/load/object.ts'
import { Owned } from '../ebpf/owned.ts'
import { RingBuffer } from '../ebpf/ringbuf.ts'
import { readCounters } from '../ebpf/watch/counters.ts'
import { eventType, showRecord } from '../ebpf/watch/event-type.ts'
import { LoopbackTraffic } from './loopback-traffic.ts'
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
  const rings = [...object.maps]
    .filter(([, map]) => map.type === 'ringbuf')
    .map(([name, map]) => ({
      name,
      ring: owned.add(new RingBuffer(map)),
      type: eventType(object.spec, name),
    }))
  const failed = new AbortController()
  const signal = AbortSignal.any([until, failed.signal])
  const tasks = [
    countEvery(object, view, traffic, signal),
    ...rings.map(async ({ name, ring, type }) => {
      let count = 0
      for await (const record of ring.records({ signal })) {
        view.event(name, showRecord(type, record))
        // Records that come faster than they are shown must not keep signals from us.
        if (++count % BURST === 0) await otherEvents()
      }
    }),
  ]
  // All of them end before the things that they use. If one fails, the others end, too.
  await Promise.all(tasks.map(task => task.catch(reason => failed.abort(reason))))
  if (!until.aborted) throw failed.signal.reason
  for (const { name, ring, type } of rings)
    ring.drain(record => view.event(name, showRecord(type, record)), MAX_LAST_EVENTS)
  view.counters(readCounters(object))
  view.end()
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
