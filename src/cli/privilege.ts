/** Commands that delegate need root; say so before anything else fails. */
import { DeniedError } from '../errors.ts'

export const isRoot = (): boolean => process.geteuid?.() === 0

export function requireRoot(what: string): void {
  if (isRoot()) return
  throw new DeniedError(
    `${what} needs root: enabling delegation takes CAP_SYS_ADMIN in the initial user namespace`,
    {
      context: { euid: process.geteuid?.() },
      hint: 'Run it with sudo; the program itself still runs unprivileged',
    },
  )
}
