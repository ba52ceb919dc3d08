/**
 * The tools of `examples/policies/library/`: which objects of the corpus are theirs, and what no
 * policy can give them. Facts about them that an object shows are not here.
 */
import { readFileSync } from 'node:fs'
import { basename } from 'node:path'
import { type ObjectSpec, parseObject } from '../../src/ebpf/object/spec.ts'
import { corpusFile, corpusObjects, type Occurrence } from './corpus.ts'

export interface Tool {
  /** Of the policy, and of its file. */
  readonly name: string
  /** What it is for, as one sentence without a full stop. */
  readonly does: string
  /** Debian's package and its version. */
  readonly package: string
  readonly version: string
  /** Files of the package, without their directories; `FILE@0xOFF` is one object inside a file. */
  readonly files: readonly string[]
  /**
   * The programs that it loads with a token; undefined: all. Some tools try kinds of programs by calls
   * that name no token, and go without those that are refused.
   */
  readonly programs?: readonly string[]
  /** What a workload cannot have by this policy, and why. */
  readonly cannot: readonly string[]
}

export interface ToolObject {
  readonly hash: string
  /** File of the package, with `@0xOFF` where it is inside it. */
  readonly name: string
  readonly bytes: Buffer
  readonly spec: ObjectSpec
}

const XDP_TOOLS = '1.6.3-1'
const LIBBPF_TOOLS = '0.37.0+ds-8'
const PCP = '6.3.8-1'

const FILTERS = ['alw', 'dny'].flatMap(list =>
  ['all', 'eth', 'ip', 'tcp', 'udp'].map(what => `xdpfilt_${list}_${what}.o`),
)
const DISPATCHER =
  'Several programs on one device: the dispatcher is replaced piece by piece with programs of the type ext, and the dispatcher is opened by id, which asks for CAP_SYS_ADMIN on the host'
const OTHERS_DEVICES = 'Devices of the host: the policy is for a network namespace of its own'
const AF_XDP = 'AF_XDP sockets ask for CAP_NET_RAW in the network namespace, which is no matter of bpf(2)'
const WHOLE_HOST =
  'A view of its own processes alone: a tracing program sees the whole host and reads kernel memory. The guard can hold programs of the type tracing to named tracepoints, by targets.functions, and then the type raw_tracepoint must go'
const WHOLE_HOST_UNHELD =
  'A view of its own processes alone: a tracing program sees the whole host and reads kernel memory, and the guard cannot hold programs of the type raw_tracepoint to some tracepoints'
const SYMBOLS = 'Names of kernel functions in its stacks: /proc/kallsyms shows their addresses to root alone'
const SYSTEM_SERVICE =
  'The service itself runs as root and asks for no token; the policy is for its program in a service that does not'

const libbpfTool = (
  name: string,
  does: string,
  { programs, cannot = [] }: Partial<Pick<Tool, 'programs' | 'cannot'>> = {},
): Tool => ({
  name: `libbpf-tools-${name}`,
  does,
  package: 'libbpf-tools',
  version: LIBBPF_TOOLS,
  files: [`${name}-libbpf`],
  ...(programs === undefined ? {} : { programs }),
  cannot: [programs === undefined ? WHOLE_HOST : WHOLE_HOST_UNHELD, ...cannot],
})

const recordedTool = (
  name: string,
  does: string,
  cannot: readonly string[],
): Omit<Tool, 'files' | 'programs'> => ({
  name: `libbpf-tools-${name}`,
  does,
  package: 'libbpf-tools',
  version: LIBBPF_TOOLS,
  cannot,
})

