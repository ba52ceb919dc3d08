/** Long work in short turns, so that the event loop goes on meanwhile. */

/** How long one turn may take. */
const SLICE_MS = 5

/** Runs it to its end, and rests where it yields when a turn is over. */
export async function inSlices<T>(work: Generator<undefined, T>): Promise<T> {
  for (;;) {
    const begun = performance.now()
    do {
      const { done, value } = work.next()
      if (done) return value
    } while (performance.now() - begun < SLICE_MS)
    await new Promise(setImmediate)
  }
}
