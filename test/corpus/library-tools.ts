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
const SYSTEM_SERVICE =
  'The service itself runs as root and asks for no token; the policy is for its program in a service that does not'

const libbpfTool = (name: string, does: string, cannot: readonly string[] = []): Tool => ({
  name: `libbpf-tools-${name}`,
  does,
  package: 'libbpf-tools',
  version: LIBBPF_TOOLS,
  files: [`${name}-libbpf`],
  cannot: [WHOLE_HOST, ...cannot],
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
  {
    name: 'knot',
    does: 'the XDP socket filter of Knot DNS (libknot)',
    package: 'libknot16',
    version: '3.5.8-1',
    files: ['libknot.so.16.0.0'],
    cannot: [AF_XDP, OTHERS_DEVICES],
  },
  libbpfTool('biolatency', 'how long block I/O takes, as a histogram'),
  libbpfTool('bitesize', 'how large block I/O is, by process'),
  libbpfTool('drsnoop', 'who waits for memory to be reclaimed'),
  libbpfTool('hardirqs', 'time in hard interrupts'),
  libbpfTool('runqlat', 'how long tasks wait for a CPU, as a histogram'),
  libbpfTool('runqslower', 'tasks that wait for a CPU longer than some time'),
  libbpfTool('softirqs', 'time in soft interrupts'),
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
  {
    name: 'xdpdump',
    does: 'the program of xdpdump for devices that have no XDP program yet',
    package: 'libxdp1',
    version: XDP_TOOLS,
    files: ['xdpdump_xdp.o'],
    cannot: [
      'Watching programs of others: it is done by fentry and fexit programs that name the other program, which is opened by id; that asks for CAP_SYS_ADMIN on the host',
      OTHERS_DEVICES,
    ],
  },
]

/** Tools that have no policy here. */
export const WITHOUT: readonly (readonly [tool: string, why: string])[] = [
  [
    'bpftrace, BCC in Python',
    'Programs are made when the tool runs, so that no file shows what they need. kprobe, uprobe, tracepoint, profile and interval probes are attached by perf events: perf_event_open(2) asks for CAP_PERFMON on the host and no token. `bpftoken record` shows what a script asks for',
  ],
  [
    'libbpf-tools: bashreadline, bindsnoop, biopattern, execsnoop, exitsnoop, filelife, filetop, gethostlatency, javagc, ksnoop, llcstat, mountsnoop, oomkill, opensnoop, runqlen, sigsnoop, slabratetop, statsnoop, syncsnoop, syscount, tcpconnect, tcplife, tcpstates, tcptop, tcptracer',
    'They load under a token, but all their programs are attached by perf events (above), so that a policy would lend much and be of no use',
  ],
  ['libbpf-tools: biotop, cpufreq', 'As above for those of their programs without which they show nothing'],
  [
    'systemd-nsresourced, systemd RestrictFileSystems=, ceccomp, pwru',
    'LSM, fentry and fexit programs do not load on the machine on which this library is checked; such a right is as good as root, too',
  ],
  [
    'ir-keytable, rtc-testbench',
    "Their sections have names that today's libbpf does not know: it does not load them, whatever is lent",
  ],
  [
    'bpfilter, scx',
    'No package at hand has their programs as objects: bpfilter writes its code when it runs, and Debian has no scx. `bpftoken record` and `bpftoken plan` make their policies; struct_ops for sched_ext is rated critical',
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