export const TOOLS: readonly Tool[] = [
  {
    name: 'bpftool-prog-load',
    does: 'bpftool prog load of plain XDP programs, as xdp-tools has them for its tests',
    package: 'xdp-tests',
    version: XDP_TOOLS,
    files: ['xdp_drop.o', 'xdp_pass.o', 'xdp_adjust_tail.o'],
    cannot: [
      'bpftool prog show, map show, net and what else looks for objects by their ids: *_GET_NEXT_ID and *_GET_FD_BY_ID ask for CAP_SYS_ADMIN on the host',
      OTHERS_DEVICES,
    ],
  },
  libbpfTool('biolatency', 'how long block I/O takes, as a histogram', {
    programs: ['block_rq_insert', 'block_rq_issue', 'block_rq_complete'],
  }),
  libbpfTool('bitesize', 'how large block I/O is, by process'),
  libbpfTool('hardirqs', 'time in hard interrupts', {
    programs: ['irq_handler_entry', 'irq_handler_exit'],
  }),
  libbpfTool('runqlat', 'how long tasks wait for a CPU, as a histogram', {
    programs: ['handle_sched_wakeup', 'handle_sched_wakeup_new', 'handle_sched_switch'],
  }),
  libbpfTool('softirqs', 'time in soft interrupts', { programs: ['softirq_entry', 'softirq_exit'] }),
  {
    name: 'networkmanager',
    does: 'the tcx programs by which NetworkManager translates IPv4 where the network has IPv6 alone (CLAT)',
    package: 'network-manager',
    version: '1.58.1-1',
    files: ['NetworkManager'],
    cannot: [SYSTEM_SERVICE, OTHERS_DEVICES],
  },
  {
    name: 'nsd-xdp',
    does: "the program that redirects DNS queries to NSD's AF_XDP sockets",
    package: 'nsd',
    version: '4.15.4-1',
    files: ['xdp-dns-redirect_kern.o', 'xdp-dns-redirect_kern_pinned.o'],
    cannot: [AF_XDP, OTHERS_DEVICES],
  },
  {
    name: 'oar-devices',
    does: 'the device controller of OAR for the cgroups of jobs',
    package: 'oar-common',
    version: '2.6.1-1.1',
    files: ['oarcgdev.bpf'],
    cannot: [
      'Cgroups of others: the guard holds to cgroups: own, and without it every cgroup can be attached to whose directory can be opened',
    ],
  },
  {
    name: 'pcp-biolatency',
    does: "block I/O's latencies for Performance Co-Pilot (pmdabpf)",
    package: 'pcp',
    version: PCP,
    files: ['biolatency.so'],
    cannot: [WHOLE_HOST],
  },
  {
    name: 'pcp-runqlat',
    does: "waiting times of the scheduler's queues for Performance Co-Pilot (pmdabpf)",
    package: 'pcp',
    version: PCP,
    files: ['runqlat.so'],
    cannot: [WHOLE_HOST],
  },
  {
    name: 'qemu-rss',
    does: 'the receive-side scaling of virtio-net in QEMU, which is attached to its tap device',
    package: 'qemu-system-x86',
    version: '1:11.1.3+ds-1',
    files: ['qemu-system-x86_64'],
    cannot: [
      'The tap device: whoever starts QEMU opens it, as ever. The program is attached by an ioctl(2) of the device, which asks no token',
    ],
  },
  {
    name: 'suricata',
    does: 'the XDP filter and load balancer of Suricata for AF_PACKET capture',
    package: 'suricata',
    version: '1:8.0.7-2',
    files: ['xdp_filter.bpf', 'xdp_lb.bpf'],
    cannot: [
      'Its socket filters (filter.bpf, bypass_filter.bpf, vlan_filter.bpf, lb.bpf): their sections have names that libbpf does not know, and Suricata gives the type itself. Add socket_filter and cgroup_inet_ingress for them',
      'Capture needs CAP_NET_RAW in the network namespace, which is no matter of bpf(2)',
      OTHERS_DEVICES,
    ],
  },
  {
    name: 'systemd-networkd',
    does: "systemd-networkd's guard of the sysctls that it has set",
    package: 'systemd',
    version: '262.1-1',
    files: ['systemd-networkd'],
    cannot: [
      SYSTEM_SERVICE,
      'The root cgroup, to which networkd attaches it: a workload has directories of its own cgroups only',
    ],
  },
  {
    name: 'systemd-bind-network-interface',
    does: "systemd's BindNetworkInterface=: sockets of a unit are bound to a device",
    package: 'libsystemd-shared',
    version: '262.1-1',
    files: ['libsystemd-core-262.so@0x1fa068'],
    cannot: [
      SYSTEM_SERVICE,
      'RestrictFileSystems= and the mounts of DeviceAllow are LSM programs for the whole host, which is as good as root',
      'SocketBindAllow= and RestrictNetworkInterfaces= are not here: systemd sizes their maps when it runs, so that their objects do not load as they are',
    ],
  },
  {
    name: 'xdp-filter',
    does: 'xdp-filter: drop packets by address, port and protocol',
    package: 'libxdp1',
    version: XDP_TOOLS,
    files: FILTERS,
    cannot: [
      DISPATCHER,
      'xdp-filter status and unload of programs that other processes loaded: they are looked up by id, which asks for CAP_SYS_ADMIN on the host',
      OTHERS_DEVICES,
    ],
  },
  {
    name: 'xdp-forward',
    does: 'xdp-forward in the mode fib: forward packets by the routing table',
    package: 'xdp-tools',
    version: XDP_TOOLS,
    files: ['xdp-forward@0x26c80'],
    cannot: [
      'The modes that use flow tables: they call bpf_xdp_flow_lookup, a function of a kernel module, whose types are opened by id. That takes btf_get_fd_by_id and sys_admin, and the module',
      DISPATCHER,
      OTHERS_DEVICES,
    ],
  },
  {
    name: 'xdp-loader',
    does: "xdp-loader: the objects that libxdp brings for the loading of others', which come with their own rights",
    package: 'libxdp1',
    version: XDP_TOOLS,
    files: ['xdp-dispatcher.o', 'xsk_def_xdp_prog.o', 'xsk_def_xdp_prog_5.3.o'],
    cannot: [DISPATCHER, OTHERS_DEVICES],
  },
]

/**
 * Tools whose programs are in no file, or in one that does not load before the tool has sized its
 * maps: their policies are what `record` saw, by test/programs.ts.
 */
