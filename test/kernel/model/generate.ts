/** Random cases, over all that the model is told. */
import type { File } from '../../../src/model/file.ts'
import { LSM_HOOKS, type LsmHook } from '../../../src/model/machine.ts'
import { MAP_TYPES } from '../../../src/model/map-types.ts'
import { ALL_CAPS, CAPS, CONTEXTS, type Lab, LONG_PROGRAM } from './lab.ts'
import { atEdge } from './map-edges.ts'
import type { Random } from './random.ts'
import type {
  AttachSpec,
  BpfSpec,
  BtfIdSpec,
  BtfSpec,
  GetSpec,
  HostSpec,
  IdSpec,
  MapSpec,
  PinName,
  PinSpec,
  ProgSpec,
  QuerySpec,
  TokenSpec,
} from './spec.ts'

/** In the attributes of a step there is room for a byte up to here. */
const LAST_BYTE = 191

export function generate(random: Random, lab: Lab): BpfSpec {
  const at = random.below(100)
  const kinds = lab.kernel.hasTokens ? WITH_TOKENS : WITHOUT
  let sum = 0
  for (const [share, make] of kinds) {
    sum += share
    if (at < sum) return make(random, lab)
  }
  return mapSpec(random, lab)
}

type Make = (random: Random, lab: Lab) => BpfSpec
const WITH_TOKENS: readonly (readonly [number, Make])[] = [
  [10, tokenSpec],
  [28, mapSpec],
  [29, progSpec],
  [4, pinSpec],
  [5, getSpec],
  [5, btfSpec],
  [5, btfIdSpec],
  [5, idSpec],
  [2, hostSpec],
  [3, querySpec],
  [4, attachSpec],
]
const WITHOUT: readonly (readonly [number, Make])[] = [
  [20, tokenSpec],
  [30, wellFormedMap],
  [30, wellFormedProgram],
  [20, idSpec],
]

function caller(random: Random, lab: Lab, op: BpfSpec['op']) {
  const hooks = refusing(random, lab, op)
  // Most hooks are asked about those alone who may do it.
  const isRoot = hooks.refusing !== undefined && random.chance(50)
  const context = isRoot ? 0 : random.chance(55) ? 2 + random.below(2) : random.below(CONTEXTS.length)
  const caps =
    isRoot || random.chance(40) ? ALL_CAPS : random.chance(40) ? but(random) : random.below(ALL_CAPS)
  const who = { context, caps, ...hooks }
  if (!random.chance(4)) return who
  const end = lab.kernel.attrEnds[op]
  const at = random.pick([
    end,
    end + random.below(8),
    Math.max(end, lab.kernel.attrBytes - 1),
    lab.kernel.attrBytes,
    lab.kernel.attrBytes + random.below(8),
  ])
  const junkAt = Math.min(at, LAST_BYTE)
  if (random.chance(70)) return { ...who, junkAt, size: junkAt + 1 }
  return { ...who, size: random.pick([4096, 4097, Math.max(end, 16), lab.kernel.attrBytes + 8]) }
}

/** All capabilities but one, and but CAP_SYS_ADMIN, which would stand in for it. */
function but(random: Random): number {
  return ALL_CAPS & ~(1 << CAPS.indexOf('sys_admin')) & ~(1 << random.below(CAPS.length))
}

/** The hooks that are asked about a command, beside `bpf`. */
const HOOKS_OF: Partial<Readonly<Record<BpfSpec['op'], readonly LsmHook[]>>> = {
  token_create: ['bpf_token_create'],
  map_create: ['bpf_token_cmd', 'bpf_token_capable', 'bpf_map_create', 'bpf_map'],
  prog_load: ['bpf_token_cmd', 'bpf_token_capable', 'bpf_prog_load', 'bpf_prog'],
  btf_load: ['bpf_token_cmd', 'bpf_token_capable'],
  btf_get_fd_by_id: ['bpf_token_cmd', 'bpf_token_capable'],
  map_get_fd_by_id: ['bpf_map'],
  prog_get_fd_by_id: ['bpf_prog'],
  obj_get: ['bpf_map', 'bpf_prog'],
}

