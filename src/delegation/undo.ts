/**
 * What becomes of a delegation that failed: whether all of it was undone, and who undoes what an
 * executor left behind when it died.
 */
import { NotUndoneError } from '../errors.ts'
import type { ExecutorLost, Unfinished } from '../sys/executor/executor.ts'
import type { Answer, RawAction, Undone } from '../sys/executor/message.ts'
import { errnoName } from '../uapi/errno.ts'
import { ask } from './ask.ts'
import { stepFailure, TIMEOUT_MS } from './step-failure.ts'
import type { Target } from './target.ts'

export interface UndoOptions {
  /** How long file systems of the target may take to answer. */
  readonly timeoutMs?: number | undefined
  /** Takes back in the guard what was lent, where it cannot be undone for sure. Gives the ids. */
  readonly revoke?: (() => readonly bigint[]) | undefined
}

/** After one of these errors nobody knows how far the child came. */
const UNCLEAR = ['ETIMEDOUT', 'ECANCELED', 'ECHILD']

/**
 * Whether the mount was attached for a moment. If the result of attaching does not tell, the result
 * of undoing does: EINVAL says that it was not mounted there.
 */
export function wasAttached(
  raw: readonly RawAction[],
  { results }: Answer,
  undone: readonly Undone[],
): boolean {
  const result = results[raw.findIndex(({ op }) => op === 'ATTACH')]
  if (result === undefined || result === 0) return result === 0
  const detached = undone.find(({ op }) => op === 'DETACH')
  return UNCLEAR.includes(errnoName(result)) && !isNotMounted(detached)
}

function isNotMounted(undone: Undone | undefined): boolean {
  return undone?.op === 'DETACH' && errnoName(undone.result) === 'EINVAL'
}

/**
 * The error to throw for `error`, after what was `undone`. A mount that was attached could be
 * reached for a moment, and whoever opened its root directory then can make tokens: so that counts
 * as not undone, and is revoked.
 */
export function judgeUndone(
  error: Error,
  undone: readonly Undone[],
  attached: boolean,
  target: Target,
  options: UndoOptions,
): Error {
  const causes: Error[] = undone
    .filter(one => one.result < 0 && !isNotMounted(one))
    .map(({ op, result }) => stepFailure(op, result, target, undefined, options.timeoutMs ?? TIMEOUT_MS))
  if (causes.length === 0 && !attached) return error
  return notUndone([error, ...causes], attached && causes.length === 0, target, options)
}

function notUndone(
  causes: readonly Error[],
  unmounted: boolean,
  target: Target,
  { revoke }: UndoOptions,
): Error {
  const { pid, userNamespace, mountNamespace } = target.facts
  const all = [...causes]
  let revoked: readonly bigint[] = []
  if (revoke !== undefined)
    try {
      revoked = revoke()
      // The guard ends what was lent, whoever holds it.
      if (all.length === 1) return all[0]!
    } catch (error) {
      all.push(error as Error)
    }
  const where = `${userNamespace}, ${mountNamespace} of process ${pid}`
  const stands = unmounted
    ? `It was unmounted again. But it could be reached for a moment, and a process that opened it then can make tokens from it, until it exits, as can one that made it propagate to a mount namespace of its own (${where})`
    : revoked.length > 0
      ? `It is revoked in the guard (delegation ${revoked.join(', ')}), and may still be mounted (${where})`
      : `What was lent may stand (${where})`
  return new NotUndoneError(all, stands, {
    cause: causes[0],
    context: { pid, userNamespace, mountNamespace },
    hint: 'End the processes of that user namespace, or unmount it there; a guard could revoke it',
    reason: 'may-stand',
  })
}

/**
 * The executor died, perhaps while it was `undoing` something: what it had begun is undone by
 * another one.
 */
export async function undoForLost(
  lost: ExecutorLost,
  undoing: Error | undefined,
  target: Target,
  options: UndoOptions,
): Promise<Error> {
  const causes: Error[] = []
  let attached = false
  for (const one of lost.unfinished) {
    try {
      attached = (await undoUnfinished(one, target, options)) || attached
    } catch (error) {
      causes.push(error as Error)
    } finally {
      one.fd.close()
    }
  }
  if (causes.length === 0 && !attached) return undoing ?? lost
  const first = undoing === undefined ? [lost] : [undoing, lost]
  return notUndone([...first, ...causes], attached && causes.length === 0, target, options)
}

/** Gives whether others could reach it. */
async function undoUnfinished(
  { op, fd }: Unfinished,
  target: Target,
  options: UndoOptions,
): Promise<boolean> {
  const { timeoutMs } = options
  if (op === 'DETACH')
    try {
      await ask(target, [{ op: 'DETACH' }], { slots: { MOUNT: fd }, timeoutMs })
      return true
    } catch (error) {
      // It had not been attached yet.
      if ((error as { errnoName?: string }).errnoName === 'EINVAL') return false
      throw error
    }
  try {
    await ask(target, [{ op: 'DISCARD_CONTEXT' }], { slots: { CONTEXT: fd }, timeoutMs })
  } catch (error) {
    // Its superblock had not been created yet.
    if ((error as { errnoName?: string }).errnoName !== 'EINVAL') throw error
    await ask(target, [{ op: 'SPOIL_CONTEXT' }], { slots: { CONTEXT: fd }, timeoutMs })
  }
  return false
}
