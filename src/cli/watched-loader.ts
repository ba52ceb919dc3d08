/**
 * Planning by watching: the loader's real program loads each object under just its plan, as an
 * ordinary user in namespaces of its own, and it is told how what it asks for differs.
 */
import { chmodSync, chownSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { printableName, quoted } from '../ebpf/printable.ts'
import { BpftokenError } from '../errors.ts'
import { type LoaderEnd, runLoader } from '../lending/loader-run.ts'
import type { RightsPlan } from '../needs/plan.ts'
import type { SeenCall } from '../record/call.ts'
import { differenceFrom, type LoaderDifference } from '../record/comparison.ts'
import { Recorder } from '../record/recorder.ts'
import { recordingOf } from '../record/recording.ts'
import { Seen } from '../record/seen.ts'
import { workloadEnvironment } from './environment.ts'
import { installedGuard } from './installed-guard.ts'
import { Interrupted, interruption } from './interrupted.ts'
import type { FoundObject } from './object-files.ts'
import { loadVocabulary } from './policy-file.ts'
import { isRoot } from './privilege.ts'
import type { Progress } from './progress.ts'
import { resolveUser } from './user.ts'

/** How one object was loaded. */
export interface WatchedLoad extends LoaderDifference {
  readonly object: string
  /** `idle`: it was content, and nothing that it made or loaded was seen. */
  readonly outcome: 'loads' | 'refused' | 'unfinished' | 'idle'
  /** Whether any call named a token. */
  readonly usesTokens: boolean
  /** False: calls were lost, and the program may have asked for more. */
  readonly complete: boolean
  /** Where it did not load it: the last that the program said. */
  readonly why?: string
}

export interface Watched {
  readonly loads: readonly WatchedLoad[]
  readonly notes: readonly string[]
}

export interface WatchingOptions {
  readonly program: string
  /** Only those that load are watched. */
  readonly plans: ReadonlyMap<string, RightsPlan>
  readonly progress: Pick<Progress, 'step'>
}

const RUN_MS = 20_000
const ALL_MS = 60_000
const DEFAULT_PATH = '/sys/fs/bpf'
const MAX_SHOWN = 300
/** What bpftool says once all is loaded. */
const BPFTOOL_LOADED = /^Error: failed to pin all programs$/

/** Watches what it can, and says in notes what it could not. Interrupted: a signal came. */
export async function watchLoader(
  objects: readonly FoundObject[],
  { program, plans, progress }: WatchingOptions,
): Promise<Watched> {
  const shown = quoted(program)
  const unwatched = (why: string): string => `${shown} was not watched: ${why}`
  if (!isRoot()) return { loads: [], notes: [unwatched('that needs root')] }
  const loads: WatchedLoad[] = []
  const notes: string[] = []
  const directory = mkdtempSync(join(tmpdir(), 'bpftoken-plan-'))
  try {
    // Root's, so that nobody exchanges the file; passed through, but not listed.
    chmodSync(directory, 0o711)
    const user = resolveUser(undefined, process.env)
    using guard = await installedGuard()
    const signal = interruption()
    const vocabulary = await loadVocabulary()
    const env = workloadEnvironment(process.env, { user, tokenPath: DEFAULT_PATH })
    const until = performance.now() + ALL_MS
    for (const { name, bytes } of objects) {
      const named = (text: string): string =>
        objects.length === 1 ? text : `${printableName(name)}: ${text}`
      const plan = plans.get(name)
      const left = until - performance.now()
      if (plan === undefined || left <= 0) {
        notes.push(
          named(
            unwatched(plan === undefined ? 'loading the object was not tried, or failed' : 'time is over'),
          ),
        )
        continue
      }
      progress.step(`watching ${program} load ${name}`)
      const file = join(directory, 'object.bpf.o')
      // For the loader's user alone: the object may be one that others may not read.
      rmSync(file, { force: true })
      writeFileSync(file, bytes, { mode: 0o400, flag: 'wx' })
      chownSync(file, user.uid, user.gid)
      const seen = new Seen()
      using recorder = await Recorder.start(call => seen.add(call))
      const end = await runLoader(
        {
          command: commandFor(program, file),
          ...{ env, uid: user.uid, gid: user.gid, vocabulary, guard, signal },
          masks: plan.masks,
          capabilities: plan.capabilities.filter(({ toAttach }) => !toAttach).map(one => one.name),
          timeoutMs: Math.min(RUN_MS, left),
        },
        pid => recorder.watchProcess(pid),
      )
      recorder.drain()
      const recording = recordingOf(seen.calls, recorder.tally(), seen.dropped)
      const load: WatchedLoad = {
        object: name,
        ...outcomeOf(end, seen.calls.some(isLoading)),
        usesTokens: seen.calls.some(({ withToken }) => withToken),
        complete: recording.complete,
        ...differenceFrom(plan, recording),
      }
      loads.push(load)
      notes.push(...notesOf(shown, load).map(named))
    }
  } catch (error) {
    if (error instanceof Interrupted || !(error instanceof BpftokenError)) throw error
    notes.push(unwatched(error.message))
  } finally {
    rmSync(directory, { recursive: true })
  }
  return { loads, notes }
}

/** bpftool wants to be told what to do, and where to pin; others are given the file. */
function commandFor(program: string, file: string): [string, ...string[]] {
  return basename(program) === 'bpftool'
    ? [program, 'prog', 'loadall', file, `${DEFAULT_PATH}/bpftoken-plan`]
    : [program, file]
}

/** What no loader does without, whatever is in the object. */
function isLoading({ command, errno }: SeenCall): boolean {
  return errno === undefined && (command === 'prog_load' || command === 'map_create')
}

function outcomeOf({ exit, said }: LoaderEnd, hasLoaded: boolean): Pick<WatchedLoad, 'outcome' | 'why'> {
  if (exit === undefined) return { outcome: 'unfinished' }
  const content = { outcome: hasLoaded ? 'loads' : 'idle' } as const
  if (exit.code === 0) return content
  const lines = said.split('\n').filter(line => line.trim() !== '')
  // It pins all programs, and does not get over one that is not loaded by itself.
  if (BPFTOOL_LOADED.test(lines.at(-1) ?? '')) return content
  const last = lines.at(-1) ?? `it ended with ${exit.signal ?? `status ${exit.code}`}`
  return { outcome: 'refused', why: last.slice(0, MAX_SHOWN) }
}

function notesOf(
  shown: string,
  { outcome, why, usesTokens, complete, beyond, unasked }: WatchedLoad,
): string[] {
  const notes: string[] = []
  const missed = complete ? '' : ', as far as it was seen'
  if (outcome === 'unfinished') notes.push(`${shown} did not end in time under this plan`)
  if (outcome === 'refused') notes.push(`${shown} did not load it under this plan: ${printableName(why!)}`)
  if (outcome === 'idle')
    notes.push(`${shown} was content, and was not seen to load or make anything${missed}`)
  if (outcome !== 'loads' && !usesTokens) notes.push(`${shown} used no token`)
  if (outcome === 'loads')
    notes.push(
      beyond.length === 0
        ? `${shown} loaded it under this plan, and asked for nothing else${missed}`
        : `${shown} loaded it under this plan`,
    )
  for (const { domain, word, outcomes, names } of beyond)
    notes.push(
      `${shown} asked for ${domain} ${word} (${outcomes.join(', ')}${forNames(names)}), which is not planned`,
    )
  for (const { domain, word, by } of unasked)
    notes.push(
      `${shown} did not ask for ${domain} ${word}, planned for ${by.slice(0, 3).join(', ')}${missed}`,
    )
  return notes
}

function forNames(names: readonly string[]): string {
  const shown = names.slice(0, 3).map(printableName).join(', ')
  return names.length === 0 ? '' : ` for ${shown}${names.length > 3 ? ' and others' : ''}`
}
