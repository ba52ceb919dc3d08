/** The smallest change that would let a call pass, in the words of commands and options. Pure. */
import type { Cause, Explanation } from '../lending/explain.ts'

export function changeText({ cause, policy, capabilities }: Explanation): string {
  if (policy !== undefined) {
    const name = policy.word.toUpperCase()
    const flags =
      policy.list === 'capabilities'
        ? `; a container gets it by its runtime's option cap-add=${name}, a unit by AmbientCapabilities=CAP_${name}`
        : ''
    return `spec.rights.${policy.list}: add ${policy.word}${flags}`
  }
  if (cause === 'initial-namespace')
    return `tokens serve other user namespaces only: run it with bpftoken run, or give it ${capabilities.join(', ')}`
  return CHANGES[cause] ?? 'none'
}

const CHANGES: Partial<Readonly<Record<Cause, string>>> = {
  'no-delegation': 'lend it one: bpftoken delegate --pid PID --policy POLICY',
  'no-token':
    'use a loader that makes tokens (libbpf 1.5, bpftool 7.5, cilium/ebpf 0.22 or newer), and tell it the place: LIBBPF_BPF_TOKEN_PATH',
  seccomp:
    "let the container's seccomp profile allow bpf (bpftoken plan --seccomp-profile writes one), or SystemCallFilter= of the unit",
  'security-module': 'look into the log of these modules; of the guard, with bpftoken events',
  verifier:
    "read the verifier's log: bpftoken obj load shows it; if root can load the program, add capability perfmon",
  kernel: 'no right helps: this kernel has no such thing',
  request: 'no right helps: look at the request',
}
