/**
 * What the daemon says went wrong (RFC 9457), as the same coded errors that the libraries throw.
 * The text is the daemon's; it is checked to be text, and bounded by the size of an answer.
 */
import {
  BpftokenError,
  BusyError,
  ConflictError,
  DeniedError,
  ERROR_CODES,
  type ErrorCode,
  type ErrorContext,
  type ErrorDetails,
  FormatError,
  InputError,
  InternalError,
  NotFoundError,
  NotSupportedError,
  NotUndoneError,
  PolicyError,
  type PolicyIssue,
  type Reason,
  RequestError,
  SyscallError,
  TimeoutError,
  UnreachableError,
  VerifierError,
} from '../errors.ts'

/** A problem, as far as it is one. */
interface Told {
  readonly status: number
  readonly detail: string
  readonly details: ErrorDetails & { readonly context: ErrorContext }
  readonly issues: readonly PolicyIssue[]
  readonly trace: readonly object[] | undefined
}

/** Several things failed at once; of which the daemon tells the text alone. */
class FailedError extends BpftokenError {
  readonly code = 'BPFTOKEN_FAILED'
}

/** One for each code, so that a code cannot be added and not be known here. */
const BY_CODE: { readonly [C in ErrorCode]: (told: Told) => BpftokenError } = {
  BPFTOKEN_SYSCALL: ({ details }) => new SyscallError(syscallOf(details.context), details),
  BPFTOKEN_VERIFIER: ({ detail, details }) =>
    new VerifierError(
      {
        ...syscallOf(details.context),
        program: String(details.context['program'] ?? ''),
        summary: detail,
        log: [],
      },
      details,
    ),
  BPFTOKEN_FORMAT: ({ detail, details }) =>
    new FormatError(String(details.context['format'] ?? 'input'), detail, details),
  // Of command lines, which the daemon has none of.
  BPFTOKEN_USAGE: ({ detail, details }) => new InputError(detail, details),
  BPFTOKEN_INPUT: ({ detail, details }) => new InputError(detail, details),
  BPFTOKEN_POLICY_INVALID: ({ details, issues }) =>
    new PolicyError(String(details.context['source'] ?? 'policy'), issues, details),
  BPFTOKEN_DENIED: ({ detail, details, trace }) =>
    new DeniedError(detail, trace === undefined ? details : { ...details, trace }),
  BPFTOKEN_NOT_SUPPORTED: ({ detail, details }) => new NotSupportedError(detail, details),
  BPFTOKEN_NOT_FOUND: ({ detail, details }) => new NotFoundError(detail, details),
  BPFTOKEN_CONFLICT: ({ detail, details }) => new ConflictError(detail, details),
  BPFTOKEN_BUSY: ({ detail, details }) => new BusyError(detail, details),
  BPFTOKEN_UNREACHABLE: ({ detail, details }) => new UnreachableError(detail, details),
  BPFTOKEN_REQUEST: ({ detail, details, status }) => new RequestError(status, detail, details),
  BPFTOKEN_TIMEOUT: ({ detail, details }) => new TimeoutError(detail, details),
  BPFTOKEN_FAILED: ({ detail, details }) => new FailedError(detail, details),
  BPFTOKEN_INTERNAL: ({ detail, details }) => new InternalError(detail, details),
  BPFTOKEN_NOT_UNDONE: ({ detail, details }) => new NotUndoneError([], detail, details),
}

/**
 * The error that an answer of that status is. InternalError, with what was said, for what is no
 * problem document or has a code that this version does not know.
 */
export function errorFromProblem(value: unknown, status: number): BpftokenError {
  const problem = isRecord(value) ? value : {}
  const told = toldIn(problem, status)
  const { code } = problem
  if (typeof code !== 'string' || !Object.hasOwn(ERROR_CODES, code))
    return new InternalError(`the daemon answered ${status}: ${told.detail}`, {
      ...told.details,
      context: { ...told.details.context, status, ...(typeof code === 'string' ? { code } : {}) },
    })
  return worded(BY_CODE[code as ErrorCode](told), told.detail)
}

function toldIn(problem: Readonly<Record<string, unknown>>, status: number): Told {
  const { detail, title, hint, reason, context, issues, trace } = problem
  const told = [detail, title].find(text => typeof text === 'string' && text !== '')
  return {
    status,
    detail: (told as string | undefined) ?? `status ${status}, and no word why`,
    details: {
      context: contextOf(context),
      ...(typeof hint === 'string' ? { hint } : {}),
      // One that this version has no words for is as good as none; see who reads it.
      ...(typeof reason === 'string' ? { reason: reason as Reason } : {}),
    },
    issues: (Array.isArray(issues) ? issues : []).filter(isIssue),
    trace: Array.isArray(trace) ? trace.filter(isRecord) : undefined,
  }
}

/** Errors make their text of facts that the daemon need not know all; its own text is what counts. */
function worded<E extends BpftokenError>(error: E, detail: string): E {
  return Object.defineProperties(error, {
    message: { value: detail, configurable: true, writable: true },
    lines: { value: detail.split('\n'), enumerable: true },
  })
}

function syscallOf(context: ErrorContext): { call: string; op: string; errno: number; errnoName: string } {
  const { call = 'bpf', op = call, errno = 0, errnoName = 'an error' } = context
  return { call: String(call), op: String(op), errno: Number(errno), errnoName: String(errnoName) }
}

function contextOf(value: unknown): ErrorContext {
  if (!isRecord(value)) return {}
  const facts = Object.entries(value).filter(([, fact]) =>
    ['string', 'number', 'boolean'].includes(typeof fact),
  )
  return Object.fromEntries(facts) as ErrorContext
}

function isIssue(value: unknown): value is PolicyIssue {
  if (!isRecord(value)) return false
  const { path, line, col, message, suggestion } = value
  return (
    [path, message].every(text => typeof text === 'string') &&
    [line, col].every(Number.isSafeInteger) &&
    ['string', 'undefined'].includes(typeof suggestion)
  )
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
