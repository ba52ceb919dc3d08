/** A request that somebody must approve: waited for with progress, and withdrawn with Ctrl-C. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Client, Loan, LoanRequest } from '../../client/client.ts'
import { BpftokenError, ConflictError, DeniedError, TimeoutError, UnreachableError } from '../../errors.ts'
import { note, warn, word } from '../output.ts'
import { Progress } from '../progress.ts'
import { leftText } from './loan-text.ts'

/** In an answer that the daemon holds back; each redraws the progress. */
const WAIT_SEC = 10
/** For a daemon that starts anew meanwhile. */
const PATIENCE_MS = 60_000
const RETRY_MS = 500

/** A request that was approved, with the loan that came of it. */
export interface Granted {
  readonly request: LoanRequest
  readonly loan: Loan
}

/**
 * Waits until it is decided. DeniedError: denied, or withdrawn by somebody else; TimeoutError:
 * nobody decided in time; ConflictError: it was approved, and could not be lent any more. Where the
 * signal is aborted it is withdrawn, and the signal's reason is thrown.
 */
export async function waitForApproval(
  client: Client,
  request: LoanRequest,
  signal: AbortSignal,
): Promise<Granted> {
  note(`${request.id} waits to be approved: bpftoken approve ${request.id} (as root)`)
  const decided = await untilDecided(client, request, signal)
  const { id, state, decided: by, loan, why: over } = decided
  const reason = by?.comment ?? over
  const why = reason === undefined ? '' : `: ${word(reason)}`
  switch (state) {
    case 'approved':
      if (loan === undefined) break
      return { request: decided, loan: await stillLent(client, loan, signal) }
    case 'denied':
      throw new DeniedError(`${id} was denied${why}`, { context: { request: id } })
    case 'withdrawn':
      throw new DeniedError(`${id} was withdrawn${why}`, { context: { request: id } })
    case 'expired':
      throw new TimeoutError(`Nobody decided on ${id} in time`, {
        context: { request: id },
        hint: 'Ask again, and tell whoever approves',
      })
  }
  throw new ConflictError(`${id} was approved, but what it asked for could not be lent${why}`, {
    context: { request: id },
    hint: 'Ask again; the audit says what failed',
  })
}

/** ConflictError: it has ended already, as when the daemon died while it was made. */
async function stillLent(client: Client, id: string, signal: AbortSignal): Promise<Loan> {
  const loan = await client.showLoan({ params: { id } }, { signal })
  const { state, ended } = loan
  if (state !== 'ended') return loan
  throw new ConflictError(`${id} was approved and lent, and has ended: ${ended?.why}`, {
    context: { loan: id },
    hint: 'Ask again',
  })
}

async function untilDecided(client: Client, asked: LoanRequest, signal: AbortSignal): Promise<LoanRequest> {
  using progress = new Progress({ atOnce: true })
  let seen = performance.now()
  let request = asked
  try {
    while (request.state === 'waiting') {
      progress.step(`waiting for ${request.id}, for ${leftText(request.until)} at most; Ctrl-C withdraws it`)
      const { id } = request
      try {
        request = await client.showRequest({ params: { id }, query: { wait: WAIT_SEC } }, { signal })
        seen = performance.now()
      } catch (error) {
        if (!(error instanceof UnreachableError) || performance.now() - seen > PATIENCE_MS) throw error
        await sleep(RETRY_MS, undefined, { signal }).catch(() => {})
      }
      signal.throwIfAborted()
    }
  } catch (error) {
    if (signal.aborted) await withdraw(client, request.id)
    throw error
  }
  return request
}

/** Says what became of it: it may have been approved just before. */
async function withdraw(client: Client, id: string): Promise<void> {
  try {
    const { state, loan } = await client.withdraw({ params: { id } })
    if (loan === undefined) note(`${id} is ${state}`)
    else warn(`${id} is ${state}: ${loan} stands; bpftoken revoke ${loan} takes it back`)
  } catch (error) {
    const why = error instanceof BpftokenError ? error.message : String(error)
    warn(`${id} could not be withdrawn: ${why}; see bpftoken requests`)
  }
}
