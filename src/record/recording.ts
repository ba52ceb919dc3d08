/**
 * What all seen calls come to: the rights that a token must lend for them, each with who asked, and
 * what no token can give them. Pure.
 */
import { neededCapabilities, neededRights } from '../ebpf/rights.ts'
import { headerVocabulary } from '../needs/header-words.ts'
import { CAPABILITIES, type Capability, DEFAULT_TERMS } from '../policy/policy.ts'
import { assessRisk, type RiskAssessment } from '../policy/risk.ts'
import { MASK_DOMAINS, type MaskDomain, type Masks } from '../policy/vocabulary.ts'
import { bpf_map_flags } from '../uapi/bpf.ts'
import { NET_ADMIN_TO_ATTACH } from '../uapi/bpf-needs.ts'
import type { SeenCall } from './call.ts'
import type { Tally } from './recorder.ts'
import type { SeenOften } from './seen.ts'

/** The calls of one process that asked for one thing. */
export interface Asker {
  readonly task: string
  /** As the recorder's PID namespace numbers it; 0: it has no number there. */
  readonly pid: number
  /** As its own PID namespace numbers it. */
  readonly innerPid: number
  /** Of the first call, in nanoseconds of CLOCK_MONOTONIC. */
  readonly first: bigint
  /** How the calls ended: `ok` or an errno, with how many. */
  readonly outcomes: Readonly<Record<string, number>>
  /** What the calls made, by their names. */
  readonly names: readonly string[]
}

export interface RecordedRight {
  readonly domain: MaskDomain
  readonly word: string
  readonly bit: number
  readonly askers: readonly Asker[]
}

export interface RecordedCapability {
  readonly name: Capability
  readonly askers: readonly Asker[]
}

/** A kind of call for which a token changes nothing. */
export interface Unserved {
  readonly call: string
  /** False: it works in a workload all the same. */
  readonly fails: boolean
  readonly why: string
  readonly askers: readonly Asker[]
}

export interface Recording {
  /** False: calls were lost, and more may be needed. */
  readonly complete: boolean
  readonly lost: { readonly calls: number; readonly processes: number }
  /** How many calls of bpf(2) and perf_event_open(2) were seen, counted ones included. */
  readonly calls: number
  readonly masks: Masks
  /** By domain, then by bit. */
  readonly rights: readonly RecordedRight[]
  readonly capabilities: readonly RecordedCapability[]
  /**
   * What was asked for by calls that no right would have helped: the kernel had no such thing, or the
   * call did not name the token that its process has.
   */
  readonly leftOut: readonly RecordedRight[]
  readonly unserved: readonly Unserved[]
  /** Processes that asked for rights, and of which no attempt at a token was seen. */
  readonly withoutToken: readonly Asker[]
  /** Calls that ask for nothing, by command. */
  readonly counted: Readonly<Record<string, number>>
  readonly risk: RiskAssessment
}

/** Errnos of a request that no right makes a good one. */
const MALFORMED = ['EINVAL', 'E2BIG']

