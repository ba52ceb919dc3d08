/** A call for which no token is asked, as it is said on a command line. */
import { ATTACH_TYPES } from '../ebpf/type-names.ts'
import { UsageError } from '../errors.ts'
import { pinPlaceOf } from '../lending/causes/pin-place.ts'
import { ATTACH_CALLS, HOST_CALLS, type OtherCall, PIN_CALLS } from '../lending/other-call.ts'

/** `obj_get /sys/fs/bpf/flows`, as the process finds it. UsageError: it is none. */
export async function otherCallOf(words: readonly string[], pid: number): Promise<OtherCall> {
  const [first, given, ...rest] = words
  const named = <T extends string>(names: readonly T[]): T | undefined => names.find(name => name === first)
  const host = named([...HOST_CALLS, 'perf_event_open'] as const)
  if (host !== undefined && given === undefined) return { cmd: host }
  const attaching = named(ATTACH_CALLS)
  if (attaching !== undefined && given !== undefined && rest.length === 0)
    return { cmd: attaching, attachType: attachType(given) }
  const pinning = named(PIN_CALLS)
  if (pinning !== undefined && given !== undefined && rest.length === 0)
    return { cmd: pinning, place: await pinPlaceOf(pid, given) }
  throw new UsageError(`Not a call: ${words.join(' ')}`, {
    hint: 'Say link_create, prog_attach, prog_detach or prog_query ATTACH-TYPE, obj_pin or obj_get PATH, or another command alone',
  })
}

function attachType(word: string): number {
  try {
    return ATTACH_TYPES.number(word as never)
  } catch (cause) {
    throw new UsageError(`Not a call: ${(cause as Error).message}`, { cause })
  }
}
