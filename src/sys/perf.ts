/** perf_event_open(2), for the events that programs attach to and those that they write to. */
import { check } from './failure.ts'
import { Fd } from './fd.ts'
import { native } from './native.ts'

const PERF_FLAG_FD_CLOEXEC = 8
/** PERF_ATTR_SIZE_VER5. */
const ATTR_BYTES = 112
/** _IOW('$', 9, __u32) */
const PERF_EVENT_IOC_PAUSE_OUTPUT = 0x4004_2409

/** Bits of the flags @40, which are bit fields in C. */
const EXCLUDE_KERNEL = 1n << 5n
const EXCLUDE_HV = 1n << 6n
const FREQUENCY = 1n << 10n
const WATERMARK = 1n << 14n
const WRITE_BACKWARD = 1n << 27n

/** struct perf_event_attr, as far as it is used here (include/uapi/linux/perf_event.h). */
export interface PerfEvent {
  /** PERF_TYPE_*, or the number of a dynamic PMU in /sys/bus/event_source/devices. u32 @0 */
  readonly type: number
  /** u64 @8 */
  readonly config: bigint
  /** kprobe_func or uprobe_path: a pointer to this text. u64 @56 */
  readonly text?: string
  /** kprobe_addr or probe_offset. u64 @64 */
  readonly off?: bigint
  /** Sample each so many events. u64 @16 */
  readonly samplePeriod?: bigint
  /** Sample so many times a second, instead. */
  readonly sampleFrequency?: bigint
  /** PERF_SAMPLE_*: what a sample holds. u64 @24 */
  readonly sampleType?: bigint
  /** Wake who waits after so many events, or once so many bytes are there. u32 @48 */
  readonly wakeup?: { readonly events: number } | { readonly bytes: number }
  /** Only what happens in user mode, which wants less of a right. */
  readonly userOnly?: boolean
  /** The ring is written from its end, and never stops for a reader. */
  readonly writeBackward?: boolean
}

/**
 * Opens an event of process `pid` (-1: all) on `cpu` (-1: all; one of both must be given). EACCES:
 * the event wants CAP_PERFMON in the initial user namespace, or kernel.perf_event_paranoid forbids
 * it. The caller closes it.
 */
export function perfEventOpen(event: PerfEvent, pid: number, cpu: number, object: string): Fd {
  const attr = new Uint8Array(ATTR_BYTES)
  const view = new DataView(attr.buffer)
  view.setUint32(0, event.type, true)
  view.setUint32(4, ATTR_BYTES, true)
  view.setBigUint64(8, event.config, true)
  view.setBigUint64(16, event.sampleFrequency ?? event.samplePeriod ?? 0n, true)
  view.setBigUint64(24, event.sampleType ?? 0n, true)
  view.setBigUint64(40, flagsOf(event), true)
  const { wakeup } = event
  if (wakeup !== undefined) view.setUint32(48, 'bytes' in wakeup ? wakeup.bytes : wakeup.events, true)
  view.setBigUint64(64, event.off ?? 0n, true)
  const refs = event.text === undefined ? [] : [attr, 56, new TextEncoder().encode(`${event.text}\0`)]
  const result = native().perf_event_open(attr, pid, cpu, -1, PERF_FLAG_FD_CLOEXEC, ...refs)
  return new Fd(check('perf_event_open', 'perf_event_open', result, object))
}

function flagsOf({ sampleFrequency, wakeup, userOnly, writeBackward }: PerfEvent): bigint {
  let flags = 0n
  if (sampleFrequency !== undefined) flags |= FREQUENCY
  if (wakeup !== undefined && 'bytes' in wakeup) flags |= WATERMARK
  if (userOnly === true) flags |= EXCLUDE_KERNEL | EXCLUDE_HV
  if (writeBackward === true) flags |= WRITE_BACKWARD
  return flags
}

/** Nothing is written into the event's ring until it goes on. Since Linux 4.7. */
export function pausePerfOutput(event: Fd, paused: boolean): void {
  // The argument is a number here, not an address: any address means yes.
  const argument = paused ? new Uint8Array(1) : null
  check(
    'ioctl',
    'PERF_EVENT_IOC_PAUSE_OUTPUT',
    native().ioctl(event.number, PERF_EVENT_IOC_PAUSE_OUTPUT, argument),
  )
}
