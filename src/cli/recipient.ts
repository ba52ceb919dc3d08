/** Options that name the process that is lent to. */
import { requirePath } from './mount-path.ts'

export interface RecipientOptions {
  pid: number
  path: string
}

/** UsageError: the options name none, or no path that the kernel takes. */
export function recipientOf({ pid, path }: RecipientOptions): number {
  requirePath(path)
  return pid
}
