/**
 * What `top` shows, and what its keys do: a table of loans with their fullest limit as a bar, and
 * how often each was used and refused in a second. Pure: time, events and keys come from outside.
 */
import type { Loan } from '../client/client.ts'
import { printableName } from '../ebpf/printable.ts'
import { leftText, loanRows, recipientText, sizeText } from './daemon/loan-text.ts'
import { type Line, type Styled, styled } from './output.ts'

export const SORTS = ['refusals', 'uses', 'limits', 'age', 'name'] as const
export type Sort = (typeof SORTS)[number]

/** What of an event of the guard counts. */
export interface Counted {
  readonly seq: number
  readonly count: number
  readonly verdict: string
  readonly loan?: string | undefined
}

export type Command =
  | { readonly do: 'quit' }
  | { readonly do: 'suspend' }
  | { readonly do: 'revoke'; readonly id: string }

/** Rates are over so many seconds: one alone jumps. */
const WINDOW_SEC = 5
/** Events that may still grow by their count. */
const MAX_EVENTS = 4096

interface Rates {
  readonly uses: number
  readonly refusals: number
}

export class TopView {
  #loans: readonly Loan[] = []
  #more = false
  #waiting = 0
  #sort: Sort
  #chosen: string | undefined
  readonly #opened = new Set<string>()
  #asked: string | undefined
  #message = ''
  /** By loan, in seconds. */
  readonly #ticks = new Map<string, { second: number; uses: number; refusals: number }[]>()
  readonly #counts = new Map<number, number>()

  constructor(sort: Sort) {
    this.#sort = sort
  }

