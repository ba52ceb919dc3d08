/**
 * The daemon's numbers, for Prometheus. Labels are words of ours alone, so that their number is
 * known. Nothing is sampled: what is not counted is read when somebody asks. Loads prom-client.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { Counter, Gauge, Histogram, Registry } from 'prom-client'
import type { Gauges, Meter } from './meter.ts'

/** From a tenth of a millisecond to ten seconds. */
const SECONDS = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 10]

export class Metrics implements Meter {
  readonly #registry = new Registry()
  readonly #requests = this.#counter('requests_total', 'Requests by route and status', ['route', 'status'])
  readonly #requestTime = this.#histogram('request_seconds', 'From the headers to the end of the answer', [
    'route',
  ])
  readonly #decisions = this.#counter('decisions_total', 'Requests to lend, by what was decided', ['verdict'])
  readonly #ended = this.#counter('loans_ended_total', 'Loans that ended, by why', ['why'])
  readonly #guardEvents = this.#counter('guard_events_total', 'Events of the guard, by verdict', ['verdict'])

  /** `gauges` and `connections` are asked when the numbers are read. */
  constructor(version: string, gauges: () => Gauges, connections: () => number) {
    this.#gauge('build_info', 'The version, as a label', () => 1, { version })
    this.#gauge('loans_live', 'Loans that live', () => gauges().liveLoans)
    this.#gauge('requests_waiting', 'Requests to be approved', () => gauges().waitingRequests)
    this.#gauge('policy_faults', 'Files of policies that are not taken', () => gauges().policyFaults)
    this.#gauge('guard_events_lost', 'Events of the guard that nobody got', () => gauges().lostEvents)
    this.#gauge('connections_open', 'Connections that are open', connections)
    this.#process()
  }

  /** The text format of Prometheus, and its media type. */
  async read(): Promise<{ text: string; type: string }> {
    return { text: await this.#registry.metrics(), type: this.#registry.contentType }
  }

  request(route: string, status: number, seconds: number): void {
    this.#requests.inc({ route, status })
    this.#requestTime.observe({ route }, seconds)
  }

  decided(verdict: 'allowed' | 'refused' | 'waiting'): void {
    this.#decisions.inc({ verdict })
  }

  loanEnded(why: string): void {
    this.#ended.inc({ why })
  }

  guardEvents(verdict: 'refused' | 'allowed', count: number): void {
    this.#guardEvents.inc({ verdict }, count)
  }

  /**
   * Those that prom-client has by the same names. Its own set also samples the delay of the event
   * loop by a timer, which would keep an idle daemon awake.
   */
  #process(): void {
    const register = [this.#registry]
    const gauge = (name: string, help: string, read: () => number) =>
      new Gauge({
        name,
        help,
        registers: register,
        collect() {
          this.set(read())
        },
      })
    new Counter({
      name: 'process_cpu_seconds_total',
      help: 'Processor time, of user and system',
      registers: register,
      collect() {
        const { user, system } = process.cpuUsage()
        this.reset()
        this.inc((user + system) / 1e6)
      },
    })
    gauge('process_resident_memory_bytes', 'Resident memory', () => process.memoryUsage.rss())
    gauge('process_start_time_seconds', 'When it began, since 1970', () =>
      Math.round(Date.now() / 1000 - process.uptime()),
    )
    gauge('process_open_fds', 'Descriptors that are open', () => readdirSync('/proc/self/fd').length - 1)
    gauge('process_max_fds', 'Descriptors that may be open', maxDescriptors)
    gauge('nodejs_heap_size_used_bytes', 'Heap of JavaScript in use', () => process.memoryUsage().heapUsed)
  }

  #counter<L extends string>(name: string, help: string, labelNames: readonly L[]): Counter<L> {
    return new Counter({ name: `bpftoken_${name}`, help, labelNames, registers: [this.#registry] })
  }

  #histogram<L extends string>(name: string, help: string, labelNames: readonly L[]): Histogram<L> {
    const registers = [this.#registry]
    return new Histogram({ name: `bpftoken_${name}`, help, labelNames, registers, buckets: SECONDS })
  }

  #gauge(name: string, help: string, read: () => number, labels: Record<string, string> = {}): void {
    new Gauge({
      name: `bpftoken_${name}`,
      help,
      labelNames: Object.keys(labels),
      registers: [this.#registry],
      collect() {
        this.set(labels, read())
      },
    })
  }
}

function maxDescriptors(): number {
  const line = readFileSync('/proc/self/limits', 'latin1')
    .split('\n')
    .find(one => one.startsWith('Max open files'))
  const [, soft] = /^Max open files +(\d+)/.exec(line ?? '') ?? []
  return Number(soft ?? 0)
}
