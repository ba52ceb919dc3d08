/**
 * Delegates: actions, done by the executor (src/sys/executor/) in one plan, and its answer judged.
 * Whatever must not stand is undone in the namespaces that were looked at first.
 */
import { bpffsMount } from '../ebpf/bpffs.ts'
import { FormatError } from '../errors.ts'
import type { Masks, Vocabulary } from '../policy/vocabulary.ts'
import { MASK_DOMAINS } from '../policy/vocabulary.ts'
import { type Executor, ExecutorLost, type Paused } from '../sys/executor/executor.ts'
import type { SeenMount, Undone } from '../sys/executor/message.ts'
import type { Action } from './actions.ts'
import { planOf, withExecutor } from './ask.ts'
import { type DelegatedMount, delegatedMount } from './instances.ts'
import { translate } from './raw-actions.ts'
import { actionFailure, unreached } from './step-failure.ts'
import type { Target } from './target.ts'
import { judgeUndone, type UndoOptions, undoForLost, wasAttached } from './undo.ts'

export interface ExecuteOptions extends UndoOptions {
  /** Undoes what was done so far; too late once the mount is being attached. */
  signal?: AbortSignal | undefined
  /**
   * Judges the mount that was made; when it throws, the mount is undone as after any other failure.
   */
  accept?: ((made: DelegatedMount) => void) | undefined
  /**
   * Done once all is made and reached, before it is kept: when it throws, everything is undone.
   * Undefined: the workload mounts it.
   */
  reached?: ((made: DelegatedMount | undefined) => void | Promise<void>) | undefined
  /** The one that the guard knows; default: any. */
  executor?: Executor | undefined
  /**
   * Done at the action `confirm`, when all is made and nothing can be reached yet: when it fails,
   * that is what the delegation fails with, and nothing has been lent.
   */
  confirm?: (() => void | Promise<void>) | undefined
  /** What is done at the action `pause`, before the plan goes on. */
  paused?: ((executor: Executor) => void | Promise<void>) | undefined
}

/**
 * Runs the actions for `target`. Gives the mount as the target sees it, or undefined when the plan
 * leaves mounting to the workload. On any failure, an abort included, nothing is left behind; or
 * NotUndoneError says what is.
 */
export async function execute(
  actions: readonly Action[],
  target: Target,
  vocabulary: Vocabulary,
  options: ExecuteOptions = {},
): Promise<DelegatedMount | undefined> {
  options.signal?.throwIfAborted()
  // Without anything to confirm there is no pause for it.
  const { confirm } = options
  const { raw, sources } = translate(
    actions.filter(action => action.do !== 'confirm' || confirm !== undefined),
  )
  const plan = planOf(target, raw, options.timeoutMs)
  let refusal: unknown
  const paused: Paused = async (executor, at) => {
    if (sources[at]?.do !== 'confirm') return options.paused?.(executor)
    try {
      await confirm?.()
    } catch (error) {
      refusal = error
      throw error
    }
  }
  /** Why what was made is undone: it is told also when undoing fails. */
  let undoing: Error | undefined
  const run = async (executor: Executor): Promise<DelegatedMount | undefined> => {
    const answer = await executor.run(plan, options.signal, paused)
    let undone: readonly Undone[] = answer.undone
    try {
      if (answer.failed !== undefined && refusal !== undefined) throw refusal
      if (answer.failed !== undefined)
        throw actionFailure(
          sources[answer.failed]!,
          raw[answer.failed]!,
          answer.results[answer.failed]!,
          target,
          options,
        )
      // Whoever gives up now comes too late: it is done.
      const made = answer.mounts[0] && madeMount(answer.mounts[0], target, vocabulary)
      if (made !== undefined) options.accept?.(made)
      await options.reached?.(made)
      executor.keep()
      return made
    } catch (error) {
      undoing = error as Error
      if (answer.held) undone = (await executor.undo(plan.deadlineMs)).undone
      throw judgeUndone(error as Error, undone, wasAttached(raw, answer, undone), target, options)
    }
  }
  const once = async (): Promise<DelegatedMount | undefined> => {
    try {
      return await withExecutor(options.executor, run)
    } catch (error) {
      if (!(error instanceof ExecutorLost)) throw error
      throw await undoForLost(error, undoing, target, options)
    }
  }
  try {
    return await once()
  } catch (error) {
    // It had not come to anything: another executor begins anew.
    if (!(error instanceof ExecutorLost) || error.unfinished.length > 0 || options.executor !== undefined)
      throw error
    options.signal?.throwIfAborted()
    return await once()
  }
}

/** A mount that we made: it is ours also when it delegates nothing that this kernel could show. */
function madeMount(mount: SeenMount, target: Target, vocabulary: Vocabulary): DelegatedMount {
  if (mount.fsType !== 'bpf') throw unreached(target)
  return delegatedMount({ ...bpffsMount(mount), delegated: true }, vocabulary)!
}

/** The kernel prints only bits that it knows; of those, what it made must be what was asked. */
export function assertMasks(made: DelegatedMount, wanted: Masks, vocabulary: Vocabulary): void {
  for (const domain of MASK_DOMAINS) {
    const known = vocabulary[domain].known
    if ((made.masks[domain] & known) !== (wanted[domain] & known))
      throw new FormatError('mountinfo', `delegate_${domain} is not what was set: ${made.options.join(',')}`)
  }
}