/** One hook of a security module that refuses, or some of them. */
function refusing(random: Random, lab: Lab, op: BpfSpec['op']): { refusing?: number } {
  if (lab.hooks === 0 || !random.chance(op.endsWith('get_fd_by_id') ? 40 : 30)) return {}
  const own = HOOKS_OF[op] ?? []
  const one = own.length > 0 && random.chance(80) ? random.pick(own) : random.pick(LSM_HOOKS)
  const some = random.chance(90) ? 1 << LSM_HOOKS.indexOf(one) : random.below(1 << LSM_HOOKS.length)
  const hooks = lab.hooks & some
  return hooks === 0 ? {} : { refusing: hooks }
}

/** Whether one of these hooks refuses in a case. */
function isRefusedBy(refusing: number | undefined, ...hooks: LsmHook[]): boolean {
  return refusing !== undefined && hooks.some(hook => (refusing & (1 << LSM_HOOKS.indexOf(hook))) !== 0)
}

/** The place of a slot of one of these kinds, of any other now and then. */
function slot(random: Random, lab: Lab, kind: File['kind']): number {
  // A kernel without tokens has none of these.
  const fitting = random.chance(90) && lab.of(kind).length > 0
  if (!fitting && random.chance(30)) return lab.slots.findIndex(({ file }) => file.kind === 'closed')
  for (;;) {
    const i = random.below(lab.slots.length)
    if (!fitting || lab.slots[i]!.file.kind === kind) return i
  }
}

function tokened(random: Random, lab: Lab, percent: number) {
  if (!random.chance(percent)) return {}
  const token = slot(random, lab, 'token')
  return random.chance(5) ? { token, unflagged: true as const } : { token }
}

/** A field that is there in some of a hundred cases. */
function sometimes<K extends string, V>(
  random: Random,
  percent: number,
  key: K,
  value: () => V,
): { [P in K]?: V } {
  return random.chance(percent) ? ({ [key]: value() } as { [P in K]: V }) : {}
}

function tokenSpec(random: Random, lab: Lab): TokenSpec {
  const who = caller(random, lab, 'token_create')
  const short = !('junkAt' in who) && random.chance(4) ? { size: 4 } : {}
  return {
    op: 'token_create',
    ...who,
    bpffs: slot(random, lab, 'bpffs'),
    ...sometimes(random, 3, 'flags', () => 1 << random.below(20)),
    ...short,
  }
}

const NAMES = ['a', 'counter_1.x', 'fifteen_letters', 'sixteen_letters_', 'with space', 'minus-', 'umlauté']
const SIZES = [0, 1, 3, 4, 5, 8, 16, 20, 300]

function mapType(random: Random, lab: Lab): number {
  if (random.chance(3)) return random.pick([0, 34, 35, 36, 40, 63, 64, 1000, 0xffff_ffff])
  return 1 + random.below(lab.kernel.vocabulary.maps.nameOfBit.size - 1)
}

