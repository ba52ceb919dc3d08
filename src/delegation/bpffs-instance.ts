/** Delegated bpffs instances, whoever made them, found in mountinfo. */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { type BpffsMount, bpffsMounts } from '../ebpf/bpffs.ts'
import { parseMountValue } from '../policy/mask-text.ts'
import { ANY_MASK, MASK_DOMAINS, type MaskDomain, type Masks, type Vocabulary } from '../policy/vocabulary.ts'
import { ownerUid, owningUserNamespace } from '../sys/namespace.ts'
import { open } from '../sys/open.ts'
import { O_CLOEXEC, O_RDONLY } from '../uapi/constants.ts'

export interface DelegatedMount {
  readonly mountId: number
  /** `major:minor`: the same for all mounts of one instance. */
  readonly device: string
  readonly path: string
  readonly masks: Masks
  /** The kernel's own text, e.g. `delegate_cmds=map_create:prog_load`. */
  readonly options: readonly string[]
}

/** What this bpffs mount delegates, or undefined when it delegates nothing. Pure. */
export function delegatedMount(mount: BpffsMount, vocabulary: Vocabulary): DelegatedMount | undefined {
  if (!mount.delegated) return undefined
  const shown = MASK_DOMAINS.filter(domain => mount.delegation[domain] !== '')
  const masks: Record<MaskDomain, bigint> = { cmds: 0n, maps: 0n, progs: 0n, attachs: 0n }
  for (const domain of shown) {
    const parsed = parseMountValue(vocabulary, domain, mount.delegation[domain])
    // Fail closed: text that we cannot read is taken for everything, never for nothing.
    masks[domain] = parsed.ok ? parsed.mask : ANY_MASK
  }
  const options = shown.map(domain => `delegate_${domain}=${mount.delegation[domain]}`)
  return { mountId: mount.mountId, device: mount.device, path: mount.path, masks, options }
}

export interface DelegatedInstance extends DelegatedMount {
  readonly mountNamespace: string
  /** The user namespace that owns the mount namespace: tokens can be made in it. */
  readonly userNamespace: string
  readonly ownerUid: number
  /** Processes in that mount namespace; `command` is that of the first. */
  readonly pids: readonly number[]
  readonly command: string
}

/**
 * Every delegated bpffs that some process of this machine has mounted. Mount namespaces without a
 * process (held by a descriptor only) cannot be seen, nor can processes of other PID namespaces above ours.
 */
export function listInstances(vocabulary: Vocabulary): DelegatedInstance[] {
  const namespaces = new Map<string, number[]>()
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue
    const namespace = tryRead(() => readlinkSync(`/proc/${name}/ns/mnt`))
    if (namespace === undefined) continue // exited, or not ours to see
    namespaces.set(namespace, [...(namespaces.get(namespace) ?? []), Number(name)])
  }
  return [...namespaces].flatMap(([mountNamespace, pids]) => inNamespace(mountNamespace, pids, vocabulary))
}

/** Any of the processes will do; the first may just have exited. */
function inNamespace(mountNamespace: string, pids: number[], vocabulary: Vocabulary): DelegatedInstance[] {
  for (const pid of pids) {
    const text = tryRead(() => readFileSync(`/proc/${pid}/mountinfo`, 'utf8'))
    if (text === undefined) continue
    const mounts = bpffsMounts(text).flatMap(mount => delegatedMount(mount, vocabulary) ?? [])
    if (mounts.length === 0) return []
    const owner = tryRead(() => ownerOf(pid))
    // The number may have been reused since: then this was another namespace's table.
    if (owner === undefined || tryRead(() => readlinkSync(`/proc/${pid}/ns/mnt`)) !== mountNamespace) continue
    const command = tryRead(() => readFileSync(`/proc/${pid}/comm`, 'utf8').trim()) ?? '?'
    return mounts.map(mount => ({ ...mount, mountNamespace, ...owner, pids, command }))
  }
  return []
}

function ownerOf(pid: number): { userNamespace: string; ownerUid: number } {
  using mountNamespace = open(`/proc/${pid}/ns/mnt`, O_RDONLY | O_CLOEXEC)
  using owner = owningUserNamespace(mountNamespace)
  return { userNamespace: readlinkSync(`/proc/self/fd/${owner.number}`), ownerUid: ownerUid(owner) }
}

/** undefined for a process that exited meanwhile or that we may not look at. */
function tryRead<T>(read: () => T): T | undefined {
  try {
    return read()
  } catch (error) {
    const code =
      (error as { code?: string; errnoName?: string }).errnoName ?? (error as { code?: string }).code
    if (code === 'ENOENT' || code === 'ESRCH' || code === 'EACCES' || code === 'EPERM' || code === 'EINVAL')
      return undefined
    throw error
  }
}