/** `calls`: what a `Seen` has, which has `dropped` more. */
export function recordingOf(calls: readonly SeenOften[], tally: Tally, dropped = 0): Recording {
  const rights = new Map<string, { domain: MaskDomain; word: string; bit: number; calls: SeenOften[] }>()
  const capabilities = new Map<Capability, SeenOften[]>()
  const unserved = new Map<string, { call: string; fails: boolean; why: string; calls: SeenOften[] }>()
  const tokens = tokensOf(calls)
  const served = (call: SeenOften): boolean => isServed(call, tokens.get(processOf(call)))
  for (const call of calls) {
    for (const right of call.need === undefined ? [] : neededRights(call.need)) {
      const key = `${right.domain} ${right.bit}`
      const known = rights.get(key) ?? { ...right, calls: [] }
      rights.set(key, known)
      known.calls.push(call)
    }
    if (served(call)) for (const name of capabilitiesFor(call)) noted(capabilities, name).push(call)
    const unlent = unservedBy(call)
    if (unlent === undefined) continue
    const known = unserved.get(unlent.call) ?? { ...unlent, calls: [] }
    unserved.set(unlent.call, known)
    known.calls.push(call)
  }
  const all = [...rights.values()].sort(
    (a, b) => MASK_DOMAINS.indexOf(a.domain) - MASK_DOMAINS.indexOf(b.domain) || a.bit - b.bit,
  )
  const isLent = ({ bit, calls }: (typeof all)[number]): boolean => bit < 64 && calls.some(served)
  const told = (found: typeof all): RecordedRight[] =>
    found.map(({ calls, ...right }) => ({ ...right, askers: askersOf(calls) }))
  const lent = all.filter(isLent)
  const masks = { cmds: 0n, maps: 0n, progs: 0n, attachs: 0n }
  for (const { domain, bit } of lent) masks[domain] |= 1n << BigInt(bit)
  const ordered = CAPABILITIES.filter(name => capabilities.has(name))
  const lostCalls = tally.lostCalls + dropped
  const counted = [...tally.counted.values()].reduce((sum, n) => sum + n, 0)
  return {
    complete: lostCalls === 0 && tally.lostProcesses === 0,
    lost: { calls: lostCalls, processes: tally.lostProcesses },
    calls: calls.reduce((sum, { command, times }) => sum + (tally.counted.has(command) ? 0 : times), counted),
    masks,
    rights: told(lent),
    capabilities: ordered.map(name => ({ name, askers: askersOf(capabilities.get(name)!) })),
    leftOut: told(all.filter(right => !isLent(right))),
    unserved: [...unserved.values()].map(({ calls, ...what }) => ({ ...what, askers: askersOf(calls) })),
    withoutToken: askersOf(
      calls.filter(call => call.need !== undefined && served(call) && !tokens.has(processOf(call))),
    ),
    counted: Object.fromEntries(tally.counted),
    risk: assessRisk({ ...DEFAULT_TERMS, rights: { masks, capabilities: ordered } }, headerVocabulary()),
  }
}

function noted<K, T>(lists: Map<K, T[]>, key: K): T[] {
  const list = lists.get(key) ?? []
  lists.set(key, list)
  return list
}

/** Of each process that tried: whether it made a token, or had one in a call. */
function tokensOf(calls: readonly SeenOften[]): ReadonlyMap<string, boolean> {
  const tokens = new Map<string, boolean>()
  for (const call of calls) {
    const has = call.withToken || (call.command === 'token_create' && call.errno === undefined)
    if (has || call.command === 'token_create')
      tokens.set(processOf(call), has || tokens.get(processOf(call)) === true)
  }
  return tokens
}

/**
 * Whether what it asks for can matter: a refusal may be for want of it, another answer had it. Who
 * has a token and does not name it is refused whatever is lent.
 */
function isServed({ errno, withToken }: SeenCall, hasToken: boolean | undefined): boolean {
  if (errno === 'EPERM' && hasToken === true && !withToken) return false
  return errno === undefined || !MALFORMED.includes(errno)
}

/** What tells a process from others; those without a number here are told apart as far as can be. */
function processOf({ pid, innerPid, userNamespace, task }: SeenCall): string {
  return pid === 0 ? `${innerPid} ${userNamespace} ${task}` : String(pid)
}

/** Those that it needs in its user namespace besides a token. */
function capabilitiesFor({ need, command, attachType }: SeenCall): Capability[] {
  const needed: string[] = need === undefined ? [] : neededCapabilities(need)
  // The kernel asks for it when such a program is attached (NET_ADMIN_TO_ATTACH is cgroup_skb).
  const attaches = command === 'link_create' || command === 'prog_attach'
  if (attaches && NET_ADMIN_TO_ATTACH.length > 0 && CGROUP_SKB_ATTACHS.includes(attachType ?? ''))
    needed.push('CAP_NET_ADMIN')
  return CAPABILITIES.filter(name => needed.includes(`CAP_${name.toUpperCase()}`))
}

