/**
 * Whether the process that is lent to can use the loan. This is told before anything is made: a
 * delegation can be in perfect order, and every call under it is still refused if the process lacks
 * a capability in its user namespace or if a seccomp filter stops bpf(2).
 *
 * The answer holds for the process and for the processes that it starts. A process that enters its
 * namespaces from outside (`docker exec`) brings its own capabilities. /proc does not tell
 * securebits: with SECBIT_NOROOT root of the namespace gains nothing by exec, and we cannot say so.
 */
import { PROGRAM_CLASSES } from '../policy/kernel-classes.ts'
import type { Capability, Rights } from '../policy/policy.ts'
import { bitsOf, hasBit, type Vocabulary } from '../policy/vocabulary.ts'
import { procFields, procNumbers } from '../sys/proc-file.ts'
import { parseIdMap, readProc } from '../sys/process.ts'
import { CAPABILITIES } from '../uapi/constants.ts'
import type { Target } from './target.ts'

/**
 * What /proc/PID/status says of it. Ids are those of our own user namespace; bit n of a set is
 * capability n.
 */
export interface TaskStatus {
  /** Real, effective and saved. */
  readonly uids: readonly number[]
  readonly permitted: bigint
  readonly ambient: bigint
  readonly bounding: bigint
  readonly noNewPrivs: boolean
  /**
   * 0: none; 1: strict, which leaves four system calls; 2: a filter, whose contents the kernel does
   * not tell.
   */
  readonly seccomp: number
}

export interface Concern {
  readonly code: 'capability' | 'kept-until-exec' | 'seccomp'
  /** False: it may work; that cannot be known from outside. */
  readonly certain: boolean
  readonly capability?: Capability
  readonly what: string
  /** What to add, in the words of those who start such processes. */
  readonly remedy: string
}

/** Pure. Source: fs/proc/array.c, proc_pid_status. */
export function parseTaskStatus(text: string): TaskStatus {
  const fields = procFields(text)
  const field = (name: string): string => fields.get(name) ?? ''
  const set = (name: string): bigint =>
    /^[0-9a-f]{1,16}$/.test(field(name)) ? BigInt(`0x${field(name)}`) : 0n
  return {
    uids: procNumbers(field('Uid'))?.slice(0, 3) ?? [],
    permitted: set('CapPrm'),
    ambient: set('CapAmb'),
    bounding: set('CapBnd'),
    noNewPrivs: field('NoNewPrivs') === '1',
    // A kernel without seccomp does not print it.
    seccomp: Number(field('Seccomp') || 0),
  }
}

/** What stands in the target's way to a token with these rights. */
export function preflightTarget(target: Target, rights: Rights, vocabulary: Vocabulary): Concern[] {
  const status = parseTaskStatus(readProc(target.process, 'status'))
  // Whoever is in charge where only one id is mapped is not what execve(2) takes for root.
  const ids = parseIdMap(readProc(target.process, 'uid_map'))
  return preflight(status, ids.find(({ inside }) => inside === 0)?.outside, rights, vocabulary)
}

/**
 * Pure. `rootUid`: our number for the root of its user namespace, undefined where it is not mapped.
 */
export function preflight(
  status: TaskStatus,
  rootUid: number | undefined,
  rights: Rights,
  vocabulary: Vocabulary,
): Concern[] {
  return [
    ...neededFor(rights, vocabulary).flatMap(need => capabilityConcern(need, status, rootUid) ?? []),
    ...seccompConcern(status),
  ]
}

interface Need {
  readonly capability: Capability
  /** What cannot be done without it. */
  readonly for: string
}

/** CAP_BPF first: without it there is no token at all. */
function neededFor({ masks, capabilities }: Rights, vocabulary: Vocabulary): Need[] {
  const users = new Map<Capability, string[]>(capabilities.map(name => [name, []]))
  for (const bit of bitsOf(masks.progs)) {
    const prog = vocabulary.progs.nameOfBit.get(bit)
    for (const name of (prog !== undefined && PROGRAM_CLASSES[prog]?.capabilities) || [])
      users.set(name, [...(users.get(name) ?? []), prog!])
  }
  users.delete('bpf')
  return [
    { capability: 'bpf', for: 'a token cannot be made' },
    ...[...users].map(([capability, progs]) => ({
      capability,
      for: progs.length === 0 ? 'it is lent in vain' : `lent in vain: programs of type ${few(progs)}`,
    })),
  ]
}

const SHOWN = 4

