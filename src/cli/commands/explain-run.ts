/**
 * bpftoken explain -- CMD: a command is run under the recorder, and its last refused call explained.
 * Each process waits after the call until it has been looked at.
 */
import { neededCapabilities } from '../../ebpf/rights.ts'
import { UsageError } from '../../errors.ts'
import type { GuardEvent } from '../../guard/event.ts'
import type { Guard } from '../../guard/guard.ts'
import { bootTimeNs } from '../../guard/guard.ts'
import { callText, type Explanation, explainCall } from '../../lending/explain.ts'
import { runningKernel } from '../../lending/kernel-model.ts'
import { type Situation, situationOfPid } from '../../lending/situation.ts'
import { explainTokenCreate } from '../../lending/token-refusal.ts'
import type { SeenCall } from '../../record/call.ts'
import { HeldCommand } from '../../record/held-command.ts'
import { Recorder } from '../../record/recorder.ts'
import { endOf } from '../command-end.ts'
import { installedGuard } from '../installed-guard.ts'
import { note } from '../output.ts'
import type { Explained } from './explain-call.ts'

/** A refused call, and what was there when it was refused. */
interface Refused {
  readonly call: SeenCall
  readonly situation: Promise<Situation | undefined>
}

/** Refused calls that are kept. */
const MOST = 1000

/** The last refused call of a command, if there is one, and the status with which it has ended. */
export async function ofCommand([name, ...rest]: string[]): Promise<Explained> {
  if (name === undefined) throw new UsageError('No command is given')
  const refused: Refused[] = []
  const tokens = new FailedTokens()
  using guard = await installedGuard()
  let command: HeldCommand | undefined
  using recorder = await Recorder.start(
    call => {
      tokens.see(call, () => looked(call, guard, command))
      if (call.held && call.need === undefined && call.command !== 'token_create') command?.letGo(call.tid)
      if (call.errno === undefined || call.need === undefined) return
      refused.push({ call, situation: looked(call, guard, command) })
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
  const last = lastOf(
    await Promise.all(refused.map(async one => ({ ...one, situation: await one.situation }))),
  )
  const token = tokens.last()
  if (token !== undefined && token.call.at > (last?.call.at ?? 0n))
    return { status, explained: explainTokenCreate(await token.situation, token.call) }
  if (last === undefined) return { status, explained: undefined }
  const { call, situation } = last
  if (situation === undefined) return { status, explained: unseen(call) }
  const event = guard && eventOf(guard, call)
  return { status, explained: explainCall(runningKernel(), situation, call.need!, { ...call, event }) }
}

/** Processes of which it is known how their last attempt at a token has ended. */
const MOST_ATTEMPTS = 1000

/**
 * Attempts at a token after which a process has asked for nothing more: a loader for which that is
 * fatal. Others go on without.
 */
class FailedTokens {
  readonly #attempts = new Map<number, Refused>()

  see(call: SeenCall, look: () => Promise<Situation | undefined>): void {
    if (call.need !== undefined || call.command === 'token_create') this.#attempts.delete(call.pid)
    if (call.command !== 'token_create' || call.errno === undefined) return
    if (this.#attempts.size < MOST_ATTEMPTS) this.#attempts.set(call.pid, { call, situation: look() })
  }

  last(): Refused | undefined {
    return [...this.#attempts.values()].at(-1)
  }
}

/** Its process, as it is now; undefined: it has ended, or has no number in this PID namespace. */
async function looked(
  { pid, tid, held }: SeenCall,
  guard: Guard | undefined,
  command: HeldCommand | undefined,
): Promise<Situation | undefined> {
  try {
    return pid === 0 ? undefined : await situationOfPid(pid, guard)
  } catch {
    return undefined
  } finally {
    if (held) command?.letGo(tid)
  }
}

type Known = Omit<Refused, 'situation'> & { readonly situation: Situation | undefined }

/**
 * The one to be explained. A call whose process had ended has the situation of its last one before that
 * was looked at.
 */
function lastOf(all: readonly Known[]): Known | undefined {
  const known = new Map<string, Situation>()
  const filled = all.map(({ call, situation }): Known => {
    const key = `${call.pid} ${call.userNamespace}`
    if (situation !== undefined) known.set(key, situation)
    return { call, situation: situation ?? known.get(key) }
  })
  const seen = filled.filter(({ situation }) => situation !== undefined)
  if (seen.length < filled.length)
    note(
      `${filled.length - seen.length} refused calls are of processes that ended before they were looked at`,
    )
  const from = seen.length > 0 ? seen : filled
  return from.findLast(({ call }) => call.errno === 'EPERM' || !call.reached) ?? from.at(-1)
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

const MALFORMED = ['EINVAL', 'E2BIG']

/** Of a call by a process that nothing is known of. Pure. */
function unseen({ need, errno, reached }: SeenCall): Explanation {
  // Nobody waits after one of these, since no process could do better.
  const isMalformed = MALFORMED.includes(errno!) && need!.cmd !== 'prog_load'
  const cause = !reached ? 'seccomp' : isMalformed ? 'request' : 'unknown'
  return {
    ...{ call: callText(need!), verdict: 'refused', errno, cause },
    ...(cause === 'request'
      ? { needed: 'a request that this kernel takes', found: errno! }
      : { needed: 'to look at the process while it lives', found: 'it had ended' }),
    ...{
      capabilities: neededCapabilities(need!),
      policy: undefined,
      bpffs: undefined,
      notes: [],
      checks: [],
    },
  }
}
