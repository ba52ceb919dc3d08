/** What to say of a step that the executor could not do, and what to do about it. */
import {
  type BpftokenError,
  ConflictError,
  NotFoundError,
  NotSupportedError,
  TimeoutError,
} from '../errors.ts'
import { ENTERING, EXPOSED } from '../sys/executor/layout.ts'
import type { RawAction } from '../sys/executor/message.ts'
import { failure } from '../sys/failure.ts'
import { errnoName } from '../uapi/errno.ts'
import type { Action } from './actions.ts'
import type { Target } from './target.ts'

/** How long a plan may take where nobody says otherwise. */
export const TIMEOUT_MS = 5000

/** Why an action failed, from what one of its raw actions gave: -errno. */
export function actionFailure(
  action: Action,
  { op }: RawAction,
  result: number,
  target: Target,
  options: { readonly signal?: AbortSignal | undefined; readonly timeoutMs?: number | undefined },
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
  if (action.do === 'enterRoot' && (name === 'EXDEV' || name === 'ENOTTY'))
    return new ConflictError(
      name === 'EXDEV'
        ? `${action.path} is the root directory of process ${pid} already: what is mounted there is lost when its container gets another`
        : `${action.path} is no mount of its own for process ${pid}, as the root that a runtime prepares is`,
      { context: { pid, path: action.path } },
    )
  if (action.do === 'makeDirectory' && (name === 'ELOOP' || name === 'ENOTDIR'))
    return new ConflictError(`A symbolic link, or what is no directory, is in the way to ${action.path}`, {
      context: { pid, path: action.path },
      hint: 'Where a link leads may change: make a directory of it',
    })
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
  return stepFailure(op, result, target, objectOf(action), options.timeoutMs ?? TIMEOUT_MS)
}

function objectOf(action: Action): string | undefined {
  switch (action.do) {
    case 'enterRoot':
    case 'makeDirectory':
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
  ENTER_ROOT: 'openat2',
  MAKE_DIRECTORY: 'mkdirat',
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

/** The same for a raw action that comes from no action of ours. */
export function stepFailure(
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

export function unreached(target: Target): BpftokenError {
  return new ConflictError(`The new bpffs cannot be reached by process ${target.facts.pid}`, {
    context: { pid: target.facts.pid },
    hint: 'The target changed its root or mounts meanwhile: delegate when it is set up',
  })
}
