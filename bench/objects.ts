/**
 * Object files, ours beside libbpf (the oracle of test/corpus, in the same process for all rounds):
 * reading all of the corpus, and loading single objects from file to programs in the kernel. Both in
 * time of processor.
 */
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import path from 'node:path'
import { type CorpusObject, corpusFile, corpusObjects } from '../test/corpus/corpus.ts'
import { ORACLE } from '../test/corpus/oracle.ts'
import { CProgram } from './c-program.ts'
import { kernelTypes, objectLoading, objects } from './dist.ts'
import { type Comparison, compare, interleave } from './stats.ts'

/** Of each the newest: one with many CO-RE relocations, one with few. */
const LOADED = ['libbpf-tools_.*/tcpconnect', 'xdp-tools_.*/xdp-forward']

export interface ObjectsResult {
  readonly comparisons: Comparison[]
  readonly objectCount: number
  readonly oursPerSecond: number
  readonly libbpfPerSecond: number
}

/**
 * Before Node has compiled our code for good, which takes hundreds of loads, each takes about half as
 * long again. libbpf was compiled before.
 */
const WARM_READS = 20
const WARM_LOADS = 300

const GOALS = { read: 2, cold: 1, kept: 0.5, plain: 1.5 }

/** Of processor, of all our threads: other work on the machine is then no part of it. */
function nowUs(): number {
  const { user, system } = process.cpuUsage()
  return user + system
}

export async function measureObjects(roundCount: number): Promise<ObjectsResult> {
  const all = corpusObjects()
  if (all.length === 0) throw new Error('There are no objects: run make corpus')
  execFileSync(path.join(__dirname, '../test/corpus/oracle.sh'), { stdio: 'inherit' })
  const reading = await measureReading(all, roundCount)
  const loading: Comparison[] = []
  using oracle = new CProgram(ORACLE, ['--time', 'load'])
  for (const pattern of LOADED)
    loading.push(...(await measureLoading(await newestLoadable(all, pattern, oracle), oracle, roundCount)))
  return { ...reading, comparisons: [...reading.comparisons, ...loading] }
}

/** Nanoseconds, or undefined where libbpf refuses. */
async function askNs(oracle: CProgram, file: string): Promise<number | undefined> {
  const ns = Number(await oracle.ask(file))
  return ns < 0 ? undefined : ns
}

async function measureReading(all: readonly CorpusObject[], roundCount: number): Promise<ObjectsResult> {
  using oracle = new CProgram(ORACLE, ['--time', 'open'])
  const files: string[] = []
  for (const file of all.map(corpusFile)) if ((await askNs(oracle, file)) !== undefined) files.push(file)
  const ours = async (): Promise<number> => {
    const start = nowUs()
    for (const file of files) objects.parseObject(readFileSync(file))
    return nowUs() - start
  }
  const theirs = async (): Promise<number> => {
    let ns = 0
    for (const file of files) ns += (await askNs(oracle, file))!
    return ns / 1000
  }
  for (let i = 0; i < WARM_READS; i++) await ours()
  await theirs()
  const rounds = await interleave(roundCount, ours, theirs)
  const comparison = compare(
    `read ${files.length} objects`,
    'us',
    rounds.map(round => ({ ours: [round.ours], c: [round.c] })),
    GOALS.read,
  )
  const perSecond = (us: number) => files.length / (us / 1e6)
  return {
    comparisons: [comparison],
    objectCount: files.length,
    oursPerSecond: perSecond(comparison.ours.median),
    libbpfPerSecond: perSecond(comparison.c.median),
  }
}

/** The last one with such a name that this kernel has everything for. */
async function newestLoadable(
  all: readonly CorpusObject[],
  pattern: string,
  oracle: CProgram,
): Promise<CorpusObject> {
  for (const object of all.filter(({ name }) => new RegExp(pattern).test(name)).reverse())
    if ((await askNs(oracle, corpusFile(object))) !== undefined) return object
  throw new Error(`libbpf can load no object "${pattern}" of the corpus`)
}

/**
 * libbpf reads the kernel's types again for each object; we keep them, so we are measured with and
 * without.
 */
async function measureLoading(
  object: CorpusObject,
  oracle: CProgram,
  roundCount: number,
): Promise<Comparison[]> {
  const file = corpusFile(object)
  const name = path.basename(object.name).replace(/(-libbpf)?@.*/, '')
  const load = async (): Promise<number> => {
    const start = nowUs()
    {
      using loaded = await objectLoading.loadObject(objects.parseObject(readFileSync(file), { name }))
      void loaded
    }
    return nowUs() - start
  }
  const cold = (): Promise<number> => {
    kernelTypes.forgetKernelBtf()
    return load()
  }
  const theirs = async (): Promise<number> => {
    const ns = await askNs(oracle, file)
    if (ns === undefined) throw new Error(`libbpf cannot load ${object.name}`)
    return ns / 1000
  }
  await theirs()
  const relocates = objects.parseObject(readFileSync(file)).functions.some(one => one.coreRelos.length > 0)
  const measure = async (what: string, goal: number, ours: () => Promise<number>): Promise<Comparison> => {
    for (let i = 0; i < WARM_LOADS; i++) await ours()
    const rounds = await interleave(roundCount, ours, theirs)
    return compare(
      what,
      'us',
      rounds.map(round => ({ ours: [round.ours], c: [round.c] })),
      goal,
    )
  }
  return [
    await measure(`load ${name}`, relocates ? GOALS.cold : GOALS.plain, cold),
    await measure(`load ${name}, types kept`, relocates ? GOALS.kept : GOALS.plain, load),
  ]
}
