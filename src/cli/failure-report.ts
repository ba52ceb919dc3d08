/** Tells of a failure on stderr, all its causes included, and gives the exit status for it. */
import { BpftokenError, InternalError, NotUndoneError, SyscallError, VerifierError } from '../errors.ts'
import { hintFor } from '../uapi/hints.ts'
import { hintOf } from './hints.ts'
import { Interrupted } from './interrupted.ts'
import { complain, complainJson, spoken, warn } from './output.ts'

/** Set by who reports a defect, to any value: then the stacks are printed, too. */
const DEBUG_VARIABLE = 'BPFTOKEN_DEBUG'

/** A chain of causes that is longer than this is a circle. */
const MAX_DEPTH = 8

export interface FailureReport {
  readonly lines: readonly string[]
  /** What `--json` prints. */
  readonly document: { readonly error: object }
  readonly exitStatus: number
}

/** Pure. */
export function describeFailure(error: unknown): FailureReport {
  const all = [...withCauses(error, 0)]
  const [first] = all as [Failure, ...Failure[]]
  const hints = [...new Set(hintsOf(all))]
  const [body, ...causes] = all.map(({ known }) => documentOf(known))
  const told = new Set(first.known.lines)
  return {
    lines: [
      ...all.flatMap(({ known, depth }) =>
        known.lines
          // NotUndoneError has the messages of its causes in its own.
          .filter(line => depth === 0 || !(first.joins && told.has(line)))
          .map(line => (depth === 0 ? line : `${'  '.repeat(Math.min(depth, 2))}because: ${line}`)),
      ),
      ...hints.map(hint => `  next: ${hint}`),
    ],
    document: {
      error: {
        ...body,
        ...(hints.length > 0 && { hint: hints.join('; ') }),
        ...(causes.length > 0 && { causes }),
      },
    },
    exitStatus: first.known.exitStatus,
  }
}

export function reportError(error: unknown, json: boolean): number {
  const { lines, document, exitStatus } = describeFailure(error)
  // The document is the last line, whatever else is told.
  if (process.env[DEBUG_VARIABLE])
    for (const { raw } of withCauses(error, 0)) complain(...String((raw as Error)?.stack ?? raw).split('\n'))
  if (json) complainJson(document)
  else for (const line of [...lines, ...(spoken().verbose === true ? factsOf(error) : [])]) warn(line)
  return exitStatus
}

/** For --verbose: the code and the facts of each failure, and all that the verifier said. */
function factsOf(error: unknown): string[] {
  return [...withCauses(error, 0)].flatMap(({ known }) => [
    `  ${known.code}${Object.entries(known.context)
      .filter(([, value]) => value !== undefined)
      .map(([name, value]) => ` ${name}=${value}`)
      .join('')}`,
    ...(known instanceof VerifierError ? known.log.map(line => `  verifier: ${line}`) : []),
  ])
}

/** The hint of `--json` is in the words of the command line, too. */
function documentOf(known: BpftokenError): object {
  const hint = hintOf(known)
  return { ...known.toJSON(), ...(hint === undefined ? {} : { hint }) }
}

interface Failure {
  readonly raw: unknown
  readonly known: BpftokenError
  readonly depth: number
  /** It only says that several things failed. */
  readonly joins: boolean
}

/** The failure and all that caused it, each before its own causes. */
function* withCauses(raw: unknown, depth: number): Generator<Failure> {
  const causes = causesOf(raw)
  const joins = causes.length > 1 || raw instanceof NotUndoneError
  yield { raw, known: asKnown(raw, joins), depth, joins }
  if (depth < MAX_DEPTH) for (const cause of causes) yield* withCauses(cause, depth + 1)
}

/**
 * Those of an AggregateError, or of what could not be undone; the failure and the failed clean-up
 * of a SuppressedError; a plain cause.
 */
function causesOf(error: unknown): unknown[] {
  if (!(error instanceof Error)) return []
  if (error instanceof NotUndoneError) return [...error.causes]
  const { errors, error: failed, suppressed } = error as Partial<AggregateError & SuppressedError>
  if (Array.isArray(errors)) return errors
  // `error` is what failed last; what it hides came first.
  if (suppressed !== undefined) return [suppressed, failed]
  return error.cause instanceof Error ? [error.cause] : []
}

function asKnown(error: unknown, joins: boolean): BpftokenError {
  if (error instanceof BpftokenError) return error
  const { code, errno, syscall, path, message } = (error ?? {}) as Partial<NodeJS.ErrnoException>
  // Node's own calls say which one it was.
  if (code !== undefined && errno !== undefined && syscall !== undefined)
    return new SyscallError(
      {
        call: syscall,
        errno: Math.abs(errno),
        errnoName: code,
        ...(path === undefined || syscall.includes(path) ? {} : { object: path }),
      },
      { hint: hintFor(syscall, code) },
    )
  if (joins || error instanceof Interrupted) return new PlainError(message ?? '')
  return new InternalError(`internal error: ${message || String(error)}`, {
    hint: `This is a defect of bpftoken. Report it with the stack, which ${DEBUG_VARIABLE}=1 in the environment shows`,
  })
}

/** Known, and nobody's mistake: that several things failed, or that a signal came. */
class PlainError extends BpftokenError {
  readonly code = 'BPFTOKEN_FAILED'
}

/**
 * That files ran out explains any failure; else the outermost advice counts, or that of each that
 * it joins.
 */
function hintsOf([first, ...causes]: readonly Failure[]): string[] {
  const all = [first!, ...causes]
  for (const { known } of all) {
    const name = known instanceof SyscallError ? known.errnoName : ''
    if (name === 'EMFILE' || name === 'ENFILE') return [hintFor(name, name)!]
  }
  const internal = all.find(({ known }) => known instanceof InternalError)
  const from = first!.joins ? [first!, ...causes.filter(({ depth }) => depth === 1)] : [first!]
  return [...from, ...(internal === undefined ? [] : [internal])].flatMap(({ known }) => hintOf(known) ?? [])
}