function mapSpec(random: Random, lab: Lab): MapSpec {
  const who = caller(random, lab, 'map_create')
  const isLast = isRefusedBy(who.refusing, 'bpf_map_create', 'bpf_map')
  const storages = ['sk_storage', 'inode_storage', 'task_storage', 'cgrp_storage']
  const type =
    isLast && random.chance(20)
      ? lab.kernel.vocabulary.maps.bitOfName.get(random.pick(storages))!
      : mapType(random, lab)
  const word = lab.kernel.vocabulary.maps.nameOfBit.get(type)?.replace(/_deprecated$/, '') ?? ''
  const shape = MAP_TYPES[word]
  const token = tokened(random, lab, 75)
  const short = !('size' in who) && random.chance(2) ? { size: random.pick([72, 76]) } : {}
  // What is wrong beside what a module refuses: the first of both decides.
  const odd = random.chance(isLast ? 50 : 25)
  const refers = shape?.needsInner === true || shape?.needsTypes !== undefined
  const often = odd ? 25 : 1
  const spec: MapSpec = {
    op: 'map_create',
    ...who,
    type,
    ...token,
    ...short,
    ...sometimes(random, often, 'keySize', () => random.pick(SIZES)),
    ...sometimes(random, often, 'valueSize', () => random.pick(SIZES)),
    ...sometimes(random, often, 'maxEntries', () => random.pick([0, 1, 2, 5, 4096, 8192])),
    ...sometimes(random, odd ? 50 : 3, 'flags', () => mapFlags(random, shape?.sample.flags ?? 0)),
    ...sometimes(random, isLast ? 15 : 0, 'flags', () => (shape?.sample.flags ?? 0) | CLOSED),
    ...sometimes(random, odd ? 10 : 1, 'extra', () => random.pick([1, 15, 16, 4096])),
    ...sometimes(random, 3, 'numaNode', () => random.pick([0, 1000, 99999])),
    ...sometimes(random, refers ? 25 : 5, 'name', () => random.pick(NAMES)),
    ...sometimes(random, shape?.needsInner === true ? 20 : 0, 'inner', () =>
      slot(random, lab, random.pick(['map', 'map', 'closed'])),
    ),
    ...mapTypes(random, lab, shape?.needsTypes),
  }
  return random.chance(12) ? atEdge(random, lab, word, spec) : spec
}

/** Types: of a map that needs its own, sometimes others; of the rest, now and then some. */
function mapTypes(random: Random, lab: Lab, needs: 'own' | 'kernel' | undefined): Partial<MapSpec> {
  if (needs === 'own')
    return {
      ...sometimes(random, 25, 'btf', () => slot(random, lab, random.pick(['btf', 'btf', 'closed', 'map']))),
      ...sometimes(random, 4, 'keyType', () => 0),
      ...sometimes(random, 4, 'valueType', () => 0),
      ...sometimes(random, 3, 'kernelType', () => true as const),
    }
  if (needs === 'kernel')
    return {
      ...sometimes(random, 12, 'btf', () => slot(random, lab, 'btf')),
      ...sometimes(random, 8, 'keyType', () => random.below(2)),
      ...sometimes(random, 8, 'kernelType', () => true as const),
    }
  // What other maps make of types is not of the model, but for what is refused at once.
  return random.chance(2)
    ? { keyType: 1, valueType: 0 }
    : sometimes(random, 2, 'kernelType', () => true as const)
}

/** BPF_F_RDONLY and BPF_F_WRONLY */
const CLOSED = 0x18