  /** All that is lent now; `more`: there are others, which were not asked for. */
  update(loans: readonly Loan[], { more, waiting }: { more: boolean; waiting: number }): void {
    this.#loans = loans
    this.#more = more
    this.#waiting = waiting
    const ids = new Set(loans.map(({ id }) => id))
    for (const id of this.#ticks.keys()) if (!ids.has(id)) this.#ticks.delete(id)
    for (const id of this.#opened) if (!ids.has(id)) this.#opened.delete(id)
    if (this.#asked !== undefined && !ids.has(this.#asked)) this.#asked = undefined
  }

  /** A folded event comes again with a larger count: only what was added counts. */
  count({ seq, count, verdict, loan }: Counted, nowMs: number): void {
    const added = count - (this.#counts.get(seq) ?? 0)
    this.#counts.delete(seq)
    this.#counts.set(seq, count)
    if (this.#counts.size > MAX_EVENTS) this.#counts.delete(this.#counts.keys().next().value!)
    if (loan === undefined || added <= 0) return
    const second = Math.floor(nowMs / 1000)
    const ticks = (this.#ticks.get(loan) ?? []).filter(tick => tick.second > second - WINDOW_SEC)
    let tick = ticks.find(one => one.second === second)
    if (tick === undefined) {
      tick = { second, uses: 0, refusals: 0 }
      ticks.push(tick)
    }
    if (verdict === 'refused') tick.refusals += added
    else tick.uses += added
    this.#ticks.set(loan, ticks)
  }

  /** In the last line, until a key is pressed. */
  tell(message: string): void {
    this.#message = message
  }

  press(key: string, nowMs: number): Command | undefined {
    this.#message = ''
    if (key === '\x03') return { do: 'quit' }
    if (key === '\x1a') return { do: 'suspend' }
    if (this.#asked !== undefined) {
      const id = this.#asked
      this.#asked = undefined
      if (key === 'y' || key === 'Y') return { do: 'revoke', id }
      this.#message = `${id} was not revoked`
      return undefined
    }
    const rows = this.#rows(nowMs)
    const at = Math.max(
      0,
      rows.findIndex(({ loan }) => loan.id === this.#chosen),
    )
    const choose = (index: number): void => {
      this.#chosen = rows[Math.min(Math.max(index, 0), rows.length - 1)]?.loan.id
    }
    const id = rows[at]?.loan.id
    switch (key) {
      case 'q':
        return { do: 'quit' }
      case '\x1b[A':
      case 'k':
        choose(at - 1)
        break
      case '\x1b[B':
      case 'j':
        choose(at + 1)
        break
      case '\x1b[5~':
        choose(at - PAGE)
        break
      case '\x1b[6~':
        choose(at + PAGE)
        break
      case '\x1b[H':
      case 'g':
        choose(0)
        break
      case '\x1b[F':
      case 'G':
        choose(rows.length - 1)
        break
      case '\r':
      case '\n':
        if (id !== undefined && !this.#opened.delete(id)) this.#opened.add(id)
        break
      case 's':
        this.#sort = SORTS[(SORTS.indexOf(this.#sort) + 1) % SORTS.length]!
        break
      case 'r':
        this.#asked = id
        break
    }
    return undefined
  }

  /** A frame: no more than `height` lines, each of `width` characters at most. */
  lines({ width, height }: { width: number; height: number }, nowMs: number): Line[] {
    const rows = this.#rows(nowMs)
    if (!rows.some(({ loan }) => loan.id === this.#chosen)) this.#chosen = rows[0]?.loan.id
    const body: { readonly line: Line; readonly chosen: boolean }[] = rows.flatMap(row => {
      const chosen = row.loan.id === this.#chosen
      const line = rowLine(row, width, nowMs, chosen)
      const detail = this.#opened.has(row.loan.id) ? detailLines(row.loan, nowMs) : []
      return [{ line, chosen }, ...detail.map(one => ({ line: one as Line, chosen: false }))]
    })
    const room = Math.max(1, height - 3)
    const at = Math.max(
      0,
      body.findIndex(({ chosen }) => chosen),
    )
    // The chosen row is in the upper part, and what it has opened below it.
    const first = Math.max(0, Math.min(at - Math.floor(room / 3), body.length - room))
    const seen = body.slice(first, first + room).map(({ line }) => line)
    return [
      this.#summary(rows, width),
      [styled('heading', `  ${rowText(TITLES, widthsIn(width)).join('')}`)],
      ...(seen.length === 0 ? ['nothing is lent'] : seen),
      ...Array.from({ length: Math.max(0, room - Math.max(1, seen.length)) }, () => ''),
      this.#footer(width),
    ].slice(0, height)
  }

  #summary(rows: readonly Row[], width: number): Line {
    const sum = (of: keyof Rates): number => rows.reduce((all, { rates }) => all + rates[of], 0)
    const loans = `${this.#more ? 'more than ' : ''}${rows.length} ${rows.length === 1 ? 'loan' : 'loans'}`
    const waits = this.#waiting === 0 ? '' : `, ${this.#waiting} to approve`
    const left = `${loans}${waits}, by ${this.#sort}`
    const right = `used ${rateText(sum('uses'))}/s, refused ${rateText(sum('refusals'))}/s`
    return `${left}${' '.repeat(Math.max(2, width - left.length - right.length))}${right}`
  }

  #footer(width: number): Line {
    if (this.#asked !== undefined)
      return [styled('bad', fit(`Revoke ${this.#asked}, and what is derived from it? y or n`, width))]
    if (this.#message !== '') return [styled('odd', fit(printableName(this.#message), width))]
    return fit('up/down choose  Enter open  r revoke  s sort  q quit', width)
  }

  #rows(nowMs: number): Row[] {
    const ids = new Set(this.#loans.map(({ id }) => id))
    const below = new Map<string | undefined, Row[]>()
    for (const loan of this.#loans) {
      const parent =
        loan.spec.parent !== undefined && ids.has(loan.spec.parent) ? loan.spec.parent : undefined
      const row = { loan, rates: this.#rates(loan.id, nowMs), depth: 0 }
      below.set(parent, [...(below.get(parent) ?? []), row])
    }
    const ordered = (parent: string | undefined, depth: number): Row[] =>
      (below.get(parent) ?? [])
        .sort((a, b) => COMPARE[this.#sort](a, b) || numberOf(a.loan) - numberOf(b.loan))
        .flatMap(row => [{ ...row, depth }, ...ordered(row.loan.id, depth + 1)])
    return ordered(undefined, 0)
  }

  #rates(id: string, nowMs: number): Rates {
    const from = Math.floor(nowMs / 1000) - WINDOW_SEC
    const ticks = (this.#ticks.get(id) ?? []).filter(({ second }) => second > from)
    const rate = (of: keyof Rates): number => ticks.reduce((sum, tick) => sum + tick[of], 0) / WINDOW_SEC
    return { uses: rate('uses'), refusals: rate('refusals') }
  }
}

const PAGE = 10

interface Row {
  readonly loan: Loan
  readonly rates: Rates
  readonly depth: number
}

const numberOf = ({ id }: Loan): number => Number(id.replace(/^\D+/, ''))

const COMPARE: Readonly<Record<Sort, (a: Row, b: Row) => number>> = {
  refusals: (a, b) => b.rates.refusals - a.rates.refusals,
  uses: (a, b) => b.rates.uses - a.rates.uses,
  limits: (a, b) => (fullest(b.loan)?.share ?? -1) - (fullest(a.loan)?.share ?? -1),
  age: (a, b) => Date.parse(b.loan.spec.askedAt) - Date.parse(a.loan.spec.askedAt),
  name: (a, b) => (recipientText(a.loan) < recipientText(b.loan) ? -1 : 1),
}

interface Limit {
  readonly name: string
  readonly live: number
  readonly limit: number
  /** Of the limit that is used: 0 to 1, or more. */
  readonly share: number
}

/** What is limited, with how much of it lives. */
export function limitsOf({ status }: Loan): Limit[] {
  const { live, limits } = status ?? {}
  if (live === undefined || limits === undefined) return []
  return (['tokens', 'programs', 'maps', 'mapBytes'] as const).flatMap(name => {
    const limit = limits[name]
    if (limit === undefined) return []
    const [has, most] = [Number(live[name]), Number(limit)]
    return [
      {
        name: name === 'mapBytes' ? 'bytes' : name,
        live: has,
        limit: most,
        share: most === 0 ? 1 : has / most,
      },
    ]
  })
}

function fullest(loan: Loan): Limit | undefined {
  return limitsOf(loan).reduce<Limit | undefined>(
    (most, one) => (most === undefined || one.share > most.share ? one : most),
    undefined,
  )
}

/** `####--`. */
export function bar(share: number, width: number): string {
  const full = Math.min(width, Math.max(share > 0 ? 1 : 0, Math.round(share * width)))
  return '#'.repeat(full) + '-'.repeat(width - full)
}

/** Where a limit is near, and where it is reached. */
const NEAR = 0.7
const FULL = 0.9

function shareStyle(share: number): Styled['style'] {
  return share >= FULL ? 'bad' : share >= NEAR ? 'odd' : 'good'
}

/** Of 80 columns; what a terminal has more goes to the names. */
const COLUMNS = 80
const BAR = 6

interface Widths {
  readonly recipient: number
  readonly policy: number
}

function widthsIn(width: number): Widths {
  const more = Math.max(0, width - COLUMNS)
  const policy = Math.floor(more / 3)
  return { recipient: 15 + more - policy, policy: 10 + policy }
}

function rowText(
  cells: readonly string[],
  { recipient, policy }: Widths,
): [string, string, string, string, string] {
  const [loan = '', who = '', of = '', limit = '', uses = '', refusals = '', left = ''] = cells
  return [
    `${cell(loan, 11)} ${cell(who, recipient)} ${cell(of, policy)} `,
    cell(limit, 20),
    ` ${uses.padStart(5)} `,
    refusals.padStart(5),
    ` ${left.padStart(6)}`,
  ]
}

const TITLES = ['LOAN', 'FOR', 'POLICY', 'FULLEST LIMIT', 'USE/s', 'REF/s', 'LEFT']

function rowLine({ loan, rates, depth }: Row, width: number, nowMs: number, chosen: boolean): Line {
  const most = fullest(loan)
  const limit =
    most === undefined
      ? '-'
      : `${most.name.padEnd(8)} ${bar(most.share, BAR)} ${percent(most.share).padStart(4)}`
  const [names, bars, uses, refusals, left] = rowText(
    [
      `${' '.repeat(Math.min(depth, 4))}${depth > 0 ? '+' : ''}${loan.id}`,
      recipientText(loan),
      loan.policy,
      limit,
      rateText(rates.uses),
      rateText(rates.refusals),
      shortLeft(loan, nowMs) ?? '-',
    ],
    widthsIn(width),
  )
  if (chosen) return [styled('chosen', `> ${names}${bars}${uses}${refusals}${left}`)]
  return [
    `  ${names}`,
    most === undefined ? bars : styled(shareStyle(most.share), bars),
    uses,
    rates.refusals > 0 ? styled('bad', refusals) : refusals,
    left,
  ]
}

function percent(share: number): string {
  return `${Math.min(999, Math.round(share * 100))}%`
}

/** Its largest two units: `1h59m`. */
function shortLeft(loan: Loan, nowMs: number): string | undefined {
  if (loan.state !== 'live') return loan.state
  return /^(?:\d+[dhms]){1,2}/.exec(leftText(loan.record?.expiresAt, nowMs) ?? '')?.[0]
}

function detailLines(loan: Loan, nowMs: number): Line[] {
  const limits = limitsOf(loan).map(({ name, live, limit, share }): Line => {
    const text = name === 'bytes' ? `${sizeText(live)} of ${sizeText(limit)}` : `${live} of ${limit}`
    return [`      ${name.padEnd(9)} `, styled(shareStyle(share), bar(share, 30)), ` ${text}`]
  })
  const rows = loanRows(loan, nowMs).filter(([name]) => SHOWN.has(name))
  return [...limits, ...rows.map(([name, text]) => `      ${name.padEnd(9)} ${printableName(text)}`)]
}

const SHOWN = new Set([
  'state',
  'for',
  'at',
  'rights',
  'delegation',
  'asked',
  'because',
  'expires',
  'now',
  'drift',
])

export function rateText(rate: number): string {
  if (rate === 0) return '0'
  if (rate < 10) return rate.toFixed(1)
  if (rate < 10_000) return String(Math.round(rate))
  return `${Math.round(rate / 1000)}k`
}

/** In ASCII, whose characters are of one width each; cut or filled up to so many. */
function cell(text: string, width: number): string {
  return fit(printableName(text), width).padEnd(width)
}

function fit(text: string, width: number): string {
  return text.length <= width ? text : `${text.slice(0, Math.max(0, width - 1))}~`
}
