/** What a plan asks of whoever starts a container, in no runtime's words yet. Pure. */
import { PROGRAM_CLASSES } from '../../policy/kernel-classes.ts'
import type { RightsPlan } from '../plan.ts'
import { comments, remarks } from './comments.ts'

/** Whether the runtime's seccomp profile lets bpf(2) through to a container with the capabilities. */
export type SeccompFact =
  /** One was made at `path` that does, out of `from`. */
  | { readonly is: 'made'; readonly path: string; readonly from: string }
  | { readonly is: 'allowed' | 'refused'; readonly from: string }
  /** No default profile was found. */
  | { readonly is: 'unknown' }

/** What is known of the machine that the text is for. */
export interface FormatFacts {
  readonly seccomp: SeccompFact
}

/** `BPF`, as runtimes take them. */
export function capabilityWords({ capabilities }: RightsPlan): string[] {
  return capabilities.map(({ name }) => name.toUpperCase())
}

/** Whether it has programs that reach the devices or sockets of a network namespace. */
export function reachesNetwork({ rights }: RightsPlan): boolean {
  // Fail closed: a type that we have no class for may reach it too.
  return rights.some(
    ({ domain, word }) => domain === 'progs' && ['network', undefined].includes(PROGRAM_CLASSES[word]?.reach),
  )
}

/**
 * What ends the text of each runtime: its own remarks, what seccomp needs, and who mounts. `mount`
 * is the command for that, and `option` the option of plan that writes a profile.
 */
export function containerRemarks(
  plan: RightsPlan,
  { seccomp }: FormatFacts,
  { own = [], mount }: { own?: readonly string[]; mount: readonly string[] },
): string[] {
  return comments([...own, ...networkRemark(plan), ...seccompRemark(seccomp), ...mount, ...remarks(plan)])
}

function networkRemark(plan: RightsPlan): string[] {
  return reachesNetwork(plan)
    ? [
        'A network of its own, as is the default: the rights reach what is in it, so never the one of the host.',
      ]
    : []
}

function seccompRemark(seccomp: SeccompFact): string[] {
  switch (seccomp.is) {
    case 'made':
      return [`The seccomp profile is ${JSON.stringify(seccomp.from)} and what the plan needs beside.`]
    case 'allowed':
      return [
        `${JSON.stringify(seccomp.from)}, the default here, lets bpf(2) through with these capabilities.`,
      ]
    case 'refused':
      return [
        `${JSON.stringify(seccomp.from)}, the default here, refuses what these programs call.`,
        'Have one made that this text then names: bpftoken plan --seccomp-profile FILE',
      ]
    case 'unknown':
      return [
        'The default seccomp profiles of Podman 5.4, Docker 23, containerd 1.7 and newer let bpf(2) through to who has BPF;',
        'for others have one made where such a profile is: bpftoken plan --seccomp-profile FILE',
      ]
  }
}

/** For a command that is told of in a comment. POLICY is the policy that the plan is, too. */
export function mountedBy(recipient: string, who = 'root of the host'): string[] {
  return [
    `The bpffs is mounted by ${who} once the container runs. POLICY is what bpftoken plan prints by itself:`,
    `  bpftoken delegate ${recipient} --policy POLICY`,
    'Until then the kernel refuses what is loaded inside.',
  ]
}
