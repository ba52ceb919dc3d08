/** Links on perf events, by which probes, tracepoints and counters run programs. */
import { linkCreate } from '../../sys/bpf.ts'
import { type PerfEvent, perfEventOpen } from '../../sys/perf.ts'
import { Link } from '../link.ts'
import type { Program } from '../prog.ts'
import { ATTACH_TYPES } from '../type-names.ts'

/** A BPF link on a perf event; since Linux 5.15. The link holds the event. */
export function attachPerf(
  program: Program,
  event: PerfEvent,
  pid: number,
  cpu: number,
  object: string,
  cookie = 0n,
): Link {
  using fd = perfEventOpen(event, pid, cpu, object)
  const attr = { prog_fd: program.fd.number, target_fd: fd.number, perf_event_bpf_cookie: cookie }
  return new Link(linkCreate({ ...attr, attach_type: ATTACH_TYPES.number('perf_event') }, {}, object))
}
