/** The guard's events: what it judged, who asked, and what it answered. Pure. */
import { nameFrom } from '../ebpf/object-name.ts'
import { recordBytes } from '../ebpf/ringbuf.ts'
import { ATTACH_TYPES, CMDS, MAP_TYPES, PROG_TYPES } from '../ebpf/type-names.ts'
import { FormatError } from '../errors.ts'
import { CAPABILITIES } from '../uapi/constants.ts'
import { type DelegationId, delegationIn } from './id.ts'
import { guard_event, POINTS, REASONS, VERDICTS } from './layout.ts'

export interface GuardEvent {
  /** Which one it is since the guard was installed, from 1. */
  readonly seq: number
  /** Nanoseconds since boot, sleep included. */
  readonly timeNs: bigint
  /** Undefined: no delegation. */
  readonly delegation: DelegationId | undefined
  readonly point: string
  readonly verdict: string
  readonly reason: string
  /** Task: process, thread, user id outside, name of the thread, id of its cgroup. */
  readonly pid: number
  readonly tid: number
  readonly uid: number
  readonly task: string
  readonly cgroup: bigint
  /** Of bpf(2), such as `map_create`. */
  readonly cmd: string | undefined
  /** Type of the map or program, the capability, or the attach type. */
  readonly type: string | undefined
  /** Of the map or program, or the beginning of an option or ability; `''`: none. */
  readonly name: string
  /**
   * With reason `full`: the delegation that has most of the records in the guard's table.
   * Undefined: none.
   */
  readonly holder: DelegationId | undefined
}

const NO_CMD = 0xffff_ffff
const NO_TYPE = 0xffff_ffff
const CAPABILITY_WORDS = new Map(
  Object.entries(CAPABILITIES).map(([name, number]) => [
    number as number,
    name.replace(/^CAP_/, '').toLowerCase(),
  ]),
)

function word(words: Readonly<Record<number, string>>, number: number): string {
  return words[number] ?? String(number)
}

/** In the ring: of each record alike, as all have one size. */
const BYTES_IN_RING = BigInt(recordBytes(guard_event.size))

/** One record of the ring buffer; `end`: where the next one begins there. */
export function decodeEvent(record: Uint8Array, end: bigint): GuardEvent {
  if (record.length < guard_event.size)
    throw new FormatError('guard event', `${record.length} bytes, not ${guard_event.size}`)
  const raw = guard_event.decode(record)
  const point = word(POINTS, raw.point!)
  return {
    seq: Number(end / BYTES_IN_RING),
    timeNs: raw.time_ns!,
    delegation: delegationIn(raw.delegation!),
    point,
    verdict: word(VERDICTS, raw.verdict!),
    reason: word(REASONS, raw.reason!),
    pid: raw.tgid!,
    tid: raw.tid!,
    uid: raw.uid!,
    task: nameFrom(raw.task),
    cgroup: raw.cgroup!,
    cmd: raw.cmd === NO_CMD ? undefined : CMDS.word(raw.cmd!),
    type: typeOf(point, raw.type!),
    name: nameFrom(raw.name),
    holder: delegationIn(raw.holder!),
  }
}

function typeOf(point: string, type: number): string | undefined {
  switch (point) {
    case 'map_create':
      return MAP_TYPES.word(type)
    case 'prog_load':
    case 'open':
      return PROG_TYPES.word(type)
    case 'attach':
    case 'detach':
      // All ones: the command names none.
      return type === NO_TYPE ? undefined : ATTACH_TYPES.word(type)
    case 'protect':
      // 0: a pin, not a map.
      return type === 0 ? undefined : MAP_TYPES.word(type)
    case 'token_capable':
      return CAPABILITY_WORDS.get(type) ?? String(type)
    default:
      return undefined
  }
}
