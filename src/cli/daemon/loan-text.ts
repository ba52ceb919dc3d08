/** How people are told of loans and of requests. Pure, but for the clock. */
import type { Loan, LoanRequest } from '../../client/client.ts'
import { formatDuration, formatSize } from '../../policy/quantity.ts'
import { word } from '../output.ts'

/** For whom it is, by the name that people know best. */
export function recipientText({ record, spec }: Loan): string {
  if (record === undefined) return `asked by process ${spec.asker.pid}`
  const { container, unit, pid } = record.recipient
  if (container !== undefined) return `container ${word(shortId(container))}`
  return unit === undefined ? `process ${pid}` : `unit ${word(unit)}`
}

/** As runtimes show their long ids. */
function shortId(text: string): string {
  return text.replace(/\b([0-9a-f]{12})[0-9a-f]{52}\b/, '$1')
}

type Place = Loan['spec']['place']

export function placeText(place: Place): string {
  return 'path' in place ? word(place.path) : `context ${place.contextFd}`
}

/** Where it lies now, or was asked for. */
export function placeOf({ record, spec }: Loan): string {
  return record?.mount === undefined ? placeText(spec.place) : word(record.mount.path)
}

/** `live for 2h`, `ended: revoked`. */
export function stateText(loan: Loan, now = Date.now()): string {
  if (loan.ended !== undefined) return `ended: ${loan.ended.why}`
  const drift = (loan.status?.drift.length ?? 0) > 0 ? ', drifted' : ''
  const left = leftText(loan.record?.expiresAt, now)
  return `${loan.state}${left === undefined ? '' : ` for ${left}`}${drift}`
}

/** How long until then, roughly. Undefined: there is no such time. */
export function leftText(time: string | undefined, now = Date.now()): string | undefined {
  if (time === undefined) return undefined
  const seconds = Math.max(0, Math.round((Date.parse(time) - now) / 1000))
  // Of days the seconds are of no interest.
  const step = seconds >= 86_400 ? 3600 : seconds >= 3600 ? 60 : 1
  return formatDuration(Math.floor(seconds / step) * step)
}

export function sizeText(bytes: number | string): string {
  return formatSize(BigInt(bytes))
}

/** All that is known of one, as rows of a name and what it is. */
export function loanRows(loan: Loan, now = Date.now()): [string, string][] {
  const { spec, record, status, ended } = loan
  const { asker } = spec
  const rows: [string, string | undefined][] = [
    ['loan', `${loan.id}${loan.kind === 'delegate' ? '' : `, ${loan.kind}`}`],
    ['state', stateText(loan, now)],
    ['policy', word(loan.policy)],
    ['for', record && `${recipientText(loan)}, ${record.recipient.userNamespace}`],
    ['at', placeOf(loan)],
    ['rights', record?.mount?.options.join(' ')],
    [
      'delegation',
      record?.delegation === undefined ? 'none: no guard holds to it' : String(record.delegation),
    ],
    ['from', spec.parent],
    ['tokens in', spec.cgroup && word(spec.cgroup)],
    [
      'asked',
      `${spec.askedAt} by uid ${asker.uid}, process ${asker.pid}${named(asker.executable)}${named(asker.unit)}`,
    ],
    ['because', spec.because],
    ['approved', spec.approvedBy === undefined ? undefined : `by uid ${spec.approvedBy}`],
    ['why', spec.comment],
    ['made', record?.madeAt],
    ['expires', record?.expiresAt],
    [
      'now',
      status &&
        `${status.mounted ? 'mounted' : 'not mounted'}, ${count(status.processes, 'process', 'processes')}`,
    ],
    ...(status?.drift ?? []).map((one): [string, string] => ['drift', one]),
    ['live', status?.live && liveText(status)],
    ['ended', ended && endText(ended)],
  ]
  return rows.filter((row): row is [string, string] => row[1] !== undefined)
}

const named = (text: string | undefined): string => (text === undefined ? '' : `, ${word(text)}`)

function endText({ at, why, by, detail }: NonNullable<Loan['ended']>): string {
  return [at, why, by === undefined ? undefined : `by uid ${by}`, detail].filter(Boolean).join(', ')
}

function liveText({ live, limits = {} }: NonNullable<Loan['status']>): string {
  const of = (limit: string | undefined): string => (limit === undefined ? '' : ` of ${limit}`)
  const { tokens, programs, maps, mapBytes } = live!
  return [
    `${tokens}${of(limits.tokens?.toString())} tokens`,
    `${programs}${of(limits.programs?.toString())} programs`,
    `${maps}${of(limits.maps?.toString())} maps`,
    `${sizeText(mapBytes)}${of(limits.mapBytes === undefined ? undefined : sizeText(limits.mapBytes))} in maps`,
  ].join(', ')
}

export function count(number: number, one: string, many: string): string {
  return `${number} ${number === 1 ? one : many}`
}

/** What was asked for, by whom. */
export function requestText({ id, policy, asker, recipient, place }: LoanRequest): string {
  return `${id}: policy ${word(policy)} for process ${recipient.pid} at ${placeText(place)}, asked by uid ${asker.uid}`
}
