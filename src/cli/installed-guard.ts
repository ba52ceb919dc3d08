/**
 * The guard, where it is installed. Its modules are loaded only then: start-up is felt on each run.
 */
import { existsSync } from 'node:fs'
import { GUARD_DIRECTORY } from '../guard/directory.ts'
import type { Guard } from '../guard/guard.ts'

/**
 * Undefined: there is none, or only half of one. Needs root, as all commands that lend. The caller
 * disposes of it.
 */
export async function installedGuard(): Promise<Guard | undefined> {
  if (!existsSync(GUARD_DIRECTORY)) return undefined
  const { Guard } = await import('../guard/guard.ts')
  return Guard.openOrNull()
}

/** NotFoundError: there is none. The caller disposes of it. */
export async function requiredGuard(): Promise<Guard> {
  const { Guard } = await import('../guard/guard.ts')
  return Guard.open()
}
