/**
 * Feeds hostile objects and programs to the readers of src/ebpf: node --import tsx
 * test/corpus/fuzz.ts [--seconds 60] [--seed N]
 *
 * Inputs are changed objects of the corpus, of test/fixtures and of shapes that no compiler makes
 * (test/corpus/mutate.ts, shapes.ts), and the promise is that of test/corpus/hostile.ts. What breaks
 * it is saved in .cache/fuzz, and a summary says how to see it again: --seed N --case M runs that one
 * only. In the end it tells how many inputs came as far as each reader. A worker does the reading, so
 * that an input that never ends or eats all memory is found too. Needs the corpus: make corpus.
 */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join, relative } from 'node:path'
import { parseArgs } from 'node:util'
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import { CACHE, ROOT } from '../helpers/machine.ts'
import { check, type Finding, Inputs, PARTS, seedObjects } from './hostile.ts'

const FINDINGS = join(CACHE, 'fuzz')
/** Time on processors, far above what one input may take: this one never ends. */
const HANG_MS = 20_000
const MAX_HEAP_MB = 2048

interface Work {
  readonly seed: number
  readonly from: number
  readonly untilMs: number
  /** Number of the input that is being read, and how many came as far as each of `PARTS`. */
  readonly current: SharedArrayBuffer
}

function work({ seed, from, untilMs, current }: Work): void {
  const inputs = new Inputs(seedObjects(), seed)
  const progress = new Int32Array(current)
  const reached = (part: (typeof PARTS)[number]) => Atomics.add(progress, 1 + PARTS.indexOf(part), 1)
  for (let number = from; Date.now() < untilMs; number++) {
    Atomics.store(progress, 0, number)
    const input = inputs.get(number)
    const finding = check(number, input.seed, input.bytes, reached)
    if (finding !== undefined) parentPort!.postMessage(finding)
  }
}

function save(seed: number, finding: Finding): void {
  mkdirSync(FINDINGS, { recursive: true })
  const path = join(FINDINGS, `${seed}-${finding.case}`)
  writeFileSync(`${path}.o`, finding.bytes)
  writeFileSync(`${path}.txt`, `${finding.seed}\n${finding.what}\n`)
  console.log(`case ${finding.case} (${finding.seed}): ${finding.what.split('\n').slice(0, 3).join('\n')}`)
  console.log(`  saved as ${relative(ROOT, path)}.o`)
}

/**
 * Runs a worker to its end, or to the input that it did not survive, whose number it then gives.
 */
function runWorker(data: Work, found: (finding: Finding) => void): Promise<[number, string] | undefined> {
  return new Promise(resolve => {
    // A worker does not get the loader of TypeScript from its parent.
    const worker = new Worker(`require('tsx/cjs'); require(${JSON.stringify(__filename)})`, {
      eval: true,
      workerData: data,
      resourceLimits: { maxOldGenerationSizeMb: MAX_HEAP_MB },
    })
    const progress = new Int32Array(data.current)
    let last = -1
    let since = process.cpuUsage()
    const watch = setInterval(() => {
      const now = Atomics.load(progress, 0)
      const { user, system } = process.cpuUsage(since)
      if (now !== last) [last, since] = [now, process.cpuUsage()]
      else if ((user + system) / 1000 > HANG_MS) {
        void worker.terminate()
        end([now, `did not end within ${HANG_MS} ms of processors`])
      }
    }, 500)
    const end = (died: [number, string] | undefined) => {
      clearInterval(watch)
      resolve(died)
    }
    worker.on('message', (finding: Omit<Finding, 'bytes'> & { bytes: Uint8Array }) =>
      found({ ...finding, bytes: Buffer.from(finding.bytes) }),
    )
    worker.on('error', error => end([Atomics.load(progress, 0), error.stack ?? String(error)]))
    worker.on('exit', () => end(undefined))
  })
}

function options(): { seconds: number; seed: number; one: number | undefined } {
  const { values } = parseArgs({
    options: {
      seconds: { type: 'string', default: '60' },
      seed: { type: 'string', default: String(Date.now() % 2 ** 31) },
      case: { type: 'string' },
    },
  })
  const [seconds, seed] = [Number(values.seconds), Number(values.seed)]
  if (!(seconds > 0) || !Number.isInteger(seed)) throw new Error('--seconds and --seed are numbers')
  return { seconds, seed, one: values.case === undefined ? undefined : Number(values.case) }
}

async function main(): Promise<void> {
  const { seconds, seed, one } = options()
  const inputs = new Inputs(seedObjects(), seed)
  let findings = 0
  const found = (finding: Finding) => {
    findings++
    save(seed, finding)
  }
  if (one !== undefined) {
    const input = inputs.get(one)
    const finding = check(one, input.seed, input.bytes)
    if (finding !== undefined) found(finding)
  } else {
    console.log(`fuzz: seed ${seed}, ${seconds} seconds`)
    const current = new SharedArrayBuffer(4 * (1 + PARTS.length))
    const before = process.cpuUsage()
    const startMs = Date.now()
    const untilMs = startMs + seconds * 1000
    for (let from = 0; Date.now() < untilMs; ) {
      const died = await runWorker({ seed, from, untilMs, current }, found)
      if (died === undefined) break
      const [number, what] = died
      const input = inputs.get(number)
      found({ case: number, seed: input.seed.name, what, bytes: input.bytes })
      from = number + 1
    }
    const [last, ...reached] = new Int32Array(current)
    for (const [i, part] of PARTS.entries()) console.log(`  ${part}: ${reached[i]}`)
    const elapsed = (Date.now() - startMs) / 1000
    const { user, system } = process.cpuUsage(before)
    console.log(
      `fuzz: ${last! + 1} cases in ${elapsed.toFixed(0)} seconds, ${((user + system) / 1e6).toFixed(0)} of processors, ${findings} findings`,
    )
  }
  process.exitCode = findings === 0 ? 0 : 1
}

if (isMainThread) void main()
else work(workerData as Work)
