/** The options that name who is lent to: --pid, --container, --unit or --cgroup, exactly one. */
import type { Target } from '../delegation/target.ts'
import { UsageError } from '../errors.ts'
import type { Owner } from '../lending/recipient/found.ts'
import type { RecipientName } from '../lending/recipient/recipient.ts'
import { requirePath } from './mount-path.ts'
import { note } from './output.ts'
import { userOfName } from './user.ts'

export interface RecipientOptions {
  pid?: number
  container?: string
  unit?: string
  cgroup?: string
  path: string
}

/**
 * Takes hold of the process that the options name, and says on stderr which process a name means.
 * The caller disposes of it.
 */
export async function openRecipient(options: RecipientOptions): Promise<Target> {
  const name = recipientName(options)
  requirePath(options.path)
  // Rarely asked for, and start-up is felt.
  const { openRecipient: open } = await import('../lending/recipient/recipient.ts')
  const { target, what } = await open(name)
  if (what !== undefined) note(`${what} is process ${target.facts.pid}`)
  return target
}

/** UsageError: none is named, or several. */
export function recipientName(options: Omit<RecipientOptions, 'path'>): RecipientName {
  const { pid, container, unit, cgroup } = options
  const named = Object.entries({ pid, container, unit, cgroup }).filter(([, value]) => value !== undefined)
  if (named.length !== 1)
    throw new UsageError(
      named.length === 0
        ? 'Name who is lent to: --pid, --container, --unit or --cgroup'
        : `Name one who is lent to, not ${named.map(([option]) => `--${option}`).join(' and ')}`,
      cgroup === undefined || named.length === 0
        ? {}
        : { hint: 'To let tokens be made in one cgroup only, say --only-cgroup' },
    )
  if (container !== undefined) {
    const { owner, name } = ownedName(container)
    return { container: name, owner }
  }
  if (unit !== undefined) {
    const { owner, name } = ownedName(unit)
    return { unit: name, owner }
  }
  return cgroup === undefined ? { pid: pid! } : { cgroup }
}

/** `alice/web`: a container or unit of that user. No name of either has a slash. */
function ownedName(text: string): { owner?: Owner; name: string } {
  const at = text.indexOf('/')
  if (at < 0) return { name: text }
  const owner = userOfName(text.slice(0, at))
  return { ...(owner.uid === 0 ? {} : { owner }), name: text.slice(at + 1) }
}
