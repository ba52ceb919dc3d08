/** Failures as `problem+json` (RFC 9457). The table of errors gives title, status and code. Pure. */

import type { Problem } from '../../api/routes.ts'
import { type BpftokenError, ERROR_CODES, InternalError, RequestError } from '../../errors.ts'
import { hintOf } from './hints.ts'

export const PROBLEM_TYPE = 'application/problem+json'

/** What a client can do with one is read by people: more of it than this is of no use. */
const MAX_DETAIL = 4096
const MAX_ISSUES = 20

/** The document that tells a client of it. */
export function problemOf(error: BpftokenError): Problem {
  const { title, http } = ERROR_CODES[error.code]
  const { message, reason, issues, trace } = error.toJSON() as ReturnType<BpftokenError['toJSON']> &
    Pick<Problem, 'issues' | 'trace'>
  const hint = hintOf(error)
  const context = known(error.context)
  return {
    type: `urn:bpftoken:error:${error.code}`,
    title,
    status: error instanceof RequestError ? error.status : http,
    detail: cut(message),
    code: error.code,
    ...(reason !== undefined && { reason }),
    ...(hint !== undefined && { hint }),
    ...(context !== undefined && { context }),
    ...(issues !== undefined && { issues: issues.slice(0, MAX_ISSUES) }),
    ...(trace !== undefined && { trace }),
  }
}

/**
 * What nobody foresaw tells the client nothing: its words may be about somebody else. The log has
 * all of it.
 */
export function defect(cause: unknown): InternalError {
  return new InternalError('a defect of the daemon; its log says more', { cause })
}

type Context = NonNullable<Problem['context']>

function known(context: BpftokenError['context']): Context | undefined {
  const facts = Object.entries(context).filter(
    (fact): fact is [string, Context[string]] => fact[1] !== undefined,
  )
  return facts.length === 0 ? undefined : Object.fromEntries(facts)
}

function cut(text: string): string {
  return text.length > MAX_DETAIL ? `${text.slice(0, MAX_DETAIL - 3)}...` : text
}
