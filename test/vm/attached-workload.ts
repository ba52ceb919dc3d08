/**
 * Runs inside a sandbox, under the token of /sys/fs/bpf: attaches a counting program for each kind
 * that its arguments name, and prints their ids as JSON. The first argument is the directory of a
 * cgroup. For each line on stdin it sends a datagram over loopback and prints the counts. For the
 * line `again` it attaches each program once more and prints how that went.
 */

import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { atomic, exit, ldMapValue, mov64, R0, R1, R2 } from '../../src/ebpf/asm/insn.ts'
import {
  attachCgroup,
  attachNetfilter,
  attachRawTracepoint,
  attachSocketFilter,
  attachTcx,
  attachXdp,
} from '../../src/ebpf/attach/attach.ts'
import { attachStructOpsMap } from '../../src/ebpf/attach/section.ts'
import { attachTrampoline } from '../../src/ebpf/attach/trace.ts'
import { findKernelType } from '../../src/ebpf/kernel/type.ts'
import { Link } from '../../src/ebpf/link.ts'
import { loadObject } from '../../src/ebpf/load/object.ts'
import { BpfMap } from '../../src/ebpf/map.ts'
import { parseObject } from '../../src/ebpf/object/spec.ts'
import { Program, type ProgramSpec } from '../../src/ebpf/prog.ts'
import { socket } from '../../src/sys/socket.ts'
import { datagram } from '../helpers/datagram.ts'
import { ROOT } from '../helpers/machine.ts'
import { errnoOf } from './guarded.ts'

export type WorkloadKind =
  | 'xdp'
  | 'tcx'
  | 'netfilter'
  | 'cgroup'
  | 'struct_ops'
  | 'registered'
  | 'raw_tp'
  | 'fentry'
  | 'pinned'
  | 'socket'

/** Ids, by kind. A socket filter has no link, and only its socket holds its program. */
export interface Attached {
  readonly map: number
  readonly programs: Partial<Record<WorkloadKind, number>>
  readonly links: Partial<Record<WorkloadKind, number>>
}

export type Counts = Partial<Record<WorkloadKind, number>>

const LOOPBACK = 1
const AF_INET = 2
const SOCK_DGRAM = 2
const [cgroup = '', ...kinds] = process.argv.slice(2) as [string, ...WorkloadKind[]]
/** Whatever is attached stays, until this process ends. */
const kept: Disposable[] = []
const loaded: { kind: WorkloadKind; program: Program }[] = []

interface Kind {
  readonly verdict: number
  readonly program: () => Omit<ProgramSpec, 'insns'>
  readonly attach: (program: Program) => Link | undefined
}

const KINDS: Partial<Record<WorkloadKind, Kind>> = {
  xdp: {
    verdict: 2,
    program: () => ({ type: 'xdp', expectedAttachType: 'xdp' }),
    attach: program => attachXdp(program, { ifindex: LOOPBACK, mode: 'skb' }),
  },
  tcx: {
    verdict: -1,
    program: () => ({ type: 'sched_cls', expectedAttachType: 'tcx_ingress' }),
    attach: program => attachTcx(program, { ifindex: LOOPBACK, direction: 'ingress' }),
  },
  netfilter: {
    verdict: 1,
    program: () => ({ type: 'netfilter', expectedAttachType: 'netfilter' }),
    attach: program => attachNetfilter(program, { family: 'ipv4', hook: 'localIn', priority: -100 }),
  },
  cgroup: {
    verdict: 1,
    program: () => ({ type: 'cgroup_skb', expectedAttachType: 'cgroup_inet_egress' }),
    attach: program => attachCgroup(program, { cgroup, attachType: 'cgroup_inet_egress' }),
  },
  raw_tp: {
    verdict: 0,
    program: () => ({ type: 'raw_tracepoint' }),
    attach: program => attachRawTracepoint(program, 'sys_enter'),
  },
  pinned: {
    verdict: 0,
    program: () => ({ type: 'raw_tracepoint' }),
    attach: program => {
      const link = attachRawTracepoint(program, 'sys_exit')
      link.pin('/sys/fs/bpf/link')
      return link
    },
  },
  fentry: {
    verdict: 0,
    program: () => ({
      type: 'tracing',
      expectedAttachType: 'trace_fentry',
      attachBtfId: findKernelType('vfs_open', 'func')!.id,
    }),
    attach: program => attachTrampoline(program, { attachType: 'trace_fentry' }),
  },
  socket: {
    verdict: -1,
    program: () => ({ type: 'socket_filter' }),
    attach: program => {
      const silent = socket(AF_INET, SOCK_DGRAM, 0)
      kept.push(silent)
      attachSocketFilter(silent, program)
      program.close()
      return undefined
    },
  },
}

