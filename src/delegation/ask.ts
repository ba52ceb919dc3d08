/**
 * What is asked of an executor inside a target's namespaces, beside whole delegations: to look, to
 * try, and to take away.
 */
import { type Executor, ExecutorLost } from '../sys/executor/executor.ts'
import type { Slot } from '../sys/executor/layout.ts'
import type { Answer, RawAction, RawPlan, SeenMount } from '../sys/executor/message.ts'
import { borrowExecutor, returnExecutor } from '../sys/executor/pool.ts'
import type { Fd } from '../sys/fd.ts'
import { stepFailure, TIMEOUT_MS } from './step-failure.ts'
import type { Target } from './target.ts'

/** For ids that a target does not have; nobody's. */
const OVERFLOW_ID = 65534
/** What the slot's number stands for in LOOK: see SLOTS. */
const DIRECTORY_SLOT = 4
/** Mounts that may lie upon each other on one directory. */
export const MAX_COVERS = 16

/**
 * One plan that only looks, or that takes away: nothing of it is undone, and what can be done twice
 * is tried twice.
 */
export async function ask(
  target: Target,
  actions: readonly RawAction[],
  how: {
    slots?: RawPlan['slots']
    give?: readonly Slot[]
    timeoutMs?: number | undefined
    object?: string
  } = {},
): Promise<Answer> {
  const plan = planOf(target, actions, how.timeoutMs)
  const run = (executor: Executor): Promise<Answer> =>
    executor.run({ ...plan, slots: { ...plan.slots, ...how.slots }, give: how.give ?? [] })
  const once = (): Promise<Answer> => withExecutor(undefined, run)
  const isRepeatable = actions.every(({ op }) => REPEATABLE.includes(op))
  const answer = await once().catch(error => {
    if (isRepeatable && error instanceof ExecutorLost) return once()
    throw error
  })
  if (answer.failed === undefined) return answer
  const { op } = actions[answer.failed]!
  throw stepFailure(op, answer.results[answer.failed]!, target, how.object, plan.deadlineMs)
}

const REPEATABLE: readonly RawAction['op'][] = ['OPEN_DIRECTORY', 'LOOK', 'MAKE_TOKEN', 'MAKE_MAP']

/** The mounts at `path` in the target, the topmost first: each lies under the one before. */
export async function mountsAt(
  target: Target,
  path: string | Uint8Array,
  timeoutMs?: number,
): Promise<{ mounts: readonly SeenMount[]; directory: Fd }> {
  const actions: RawAction[] = [
    { op: 'OPEN_DIRECTORY', text: [path] },
    { op: 'LOOK', number: DIRECTORY_SLOT, more: MAX_COVERS },
  ]
  const { mounts, given } = await ask(target, actions, {
    give: ['DIRECTORY'],
    timeoutMs,
    object: Buffer.from(path).toString(),
  })
  return { mounts, directory: given.DIRECTORY! }
}

/** Runs with the executor that is given, or with one that is borrowed for this. */
export async function withExecutor<T>(
  given: Executor | undefined,
  run: (executor: Executor) => Promise<T>,
): Promise<T> {
  if (given !== undefined) return run(given)
  const executor = await borrowExecutor()
  try {
    return await run(executor)
  } finally {
    returnExecutor(executor)
  }
}

/** The plan that does these actions in the namespaces of `target`. */
export function planOf(target: Target, actions: readonly RawAction[], timeoutMs = TIMEOUT_MS): RawPlan {
  const { pid, rootGid } = target.facts
  return {
    actions,
    pid,
    gid: rootGid ?? OVERFLOW_ID,
    deadlineMs: timeoutMs,
    slots: {
      PROCESS: target.process.pidfd,
      USER: target.userNamespace,
      MOUNTS: target.mountNamespace,
      ROOT: target.root,
    },
  }
}
