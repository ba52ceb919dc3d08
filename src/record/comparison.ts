/** How what a loader asked for differs from what was planned for it. Pure. */
import type { Masks } from '../policy/vocabulary.ts'
import type { RecordedRight, Recording } from './recording.ts'

interface PlannedRight extends Pick<RecordedRight, 'domain' | 'word' | 'bit'> {
  readonly by: readonly string[]
  readonly certain: boolean
}

export interface LoaderDifference {
  /** Asked for, and not planned: how the calls ended, and what they would have made. */
  readonly beyond: readonly {
    readonly domain: RecordedRight['domain']
    readonly word: string
    readonly outcomes: readonly string[]
    readonly names: readonly string[]
  }[]
  /** Planned, and not asked for in this run. */
  readonly unasked: readonly Pick<PlannedRight, 'domain' | 'word' | 'by' | 'certain'>[]
}

export function differenceFrom(
  { masks, rights }: { readonly masks: Masks; readonly rights: readonly PlannedRight[] },
  recording: Pick<Recording, 'rights' | 'leftOut'>,
): LoaderDifference {
  const isPlanned = ({ domain, bit }: RecordedRight): boolean =>
    bit < 64 && ((masks[domain] >> BigInt(bit)) & 1n) !== 0n
  const asked = new Set([...recording.rights, ...recording.leftOut].map(keyOf))
  return {
    beyond: recording.rights
      .filter(right => !isPlanned(right))
      .map(({ domain, word, askers }) => ({
        domain,
        word,
        outcomes: [...new Set(askers.flatMap(({ outcomes }) => Object.keys(outcomes)))].sort(),
        names: [...new Set(askers.flatMap(({ names }) => names))],
      })),
    unasked: rights
      .filter(right => !asked.has(keyOf(right)))
      .map(({ domain, word, by, certain }) => ({ domain, word, by, certain })),
  }
}

function keyOf({ domain, bit }: Pick<RecordedRight, 'domain' | 'bit'>): string {
  return `${domain} ${bit}`
}
