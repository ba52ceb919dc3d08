/** The kinds of tests, by their folder below test/, and how each is run. */
import { availableParallelism } from 'node:os'
import { join, relative } from 'node:path'
import { ROOT } from './tree.ts'

export interface Tier {
  readonly concurrency: number
  /** For one file. It ends what hangs: a machine that is slow and busy stays far below. */
  readonly timeoutMs: number
  /** Whether its tests touch the machine: then one file at a time, and nothing may remain. */
  readonly touchesMachine: boolean
}

export const TIERS: Readonly<Record<string, Tier>> = {
  unit: { concurrency: availableParallelism(), timeoutMs: 300_000, touchesMachine: false },
  kernel: { concurrency: 1, timeoutMs: 1_200_000, touchesMachine: true },
  e2e: { concurrency: 1, timeoutMs: 1_200_000, touchesMachine: true },
  /** In a VM already. */
  vm: { concurrency: 1, timeoutMs: 2_400_000, touchesMachine: true },
  /** In a browser, which is fetched for it. */
  page: { concurrency: 1, timeoutMs: 1_200_000, touchesMachine: true },
}

/** What runs where nothing is named. */
export const BY_DEFAULT: readonly string[] = ['unit', 'kernel', 'e2e', 'vm']

/** Of a tier or a path: the path. */
export function pathOf(name: string): string {
  return name in TIERS ? join(ROOT, 'test', name) : name
}

/** The tier of a file or folder; undefined: of none. */
export function tierOf(path: string): Tier | undefined {
  return TIERS[relative(join(ROOT, 'test'), path).split('/')[0]!]
}
