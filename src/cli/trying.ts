/**
 * Planning by trying: each object is loaded in namespaces of its own under just its plan, until it
 * is known what it takes.
 */
import { availableParallelism, totalmem } from 'node:os'
import path from 'node:path'
import { CMDS } from '../ebpf/type-names.ts'
import { BpftokenError } from '../errors.ts'
import { TrialLab } from '../lending/trial-lab.ts'
import { mapMemory } from '../needs/map-memory.ts'
import { objectNeeds } from '../needs/object.ts'
import { planRights } from '../needs/plan.ts'
import { capabilitiesByType, type Trial, type TrialAnswer, type TryLoad, tryRights } from '../needs/trial.ts'
import { workloadEnvironment } from './environment.ts'
import { installedGuard } from './installed-guard.ts'
import { Interrupted, interruption } from './interrupted.ts'
import type { FoundObject } from './object-files.ts'
import { loadVocabulary } from './policy-file.ts'
import { isRoot } from './privilege.ts'
import type { Progress } from './progress.ts'
import { requireReachable } from './reachable.ts'
import { resolveUser } from './user.ts'

export interface Tried {
  /** By the names of the objects. */
  readonly trials: ReadonlyMap<string, Trial>
  /** Why the others, or all, were not tried. */
  readonly untried?: string
}

export interface TryingOptions {
  readonly programs: readonly string[] | undefined
  readonly kernelStruct: (name: string) => readonly string[] | undefined
  /** Told before each load. */
  readonly progress: Pick<Progress, 'step'>
}

const WORKER = path.resolve(__dirname, 'trial-worker.js')
const LOAD_MS = 20_000
const ALL_MS = 60_000
/** Whose maps take more is not tried: the memory is the machine's, and no limit of ours holds it. */
const MAP_BYTES = Math.min(2 ** 30, totalmem() / 4)
const MEBIBYTE = 2 ** 20
const DEFAULT_PATH = '/sys/fs/bpf'

/** Tries what it can. Interrupted: a signal came, and nothing is left. */
export async function tryObjects(objects: readonly FoundObject[], options: TryingOptions): Promise<Tried> {
  if (process.platform !== 'linux') return { trials: new Map(), untried: 'that needs Linux' }
  if (!isRoot()) return { trials: new Map(), untried: 'that needs root' }
  const trials = new Map<string, Trial>()
  try {
    const user = resolveUser(undefined, process.env)
    requireReachable(user, [process.execPath, WORKER])
    using guard = await installedGuard()
    const signal = interruption()
    using lab = new TrialLab({
      command: [process.execPath, WORKER],
      ...{ uid: user.uid, gid: user.gid, guard, signal },
      vocabulary: await loadVocabulary(),
      env: workloadEnvironment(process.env, { user, tokenPath: DEFAULT_PATH }),
    })
    const until = performance.now() + ALL_MS
    const skipped: string[] = []
    for (const object of objects) {
      const trial = await tryOne(object, lab, until, options)
      if (typeof trial === 'string') skipped.push(objects.length === 1 ? trial : `${object.name}: ${trial}`)
      else trials.set(object.name, trial)
    }
    return { trials, ...(skipped.length === 0 ? {} : { untried: skipped.join('; ') }) }
  } catch (error) {
    if (error instanceof Interrupted || !(error instanceof BpftokenError)) throw error
    return { trials, untried: error.message }
  }
}

/** One of them, in a lab whose worker is trial-worker.ts; or why it is not tried. */
export async function tryOne(
  { name, spec, bytes }: FoundObject,
  lab: TrialLab,
  until: number,
  { programs, kernelStruct, progress }: TryingOptions,
): Promise<Trial | string> {
  if (!spec.littleEndian) return 'it is for machines of the other byte order'
  const { needs, problems } = objectNeeds(spec, { programs, kernelStruct })
  if (problems.length > 0) return 'it cannot be loaded as it is'
  const lacking = needs.find(({ rule }) => rule?.type === 'ext')
  if (lacking !== undefined) return `${lacking.by} replaces a function of a program that is not here`
  const memory = mapMemory(spec.maps, availableParallelism())
  if (memory > MAP_BYTES) {
    const [takes, most] = [memory, MAP_BYTES].map(bytes => Math.ceil(bytes / MEBIBYTE))
    return `its maps take ${takes} MiB of memory, and what takes more than ${most} is not loaded for this`
  }
  const { masks, capabilities } = planRights([{ name, spec }], { loader: 'bpftoken', programs, kernelStruct })
  const subject = JSON.stringify({ object: Buffer.from(bytes).toString('base64'), name: spec.name })
  const line = JSON.stringify(programs === undefined ? {} : { only: programs })
  const load: TryLoad = async rights => {
    const left = until - performance.now()
    if (left <= 0) return undefined
    progress.step(`trying ${name}`)
    const answer = await lab.ask({ ...rights, subject, line, timeoutMs: Math.min(LOAD_MS, left) })
    return answer === undefined ? undefined : (JSON.parse(answer) as TrialAnswer)
  }
  const loading = capabilities.filter(({ toAttach }) => !toAttach).map(one => one.name)
  return tryRights(
    {
      rights: { masks, capabilities: loading },
      proven: capabilitiesByType(needs),
      openTypes: {
        domain: 'cmds',
        word: 'btf_get_fd_by_id',
        bit: CMDS.number('btf_get_fd_by_id'),
      },
    },
    load,
  )
}
