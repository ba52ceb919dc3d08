/** Commands that delegate need root; say so before anything else fails. */
import { DeniedError } from '../errors.ts'

export const isRoot = (): boolean => process.geteuid?.() === 0

export function requireRoot(
  what: string,
  hint = 'Run it with sudo; the program itself still runs unprivileged',
): void {
  if (isRoot()) return
  throw new DeniedError(
    `${what} needs root: enabling delegation takes CAP_SYS_ADMIN in the initial user namespace`,
    {
      context: { euid: process.geteuid?.() },
      hint,
    },
  )
}

/** Of what looks at other processes, and runs a command as whoever asks. */
export function requireRootToWatch(what: string): void {
  requireRoot(
    what,
    'Run it with sudo. A command that it is given runs as root then, unless that gives root up itself: setpriv, su, bpftoken run',
  )
}
