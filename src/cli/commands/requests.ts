/** bpftoken requests, approve, deny: what waits for somebody's yes. */
import type { LoanRequest } from '../../client/client.ts'
import { EXIT } from '../../errors.ts'
import { leftText, placeText, requestText } from '../daemon/loan-text.ts'
import { daemonAt, type SocketOptions } from '../daemon/reach.ts'
import { interruption } from '../interrupted.ts'
import { print, printJson, styled, table, word } from '../output.ts'

interface RequestsOptions extends SocketOptions {
  all?: boolean
  follow?: boolean
  json?: boolean
}

export async function requests(options: RequestsOptions): Promise<number> {
  const { all = false, follow = false, json = false } = options
  using daemon = await daemonAt(options)
  const query = { state: all ? 'all' : 'waiting' } as const
  if (follow) {
    const told = new Map<string, string>()
    const signal = interruption()
    for await (const now of daemon.follow('listRequests', { query }, { signal })) {
      for (const request of changed(told, now.requests))
        if (json) printJson(request, 'compact')
        else print(`${requestText(request)}, ${stateText(request)}`)
    }
    return EXIT.ok
  }
  const answer = await daemon.listRequests({ query })
  if (json) printJson(answer)
  else if (answer.requests.length === 0) print(all ? 'nothing was asked for' : 'nothing waits')
  else print(...table([TITLES.map(title => styled('heading', title)), ...answer.requests.map(row)]))
  return EXIT.ok
}

/**
 * Those that are new, or whose state is another than was told; `told` is brought up to date. What
 * is not listed any more is forgotten.
 */
export function changed(told: Map<string, string>, requests: readonly LoanRequest[]): LoanRequest[] {
  const fresh = requests.filter(({ id, state }) => told.get(id) !== state)
  told.clear()
  for (const { id, state } of requests) told.set(id, state)
  return fresh
}

const TITLES = ['REQUEST', 'STATE', 'POLICY', 'ASKED BY', 'FOR', 'AT', 'WHY']

function row(request: LoanRequest): string[] {
  const { id, policy, asker, recipient, place, comment = '' } = request
  const by = `uid ${asker.uid}${asker.executable === undefined ? '' : ` ${word(asker.executable)}`}`
  return [id, stateText(request), word(policy), by, `process ${recipient.pid}`, placeText(place), comment]
}

function stateText({ state, until, loan, decided, why }: LoanRequest): string {
  if (state === 'waiting') return `waiting, ${leftText(until)} left`
  const by = decided === undefined ? '' : ` by uid ${decided.by}`
  return `${state}${by}${loan === undefined ? '' : `, ${loan}`}${why === undefined ? '' : `: ${word(why)}`}`
}

interface DecideOptions extends SocketOptions {
  comment?: string
  json?: boolean
}

export async function approve(id: string, options: DecideOptions): Promise<number> {
  using daemon = await daemonAt(options)
  return tell(await daemon.approve({ params: { id }, body: { comment: options.comment } }), options)
}

export async function deny(id: string, options: DecideOptions): Promise<number> {
  using daemon = await daemonAt(options)
  return tell(await daemon.deny({ params: { id }, body: { comment: options.comment } }), options)
}

/** Exit 1: it was approved, and could not be lent any more. */
function tell(request: LoanRequest, { json = false }: DecideOptions): number {
  if (json) printJson(request)
  else print(`${requestText(request)}, ${stateText(request)}`)
  return request.state === 'failed' ? EXIT.failed : EXIT.ok
}