/** counts[kind] += 1; return `verdict` */
function counting(counts: BpfMap, kind: WorkloadKind, verdict: number) {
  return [
    ldMapValue(R1, counts.fd.number, 8 * kinds.indexOf(kind)),
    mov64(R2, 1),
    atomic('add', 'u64', R1, 0, R2),
    mov64(R0, verdict),
    exit(),
  ]
}

/** Registers a congestion control, by a link or by updating the map alone. */
async function attachStructOps(map: 'linked' | 'unlinked'): Promise<Link | undefined> {
  const spec = parseObject(readFileSync(join(ROOT, 'test/fixtures/congestion.bpf.o')), { name: 'congestion' })
  const maps = { linked: { create: map === 'linked' }, unlinked: { create: map === 'unlinked' } }
  const object = await loadObject(spec, { maps })
  kept.push(object)
  const made = attachStructOpsMap(object, map)
  // A registration stays by itself.
  return made instanceof Link ? made : undefined
}

async function attachAll(counts: BpfMap): Promise<Attached> {
  const attached: Attached = { map: counts.info().id, programs: {}, links: {} }
  for (const kind of kinds) {
    let link: Link | undefined
    if (kind === 'struct_ops' || kind === 'registered')
      link = await attachStructOps(kind === 'registered' ? 'unlinked' : 'linked')
    else {
      const { verdict, program: spec, attach } = KINDS[kind]!
      const insns = counting(counts, kind, verdict)
      const program = await Program.load({ license: 'GPL', name: kind, ...spec(), insns })
      kept.push(program)
      loaded.push({ kind, program })
      attached.programs[kind] = program.info().id
      link = attach(program)
    }
    if (link === undefined) continue
    kept.push(link)
    attached.links[kind] = link.info().id
  }
  return attached
}

/** Attaches and detaches at once: `ok` or the errno's name. */
function attachAgain({ kind, program }: (typeof loaded)[number]): string {
  return errnoOf(() => KINDS[kind]!.attach(program)?.close())
}

async function main(): Promise<void> {
  execFileSync('ip', ['link', 'set', 'lo', 'up'])
  const counts = BpfMap.create({
    type: 'array',
    keyBytes: 4,
    valueBytes: 8 * kinds.length,
    maxEntries: 1,
    name: 'counts',
  })
  kept.push(counts)
  const say = (value: unknown): void => {
    process.stdout.write(`${JSON.stringify(value)}\n`)
  }
  say(await attachAll(counts))
  for await (const line of createInterface({ input: process.stdin })) {
    if (line === 'again') {
      say(Object.fromEntries(loaded.map(one => [one.kind, attachAgain(one)])))
      continue
    }
    await datagram()
    // Opening a file runs vfs_open, where the fentry program is.
    readFileSync('/proc/self/stat')
    const values = new DataView(counts.lookup(0)!.buffer)
    say(Object.fromEntries(kinds.map((kind, index) => [kind, Number(values.getBigUint64(8 * index, true))])))
  }
}

void main()
