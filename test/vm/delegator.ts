/**
 * A delegator of its own process, which does what its arguments say:
 *
 *   killed PID STEP        lends to process PID under the guard, and ends by SIGKILL before that step, or after the last
 *   deriving PID ORIGIN    lends to it what is derived from delegation ORIGIN, again and again until it is refused
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import type { Action } from '../../src/delegation/actions.ts'
import { planFor, undelegate } from '../../src/delegation/delegate.ts'
import { execute } from '../../src/delegation/execute.ts'
import { openTarget, type Target } from '../../src/delegation/target.ts'
import { type DelegationId, delegationId, Guard } from '../../src/guard/guard.ts'
import { vocabulary } from '../kernel/delegation/lab.ts'
import { PATH, policyOf } from './borrower.ts'

function planOf(target: Target, ability: string): Action[] {
  return planFor(policyOf(), target, PATH, { ability })
}

/** What the delegator does, in order. */
export function steps(target: Target): string[] {
  return planOf(target, 'any').map(action => action.do)
}

/** The signal that ended the delegator. */
export function killedBefore(step: number, pid: number): NodeJS.Signals | null {
  return spawnSync(process.execPath, [__filename, 'killed', String(pid), String(step)], {
    stdio: 'inherit',
  }).signal
}

/** Starts one that prints `go` when it has lent once, and at the end the errno. */
export function deriving(origin: DelegationId, pid: number): ChildProcess {
  return spawn(process.execPath, [__filename, 'deriving', String(pid), String(origin)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
}

function kill(): void {
  process.kill(process.pid, 'SIGKILL')
}

async function lendKilled(guard: Guard, target: Target, step: number): Promise<void> {
  using lender = guard.lend(policyOf())
  const plan = planOf(target, lender.ability)
  const pausing: Action[] = [...plan.slice(0, step), { do: 'pause' }, ...plan.slice(step)]
  const { executor } = lender
  // After the last step the delegation is complete, and stays.
  if (step < plan.length) await execute(pausing, target, vocabulary, { executor, paused: kill })
  else await execute(plan, target, vocabulary, { executor })
  kill()
}

async function derive(guard: Guard, target: Target, parent: DelegationId): Promise<void> {
  using lender = guard.lend(policyOf(), { parent })
  for (let round = 0; ; round++) {
    try {
      await execute(planOf(target, lender.ability), target, vocabulary, { executor: lender.executor })
    } catch (error) {
      console.log((error as { errnoName?: string }).errnoName ?? String(error))
      return
    }
    if (round === 0) console.log('go')
    await undelegate(target, vocabulary)
  }
}

async function main(what: string, pid: number, argument: string): Promise<void> {
  using target = openTarget(pid)
  using guard = Guard.open()
  if (what === 'killed') await lendKilled(guard, target, Number(argument))
  else await derive(guard, target, delegationId(BigInt(argument)))
}

if (require.main === module) void main(process.argv[2]!, Number(process.argv[3]), process.argv[4]!)
