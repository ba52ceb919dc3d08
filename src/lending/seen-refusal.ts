/**
 * A call that was seen to be refused: what there was when it was, and why. The process must live still
 * when it is looked at.
 */
import { readFileSync } from 'node:fs'
import { type Need, neededCapabilities } from '../ebpf/rights.ts'
import { PROG_TYPES } from '../ebpf/type-names.ts'
import type { GuardEvent } from '../guard/event.ts'
import type { Guard } from '../guard/guard.ts'
import type { KernelFacts } from '../model/kernel.ts'
import { procFields } from '../sys/proc-file.ts'
import { pinPlaceOf } from './causes/pin-place.ts'
import { callText, type Explanation, explainCall, type Observed } from './explain.ts'
import { ATTACH_CALLS, explainOther, HOST_CALLS, type OtherCall, PIN_CALLS } from './other-call.ts'
import { type Situation, situationOfThread } from './situation.ts'

/** What is seen of a call; see src/record/call.ts. */
export interface SeenRefusal extends Observed {
  readonly pid: number
  readonly tid: number
  readonly command: string
  readonly need: Need | undefined
  readonly attachType: string | undefined
  readonly descriptors: { readonly program: number; readonly target: number } | undefined
  readonly fileFlags: number
  readonly name: string
}

/** What was there. */
export interface Looked {
  readonly situation: Situation
  /** Where the call asks no token. */
  readonly other: OtherCall | undefined
}

/** Whether there is something to be said of its refusal. */
export function isExplained({ command, need, attachType }: SeenRefusal): boolean {
  const is = (names: readonly string[]): boolean => names.includes(command)
  return (
    need !== undefined ||
    is(HOST_CALLS) ||
    is(PIN_CALLS) ||
    command === 'perf_event_open' ||
    (is(ATTACH_CALLS) && attachType !== undefined)
  )
}

/** NotFoundError: the process has exited, or has no number in this PID namespace. */
export async function lookAt(call: SeenRefusal, guard: Guard | undefined): Promise<Looked> {
  const situation = await situationOfThread(call.pid, call.tid, guard)
  return { situation, other: call.need === undefined ? await otherOf(call) : undefined }
}

/** The recorder keeps no more of a path. */
const MAX_PATH = 63

async function otherOf(call: SeenRefusal): Promise<OtherCall> {
  const { pid, command, attachType, descriptors, fileFlags: flags, name } = call
  const pinning = PIN_CALLS.find(one => one === command)
  if (pinning !== undefined) {
    const none = { path: name, directories: [], isBpffs: false, userNamespace: undefined, pin: undefined }
    if (name.length >= MAX_PATH)
      return { cmd: pinning, place: { ...none, unknown: 'a path of which the end was not seen' }, flags }
    if (name === '') return { cmd: pinning, place: { ...none, unknown: 'a path that was not seen' }, flags }
    return { cmd: pinning, place: await pinPlaceOf(pid, name), flags }
  }
  const attaching = ATTACH_CALLS.find(one => one === command)
  if (attaching !== undefined)
    return { cmd: attaching, attachType: attachType!, progType: programType(pid, descriptors?.program) }
  return { cmd: HOST_CALLS.find(one => one === command) ?? 'perf_event_open' }
}

/** Of one of its descriptors. Undefined: it is no program, or it cannot be told. */
function programType(pid: number, fd: number | undefined): string | undefined {
  if (fd === undefined) return undefined
  try {
    const type = procFields(readFileSync(`/proc/${pid}/fdinfo/${fd}`, 'latin1')).get('prog_type')
    return type === undefined ? undefined : PROG_TYPES.word(Number(type))
  } catch {
    return undefined
  }
}

/** `event`: what the guard has recorded of it. Pure. */
export function explainSeen(
  kernel: KernelFacts,
  { situation, other }: Looked,
  call: SeenRefusal,
  event: GuardEvent | undefined,
): Explanation {
  const observed = { ...call, event }
  return other === undefined
    ? explainCall(kernel, situation, call.need!, observed)
    : explainOther(kernel, situation, other, observed)
}

/** Errnos of a request that nobody waits after, since no process could do better. */
const MALFORMED = ['EINVAL', 'E2BIG']

/** Of a call by a process that nothing is known of. Pure. */
export function explainUnseen({ command, attachType, need, errno, reached }: SeenRefusal): Explanation {
  const isMalformed = MALFORMED.includes(errno!) && command !== 'prog_load'
  const cause = !reached ? 'seccomp' : isMalformed ? 'request' : 'unknown'
  return {
    call:
      need === undefined ? `${command}${attachType === undefined ? '' : ` ${attachType}`}` : callText(need),
    ...{ verdict: 'refused', errno, cause },
    ...(cause === 'request'
      ? { needed: 'a request that this kernel takes', found: errno! }
      : { needed: 'to look at the process while it lives', found: 'it had ended' }),
    capabilities: need === undefined ? [] : neededCapabilities(need),
    ...{ policy: undefined, bpffs: undefined, notes: [], checks: [] },
  }
}
