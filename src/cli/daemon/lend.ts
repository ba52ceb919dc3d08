/** bpftoken delegate and derive, where the daemon lends. */
import type { CallInput, Client, Loan, RouteAnswer } from '../../client/client.ts'
import { type Action, describeAction } from '../../delegation/actions.ts'
import { EXIT, NotFoundError } from '../../errors.ts'
import { interruption } from '../interrupted.ts'
import type { DelegateOptions, DeriveOptions } from '../loan-options.ts'
import { requirePath } from '../mount-path.ts'
import { note, print, printJson, word } from '../output.ts'
import type { LoanName } from '../tree/options.ts'
import { waitForApproval } from './approval.ts'
import { placeOf, recipientText } from './loan-text.ts'
import { policyChoice } from './policy-choice.ts'
import { heldRecipient } from './recipient.ts'

export async function delegateThrough(client: Client, options: DelegateOptions): Promise<number> {
  requirePath(options.path)
  const policy = policyChoice(options.policy)
  using recipient = await heldRecipient(options)
  const { path, contextFd, onlyCgroup: cgroup, anySubject, strict, dryRun, lifetime, comment } = options
  const body: CallInput<'lend'>['body'] = {
    policy,
    recipient: { pidfd: recipient.pidfd },
    place: contextFd === undefined ? { path } : { contextFd },
    ...{ cgroup, anySubject, strict, dryRun, lifetimeSec: lifetime, comment },
  }
  const signal = interruption()
  const answer = await client.lend({ body }, { signal })
  if ('dryRun' in answer) return tellWouldLend(answer, options)
  if ('loan' in answer) return tellLent(answer, options)
  if (options.wait === false) {
    const { id } = answer.request
    if (options.json === true) printJson(answer)
    else print(`${id} waits to be approved; bpftoken requests shows what becomes of it`)
    return EXIT.ok
  }
  const granted = await waitForApproval(client, answer.request, signal)
  if (options.json === true) printJson(granted)
  else print(...lentLines(granted.loan))
  return EXIT.ok
}

export async function deriveThrough(client: Client, of: LoanName, options: DeriveOptions): Promise<number> {
  requirePath(options.path)
  const policy = policyChoice(options.policy)
  using recipient = await heldRecipient(options)
  const signal = interruption()
  const id = await loanOf(client, of, signal)
  const answer = await client.derive(
    {
      params: { id },
      body: {
        policy,
        recipient: { pidfd: recipient.pidfd },
        place: { path: options.path },
        ...{ exact: options.strict, lifetimeSec: options.lifetime },
      },
    },
    { signal },
  )
  return tellLent(answer, options)
}

/** The daemon's name for it. NotFoundError: none of its loans that live has that number. */
export async function loanOf(client: Client, name: LoanName, signal?: AbortSignal): Promise<string> {
  if ('loan' in name) return name.loan
  const { loans } = await client.listLoans({ query: { state: 'live' } }, { signal })
  const found = loans.find(({ record }) => record?.delegation === name.delegation)
  if (found !== undefined) return found.id
  throw new NotFoundError(`The daemon has no loan of yours with delegation ${name.delegation}`, {
    context: { delegation: name.delegation },
    hint: 'See bpftoken ls for those that live; as root, --direct asks the guard itself',
  })
}

type Warned = Pick<RouteAnswer<'derive'>, 'preflight' | 'unenforced' | 'removed'>

/** Says on stderr what is odd about a loan. */
function tellOddities({ preflight, unenforced, removed = [] }: Warned): void {
  for (const { what, certain, remedy } of preflight) {
    note(`${certain ? 'warning' : 'this may not work'}: ${what}`)
    note(`  next: ${remedy}`)
  }
  for (const field of unenforced) note(`without the guard nothing enforces ${field}`)
  for (const { path, what, why } of removed) note(`not lent: ${path} ${what} (${why})`)
}

function tellWouldLend(
  answer: Extract<RouteAnswer<'lend'>, { dryRun: true }>,
  { json = false }: { json?: boolean },
): number {
  tellOddities(answer)
  if (json) {
    printJson(answer)
    return EXIT.ok
  }
  print(`policy ${word(answer.policy)} allows it: ${answer.because}`)
  if (answer.approval) print('somebody must approve it first')
  print(...answer.actions.map(action => describeAction(action as Action)))
  return EXIT.ok
}

function tellLent(answer: RouteAnswer<'derive'>, { json = false }: { json?: boolean }): number {
  tellOddities(answer)
  if (json) printJson(answer)
  else print(...lentLines(answer.loan))
  return EXIT.ok
}

function lentLines(loan: Loan): string[] {
  const { id, record } = loan
  const mount = record?.mount
  return [
    mount === undefined
      ? `${id}: ${recipientText(loan)} may now mount its ${placeOf(loan)}`
      : `${id}: lent to ${recipientText(loan)} at ${word(mount.path)}: ${mount.options.join(' ')}`,
    `${record?.expiresAt === undefined ? '' : `it ends at ${record.expiresAt}; `}bpftoken revoke ${id} takes it back`,
  ]
}
