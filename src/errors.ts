/**
 * The error classes and the one table of codes.
 *
 * Expected refusals are values (a decision with its trace); failures are these exceptions. Every
 * failure says which operation failed, the errno by name, on which object, and, as `hint`, the next
 * step. Codes are public API: listed once here, never reused. Depends on nothing.
 */

/** Exit status of the commands. `run` otherwise passes on the status of its program. */
export const EXIT = { ok: 0, failed: 1, usage: 2, denied: 3, notSupported: 4, daemonUnreachable: 5 } as const

/** Every error code: title for humans, HTTP status for the daemon, exit status for the commands. */
export const ERROR_CODES = {
  BPFTOKEN_SYSCALL: { title: 'A system call failed', http: 500, exit: EXIT.failed },
  BPFTOKEN_VERIFIER: { title: 'The kernel verifier refused a program', http: 422, exit: EXIT.failed },
  BPFTOKEN_FORMAT: { title: 'Bytes or text do not have the format they claim', http: 400, exit: EXIT.failed },
  BPFTOKEN_USAGE: { title: 'The command line is wrong', http: 400, exit: EXIT.usage },
  BPFTOKEN_INPUT: { title: 'A value that was given is not valid', http: 400, exit: EXIT.usage },
  BPFTOKEN_POLICY_INVALID: { title: 'The policy is not valid', http: 400, exit: EXIT.usage },
  BPFTOKEN_DENIED: { title: 'Refused by policy, or for want of privilege', http: 403, exit: EXIT.denied },
  BPFTOKEN_NOT_SUPPORTED: { title: 'Not supported on this machine', http: 501, exit: EXIT.notSupported },
  BPFTOKEN_NOT_FOUND: { title: 'No such object', http: 404, exit: EXIT.failed },
  BPFTOKEN_CONFLICT: { title: 'In conflict with what is there', http: 409, exit: EXIT.failed },
  BPFTOKEN_TIMEOUT: { title: 'Not finished in time', http: 504, exit: EXIT.failed },
  BPFTOKEN_FAILED: { title: 'Several things failed, or it was interrupted', http: 500, exit: EXIT.failed },
  BPFTOKEN_INTERNAL: { title: 'A defect of bpftoken', http: 500, exit: EXIT.failed },
  BPFTOKEN_BUSY: { title: 'Asked for too much at once', http: 429, exit: EXIT.failed },
  BPFTOKEN_UNREACHABLE: { title: 'The daemon does not answer', http: 503, exit: EXIT.daemonUnreachable },
  /** Its HTTP status is one of 4xx, which says more: see RequestError. */
  BPFTOKEN_REQUEST: { title: 'The HTTP request cannot be taken', http: 400, exit: EXIT.failed },
  BPFTOKEN_NOT_UNDONE: { title: 'Failed, and not surely undone', http: 500, exit: EXIT.failed },
} as const satisfies Record<string, { title: string; http: number; exit: number }>

export type ErrorCode = keyof typeof ERROR_CODES

/** Facts about a failure as data. JSON-safe, no secrets. */
export type ErrorContext = Readonly<Record<string, string | number | boolean | undefined>>

/**
 * What went wrong, more exactly than the code says, where the next step depends on the front: a
 * command line has other words for it than a daemon. The facts for these words are the context.
 */
export type Reason =
  | 'approval-not-asked'
  | 'big-endian'
  | 'confinements-full'
  | 'delegation-unknown'
  | 'guard-missing'
  | 'guard-needed'
  | 'guard-older'
  | 'launch-refused'
  | 'launcher-missing'
  | 'may-stand'
  | 'more-than-parent'
  | 'name-ambiguous'
  | 'name-unknown'
  | 'names-unavailable'
  | 'network-shared'
  | 'no-place'
  | 'no-user-namespace'
  | 'not-confined'
  | 'not-delegated'
  | 'not-derivable'
  | 'nothing-to-derive'
  | 'place-taken'
  | 'state-damaged'
  | 'state-in-use'
  | 'state-open-to-others'
  | 'state-schema'
  | 'subject-refused'
  | 'subjects-not-compared'
  | 'subjects-unsupported'
  | 'tokens-unknown'

