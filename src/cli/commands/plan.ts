/**
 * bpftoken plan: the least rights that object files need, and how a policy compares with them. Root
 * has the objects tried on this kernel; nobody else, and no file, needs one.
 */
import { EXIT, UsageError } from '../../errors.ts'
import type { FormatFacts } from '../../needs/format/container.ts'
import { planLines, SECCOMP_FORMATS } from '../../needs/format/format.ts'
import type { PlanFormat } from '../../needs/format/names.ts'
import type { Loader } from '../../needs/loader-probes.ts'
import { compareRights, planRights, type RightsComparison, type RightsPlan } from '../../needs/plan.ts'
import { riskOf } from '../../needs/risk.ts'
import { ANY_MASK, MASK_DOMAINS } from '../../policy/vocabulary.ts'
import { structOfKernel } from '../kernel-structs.ts'
import { type FoundObject, readObjects } from '../object-files.ts'
import { columns, print, printJson, warn } from '../output.ts'
import { PLAN_WORDS } from '../plan-words.ts'
import { Progress } from '../progress.ts'
import type { Tried, TryingOptions } from '../trying.ts'
import type { Watched } from '../watched-loader.ts'

export interface PlanCommandOptions {
  loader: Loader
  program?: string[]
  format: PlanFormat
  check?: string
  strict?: boolean
  try: boolean
  loaderProgram?: string
  btf?: string
  seccompProfile?: string
  seccompBase?: string
  json?: boolean
}

/**
 * Exit 0: the plan is made; 1: an object cannot be loaded as it is, or the policy of --check lacks
 * something.
 */
export async function plan(files: string[], options: PlanCommandOptions): Promise<number> {
  requireSeccompFits(options)
  requireWatchable(options)
  using progress = new Progress({ total: files.length })
  const { specs, unreadable } = readObjects(files, file => progress.step(file))
  progress[Symbol.dispose]()
  const kernelStruct = structOfKernel(options.btf)
  const programs = options.program
  // A plan for another kernel is not tried on this one.
  const isTried = options.try && options.btf === undefined
  const tried: Partial<Tried> = isTried ? await triedHere(specs, { programs, kernelStruct }) : {}
  const how = { loader: options.loader, programs, kernelStruct }
  const planned = planRights(specs, { ...how, ...tried })
  const watched = await watchedHere(specs, options.loaderProgram, ({ name, spec }) =>
    tried.trials?.get(name)?.outcome === 'loads'
      ? planRights([{ name, spec }], { ...how, trials: tried.trials })
      : undefined,
  )
  const made = {
    ...planned,
    notes: [...planned.notes, ...watched.notes],
    problems: [...unreadable, ...planned.problems],
    watched: watched.loads,
  }
  if (options.check !== undefined) return check(made, options.check, options)
  if (options.json === true) printJson({ ...made, risk: riskOf(made) })
  else print(...planLines(made, options.format, await factsFor(made, options)))
  return outcome(made)
}

/** Loaded only here, since without trying a plan takes much less. */
async function triedHere(
  specs: readonly FoundObject[],
  options: Omit<TryingOptions, 'progress'>,
): Promise<Tried> {
  const { tryObjects } = await import('../trying.ts')
  using progress = new Progress()
  return await tryObjects(specs, { ...options, progress })
}

/** `planOf`: undefined for what is not watched. */
async function watchedHere(
  specs: readonly FoundObject[],
  program: string | undefined,
  planOf: (object: FoundObject) => RightsPlan | undefined,
): Promise<Watched> {
  if (program === undefined) return { loads: [], notes: [] }
  const { watchLoader } = await import('../watched-loader.ts')
  const plans = new Map<string, RightsPlan>()
  for (const object of specs) {
    const plan = planOf(object)
    if (plan !== undefined) plans.set(object.name, plan)
  }
  using progress = new Progress()
  return await watchLoader(specs, { program, plans, progress })
}