/** Flags that the map may have, and others; without BPF_F_TOKEN_FD and BPF_F_VTYPE_BTF_OBJ_FD. */
function mapFlags(random: Random, must: number): number {
  let flags = random.chance(80) ? must : 0
  for (let i = random.below(3); i >= 0; i--) flags ^= 1 << random.pick([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
  if (random.chance(20)) flags ^= 1 << random.pick([11, 12, 13, 17, 18, 19, 20, 25])
  if (random.chance(8)) flags |= random.pick([CLOSED, 0x180])
  return flags >>> 0
}

/** Whose attributes are as they should be, or so long that the kernel looks at none. */
function plainCaller(random: Random, lab: Lab, op: BpfSpec['op']) {
  const { junkAt: _, size, ...who } = { junkAt: 0, size: 0, ...caller(random, lab, op) }
  return size > 4096 ? { ...who, size } : who
}

function wellFormedMap(random: Random, lab: Lab): MapSpec {
  const type = random.pick([1, 2, 5, 6, 27])
  const word = lab.kernel.vocabulary.maps.nameOfBit.get(type)!
  const spec: MapSpec = { op: 'map_create', ...plainCaller(random, lab, 'map_create'), type }
  return random.chance(25) ? atEdge(random, lab, word, spec) : spec
}

function wellFormedProgram(random: Random, lab: Lab): ProgSpec {
  const who = plainCaller(random, lab, 'prog_load')
  return { op: 'prog_load', ...who, type: random.pick([1, 3, 4, 5, 6, 17, 30]), attach: 0 }
}

function progSpec(random: Random, lab: Lab): ProgSpec {
  const { progs, attachs } = lab.kernel.vocabulary
  const who = caller(random, lab, 'prog_load')
  const type = random.chance(2)
    ? random.pick([0, 33, 40, 63, 64, 999, 0xffff_ffff])
    : random.chance(isRefusedBy(who.refusing, 'bpf_prog_load') ? 60 : 12)
      ? // The first one has the most attach types, the others have targets.
        progs.bitOfName.get(random.pick(['cgroup_sock_addr', 'ext', 'tracing', 'lsm', 'lsm', 'struct_ops']))!
      : 1 + random.below(progs.nameOfBit.size - 1)
  const short = !('size' in who) && random.chance(2) ? { size: 144 } : {}
  const attach = random.chance(3)
    ? random.pick([57, 58, 59, 62, 63, 64, 100, 0xffff_ffff])
    : random.below(attachs.nameOfBit.size)
  const long = type === 1 || type === 6 || type === 8
  const odd = random.chance(20)
  const often = odd ? 25 : 1
  return {
    op: 'prog_load',
    ...who,
    type,
    ...tokened(random, lab, 80),
    ...short,
    ...(random.chance(60) ? fittingAttach(random, lab, type) : random.chance(50) ? { attach } : {}),
    ...sometimes(random, often, 'instructions', () =>
      random.pick([0, 0, 1_000_001, 0xffff_ffff, ...(long ? [LONG_PROGRAM] : [])]),
    ),
    ...sometimes(random, often, 'flags', () => 1 << random.pick([8, 9, 17, 20, 30])),
    ...sometimes(random, often, 'name', () => random.pick(NAMES)),
    ...targetOf(random, lab, progs.nameOfBit.get(type) ?? '', odd ? 60 : 3, who.refusing),
    ...sometimes(random, often, 'unreadable', () => true as const),
  }
}

/** An attach type that some program of the type has. */
function fittingAttach(random: Random, lab: Lab, type: number): { attach?: number } {
  const word = lab.kernel.vocabulary.progs.nameOfBit.get(type) ?? ''
  const of = [...lab.kernel.vocabulary.attachs.nameOfBit].filter(([, name]) =>
    word === 'cgroup_sock_addr'
      ? /^cgroup_(inet[46]_(bind|connect|get)|udp|unix)/.test(name)
      : word === 'cgroup_sock'
        ? /^cgroup_inet(_sock|[46]_post)/.test(name)
        : name.startsWith(word) || (word === 'cgroup_skb' && name.startsWith('cgroup_inet_')),
  )
  const others: Record<string, string[]> = { cgroup_sockopt: ['cgroup_getsockopt', 'cgroup_setsockopt'] }
  const names = others[word]
  if (names !== undefined) return { attach: lab.kernel.vocabulary.attachs.bitOfName.get(random.pick(names))! }
  return of.length === 0 ? {} : { attach: random.pick(of)[0] }
}

/**
 * Targets of programs: those that are refused before the verifier. What it says of a target is not of
 * the model.
 */
function targetOf(
  random: Random,
  lab: Lab,
  word: string,
  percent: number,
  refusing: number | undefined,
): Partial<ProgSpec> {
  const isLast = isRefusedBy(refusing, 'bpf_prog_load')
  if (word in KERNEL_TARGETS && random.chance(25))
    return { kernelTarget: true, ...KERNEL_TARGETS[word]!(lab) }
  if (!random.chance(isLast ? 60 : percent)) return {}
  const traced = ['tracing', 'lsm', 'struct_ops', 'ext'].includes(word)
  const file = (kinds: readonly string[]): number => {
    for (;;) {
      const i = random.below(lab.slots.length)
      if (kinds.includes(lab.slots[i]!.file.kind) && lab.slots[i]!.number !== 0) return i
    }
  }
  if (random.chance(isLast ? 15 : 35)) return { targetFile: file(['other', 'closed', 'map', 'root']) }
  if (random.chance(isLast ? 20 : 30))
    return {
      targetFile: file(['btf']),
      ...sometimes(random, traced ? 0 : 40, 'target', () => 1 + random.below(50)),
    }
  // Where a module refuses the program, the verifier is not asked.
  if (traced && !isLast) return {}
  return random.chance(50) ? { target: 1 + random.below(50) } : { targetFile: file(['prog']) }
}

/** Programs whose target is in the kernel's BTF, with the attach type that goes with it. */
const KERNEL_TARGETS: Readonly<Record<string, (lab: Lab) => Partial<ProgSpec>>> = {
  tracing: lab => ({ attach: lab.kernel.vocabulary.attachs.bitOfName.get('trace_raw_tp')! }),
  lsm: lab => ({ attach: lab.kernel.vocabulary.attachs.bitOfName.get('lsm_mac')! }),
  struct_ops: () => ({ attach: 0 }),
}

function btfSpec(random: Random, lab: Lab): BtfSpec {
  return {
    op: 'btf_load',
    ...caller(random, lab, 'btf_load'),
    ...tokened(random, lab, 80),
    ...sometimes(random, 4, 'flags', () => 1 << random.pick([0, 1, 15, 17, 31])),
    ...sometimes(random, 6, 'cut', () => true as const),
  }
}

function btfIdSpec(random: Random, lab: Lab): BtfIdSpec {
  return {
    op: 'btf_get_fd_by_id',
    ...caller(random, lab, 'btf_get_fd_by_id'),
    ...tokened(random, lab, 75),
    ...sometimes(random, 4, 'flags', () => 1 << random.pick([0, 3, 4, 15, 17])),
    ...sometimes(random, 10, 'missing', () => true as const),
  }
}

/** Links are made and closed by others on the machine, so link_get_next_id is not asked. */
const ID_OPS = [
  'prog_get_next_id',
  'map_get_next_id',
  'btf_get_next_id',
  'prog_get_fd_by_id',
  'map_get_fd_by_id',
  'map_get_fd_by_id',
  'link_get_fd_by_id',
] as const

function idSpec(random: Random, lab: Lab): IdSpec {
  const op = random.pick(ID_OPS)
  return {
    op,
    ...caller(random, lab, op),
    ...(op.endsWith('next_id') ? sometimes(random, 15, 'tooHigh', () => true as const) : {}),
    ...(op.endsWith('fd_by_id')
      ? sometimes(random, op === 'map_get_fd_by_id' ? 40 : 10, 'flags', () => random.pick([8, 16, 24, 4, 32]))
      : {}),
    ...(op.endsWith('fd_by_id')
      ? sometimes(random, 50, 'object', () =>
          exactly(random, lab, op.slice(0, -'_get_fd_by_id'.length) as 'map'),
        )
      : {}),
  }
}

function hostSpec(random: Random, lab: Lab): HostSpec {
  const op = random.pick(['enable_stats', 'task_fd_query'] as const)
  return { op, ...caller(random, lab, op) }
}

function exactly(random: Random, lab: Lab, kind: File['kind']): number {
  return lab.slots.indexOf(random.pick(lab.of(kind)))
}

/** A place for a pin, and what it is called. */
function place(random: Random, lab: Lab): { directory: number; name: PinName } {
  let directory = slot(random, lab, random.pick(['bpffs', 'bpffs', 'bpffs', 'cgroup', 'other', 'closed']))
  // A proc says that there is no such name, whatever the name is.
  while (lab.slots[directory]!.file.kind === 'root') directory = slot(random, lab, 'bpffs')
  if (random.chance(60) && lab.slots[directory]!.pins === undefined) {
    const filled = lab.slots.flatMap(({ pins }, i) => (pins === undefined ? [] : [i]))
    directory = random.pick(filled)
  }
  const { file, pins = {} } = lab.slots[directory]!
  const there = [...Object.keys(pins), ...(file.kind === 'bpffs' ? ['map', 'sub'] : [])] as PinName[]
  return { directory, name: random.pick<PinName>([...there, 'a.b', 'new']) }
}

function getSpec(random: Random, lab: Lab): GetSpec {
  return {
    op: 'obj_get',
    ...caller(random, lab, 'obj_get'),
    ...place(random, lab),
    ...sometimes(random, 50, 'flags', () => random.pick([8, 8, 16, 16, 24, 4, 1 << 16])),
  }
}

function pinSpec(random: Random, lab: Lab): PinSpec {
  const where = place(random, lab)
  return {
    op: 'obj_pin',
    ...caller(random, lab, 'obj_pin'),
    object: slot(random, lab, random.pick(['prog', 'map', 'link', 'prog', 'map', 'token', 'btf'])),
    ...where,
    ...(random.chance(50) && lab.slots[where.directory]!.file.kind === 'bpffs' ? { name: 'new' } : {}),
    ...sometimes(random, 5, 'flags', () => random.pick([8, 16, 1])),
  }
}

function querySpec(random: Random, lab: Lab): QuerySpec {
  return {
    op: 'prog_query',
    ...caller(random, lab, 'prog_query'),
    attach: random.below(lab.kernel.vocabulary.attachs.nameOfBit.size + 3),
    ...sometimes(random, 35, 'flags', () => random.pick([1, 1, 2, 4])),
  }
}

function attachSpec(random: Random, lab: Lab): AttachSpec {
  const op = random.pick(['link_create', 'link_create', 'prog_attach', 'prog_detach'] as const)
  const classifier = lab.slots.findIndex(({ what }) => what === 'sched_cls')
  const prog = random.chance(10) ? classifier : slot(random, lab, random.chance(10) ? 'closed' : 'prog')
  const { file } = lab.slots[prog]!
  const type = file.kind === 'prog' ? file.prog.type : ''
  const fitting = random.chance(70) ? ATTACH_OF[type] : undefined
  const { attachs } = lab.kernel.vocabulary
  const attach =
    op === 'prog_detach'
      ? detached(random, lab)
      : fitting === undefined
        ? random.below(attachs.nameOfBit.size + 2)
        : attachs.bitOfName.get(random.pick(fitting))!
  const toDevice = type === 'xdp' || type === 'sched_cls'
  const { context, caps, ...rest } = caller(random, lab, op)
  // What is attached to a device or cgroup costs the kernel much; so it is done rarely.
  const toNetkit = attachs.nameOfBit.get(attach)?.startsWith('netkit_') === true
  const hit = random.chance(toNetkit ? 50 : op === 'link_create' ? 6 : type === 'xdp' ? 30 : 2)
  // Nobody attaches by PROG_ATTACH what is of the type xdp.
  const known = op === 'link_create' || toNetkit || type === 'xdp'
  const target = toDevice
    ? { ifindex: hit && known ? 1 : 4_000_000 }
    : {
        target: slot(random, lab, hit ? 'cgroup' : type === 'sk_msg' && random.chance(50) ? 'map' : 'other'),
      }
  return {
    op,
    context,
    caps,
    ...rest,
    prog,
    attach,
    ...sometimes(random, 10, 'flags', () => random.pick([1, 2, 1 << 9, 1 << 12])),
    ...target,
  }
}

/** Of the kinds of target that a detached program may have, the model knows cgroups and devices. */
function detached(random: Random, lab: Lab): number {
  const { nameOfBit } = lab.kernel.vocabulary.attachs
  for (;;) {
    const attach = random.below(nameOfBit.size + 2)
    const word = nameOfBit.get(attach) ?? ''
    if (!/^(sk_|lirc|flow|lsm)/.test(word) || word === 'sk_lookup') return attach
  }
}

const ATTACH_OF: Readonly<Record<string, readonly string[]>> = {
  cgroup_skb: ['cgroup_inet_ingress', 'cgroup_inet_egress'],
  cgroup_sock: ['cgroup_inet_sock_create', 'cgroup_inet_sock_release'],
  cgroup_device: ['cgroup_device'],
  xdp: ['xdp'],
  sched_cls: ['tcx_ingress', 'tcx_egress', 'netkit_primary', 'netkit_peer'],
  sk_lookup: ['sk_lookup'],
  kprobe: ['perf_event', 'trace_kprobe_multi', 'trace_uprobe_multi'],
  lirc_mode2: ['lirc_mode2'],
  sk_msg: ['sk_msg_verdict'],
}
