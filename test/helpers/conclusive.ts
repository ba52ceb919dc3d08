/**
 * Tests of races, whose outcomes the scheduler picks. They go on until each outcome was seen. Where
 * that does not come within a limit the test has proven nothing: it is counted as skipped, with
 * `inconclusive` as its reason, and is never green by luck.
 */
import type { TestContext } from 'node:test'

export class Inconclusive extends Error {}

/** Runs the body of `t`, which may throw `Inconclusive`. */
export async function conclusive(t: TestContext, body: () => Promise<void>): Promise<void> {
  try {
    await body()
  } catch (error) {
    if (!(error instanceof Inconclusive)) throw error
    t.skip(`inconclusive: ${error.message}`)
  }
}