export interface ErrorDetails {
  context?: ErrorContext
  /**
   * One imperative sentence: what the reader can do next. It names no command and no option of
   * ours: these are chosen by the front, see `Reason`.
   */
  hint?: string | undefined
  reason?: Reason | undefined
  cause?: unknown
}

/** Base of all errors that this project throws on purpose. */
export abstract class BpftokenError extends Error {
  abstract readonly code: ErrorCode
  readonly context: ErrorContext
  readonly hint: string | undefined
  readonly reason: Reason | undefined
  /** The message, as the lines that it was made of. */
  readonly lines: readonly string[]

  constructor(message: string | readonly string[], details: ErrorDetails = {}) {
    const lines = typeof message === 'string' ? [message] : message
    super(lines.join('\n'), details.cause === undefined ? undefined : { cause: details.cause })
    this.lines = lines
    this.name = new.target.name
    this.context = details.context ?? {}
    this.hint = details.hint
    this.reason = details.reason
  }

  get exitStatus(): number {
    return ERROR_CODES[this.code].exit
  }

  /** The shape that `--json` prints. */
  toJSON(): { code: ErrorCode; reason?: Reason; message: string; hint?: string; context: ErrorContext } {
    return {
      code: this.code,
      ...(this.reason === undefined ? {} : { reason: this.reason }),
      message: this.message,
      ...(this.hint === undefined ? {} : { hint: this.hint }),
      context: this.context,
    }
  }
}

/**
 * A system call answered with an errno. `op` names the command or the step, e.g.
 * `BPF_TOKEN_CREATE`.
 */
export class SyscallError extends BpftokenError {
  readonly code = 'BPFTOKEN_SYSCALL'
  readonly call: string
  readonly op: string
  readonly errno: number
  readonly errnoName: string

  constructor(
    fact: { call: string; op?: string; errno: number; errnoName: string; object?: string },
    details: ErrorDetails = {},
  ) {
    const op = fact.op ?? fact.call
    const what = op === fact.call ? fact.call : `${fact.call}(${op})`
    const on = fact.object === undefined ? '' : ` on ${fact.object}`
    super(`${what}${on} failed with ${fact.errnoName}`, {
      ...details,
      context: { call: fact.call, op, errno: fact.errno, errnoName: fact.errnoName, ...details.context },
    })
    this.call = fact.call
    this.op = op
    this.errno = fact.errno
    this.errnoName = fact.errnoName
  }
}

/**
 * BPF_PROG_LOAD was refused by the verifier. The message is short; `log` is all the kernel said.
 */
export class VerifierError extends BpftokenError {
  readonly code = 'BPFTOKEN_VERIFIER'
  readonly errno: number
  readonly errnoName: string
  readonly log: readonly string[]

  constructor(
    fact: { program: string; errno: number; errnoName: string; summary: string; log: readonly string[] },
    details: ErrorDetails = {},
  ) {
    super(`bpf(BPF_PROG_LOAD) of program "${fact.program}" failed with ${fact.errnoName}: ${fact.summary}`, {
      ...details,
      context: {
        program: fact.program,
        op: 'BPF_PROG_LOAD',
        errno: fact.errno,
        errnoName: fact.errnoName,
        ...details.context,
      },
    })
    this.errno = fact.errno
    this.errnoName = fact.errnoName
    this.log = fact.log
  }
}

/** Bytes or text that are not what they should be. `off` is a byte offset into the input. */
export class FormatError extends BpftokenError {
  readonly code = 'BPFTOKEN_FORMAT'
  readonly format: string

  constructor(format: string, message: string, details: ErrorDetails & { off?: number } = {}) {
    const { off, ...rest } = details
    super(`${format}: ${message}${off === undefined ? '' : ` (at byte ${off})`}`, {
      ...rest,
      context: { format, off, ...rest.context },
    })
    this.format = format
  }
}

/**
 * A value that was given is none that can be used: a number out of its range, a path of another
 * kind.
 */
export class InputError extends BpftokenError {
  readonly code = 'BPFTOKEN_INPUT'
}

