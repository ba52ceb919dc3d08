/** As many random cases as are asked for, with other tokens now and then. */
import { describe, round, shrink } from './differ.ts'
import { Lab } from './lab.ts'
import { Random } from './random.ts'
import { shrinkStory, storyRound, storyText } from './stories.ts'

/** Cases under the same tokens. */
const ROUND = 10_000
/** Of a hundred cases, so many are stories of how a bpffs is made. */
const STORIES = 5
/** More differences than that need not be told. */
const TOLD = 10

export interface Agreement {
  /** Each the smallest case, with both sides' words. */
  readonly differences: readonly string[]
  /** Cases by command and outcome. */
  readonly counts: ReadonlyMap<string, number>
  readonly cases: number
}

export async function agree(
  cases: number,
  seed: number,
  progress: (done: number, differences: number) => void = () => {},
): Promise<Agreement> {
  const random = new Random(seed)
  const lab = await Lab.open()
  const differences: string[] = []
  const counts = new Map<string, number>()
  const count = (what: string): void => {
    counts.set(what, (counts.get(what) ?? 0) + 1)
  }
  try {
    let told = 0
    for (let done = 0; done < cases && differences.length < TOLD; ) {
      const now = Math.min(ROUND, cases - done)
      const stories = Math.floor((now * STORIES) / 100)
      await lab.renew(random)
      for (const found of await round(lab, random, now - stories, count))
        if (differences.length < TOLD) differences.push(describe(lab, await shrink(lab, found)))
      for (const found of await storyRound(lab, random, stories, count))
        if (differences.length < TOLD) differences.push(storyText(await shrinkStory(lab, found)))
      done += now
      if (done - told >= Math.min(100_000, cases / 5)) {
        told = done
        progress(done, differences.length)
      }
    }
  } finally {
    await lab.close()
  }
  return { differences, counts, cases }
}
