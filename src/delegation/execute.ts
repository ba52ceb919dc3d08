/**
 * Actions, done by the executor (src/sys/executor.ts) in one plan: translated for it, its answer
 * judged, and whatever must not stand undone, in the namespaces that were looked at first.
 */
import { bpffsMount } from '../ebpf/bpffs.ts'
import {
  type BpftokenError,
  ConflictError,
  FormatError,
  NotFoundError,
  NotSupportedError,
  NotUndoneError,
  TimeoutError,
} from '../errors.ts'
import type { Masks, Vocabulary } from '../policy/vocabulary.ts'
import { MASK_DOMAINS } from '../policy/vocabulary.ts'
import {
  type Answer,
  borrowExecutor,
  type Executor,
  ExecutorLost,
  type Paused,
  type RawAction,
  type RawPlan,
  returnExecutor,
  type SeenMount,
  type Undone,
  type Unfinished,
} from '../sys/executor.ts'
import { ENTERING, EXPOSED, NONE, type Slot } from '../sys/executor-layout.ts'
import { failure } from '../sys/failure.ts'
import type { Fd } from '../sys/fd.ts'
import { MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID } from '../uapi/constants.ts'
import { ERRNO, errnoName } from '../uapi/errno.ts'
import type { Action } from './actions.ts'
import { type DelegatedMount, delegatedMount } from './instances.ts'
import type { Target } from './target.ts'

const ATTRIBUTES = { nosuid: MOUNT_ATTR_NOSUID, nodev: MOUNT_ATTR_NODEV, noexec: MOUNT_ATTR_NOEXEC }
const TIMEOUT_MS = 5000
/** For ids that a target does not have; nobody's. */
const OVERFLOW_ID = 65534
/** What a slot's number stands for in LOOK: see SLOTS. */
const DIRECTORY_SLOT = 4
const MOUNT_SLOT = 6
/** Mounts that may lie upon each other on one directory. */
export const MAX_COVERS = 16

