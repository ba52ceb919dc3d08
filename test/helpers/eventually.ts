/** Waiting for what happens in its own time. The limit finds a hang; it does not judge speed. */
import assert from 'node:assert/strict'
import { setTimeout as sleep } from 'node:timers/promises'

/** Far beyond what a slow and busy machine takes for anything that a test waits for. */
export const HANG_MS = 120_000

/** Returns once `what` is true, and fails with `message` when it never is. */
export async function eventually(
  what: () => boolean | Promise<boolean>,
  message: string,
  limitMs: number = HANG_MS,
): Promise<void> {
  for (const deadline = Date.now() + limitMs; !(await what()); await sleep(20))
    if (Date.now() > deadline) assert.fail(message)
}
