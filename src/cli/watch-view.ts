/**
 * How counters and events are shown: as a table that is drawn anew on a terminal, as a line for
 * each change elsewhere, or as JSON Lines.
 */
import type { Reading } from '../ebpf/watch/counters.ts'
import type { Shown } from '../ebpf/watch/shown.ts'
import { columns, print, printJson, Screen } from './output.ts'

export interface WatchView {
  counters(readings: readonly Reading[]): void
  event(map: string, value: Shown): void
  /** All was read. */
  end(): void
}

/** A counter by the name under which a person knows it. */
export interface NamedValue {
  readonly name: string
  readonly value: Shown
}

const MAX_VALUE_CHARS = 200

/** One for each row: `seen`, `packets`, `packets[3]`, `flows{"port":80}`. Pure. */
export function namedValues(readings: readonly Reading[]): NamedValue[] {
  return readings.flatMap(({ map, kind, rows }) =>
    rows.map(({ key, value }) => ({ name: nameOf(map, kind, key, rows.length), value })),
  )
}

function nameOf(map: string, kind: Reading['kind'], key: Shown, rows: number): string {
  if (kind === 'variables') return String(key)
  if (kind === 'array') return rows === 1 && key === 0 ? map : `${map}[${String(key)}]`
  return typeof key === 'object' ? `${map}${JSON.stringify(key)}` : `${map}[${String(key)}]`
}

/** Within a line. Pure. */
export function valueText(value: Shown): string {
  const text = typeof value === 'string' ? value : JSON.stringify(value)
  return text.length > MAX_VALUE_CHARS ? `${text.slice(0, MAX_VALUE_CHARS - 3)}...` : text
}

/** How much a counter went up or down since; empty if it did not change or is no number. Pure. */
export function changeText(before: Shown | undefined, value: Shown): string {
  if (typeof value !== 'number' || typeof before !== 'number' || value === before) return ''
  return value > before ? `+${value - before}` : `${value - before}`
}

/** Which parts of the maps are not shown. Pure. */
export function restOf(readings: readonly Reading[]): string[] {
  return readings.flatMap(({ map, more, cut }) => {
    if (cut) return [`${map}: it has more elements than are looked at`]
    return more > 0 ? [`${map}: ${more} more`] : []
  })
}

export function watchView({ json, terminal }: { json: boolean; terminal: boolean }): WatchView {
  if (json) return new JsonView()
  return terminal ? new TableView() : new LineView()
}

/** Documents `counters`, whenever something has changed, and `event`. */
class JsonView implements WatchView {
  #last = ''

  counters(maps: readonly Reading[]): void {
    const text = JSON.stringify(maps)
    if (text === this.#last) return
    this.#last = text
    this.#say({ type: 'counters', at: now(), maps })
  }

  event(map: string, value: Shown): void {
    this.#say({ type: 'event', at: now(), map, value })
  }

  end(): void {
    this.#say({ type: 'end', at: now() })
  }

  #say(document: object): void {
    printJson(document, 'compact')
  }
}

function now(): string {
  return new Date().toISOString()
}

/** At most this many counters, and events, are shown in a second. */
const MAX_LINES = 20

class LineView implements WatchView {
  #values = new Map<string, Shown>()
  #events = 0

  counters(readings: readonly Reading[]): void {
    const before = this.#values
    this.#values = new Map(namedValues(readings).map(({ name, value }) => [name, value]))
    if (this.#events > MAX_LINES) print(`${this.#events - MAX_LINES} more events`)
    this.#events = 0
    const changed = [...this.#values].filter(
      ([name, value]) => JSON.stringify(before.get(name)) !== JSON.stringify(value),
    )
    for (const [name, value] of changed.slice(0, MAX_LINES)) {
      const change = changeText(before.get(name), value)
      print(`${name} = ${valueText(value)}${change === '' ? '' : ` (${change})`}`)
    }
    if (changed.length > MAX_LINES) print(`${changed.length - MAX_LINES} more counters have changed`)
  }

  event(map: string, value: Shown): void {
    if (++this.#events <= MAX_LINES) print(`${map}: ${valueText(value)}`)
  }

  end(): void {}
}

const SHOWN_EVENTS = 8

class TableView implements WatchView {
  readonly #screen = new Screen()
  readonly #counts = new Map<string, number>()
  readonly #events: string[] = []
  #readings: readonly Reading[] = []
  #values = new Map<string, Shown>()

  counters(readings: readonly Reading[]): void {
    const before = this.#values
    const values = namedValues(readings)
    this.#values = new Map(values.map(({ name, value }) => [name, value]))
    this.#readings = readings
    this.#draw(values.map(({ name, value }) => [name, valueText(value), changeText(before.get(name), value)]))
  }

  event(map: string, value: Shown): void {
    this.#counts.set(map, (this.#counts.get(map) ?? 0) + 1)
    this.#events.push(`${map}: ${valueText(value)}`)
    if (this.#events.length > SHOWN_EVENTS) this.#events.shift()
  }

  end(): void {}

  #draw(rows: string[][]): void {
    const counts = [...this.#counts].map(([map, count]) => `${count} of ${map}`).join(', ')
    this.#screen.draw([
      ...columns([['counter', 'value', 'change'], ...rows]),
      ...restOf(this.#readings),
      ...(counts === '' ? [] : ['', `events: ${counts}; the last ones:`]),
      ...this.#events.map(event => `  ${event}`),
    ])
  }
}
