/** perf_event_open(2), for the events that programs attach to. */
import { check } from './failure.ts'
import { Fd } from './fd.ts'
import { native } from './native.ts'

const PERF_FLAG_FD_CLOEXEC = 8
/** PERF_ATTR_SIZE_VER5. */
const ATTR_BYTES = 112

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
  view.setBigUint64(16, event.samplePeriod ?? 0n, true)
  view.setBigUint64(64, event.off ?? 0n, true)
  const refs = event.text === undefined ? [] : [attr, 56, new TextEncoder().encode(`${event.text}\0`)]
  const result = native().perf_event_open(attr, pid, cpu, -1, PERF_FLAG_FD_CLOEXEC, ...refs)
  return new Fd(check('perf_event_open', 'perf_event_open', result, object))
}
