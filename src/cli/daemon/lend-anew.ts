/** A loan whose time is over, lent once more: the same policy, recipient and place. */
import type { Client, Loan } from '../../client/client.ts'
import { inhabits } from '../../lending/inhabitant.ts'
import { agreed } from '../agreed.ts'
import type { Fixed, FixOptions } from '../fix.ts'
import { note, print, word } from '../output.ts'
import { recipientText } from './loan-text.ts'
import { heldRecipient } from './recipient.ts'

/** Undefined: it cannot be lent anew by itself, such as one that was derived, or whose recipient is gone. */
export async function lendAnew(daemon: Client, loan: Loan, options: FixOptions): Promise<Fixed | undefined> {
  const { id, kind, state, policy, spec, record } = loan
  const { place, cgroup } = spec
  if (kind !== 'delegate' || state !== 'ended' || !('path' in place) || record === undefined) return undefined
  const { pid, userNamespace } = record.recipient
  if (!inhabits(pid, userNamespace)) return undefined
  using recipient = await heldRecipient({ pid })
  // Its number may have become another's before it was held.
  if (!inhabits(pid, userNamespace)) return undefined
  const what = `lend policy ${word(policy)} anew to ${recipientText(loan)} at ${word(place.path)}, as ${id} was`
  const tell = options.json === true ? note : print
  if (options.json !== true || options.yes !== true) tell(`fix: ${what}`)
  if (!(await agreed('Lend it?', options))) return { applied: false, ours: true, what, run: [] }
  const answer = await daemon.lend({
    body: { policy: { name: policy }, recipient: { pidfd: recipient.pidfd }, place, cgroup },
  })
  const call = 'any call that it allows'
  if ('loan' in answer) {
    const again = { when: 'now', call, verdict: 'ok', cause: 'none', change: 'none' }
    return { applied: true, ours: true, what: `${what}: ${answer.loan.id}`, run: [], again }
  }
  const waits = 'request' in answer ? `; ${answer.request.id} waits to be approved` : ''
  return { applied: false, ours: true, what: what + waits, run: [] }
}
