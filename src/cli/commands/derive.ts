/** bpftoken derive: a narrower delegation out of one that lives, which falls with it. */

import { EXIT } from '../../errors.ts'
import { delegationId } from '../../guard/guard.ts'
import { accounts } from '../../lending/accounts.ts'
import { compareInTime } from '../../lending/admission.ts'
import { describeRemoval, prepareDerivation } from '../../lending/derive.ts'
import { lend } from '../../lending/lend.ts'
import { delegationIn, reachDaemon, requireNoneOf } from '../daemon/reach.ts'
import { requiredGuard } from '../installed-guard.ts'
import { interruption } from '../interrupted.ts'
import type { DeriveOptions } from '../loan-options.ts'
import { note } from '../output.ts'
import { loadPolicy, loadVocabulary } from '../policy-file.ts'
import { openRecipient, recipientName } from '../recipient.ts'
import type { LoanName } from '../tree/options.ts'
import { tellLoan, tellPrepared } from './delegate.ts'

export async function derive(name: LoanName, options: DeriveOptions): Promise<number> {
  recipientName(options)
  using daemon = await reachDaemon(options, 'bpftoken derive')
  if (daemon !== undefined) return (await import('../daemon/lend.ts')).deriveThrough(daemon, name, options)
  requireNoneOf({ lifetime: options.lifetime })
  const id = delegationIn(name)
  const vocabulary = await loadVocabulary()
  const policy = await loadPolicy(options.policy, vocabulary)
  using guard = await requiredGuard()
  using recipient = await openRecipient(options)
  using loan = await prepareDerivation({
    ...{ policy, vocabulary, accounts, guard, recipient },
    ...(await compareInTime(recipient, policy, accounts)),
    parent: delegationId(id),
    place: { path: options.path },
    anySubject: options.anySubject,
    exact: options.strict,
    onlyIfUsable: options.strict,
  })
  const { removed } = loan
  const also = { parent: id, removed, ...tellPrepared(loan) }
  for (const removal of removed) note(`not in delegation ${id}: ${describeRemoval(removal)}`)
  tellLoan(await lend(loan, { signal: interruption() }), { ...options, also })
  return EXIT.ok
}
