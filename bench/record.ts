/**
 * What recording costs: the same calls by a C program, in turn while a recorder watches it and while
 * there is none. Calls that say what they need have a goal; those that are only counted are
 * shorter, and what is not watched pays for being looked at.
 */
import { CProgram } from './c-program.ts'
import { maps, recorders } from './dist.ts'
import { type Comparison, compare, type Round } from './stats.ts'

const GOAL = 1.3
/** Below what the recorder's ring holds, which is read between two questions. */
const CALLS = 5000

const CASES = [
  { name: 'map create, close', question: 'create', watches: true, goal: GOAL },
  { name: 'map update', question: 'update', watches: true, goal: GOAL },
  { name: 'map lookup', question: 'lookup', watches: true, goal: GOAL },
  { name: 'map create, not watched', question: 'create', watches: false },
  { name: 'getppid, not watched', question: 'getppid', watches: false },
] as const

export async function measureRecording(roundCount: number): Promise<Comparison[]> {
  using map = maps.BpfMap.create({ type: 'hash', keyBytes: 4, valueBytes: 8, maxEntries: 1024 })
  using program = new CProgram('calls', ['3', '/', 'cpu'], [map.fd.number])
  await program.ask('update 1024')
  const rounds = CASES.map((): Round[] => [])
  for (let round = 0; round < roundCount; round++)
    for (const [at, { question, watches }] of CASES.entries()) {
      const ask = async (): Promise<number> => Number(await program.ask(`${question} ${CALLS}`)) / CALLS
      const recorded = (): Promise<number> => withRecorder(watches ? program.pid : undefined, ask)
      const [ours, c] =
        round % 2 === 0
          ? [await recorded(), await ask()]
          : ([await ask(), await recorded()].reverse() as [number, number])
      rounds[at]!.push({ ours: [ours], c: [c] })
    }
  return CASES.map((one, at) => compare(one.name, 'ns', rounds[at]!, 'goal' in one ? one.goal : undefined))
}

async function withRecorder(pid: number | undefined, ask: () => Promise<number>): Promise<number> {
  let seen = 0
  using recorder = await recorders.Recorder.start(() => {
    seen++
  })
  if (pid !== undefined) recorder.watchProcess(pid)
  await ask()
  const answer = await ask()
  recorder.drain()
  const { counted, lostCalls } = recorder.tally()
  const all = seen + lostCalls + [...counted.values()].reduce((sum, n) => sum + n, 0)
  if (pid !== undefined && all < 2 * CALLS) throw new Error(`only ${all} of ${2 * CALLS} calls were seen`)
  return answer
}