/** UsageError: the loader's program would do something else than what is planned. */
function requireWatchable({ loaderProgram, try: isTried, btf, program }: PlanCommandOptions): void {
  if (loaderProgram === undefined) return
  const other = [!isTried && '--no-try', btf !== undefined && '--btf', program !== undefined && '--program']
  const named = other.find(one => one !== false)
  if (named !== undefined)
    throw new UsageError(`--loader-program loads whole objects on this kernel, and does not go with ${named}`)
}

/** UsageError: a seccomp profile is asked for, but the form would not name it. */
function requireSeccompFits(options: PlanCommandOptions): void {
  const { format, seccompProfile, seccompBase, check, json } = options
  if (seccompBase !== undefined && seccompProfile === undefined)
    throw new UsageError('--seccomp-base says what --seccomp-profile is made of, which is missing')
  if (seccompProfile === undefined) return
  const named = check === undefined && json !== true && SECCOMP_FORMATS[format] !== undefined
  if (!named)
    throw new UsageError(
      `--seccomp-profile goes with --format ${Object.keys(SECCOMP_FORMATS).join(', ')}, without --json and --check`,
    )
}

async function factsFor(made: RightsPlan, options: PlanCommandOptions): Promise<FormatFacts> {
  const { format, seccompProfile: path, seccompBase: from } = options
  const owner = SECCOMP_FORMATS[format]
  if (owner === undefined) return { seccomp: { is: 'unknown' }, words: PLAN_WORDS }
  const { seccompOf, writeProfile } = await import('../seccomp-profile.ts')
  if (path !== undefined) return { seccomp: writeProfile(made, owner, { path, from }), words: PLAN_WORDS }
  // This machine knows nothing about nodes elsewhere.
  return { seccomp: format === 'kubernetes' ? { is: 'unknown' } : seccompOf(made, owner), words: PLAN_WORDS }
}

function outcome({ problems }: RightsPlan): number {
  for (const problem of problems) warn(problem)
  return problems.length === 0 ? EXIT.ok : EXIT.failed
}

async function check(made: RightsPlan, file: string, options: PlanCommandOptions): Promise<number> {
  const { loadPolicy } = await import('../policy-file.ts')
  const { policyWords } = await import('../policy-words.ts')
  const { describeMask } = await import('../../policy/mask-text.ts')
  const vocabulary = await policyWords(undefined)
  const policy = await loadPolicy(file, vocabulary)
  const compared = compareRights(made, policy.rights)
  const needless = [
    ...MASK_DOMAINS.flatMap(domain => {
      const mask = policy.rights.masks[domain] === ANY_MASK ? ANY_MASK : compared.needless[domain]
      return describeMask(vocabulary, domain, mask).map(word => ({ domain, word }))
    }),
    ...compared.needlessCapabilities.map(word => ({ domain: 'capabilities' as const, word })),
  ]
  const { lacking } = compared
  const sufficient = lacking.length === 0
  if (options.json === true)
    printJson({ policy: file, sufficient, lacking, needless, notes: made.notes, problems: made.problems })
  else print(...comparisonText(file, lacking, needless))
  const refused = !sufficient || (options.strict === true && needless.length > 0)
  return Math.max(outcome(made), refused ? EXIT.failed : EXIT.ok)
}

function comparisonText(
  file: string,
  lacking: RightsComparison['lacking'],
  needless: readonly { domain: string; word: string }[],
): string[] {
  if (lacking.length === 0 && needless.length === 0) return [`${file}: grants exactly what is needed`]
  const rows = [
    ...lacking.map(({ domain, word, by, certain }) => [
      `${file}: ${certain ? 'lacks' : 'lacks, for some loads,'}`,
      `${domain} ${word}`,
      `for ${by.slice(0, 3).join(', ')}${by.length > 3 ? ` and ${by.length - 3} more` : ''}`,
    ]),
    ...needless.map(({ domain, word }) => [`${file}: grants needlessly`, `${domain} ${word}`]),
  ]
  return columns(rows)
}
