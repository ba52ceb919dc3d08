/** bpftoken delegate: into a user namespace that exists, a container's of any runtime. */

import { describeAction } from '../../delegation/actions.ts'
import { EXIT } from '../../errors.ts'
import { accounts } from '../../lending/accounts.ts'
import { compareInTime } from '../../lending/admission.ts'
import type { Loan, Place } from '../../lending/journal.ts'
import { actionsOf, lend, type PreparedLoan, prepareLoan, requireTermsHeld } from '../../lending/lend.ts'
import { loanToJSON } from '../../lending/view.ts'
import { tellVerdict } from '../admission.ts'
import { reachDaemon, requireNoneOf } from '../daemon/reach.ts'
import { installedGuard } from '../installed-guard.ts'
import { interruption } from '../interrupted.ts'
import type { DelegateOptions } from '../loan-options.ts'
import { note, print, printJson, word } from '../output.ts'
import { loadPolicy, loadVocabulary } from '../policy-file.ts'
import { openRecipient, recipientName } from '../recipient.ts'

export async function delegate(options: DelegateOptions): Promise<number> {
  recipientName(options)
  using daemon = await reachDaemon(options, 'bpftoken delegate')
  if (daemon !== undefined) return (await import('../daemon/lend.ts')).delegateThrough(daemon, options)
  requireNoneOf({ lifetime: options.lifetime, comment: options.comment })
  const vocabulary = await loadVocabulary()
  const policy = await loadPolicy(options.policy, vocabulary)
  using guard = await installedGuard()
  requireTermsHeld({ policy, guard, cgroup: options.onlyCgroup })
  using recipient = await openRecipient(options)
  using loan = await prepareLoan({
    ...{ policy, vocabulary, accounts, guard, recipient },
    ...(await compareInTime(recipient, policy, accounts)),
    place: placeOf(options),
    cgroup: options.onlyCgroup,
    anySubject: options.anySubject,
    onlyIfUsable: options.strict,
  })
  const also = tellPrepared(loan)
  if (options.dryRun === true) {
    const actions = actionsOf(loan)
    if (options.json === true) printJson({ target: loan.facts.target, actions, ...also })
    else print(...actions.map(describeAction))
    return EXIT.ok
  }
  for (const path of loan.unenforced) note(`without the guard nothing enforces ${path}`)
  tellLoan(await lend(loan, { signal: interruption() }), { ...options, also })
  return EXIT.ok
}

function placeOf({ path, contextFd }: DelegateOptions): Place {
  return contextFd === undefined ? { path } : { contextFd }
}

/**
 * Says on stderr what is odd about a loan before it is made. Gives what `--json` prints of it.
 */
export function tellPrepared({ facts, concerns }: PreparedLoan): object {
  const record = tellVerdict(facts.verdict)
  for (const { what, certain, remedy } of concerns) {
    note(`${certain ? 'warning' : 'this may not work'}: ${what}`)
    note(`  next: ${remedy}`)
  }
  return { preflight: concerns, ...record }
}

/** Tells of the loan; `also` is what else `--json` prints. */
export function tellLoan(loan: Loan, { json, also }: { json?: boolean; also: object }): void {
  if (json === true) {
    printJson({ ...loanToJSON(loan), ...also })
    return
  }
  const { target, place, mount, delegation } = loan
  print(
    'path' in place
      ? `delegated to process ${target.pid} at ${word(mount!.path)}: ${mount!.options.join(' ')}`
      : `process ${target.pid} may now mount its context (descriptor ${place.contextFd})`,
  )
  if (delegation !== undefined) print(`delegation ${delegation}: bpftoken revoke ${delegation} takes it back`)
}