const CGROUP_SKB_ATTACHS = ['cgroup_inet_ingress', 'cgroup_inet_egress']

const HOST_ADMIN = 'the kernel wants CAP_SYS_ADMIN on the host, and asks no token'

/** By command; what is missing here works in a workload with what it holds. */
const UNSERVED: Readonly<Record<string, readonly [fails: boolean, why: string]>> = {
  ...Object.fromEntries(
    [
      ...['prog_get_next_id', 'map_get_next_id', 'btf_get_next_id', 'link_get_next_id'],
      ...['prog_get_fd_by_id', 'map_get_fd_by_id', 'link_get_fd_by_id', 'enable_stats'],
    ].map(command => [command, [true, HOST_ADMIN] as const]),
  ),
  task_fd_query: [true, HOST_ADMIN],
  prog_query: [true, 'the kernel wants CAP_NET_ADMIN on the host, and asks no token'],
  perf_event_open: [
    true,
    'perf events are no matter of bpf(2): the kernel wants CAP_PERFMON on the host for those of other processes and of the kernel; attach by kprobe_multi, uprobe_multi or a raw tracepoint instead',
  ],
  raw_tracepoint_open: [
    false,
    'it asks for nothing once the program is loaded; it reaches the whole host, and cannot be detached by who lent it',
  ],
  obj_pin: [
    false,
    'pins go into a bpffs where the caller may write: the delegated one, or a mount of its own',
  ],
  obj_get: [false, 'pins of a bpffs that the workload does not see are not there for it'],
  token_create: [false, 'where a bpffs is lent; it needs CAP_BPF inside'],
}

function unservedBy({
  command,
  attachType,
  need,
  objectFlags,
}: SeenCall): Omit<Unserved, 'askers'> | undefined {
  if (need?.cmd === 'map_create' && (objectFlags & bpf_map_flags.BPF_F_ZERO_SEED) !== 0)
    return { call: 'map_create with BPF_F_ZERO_SEED', fails: true, why: HOST_ADMIN }
  if (command === 'link_create' && attachType === 'perf_event')
    return { call: 'link_create perf_event', fails: true, why: 'it needs a perf event: see perf_event_open' }
  if (need !== undefined) return undefined
  const [fails, why] = UNSERVED[command] ?? []
  return why === undefined ? undefined : { call: command, fails: fails!, why }
}

function outcomeOf({ errno, reached, result }: SeenCall): string {
  if (errno === undefined) return 'ok'
  if (reached) return errno
  return `${errno === 'UNDONE' ? `answer of ${result}` : errno} before the kernel's bpf(2) was asked`
}

/** In time that grows with the calls: whoever is watched chooses how many names there are. */
function askersOf(calls: readonly SeenOften[]): Asker[] {
  type Known = { -readonly [K in keyof Asker]: Asker[K] } & {
    outcomes: Record<string, number>
    names: string[]
  }
  const askers = new Map<string, Known & { readonly known: Set<string> }>()
  for (const call of calls) {
    const { pid, innerPid, task, at, name, times } = call
    const key = processOf(call)
    const asker = askers.get(key) ?? {
      ...{ task, pid, innerPid, first: at, outcomes: {}, names: [], known: new Set() },
    }
    askers.set(key, asker)
    if (at < asker.first) asker.first = at
    const outcome = outcomeOf(call)
    asker.outcomes[outcome] = (asker.outcomes[outcome] ?? 0) + times
    if (name === '' || asker.known.has(name)) continue
    asker.known.add(name)
    asker.names.push(name)
  }
  return [...askers.values()]
    .map(({ known: _, ...asker }) => asker)
    .sort((a, b) => (a.first < b.first ? -1 : 1))
}
