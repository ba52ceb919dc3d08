/**
 * `bpftoken`: the client of the daemon, and what every user of the library meets, whichever of its
 * doors they take: the errors that are thrown, with their codes, and the version of the package.
 *
 * The other doors are `bpftoken/ebpf` and `bpftoken/policy`. They are not loaded here, so that
 * who needs one does not pay for the other.
 */
export {
  type Call,
  type CallInput,
  type CallOptions,
  Client,
  type ClientOptions,
  DEFAULT_SOCKET,
  type Loan,
  type LoanRequest,
  type RouteAnswer,
  type RouteEvent,
  type RouteName,
} from './client/client.ts'
export {
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
} from './errors.ts'

/** Of this package, as `0.1.0`. */
export const version: string = (require('../package.json') as { version: string }).version
