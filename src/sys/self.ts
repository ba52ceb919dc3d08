/** What the kernel says of this process itself. */
import { readFileSync, readlinkSync } from 'node:fs'
import { procFields } from './proc-file.ts'

/** A field of /proc/self/status; undefined: this kernel does not print it. */
export function ownStatus(name: string): string | undefined {
  return procFields(readFileSync('/proc/self/status', 'utf8')).get(name)
}

/** Our effective capabilities, in our own user namespace; bit n is capability n. */
export function effectiveCapabilities(): bigint {
  const held = ownStatus('CapEff') ?? ''
  return /^[0-9a-f]{1,16}$/.test(held) ? BigInt(`0x${held}`) : 0n
}

/** PROC_USER_INIT_INO, include/linux/proc_ns.h. */
export const INITIAL_USER_NAMESPACE = 'user:[4026531837]'
/** PROC_CGROUP_INIT_INO, of the same file. */
export const INITIAL_CGROUP_NAMESPACE = 'cgroup:[4026531835]'

const namespaces = new Map<string, string>()

/**
 * Identity of one of our own namespaces, e.g. `user:[4026531837]`. Read once: Node has threads, which
 * we move to no others.
 */
export function ownNamespace(kind: 'user' | 'mnt' | 'cgroup' | 'net' | 'pid'): string {
  const known = namespaces.get(kind) ?? readlinkSync(`/proc/self/ns/${kind}`)
  namespaces.set(kind, known)
  return known
}

export function inInitialUserNamespace(): boolean {
  return ownNamespace('user') === INITIAL_USER_NAMESPACE
}