export const RECORDED_TOOLS: readonly Omit<Tool, 'files' | 'programs'>[] = [
  recordedTool('cpudist', 'how long tasks stay on a CPU, as a histogram', [WHOLE_HOST_UNHELD]),
  recordedTool('offcputime', 'why and how long tasks are off the CPU, by stack', [
    WHOLE_HOST_UNHELD,
    SYMBOLS,
  ]),
  recordedTool('wakeuptime', 'who wakes blocked tasks, and how long they were blocked', [
    WHOLE_HOST,
    SYMBOLS,
  ]),
  {
    name: 'bpfilter-xdp',
    does: 'bpfilter --with-bpf-token: an XDP chain with counters, which the daemon writes when it runs',
    package: 'bpfilter',
    version: '0.6.0-2',
    cannot: [
      'Other hooks and sets: chains for tc, cgroups and netfilter, and rules with sets, have other types. Record a run with them',
      'Types of its maps: the kernel refuses what it has for btf_load, for root too, and it goes on',
      OTHERS_DEVICES,
    ],
  },
]

/** Tools that have no policy here. */
export const WITHOUT: readonly (readonly [tool: string, why: string])[] = [
  [
    'bpftrace 0.27',
    "kprobe, uprobe, tracepoint, profile and interval probes are attached by perf events: perf_event_open(2) asks for CAP_PERFMON on the host and no token. It reads tracefs, which is root's. Where that is opened to the workload (mount -o remount,mode=755,gid=N), BEGIN and END probes work; for rawtracepoint it lists the types of modules by btf_get_next_id, which is refused, and then finds nothing to attach to",
  ],
  [
    'bpftrace 0.23 (Debian 13), BCC in Python',
    'bpftrace tries for a ring buffer without its token, and then takes a perf event array, which it reads from perf events: none of its probes works. BCC compiles its programs when it runs and loads them by calls of its own; it was not run',
  ],
  [
    'libbpf-tools: bashreadline, bindsnoop, biopattern, biotop, cachestat, capable, cpufreq, execsnoop, exitsnoop, filetop, futexctn, gethostlatency, killsnoop, klockstat, llcstat, mdflush, memleak, numamove, profile, readahead, runqlen, sigsnoop, slabratetop, solisten, syncsnoop, syscount, tcpconnect, tcpconnlat, tcplife, tcprtt, tcpstates, tcpsynbl, tcptop, tcptracer, vfsstat',
    'They load under a token, and attach by perf events (above): "-EACCES" is what they say. Some would attach by fentry where they could try it with their token',
  ],
  [
    'libbpf-tools: drsnoop, runqslower, statsnoop',
    'They try for a ring buffer without their token, and then take a perf event array, which is read from perf events',
  ],
  [
    'libbpf-tools: filelife, mountsnoop, oomkill, opensnoop, tcppktlat; biosnoop, biostacks',
    'They do not load with any token: the first five take a program for a ring buffer and a map without one (EINVAL), the last two by fentry programs, which the machine on which this was tried loads for nobody',
  ],
  [
    'knot (knotd, kxdpgun) with XDP',
    'Its program loads and is attached under a token. Then libknot opens the maps of its own program by their ids: map_get_fd_by_id asks for CAP_SYS_ADMIN on the host',
  ],
  [
    'xdpdump',
    'Its packets come through a perf event array, which is read from perf events. For programs of others it opens these by id, which asks for CAP_SYS_ADMIN on the host',
  ],
  [
    'systemd-nsresourced, systemd RestrictFileSystems=, ceccomp, pwru',
    'LSM, fentry and fexit programs do not load on the machine on which this library is checked; such a right is as good as root, too',
  ],
  [
    'ir-keytable, rtc-testbench',
    "Their sections have names that today's libbpf does not know: it does not load them, whatever is lent",
  ],
  [
    'scx',
    'Debian has no scx. `bpftoken record` and `bpftoken plan` make its policies; struct_ops for sched_ext is rated critical',
  ],
]

/** The objects of a tool, in the order of its files; empty where the corpus does not have them. */
export function objectsOf({ files, ...tool }: Tool, corpus = corpusObjects()): ToolObject[] {
  const found = corpus.flatMap(object => {
    const place = object.found.find(
      place => place.package === tool.package && place.version === tool.version && indexIn(files, place) >= 0,
    )
    return place === undefined ? [] : [{ object, place }]
  })
  return found
    .sort(
      (a, b) => indexIn(files, a.place) - indexIn(files, b.place) || (a.object.hash < b.object.hash ? -1 : 1),
    )
    .map(({ object: { hash }, place }) => {
      const bytes = readFileSync(corpusFile({ hash }))
      return { hash, name: placeName(place), bytes, spec: parseObject(bytes, { name: 'object' }) }
    })
}

function indexIn(files: readonly string[], place: Occurrence): number {
  return files.findIndex(file => [basename(place.path), placeName(place)].includes(file))
}

function placeName({ path, off = 0 }: Occurrence): string {
  return `${basename(path)}${off === 0 ? '' : `@0x${off.toString(16)}`}`
}
