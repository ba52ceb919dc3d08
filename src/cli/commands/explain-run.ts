/**
 * bpftoken explain -- CMD: a command is run under the recorder, and its last refused call explained.
 * Each process waits after the call until it has been looked at.
 */
import { UsageError } from '../../errors.ts'
import type { GuardEvent } from '../../guard/event.ts'
import type { Guard } from '../../guard/guard.ts'
import { bootTimeNs } from '../../guard/guard.ts'
import type { Explanation } from '../../lending/explain.ts'
import { runningKernel } from '../../lending/kernel-model.ts'
import { explainSeen, explainUnseen, isExplained, type Looked, lookAt } from '../../lending/seen-refusal.ts'
import { explainTokenCreate } from '../../lending/token-refusal.ts'
import type { SeenCall } from '../../record/call.ts'
import { HeldCommand } from '../../record/held-command.ts'
import { Recorder } from '../../record/recorder.ts'
import { forwardSignals } from '../forward-signals.ts'
import { installedGuard } from '../installed-guard.ts'
import { note } from '../output.ts'

/** A refused call, and what was there when it was refused. */
interface Refused {
  readonly call: SeenCall
  readonly looked: Promise<Looked | undefined>
}

/** A command that was run: its refused call, if there is one, and the status with which it has ended. */
export interface Ran {
  readonly explained: Explanation | undefined
  /** As a shell has it. */
  readonly status: number
}

/** Refused calls that are kept. */
const MOST = 1000

/** The last refused call of a command, if there is one, and the status with which it has ended. */
export async function ofCommand([name, ...rest]: string[]): Promise<Ran> {
  if (name === undefined || name === '') throw new UsageError('No command is given')
  const refused: Refused[] = []
  const tokens = new FailedTokens()
  using guard = await installedGuard()
  let command: HeldCommand | undefined
  using recorder = await Recorder.start(
    call => {
      tokens.see(call, () => looked(call, guard, command))
      if (call.errno === undefined || call.command === 'token_create') return
      if (!isExplained(call)) return letGo(call, command)
      refused.push({ call, looked: looked(call, guard, command) })
      if (refused.length > MOST) refused.shift()
    },
    { logs: true, holds: true },
  )
  // The command's output is not the answer.
  command = HeldCommand.start(recorder, [name, ...rest], ['inherit', 2, 2])
  const status = await endOf(command)
  recorder.drain()
  const { lostCalls } = recorder.tally()
  if (lostCalls > 0) note(`${lostCalls} calls were not seen, for want of room`)
  if (command.unheld !== undefined)
    note(`processes were not held after a refused call: ptrace(2) says ${command.unheld}`)
  const last = lastOf(await Promise.all(refused.map(async one => ({ ...one, looked: await one.looked }))))
  const token = tokens.last()
  if (token !== undefined && token.call.at > (last?.call.at ?? 0n))
    return { status, explained: explainTokenCreate((await token.looked)?.situation, token.call) }
  if (last === undefined) return { status, explained: undefined }
  const { call, looked: at } = last
  const event = guard && eventOf(guard, call)
  return {
    status,
    explained: at === undefined ? explainUnseen(call) : explainSeen(runningKernel(), at, call, event),
  }
}

/** Its exit status. Signals to us are its own meanwhile, and ours again after that. */
async function endOf(command: HeldCommand): Promise<number> {
  using _ = forwardSignals(signal => command.signal(signal))
  return await command.ended
}

/** Processes of which it is known how their last attempt at a token has ended. */
const MOST_ATTEMPTS = 1000

/**
 * Attempts at a token after which a process has asked for nothing more: a loader for which that is
 * fatal. Others go on without.
 */
class FailedTokens {
  readonly #attempts = new Map<number, Refused>()

  see(call: SeenCall, look: () => Promise<Looked | undefined>): void {
    if (call.need !== undefined || call.command === 'token_create') this.#attempts.delete(call.pid)
    if (call.command !== 'token_create' || call.errno === undefined) return
    const attempt = { call, looked: look() }
    if (this.#attempts.size < MOST_ATTEMPTS) this.#attempts.set(call.pid, attempt)
  }

  last(): Refused | undefined {
    return [...this.#attempts.values()].at(-1)
  }
}

/** Its process, as it is now; undefined: it has ended, or has no number in this PID namespace. */
async function looked(
  call: SeenCall,
  guard: Guard | undefined,
  command: HeldCommand | undefined,
): Promise<Looked | undefined> {
  try {
    return call.pid === 0 ? undefined : await lookAt(call, guard)
  } catch {
    return undefined
  } finally {
    letGo(call, command)
  }
}

function letGo({ held, tid }: SeenCall, command: HeldCommand | undefined): void {
  if (held) command?.letGo(tid)
}

type Known = Omit<Refused, 'looked'> & { readonly looked: Looked | undefined }

/**
 * The one to be explained. A call that asks a token, and whose process had ended, has the situation of
 * the last one before that was looked at.
 */
function lastOf(all: readonly Known[]): Known | undefined {
  const known = new Map<string, Looked>()
  const filled = all.map(({ call, looked }): Known => {
    const key = `${call.pid} ${call.userNamespace}`
    if (looked !== undefined) known.set(key, looked)
    const before = call.need === undefined ? undefined : known.get(key)
    return { call, looked: looked ?? (before && { ...before, other: undefined }) }
  })
  const seen = filled.filter(({ looked }) => looked !== undefined)
  if (seen.length < filled.length)
    note(
      `${filled.length - seen.length} refused calls are of processes that ended before they were looked at`,
    )
  const from = seen.length > 0 ? seen : filled
  return (
    from.findLast(({ call }) => call.errno === 'EPERM' || !call.reached) ??
    from.findLast(({ call }) => call.need !== undefined) ??
    from.at(-1)
  )
}

/** Times of two clocks are compared, of which one has hundredths of a second. */
const CLOCK_NS = 20_000_000n

/** What the guard has recorded of the call, if it refused that. */
function eventOf(guard: Guard, { at, tid }: SeenCall): GuardEvent | undefined {
  const since = at + bootTimeNs() - process.hrtime.bigint() - CLOCK_NS
  return guard
    .rememberedEvents()
    .findLast(event => event.tid === tid && event.verdict === 'refused' && event.timeNs >= since)
}