/** The command line does not fit. Thrown by the commands alone; libraries throw InputError. */
export class UsageError extends BpftokenError {
  readonly code = 'BPFTOKEN_USAGE'
}

/** One thing wrong with a policy. `line` and `col` count from 1. */
export interface PolicyIssue {
  /** Where in the document, e.g. `spec.rights.maps[2]`. */
  path: string
  line: number
  col: number
  message: string
  /** The nearest valid word, where there is one. */
  suggestion?: string
}

/** A policy document that does not parse or does not validate; carries every issue found. */
export class PolicyError extends BpftokenError {
  readonly code = 'BPFTOKEN_POLICY_INVALID'
  readonly issues: readonly PolicyIssue[]

  constructor(source: string, issues: readonly PolicyIssue[], details: ErrorDetails = {}) {
    const lines = issues.map(issue => {
      const meant = issue.suggestion === undefined ? '' : `; did you mean "${issue.suggestion}"?`
      const path = issue.path === '' ? '' : ` ${issue.path}:`
      return `${source}:${issue.line}:${issue.col}:${path} ${issue.message}${meant}`
    })
    super(lines, { ...details, context: { source, issues: issues.length, ...details.context } })
    this.issues = issues
  }

  override toJSON(): ReturnType<BpftokenError['toJSON']> & { issues: readonly PolicyIssue[] } {
    return { ...super.toJSON(), issues: this.issues }
  }
}

/**
 * Policy says no, or the caller is not who may. `trace`, where there is one, is the decision's:
 * what was compared, as data.
 */
export class DeniedError extends BpftokenError {
  readonly code = 'BPFTOKEN_DENIED'
  readonly trace: readonly object[] | undefined

  constructor(
    message: string | readonly string[],
    details: ErrorDetails & { trace?: readonly object[] } = {},
  ) {
    super(message, details)
    this.trace = details.trace
  }

  override toJSON(): ReturnType<BpftokenError['toJSON']> & { trace?: readonly object[] } {
    return { ...super.toJSON(), ...(this.trace === undefined ? {} : { trace: this.trace }) }
  }
}

/** This kernel or this machine cannot do it. */
export class NotSupportedError extends BpftokenError {
  readonly code = 'BPFTOKEN_NOT_SUPPORTED'
}

/** The object that was named does not exist, or no longer. */
export class NotFoundError extends BpftokenError {
  readonly code = 'BPFTOKEN_NOT_FOUND'
}

/** What is there already stands in the way. */
export class ConflictError extends BpftokenError {
  readonly code = 'BPFTOKEN_CONFLICT'
}

/** A step did not finish within its time. */
export class TimeoutError extends BpftokenError {
  readonly code = 'BPFTOKEN_TIMEOUT'
}

/** More than one asker may have at once, or within a minute. Later the same may be asked again. */
export class BusyError extends BpftokenError {
  readonly code = 'BPFTOKEN_BUSY'
}

/** There is no daemon at the other end, or it stops, or it does not answer. */
export class UnreachableError extends BpftokenError {
  readonly code = 'BPFTOKEN_UNREACHABLE'
}

/** A request that is not what the daemon speaks, whatever it asks for. `status` is of HTTP. */
export class RequestError extends BpftokenError {
  readonly code = 'BPFTOKEN_REQUEST'
  readonly status: number

  constructor(status: number, message: string, details: ErrorDetails = {}) {
    super(message, details)
    this.status = status
  }
}

/**
 * Something failed half-way, and what had been done by then could not be taken back, or not for
 * sure. The message tells every failure: the one that it began with first, then what stands.
 */
export class NotUndoneError extends BpftokenError {
  readonly code = 'BPFTOKEN_NOT_UNDONE'
  readonly causes: readonly Error[]

  constructor(causes: readonly Error[], stands: string, details: ErrorDetails = {}) {
    super([...causes.map(cause => cause.message), stands], details)
    this.causes = causes
  }

  override toJSON(): ReturnType<BpftokenError['toJSON']> & { causes: string[] } {
    return { ...super.toJSON(), causes: this.causes.map(cause => cause.message) }
  }
}

/** What nobody foresaw. */
export class InternalError extends BpftokenError {
  readonly code = 'BPFTOKEN_INTERNAL'
}