export interface ExecuteOptions {
  /** Undoes what was done so far; too late once the mount is being attached. */
  signal?: AbortSignal | undefined
  /** For all of it: how long file systems of the target may take to answer. */
  timeoutMs?: number | undefined
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
  /** Takes back in the guard what was lent, where it cannot be undone for sure. Gives the ids. */
  revoke?: (() => readonly bigint[]) | undefined
  /**
   * Done at the action `confirm`, when all is made and nothing can be reached yet: when it throws,
   * that is what the delegation fails with, and nothing has been lent.
   */
  confirm?: (() => void) | undefined
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
      confirm?.()
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
        throw failed(
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
  throw systemFailure(op, answer.results[answer.failed]!, target, how.object, plan.deadlineMs)
}

const REPEATABLE: readonly RawAction['op'][] = ['OPEN_DIRECTORY', 'LOOK', 'MAKE_TOKEN', 'MAKE_MAP']

async function withExecutor<T>(
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

function planOf(target: Target, actions: readonly RawAction[], timeoutMs = TIMEOUT_MS): RawPlan {
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

/** For the executor, and for each raw action the one that it comes from. */
function translate(actions: readonly Action[]): { raw: RawAction[]; sources: Action[] } {
  const raw: RawAction[] = []
  const sources: Action[] = []
  for (const action of actions)
    for (const one of rawActions(action)) {
      raw.push(one)
      sources.push(action)
    }
  return { raw, sources }
}

function rawActions(action: Action): RawAction[] {
  switch (action.do) {
    case 'openDirectory':
      return [{ op: 'OPEN_DIRECTORY', text: [action.path] }]
    case 'openContext':
      return [{ op: 'OPEN_CONTEXT', text: [action.type] }]
    case 'refuseOccupied':
      return [{ op: 'REFUSE_OCCUPIED' }]
    case 'takeContext':
      return [{ op: 'TAKE_CONTEXT', number: action.fd }]
    case 'markDelegatable':
      return [{ op: 'SET_FLAG', text: ['delegate'], number: ERRNO['EINVAL']! }]
    case 'proveContext':
      return [{ op: 'PROVE_CONTEXT', number: action.mapped ?? NONE, more: action.unmapped ?? NONE }]
    case 'setOption':
      return [{ op: 'SET_OPTION', text: [action.key, action.value] }]
    case 'createSuperblock':
      return [{ op: 'CREATE' }]
    case 'makeMount':
      return [
        {
          op: 'MAKE_MOUNT',
          number: action.attributes.reduce((flags, name) => flags | ATTRIBUTES[name], 0),
        },
      ]
    case 'refuseMoved':
      return [{ op: 'REFUSE_MOVED' }]
    case 'attachMount':
      return [{ op: 'ATTACH' }]
    case 'reachMount':
      return [
        { op: 'OPEN_REACHED', text: [action.path] },
        { op: 'REFUSE_UNREACHED' },
        { op: 'LOOK', number: MOUNT_SLOT },
      ]
    case 'confirm':
    case 'pause':
      return [{ op: 'PAUSE' }]
  }
}

// ---- what went wrong ----

function failed(
  action: Action,
  { op }: RawAction,
  result: number,
  target: Target,
  options: ExecuteOptions,
): Error {
  const { pid } = target.facts
  const name = errnoName(result)
  if (name === 'ECANCELED' && options.signal?.aborted) return options.signal.reason as Error
  if (action.do === 'refuseOccupied' || (action.do === 'reachMount' && op === 'REFUSE_UNREACHED')) {
    const context = { pid, path: action.path }
    if (name === 'EEXIST')
      return new ConflictError(`Process ${pid} has a delegation at ${action.path} already`, {
        context,
        hint: 'Take it back, or name another directory',
        reason: 'place-taken',
      })
    if (name === 'EXDEV')
      return new ConflictError(
        `${action.path} is the root directory of process ${pid}: it cannot reach what is mounted over that`,
        { context, hint: 'Name a directory below it' },
      )
  }
  if (op === 'REFUSE_UNREACHED' && name === 'ESTALE') return unreached(target)
  if (op === 'REFUSE_MOVED' && name === 'EXDEV')
    return new ConflictError(`Process ${pid} moved to other namespaces meanwhile`, {
      context: { pid, was: `${target.facts.userNamespace} ${target.facts.mountNamespace}` },
      hint: 'Delegate when the target is set up',
    })
  const isNone = name === (op === 'TAKE_CONTEXT' ? 'EBADFD' : 'EBADF')
  if ((op === 'TAKE_CONTEXT' && isNone) || (op === 'PROVE_CONTEXT' && (isNone || name === 'EXDEV')))
    return new ConflictError(
      `The context that process ${pid} gave is not ${isNone ? 'a new bpffs context' : 'a context of its own user namespace'}`,
      {
        context: { pid },
        hint: isNone
          ? 'Open it with fsopen("bpf", ...) in the workload and leave configuring to the delegator'
          : 'Let the workload itself call fsopen("bpf", ...), after it has entered its user namespace',
      },
    )
  return systemFailure(op, result, target, objectOf(action), options.timeoutMs ?? TIMEOUT_MS)
}

function objectOf(action: Action): string | undefined {
  switch (action.do) {
    case 'openDirectory':
    case 'attachMount':
    case 'reachMount':
      return action.path
    case 'openContext':
      return action.type
    case 'takeContext':
      return `descriptor ${action.fd}`
    case 'setOption':
      return `${action.key}=${action.value}`
    default:
      return undefined
  }
}

const CALLS: Readonly<Record<RawAction['op'], string>> = {
  OPEN_DIRECTORY: 'openat2',
  OPEN_CONTEXT: 'fsopen',
  ATTACH: 'move_mount',
  OPEN_REACHED: 'openat2',
  DETACH: 'umount2',
  DETACH_COVERED: 'umount2',
  SPOIL_CONTEXT: 'fsconfig',
  MAKE_TOKEN: 'bpf',
  MAKE_MAP: 'bpf',
  TAKE_CONTEXT: 'pidfd_getfd',
  SET_FLAG: 'fsconfig',
  SET_OPTION: 'fsconfig',
  PROVE_CONTEXT: 'fsconfig',
  CREATE: 'fsconfig',
  DISCARD_CONTEXT: 'fsmount',
  MAKE_MOUNT: 'fsmount',
  REFUSE_OCCUPIED: 'statmount',
  REFUSE_UNREACHED: 'statx',
  REFUSE_MOVED: 'pidfd',
  LOOK: 'statmount',
  PAUSE: 'poll',
}

const OPERATIONS: Partial<Record<RawAction['op'], string>> = {
  CREATE: 'FSCONFIG_CMD_CREATE',
  SPOIL_CONTEXT: 'FSCONFIG_CMD_CREATE',
  MAKE_TOKEN: 'BPF_TOKEN_CREATE',
  MAKE_MAP: 'BPF_MAP_CREATE',
}

function systemFailure(
  op: RawAction['op'],
  result: number,
  target: Target,
  object: string | undefined,
  timeoutMs: number,
): BpftokenError {
  const { pid, userNamespace, mountNamespace } = target.facts
  const context = { pid, object }
  const call = CALLS[op]
  if (-result === ENTERING + EXPOSED)
    return new NotSupportedError(`Inside process ${pid}'s namespaces we could be spied upon`, {
      context,
      hint: 'Set sysctl fs.suid_dumpable to 0',
    })
  if (-result > ENTERING)
    return failure(
      'setns',
      'setns',
      result + ENTERING,
      `${userNamespace}, ${mountNamespace} of process ${pid}`,
    )
  switch (errnoName(result)) {
    case 'ETIMEDOUT':
      return new TimeoutError(
        `${call}${object === undefined ? '' : ` on ${object}`} did not finish within ${timeoutMs} ms`,
        {
          context: { ...context, timeoutMs },
          hint: 'A file system of the target does not answer, or the target stops what enters it: look at what is mounted there',
        },
      )
    case 'ECHILD':
      return new ConflictError(`What we do inside process ${pid}'s namespaces (${call}) was killed`, {
        context,
        hint: 'Processes of the target can do that, and so can a lack of memory: see the kernel log',
      })
    case 'ESRCH':
      return new NotFoundError(`Process ${pid} has exited`, { context })
    default:
      return failure(call, OPERATIONS[op] ?? call, result, object)
  }
}

function unreached(target: Target): BpftokenError {
  return new ConflictError(`The new bpffs cannot be reached by process ${target.facts.pid}`, {
    context: { pid: target.facts.pid },
    hint: 'The target changed its root or mounts meanwhile: delegate when it is set up',
  })
}

// ---- what was undone ----

/** Of these nobody knows how far the child came. */
const UNCLEAR = ['ETIMEDOUT', 'ECANCELED', 'ECHILD']

/**
 * Whether the mount was attached for a moment. Undoing tells, where attaching does not: EINVAL, it
 * is not mounted there.
 */
function wasAttached(raw: readonly RawAction[], { results }: Answer, undone: readonly Undone[]): boolean {
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
function judgeUndone(
  error: Error,
  undone: readonly Undone[],
  attached: boolean,
  target: Target,
  options: ExecuteOptions,
): Error {
  const causes: Error[] = undone
    .filter(one => one.result < 0 && !isNotMounted(one))
    .map(({ op, result }) => systemFailure(op, result, target, undefined, options.timeoutMs ?? TIMEOUT_MS))
  if (causes.length === 0 && !attached) return error
  return notUndone([error, ...causes], attached && causes.length === 0, target, options)
}

function notUndone(
  causes: readonly Error[],
  unmounted: boolean,
  target: Target,
  { revoke }: ExecuteOptions,
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
async function undoForLost(
  lost: ExecutorLost,
  undoing: Error | undefined,
  target: Target,
  options: ExecuteOptions,
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

/** Whether others could reach it. */
async function undoUnfinished(
  { op, fd }: Unfinished,
  target: Target,
  options: ExecuteOptions,
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

// ---- what is there ----

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
