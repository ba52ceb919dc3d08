/**
 * The probes of loaders: small programs, maps and types by which they find out what the kernel can
 * do. Pure data.
 *
 * Probes are made with the token. A refused one is taken for a kernel that lacks the feature, and
 * the load fails later for an unrelated reason, or does something else. Listed are those whose
 * refusal changes a load; those that cost a name, a warning or the way of attaching are not. Read
 * in: libbpf f7081a6b (after 1.7), src/features.c and src/libbpf.c; cilium/ebpf 5ba0b3b (after
 * 0.22), syscalls.go, btf/feature.go, prog.go, linker.go; aya 875daf97 (after 0.13),
 * aya/src/kernel_features.rs and aya/src/sys/bpf.rs.
 */

import type { ObjectSpec } from '../ebpf/object/spec.ts'
import { type Need, neededCapabilities } from '../ebpf/rights.ts'
import type { CapabilityName } from '../uapi/constants.ts'
import { chosenPrograms, isGlobalData, type ObjectNeed, readsByProbe, useGlobalData } from './object.ts'

export const LOADERS = ['libbpf', 'cilium-ebpf', 'aya', 'bpftoken'] as const
export type Loader = (typeof LOADERS)[number]

/** A command that a loader gives on its own account. */
export interface LoaderNeed {
  readonly need: Need
  /** The purpose, and what happens without the right. */
  readonly why: string
  readonly capabilities: readonly CapabilityName[]
  /** False: some versions, or some loads, do without. */
  readonly certain: boolean
}

const SOCKET_FILTER: Need = { cmd: 'prog_load', progType: 'socket_filter' }
const TRACEPOINT: Need = { cmd: 'prog_load', progType: 'tracepoint' }
const KPROBE: Need = { cmd: 'prog_load', progType: 'kprobe' }
const UPROBE_MULTI: Need = { cmd: 'prog_load', progType: 'kprobe', attachType: 'trace_uprobe_multi' }
const ARRAY: Need = { cmd: 'map_create', mapType: 'array' }

/** The facts about an object that decide which probes are made. */
interface Facts {
  readonly spec: ObjectSpec
  readonly needs: readonly ObjectNeed[]
  readonly globalData: boolean
  /** A program uses some of it. */
  readonly usesData: boolean
  readonly readsByProbe: boolean
  readonly usdt: boolean
  readonly cookie: boolean
}

/** What the loader asks for in addition to `needs`, the result of objectNeeds(). */
export function loaderNeeds(
  loader: Loader,
  spec: ObjectSpec,
  needs: readonly ObjectNeed[],
  programs?: readonly string[],
): LoaderNeed[] {
  if (loader === 'bpftoken') return []
  const chosen = chosenPrograms(spec, programs)
  const facts: Facts = {
    spec,
    needs,
    globalData: spec.maps.some(isGlobalData),
    usesData: useGlobalData(spec, chosen),
    readsByProbe: chosen.some(program => readsByProbe(spec, program)),
    usdt: needs.some(({ rule }) => rule?.autoAttach === 'usdt'),
    cookie: spec.externs.some(({ name }) => name === 'LINUX_HAS_BPF_COOKIE'),
  }
  return PROBES[loader](facts)
}

const PROBES: Readonly<Record<Exclude<Loader, 'bpftoken'>, (facts: Facts) => LoaderNeed[]>> = {
  libbpf: libbpfProbes,
  'cilium-ebpf': ciliumProbes,
  aya: ayaProbes,
}

function probe(need: Need, certain: boolean, why: string): LoaderNeed {
  return { need, why, certain, capabilities: neededCapabilities(need) }
}

function globalDataProbe(usesData: boolean): LoaderNeed {
  return probe(ARRAY, usesData, 'the probe of global data, without which it makes no such maps')
}

/** `by`: the program that the loader tries it with. */
function readKernelProbe(by: Need): LoaderNeed {
  return probe(by, false, 'the probe of bpf_probe_read_kernel, which it else replaces by bpf_probe_read')
}

function libbpfProbes({ globalData, usesData, readsByProbe, usdt, cookie }: Facts): LoaderNeed[] {
  const found = [
    // bpf_object__probe_loading: a socket filter or, where that is refused, a tracepoint program.
    // See settle() in src/needs/plan.ts.
    probe(
      SOCKET_FILTER,
      usesData,
      'the trivial program that libbpf up to 1.7 loads before any object, and its probes of names and global data',
    ),
  ]
  // FEAT_GLOBAL_DATA, FEAT_ARRAY_MMAP, FEAT_PROG_BIND_MAP
  if (globalData) found.push(globalDataProbe(usesData))
  // FEAT_PROBE_READ_KERN
  if (readsByProbe) found.push(readKernelProbe(TRACEPOINT))
  // FEAT_BPF_COOKIE
  if (cookie) found.push(probe(TRACEPOINT, false, 'the probe behind LINUX_HAS_BPF_COOKIE, which else is 0'))
  // FEAT_UPROBE_MULTI_LINK
  if (usdt)
    found.push(
      probe(UPROBE_MULTI, false, 'the probe of multi-uprobes, which its USDT programs are then loaded for'),
    )
  return found
}

function ciliumProbes({ needs, readsByProbe }: Facts): LoaderNeed[] {
  const found: LoaderNeed[] = []
  if (needs.some(({ rule }) => rule !== undefined))
    // haveProgramExtInfos
    found.push(
      probe(SOCKET_FILTER, false, 'the probe of function and line information, which it else leaves out'),
    )
  // haveProbeReadKernel
  if (readsByProbe) found.push(readKernelProbe(KPROBE))
  // haveMapMutabilityModifiers and haveMmapableMaps are for maps of global data, which are arrays
  // anyway; haveObjName costs names; haveBTF and its kin ask for what the object's own types ask
  // for.
  return found
}

function ayaProbes({ spec, needs, globalData, usesData, readsByProbe }: Facts): LoaderNeed[] {
  const found: LoaderNeed[] = []
  if (needs.some(({ rule }) => rule !== undefined))
    found.push(probe(SOCKET_FILTER, usesData, 'the probes of program names and global data'))
  if (globalData) found.push(globalDataProbe(usesData))
  if (readsByProbe) found.push(readKernelProbe(TRACEPOINT))
  // DevMapProgId is probed with a devmap, for devmap_hash too; CpuMapProgId with the type itself.
  if (spec.maps.some(({ type, autocreate }) => type === 'devmap_hash' && autocreate))
    found.push(
      probe(
        { cmd: 'map_create', mapType: 'devmap' },
        false,
        'the probe of program ids in device maps, whose values are else too small for them',
      ),
    )
  return found
}

/**
 * Sections whose attach type libbpf drops when the kernel seems not to know attach types
 * (SEC_ATTACHABLE_OPT). The probe is a cgroup_sock program, which nobody would lend for it; the
 * programs are then loaded with attach type 0.
 */
const ATTACH_TYPE_OPTIONAL: ReadonlySet<string> = new Set([
  ...[
    'xdp',
    'sockops',
    'sk_skb/stream_parser',
    'sk_skb/stream_verdict',
    'sk_skb/verdict',
    'sk_msg',
    'lirc_mode2',
  ],
  ...['flow_dissector', 'cgroup_skb/ingress', 'cgroup_skb/egress', 'cgroup/sock', 'cgroup/dev'],
])

/** Whether libbpf may load the program of this need without its attach type. */
export function mayLoseAttachType({ rule }: ObjectNeed): boolean {
  return rule !== undefined && ATTACH_TYPE_OPTIONAL.has(rule.pattern)
}
