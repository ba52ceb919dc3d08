/** bpftoken revoke and undelegate, where the daemon takes back. */
import type { Client, Loan, RouteAnswer } from '../../client/client.ts'
import { EXIT, NotFoundError, UsageError } from '../../errors.ts'
import type { RevokeOptions, UndelegateOptions } from '../loan-options.ts'
import { columns, print, printJson, word } from '../output.ts'
import type { LoanName } from '../tree/options.ts'
import { uidOf } from '../user.ts'
import { count, placeOf, recipientText } from './loan-text.ts'
import { policyName } from './policy-choice.ts'
import { heldRecipient } from './recipient.ts'

/** Exit 1: something stays that was to be undone, or may. */
export async function revokeThrough(
  client: Client,
  id: LoanName | undefined,
  options: RevokeOptions,
): Promise<number> {
  const { detach, kill, dryRun, comment, json = false } = options
  const what = selected(id, options)
  const answer = await client.revoke({ body: { what, detach, kill, dryRun, comment } })
  if (json) printJson(answer)
  else print(...describe(answer))
  return answer.complete || answer.dryRun ? EXIT.ok : EXIT.failed
}

type Selector = Parameters<Client['revoke']>[0]['body']['what']

/** UsageError unless exactly one is named: nothing is taken back by omission. */
function selected(id: LoanName | undefined, options: RevokeOptions): Selector {
  const { container, unit, user, policy, all } = options
  const named: Selector[] = [
    ...(id === undefined ? [] : [id]),
    ...(container === undefined ? [] : [{ container }]),
    ...(unit === undefined ? [] : [{ unit }]),
    ...(user === undefined ? [] : [{ uid: uidOf(user) }]),
    ...(policy === undefined ? [] : [{ policy: policyName(policy) }]),
    ...(all === true ? [{ all: true } as const] : []),
  ]
  if (named.length === 1) return named[0]!
  const choices = 'an id, --container, --unit, --user, --policy or --all'
  throw new UsageError(
    named.length === 0
      ? `Say what is taken back: ${choices}`
      : `Say one thing that is taken back: ${choices}`,
  )
}

/**
 * Revokes what is lent to the process, at that path, or with that mount. NotFoundError: the daemon
 * has no such loan.
 */
export async function undelegateThrough(client: Client, options: UndelegateOptions): Promise<number> {
  using recipient = await heldRecipient(options)
  const namespace = recipient.userNamespace()
  const { loans } = await client.listLoans({ query: { state: 'live' } })
  const meant = loans.filter(
    ({ record }) =>
      record?.recipient.userNamespace === namespace &&
      record.mount !== undefined &&
      (options.mount === undefined
        ? record.mount.path === options.path
        : record.mount.mountId === options.mount),
  )
  if (meant.length === 0) {
    const where = options.mount === undefined ? `at ${word(options.path)}` : `with mount ${options.mount}`
    throw new NotFoundError(`The daemon has lent nothing to ${namespace} ${where}`, {
      context: { pid: recipient.pid, userNamespace: namespace },
      hint: 'See bpftoken ls; what the daemon did not lend root takes back with --direct',
    })
  }
  const answers: RouteAnswer<'revoke'>[] = []
  for (const { id } of meant) answers.push(await client.revoke({ body: { what: { loan: id } } }))
  const all = {
    dryRun: false,
    loans: answers.flatMap(answer => answer.loans),
    complete: answers.every(({ complete }) => complete),
  }
  if (options.json === true) printJson(all)
  else print(...describe(all))
  // It was to be unmounted: tokens that were made before are another matter.
  return all.loans.every(({ state }) => state === 'ended') ? EXIT.ok : EXIT.failed
}

function describe({ dryRun, loans, undone, complete }: RouteAnswer<'revoke'>): string[] {
  if (loans.length === 0) return [`nothing ${dryRun ? 'would be' : 'was'} taken back: there is no such loan`]
  const lines = loans.map(loan => {
    const what = `${loan.id}, policy ${word(loan.policy)}, ${recipientText(loan)} at ${placeOf(loan)}`
    return `${dryRun ? 'would take back' : 'taken back'}: ${what}${endOf(loan)}`
  })
  if (undone !== undefined) lines.push(...undoneLines(undone))
  if (dryRun) return lines
  if (!complete) lines.push(...staysLines(loans, undone))
  else if (undone === undefined && loans.some(({ record }) => record?.delegation !== undefined))
    lines.push('what was loaded with them goes on; --detach undoes that')
  return lines
}

/** Why not all is undone. */
function staysLines(loans: readonly Loan[], undone: RouteAnswer<'revoke'>['undone']): string[] {
  const unguarded = loans.filter(({ record }) => record?.delegation === undefined)
  const mounted = loans.filter(({ state }) => state !== 'ended')
  return [
    ...(mounted.length === 0 ? [] : [`still mounted, and looked after until it is not: ${idsOf(mounted)}`]),
    ...(unguarded.length === 0
      ? []
      : [
          `no guard holds to ${idsOf(unguarded)}: no new token can be made, but those made before, and what was loaded with them, go on until their holders exit`,
        ]),
    ...(undone === undefined ? [] : ['not all is undone: something stays, or may']),
  ]
}

const idsOf = (loans: readonly Loan[]): string => loans.map(({ id }) => id).join(', ')

function endOf({ state, ended }: Loan): string {
  if (state === 'ended') return ended?.detail === undefined ? '' : ` (${ended.detail})`
  return state === 'ending' ? ' (it is not gone yet)' : ''
}

function undoneLines({
  detached,
  stays,
  killed,
  left,
}: NonNullable<RouteAnswer<'revoke'>['undone']>): string[] {
  const objects = (verb: string, list: typeof detached): string[][] =>
    list.map(({ id, type, name }) => [verb, String(id), type, `"${name}"`])
  const rows = [
    ...objects('detached', detached),
    ...objects('attached', stays),
    ...killed.map(({ pid, task }) => ['killed', `process ${pid}`, word(task), '']),
  ]
  const { programs, maps, links } = left
  return [
    ...(rows.length === 0 ? ['nothing was attached by a link'] : columns(rows)),
    programs + maps + links === 0
      ? 'nothing of it is left in the kernel'
      : `still in the kernel: ${count(programs, 'program', 'programs')}, ${count(maps, 'map', 'maps')}, ${count(links, 'link', 'links')}`,
  ]
}
