/** The guard, where it is installed. Its modules are loaded only then: start-up is felt on each run. */
import { existsSync } from 'node:fs'
import { GUARD_DIRECTORY } from '../guard/directory.ts'
import type { Guard } from '../guard/guard.ts'

export interface InstalledGuard {
  /** The caller disposes of it. */
  readonly guard: Guard
  /** Whether it holds to the field of a policy at this path. */
  readonly holds: (path: string) => boolean
}

/** Undefined: there is none, or only half of one. Needs root, as all commands that lend. */
export async function installedGuard(): Promise<InstalledGuard | undefined> {
  if (!existsSync(GUARD_DIRECTORY)) return undefined
  const { Guard } = await import('../guard/guard.ts')
  const { guardHolds } = await import('../guard/terms.ts')
  const guard = Guard.openOrNull()
  return guard && { guard, holds: guardHolds }
}
