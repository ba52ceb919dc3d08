/** The smallest change that would let a call pass, in the words of commands and options. Pure. */
import type { Cause, Explanation } from '../lending/explain.ts'
import { eventChangeText } from './event-change-text.ts'

export function changeText({ cause, policy, edit, capabilities }: Explanation): string {
  if (cause === 'verifier' && policy !== undefined)
    return `spec.rights.capabilities: add ${policy.word}, with which the verifier allows it; or write it otherwise: bpftoken obj load shows its log`
  const reason = /^guard-(.*)$/.exec(cause)?.[1]
  if (reason !== undefined && reason !== 'capability')
    return eventChangeText({ reason }, { edit, caution: undefined })
  if (policy !== undefined) {
    const name = policy.word.toUpperCase()
    const flags =
      policy.list === 'capabilities'
        ? `; a container gets it by its runtime's option cap-add=${name}, a unit by AmbientCapabilities=CAP_${name}`
        : ''
    return `spec.rights.${policy.list}: add ${policy.word}${flags}`
  }
  if (cause === 'host-only')
    return `no token stands in for it: outside of user namespaces, give it ${capabilities.join(', ')}; for one inside, let a program of the host do it, or hand the descriptor over (a pin, a socket)`
  if (cause === 'initial-namespace')
    return `tokens serve other user namespaces only: run it with bpftoken run, or give it ${capabilities.join(', ')}`
  return CHANGES[cause] ?? 'none'
}

const CHANGES: Partial<Readonly<Record<Cause, string>>> = {
  unknown: 'ask of a running process: --pid',
  'no-delegation': 'lend it one: bpftoken delegate --pid PID --policy POLICY',
  'no-token':
    'use a loader that makes tokens (libbpf 1.4, bpftool 7.5, cilium/ebpf 0.22 or newer), and tell it the place: LIBBPF_BPF_TOKEN_PATH',
  'token-place':
    'name the root directory of the bpffs that is lent to it: LIBBPF_BPF_TOKEN_PATH, which is /sys/fs/bpf where it is not set',
  'old-loader': 'use a newer one: libbpf 1.4, bpftool 7.5 and cilium/ebpf 0.22 make tokens by themselves',
  'not-bpffs':
    'name a path in a bpffs that the process sees: mount -t bpf in its mount namespace, or the one that is lent to it',
  'closed-directory':
    'let it run as the owner, or give the directory a mode or owner that lets it in: chmod, chown, or the options uid=, gid= and mode= of the mount',
  'closed-pin':
    'give the pin an owner or a mode that lets it in: chown, chmod; to read a map alone, BPF_F_RDONLY asks for less',
  'foreign-user':
    'pin it as a user whom the user namespace of the bpffs has, or in a bpffs of the own user namespace',
  'foreign-mounts':
    'give it a mount namespace of its own, made in its user namespace: unshare --user --mount, DelegateNamespaces=mnt of a unit; then lend to it',
  'foreign-bpffs':
    'lend to this user namespace, at another place: bpftoken delegate --pid PID --policy POLICY --path DIRECTORY, and tell the loader: LIBBPF_BPF_TOKEN_PATH; a unit with PrivateUsers= needs DelegateNamespaces=mnt instead',
  'hidden-bpffs':
    'take away what is mounted over it, or lend to it at another place: bpftoken delegate --pid PID --policy POLICY --path DIRECTORY, and tell the loader: LIBBPF_BPF_TOKEN_PATH',
  'closed-bpffs':
    'let it run as that user or as root inside, or lend it anew: bpftoken delegate gives the root of its user namespace the bpffs, open to all',
  lockdown:
    'do without this helper, or boot without lockdown=confidentiality: it cannot be lowered while the kernel runs',
  'descriptor-limit': 'raise it for the process (ulimit -n, LimitNOFILE= of a unit), or let it close some',
  'memory-limit': 'raise memory.max of the cgroup (--memory of a container, MemoryMax= of a unit)',
  memory: 'ask for a smaller map, or give the machine more memory',
  seccomp:
    "let the container's seccomp profile allow bpf (bpftoken plan --seccomp-profile writes one), or SystemCallFilter= of the unit",
  'security-module': 'look into the log of these modules; of the guard, with bpftoken events',
  verifier:
    "read the verifier's log: bpftoken obj load shows it; if root can load the program, add capability perfmon",
  kernel: 'no right helps: this kernel has no such thing',
  request: 'no right helps: look at the request',
}
