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
import type { SeenCall } from '../../record/call.ts'
import { HeldCommand } from '../../record/held-command.ts'
import { Recorder } from '../../record/recorder.ts'
import { installedGuard } from '../installed-guard.ts'
import { note } from '../output.ts'

/** A refused call, and what was there when it was refused. */
interface Refused {
  readonly call: SeenCall
  readonly looked: Promise<Looked | undefined>
}

/** Refused calls that are kept. */
const MOST = 1000

/** The last refused call of a command; undefined: there is none. */
export async function ofCommand([name, ...rest]: string[]): Promise<Explanation | undefined> {
  if (name === undefined) throw new UsageError('No command is given')
  const refused: Refused[] = []
  using guard = await installedGuard()
  let command: HeldCommand | undefined
  using recorder = await Recorder.start(
    call => {
      if (call.errno === undefined || !isExplained(call)) return
      refused.push({ call, looked: looked(call, guard, command) })
      if (refused.length > MOST) refused.shift()
    },
    { logs: true, holds: true },
  )
  // The command's output is not the answer.
  command = HeldCommand.start(recorder, [name, ...rest], ['inherit', 2, 2])
  await ended(command)
  recorder.drain()
  const { lostCalls } = recorder.tally()
  if (lostCalls > 0) note(`${lostCalls} calls were not seen, for want of room`)
  if (command.unheld !== undefined)
    note(`processes were not held after a refused call: ptrace(2) says ${command.unheld}`)
  const last = lastOf(await Promise.all(refused.map(async one => ({ ...one, looked: await one.looked }))))
  if (last === undefined) return undefined
  const { call, looked: at } = last
  return at === undefined
    ? explainUnseen(call)
    : explainSeen(runningKernel(), at, call, guard && eventOf(guard, call))
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
    if (call.held) command?.letGo(call.tid)
  }
}

/**
 * Ends when the command does. What is typed on the terminal reaches that without us; then it ends,
 * and what was refused until then is explained. The second time it is for us.
 */
async function ended(command: HeldCommand): Promise<void> {
  const signals = ['SIGINT', 'SIGQUIT'] as const
  const handlers = signals.map(signal => {
    const handler = (): void => {
      if (process.stdin.isTTY !== true) command.signal(signal)
    }
    process.once(signal, handler)
    return () => process.off(signal, handler)
  })
  try {
    await command.ended
  } finally {
    for (const remove of handlers) remove()
  }
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