function few(words: readonly string[]): string {
  return words.length > SHOWN
    ? `${words.slice(0, SHOWN).join(', ')} and ${words.length - SHOWN} more`
    : words.join(', ')
}

/**
 * How a process comes to hold a capability in its own user namespace; see capabilities(7),
 * execve(2).
 */
type Prospect = 'held' | 'by-exec' | 'until-exec' | 'perhaps' | 'never'

function prospectOf(capability: Capability, status: TaskStatus, rootUid: number | undefined): Prospect {
  const bit = bitOf(capability)
  const isRoot = rootUid !== undefined && status.uids.includes(rootUid)
  if (hasBit(status.permitted, bit)) {
    // On each exec root gets its bounding set, and others keep only their ambient set.
    const kept = hasBit(status.ambient, bit) || (isRoot && hasBit(status.bounding, bit))
    return kept ? 'held' : 'until-exec'
  }
  if (status.noNewPrivs || !hasBit(status.bounding, bit)) return 'never'
  return isRoot ? 'by-exec' : 'perhaps'
}

function bitOf(capability: Capability): number {
  return CAPABILITIES[`CAP_${capability.toUpperCase()}` as keyof typeof CAPABILITIES]
}

function capabilityConcern(need: Need, status: TaskStatus, rootUid: number | undefined): Concern | undefined {
  const { capability } = need
  const name = `CAP_${capability.toUpperCase()}`
  let prospect = prospectOf(capability, status, rootUid)
  // The kernel takes CAP_SYS_ADMIN for the others, except where a token is made.
  const stand = capability === 'bpf' ? prospect : prospectOf('sys_admin', status, rootUid)
  if (stand === 'held' || stand === 'by-exec') prospect = stand
  if (prospect === 'held' || prospect === 'by-exec') return undefined
  if (prospect === 'until-exec')
    return {
      code: 'kept-until-exec',
      certain: false,
      capability,
      what: `the process holds ${name}, and loses it with the next program that it executes`,
      remedy: `Make it ambient (systemd: AmbientCapabilities=${name}; setpriv --inh-caps +${capability} --ambient-caps +${capability}), or run as root of the user namespace`,
    }
  const concern = (certain: boolean, why: string, remedy: string): Concern => ({
    code: 'capability',
    certain,
    capability,
    what: `the process ${why}: ${need.for}`,
    remedy,
  })
  if (prospect === 'perhaps')
    return concern(
      false,
      `has no ${name} and is not root in its user namespace`,
      `Run it as root of its user namespace, or with ${name} ambient (systemd: AmbientCapabilities=${name})`,
    )
  if (!hasBit(status.bounding, bitOf(capability)))
    return concern(true, `cannot hold ${name}, which is not in its bounding set`, howToAdd(capability, name))
  return concern(
    true,
    `has no ${name} and can gain none, for no_new_privs`,
    `Start it with ${name} held, or without no_new_privs (Docker, Podman: no --security-opt no-new-privileges; systemd: NoNewPrivileges=no)`,
  )
}

function howToAdd(capability: Capability, name: string): string {
  return [
    `Docker, Podman: --cap-add ${capability.toUpperCase()}`,
    `Kubernetes: securityContext.capabilities.add: [${capability.toUpperCase()}]`,
    `systemd: ${name} in CapabilityBoundingSet=`,
    `LXC: no ${capability} in lxc.cap.drop`,
  ].join('; ')
}

function seccompConcern({ seccomp, bounding }: TaskStatus): Concern[] {
  if (seccomp === 0) return []
  if (seccomp === 1)
    return [
      {
        code: 'seccomp',
        certain: true,
        what: 'the process is in strict seccomp mode, which has no bpf(2)',
        remedy: 'Lend to a process that is not',
      },
    ]
  const byDefault = hasBit(bounding, CAPABILITIES.CAP_BPF) || hasBit(bounding, CAPABILITIES.CAP_SYS_ADMIN)
  return [
    {
      code: 'seccomp',
      certain: false,
      what: byDefault
        ? 'a seccomp filter is active and may refuse bpf(2)'
        : 'a seccomp filter is active and may refuse bpf(2), as default profiles do without CAP_BPF and CAP_SYS_ADMIN',
      remedy:
        'Docker, Podman: --cap-add BPF makes their default profile allow it, else --security-opt seccomp=PROFILE; ' +
        'Kubernetes: securityContext.seccompProfile; systemd: bpf in SystemCallFilter=; LXC: lxc.seccomp.profile',
    },
  ]
}
