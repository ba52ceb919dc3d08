/**
 * From samples to what is printed: minimum, median, 90th percentile, and ratios of interleaved
 * rounds.
 */

export interface Summary {
  readonly min: number
  readonly median: number
  readonly p90: number
}

function quantile(sorted: readonly number[], q: number): number {
  const at = q * (sorted.length - 1)
  const low = sorted[Math.floor(at)]!
  return low + (sorted[Math.ceil(at)]! - low) * (at - Math.floor(at))
}

export function summarize(samples: readonly number[]): Summary {
  const sorted = [...samples].sort((a, b) => a - b)
  return { min: sorted[0]!, median: quantile(sorted, 0.5), p90: quantile(sorted, 0.9) }
}

/** Samples of both sides from one stretch of time, so that noise of the machine meets both. */
export interface Round {
  readonly ours: readonly number[]
  readonly c: readonly number[]
}

export interface Comparison {
  readonly name: string
  readonly unit: 'ns' | 'us'
  readonly ours: Summary
  readonly c: Summary
  /** Ratio of the medians. */
  readonly ratio: number
  /** 10th and 90th percentile of the ratios of the single rounds. */
  readonly ratioSpread: readonly [number, number]
  /** What the ratio should not exceed. */
  readonly goal?: number
}

export function compare(
  name: string,
  unit: Comparison['unit'],
  rounds: readonly Round[],
  goal?: number,
): Comparison {
  const ours = summarize(rounds.flatMap(round => round.ours))
  const c = summarize(rounds.flatMap(round => round.c))
  const ratios = rounds
    .map(round => summarize(round.ours).median / summarize(round.c).median)
    .sort((a, b) => a - b)
  return {
    name,
    unit,
    ours,
    c,
    ratio: ours.median / c.median,
    ratioSpread: [quantile(ratios, 0.1), quantile(ratios, 0.9)],
    ...(goal === undefined ? {} : { goal }),
  }
}

/** The two sides in turn, and which goes first in turn too. */
export async function interleave<T>(
  roundCount: number,
  ours: () => Promise<T>,
  c: () => Promise<T>,
): Promise<{ ours: T; c: T }[]> {
  const rounds: { ours: T; c: T }[] = []
  for (let i = 0; i < roundCount; i++) {
    if (i % 2 === 0) rounds.push({ ours: await ours(), c: await c() })
    else {
      const first = await c()
      rounds.push({ ours: await ours(), c: first })
    }
  }
  return rounds
}
