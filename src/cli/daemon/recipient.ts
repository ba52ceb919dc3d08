/** Who is lent to, as the daemon is told: by a pidfd that this process holds. */
import { DeniedError } from '../../errors.ts'
import type { HeldRecipient } from '../../lending/recipient/recipient.ts'
import { note } from '../output.ts'
import { type RecipientOptions, recipientName } from '../recipient.ts'

/**
 * Takes hold of who is named, and says on stderr which process a name means. The caller disposes of
 * it, once the daemon has answered.
 */
export async function heldRecipient(options: Omit<RecipientOptions, 'path'>): Promise<HeldRecipient> {
  const name = recipientName(options)
  if ('owner' in name && name.owner !== undefined && process.geteuid?.() !== 0)
    throw new DeniedError(`Only root can ask the tools of ${name.owner.name}`, {
      hint: 'Name your own container or unit without a user before it',
    })
  // Rarely asked for, and start-up is felt.
  const { holdRecipient } = await import('../../lending/recipient/recipient.ts')
  const held = await holdRecipient(name)
  if (held.what !== undefined) note(`${held.what} is process ${held.pid}`)
  return held
}
