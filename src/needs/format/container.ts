/**
 * What a plan asks of the operator who starts a container, not yet in any runtime's words. Pure.
 */
import { PROGRAM_CLASSES } from '../../policy/kernel-classes.ts'
import type { RightsPlan } from '../plan.ts'
import { comments, remarks } from './comments.ts'

/**
 * Whether the runtime's seccomp profile lets bpf(2) through to a container with the capabilities.
 */
export type SeccompFact =
  /** One was made at `path` that does, out of `from`. */
  | { readonly is: 'made'; readonly path: string; readonly from: string }
  | { readonly is: 'allowed' | 'refused'; readonly from: string }
  /** No default profile was found. */
  | { readonly is: 'unknown' }

/** Commands of ours that the comments tell of, as the reader would type them. */
export interface FormatWords {
  /** Prints the policy that the plan is. */
  readonly plan: string
  /** Makes a seccomp profile, too. */
  readonly profile: string
  /** The command that lends by the file `policy` to a container or to the process of a cgroup. */
  readonly lend: (recipient: { container: string } | { cgroup: string }, policy: string) => string
  /** Tells how the guard lets another program lend. */
  readonly allow: string
}

/** Facts about the machine that the text is for, and about its reader. */
export interface FormatFacts {
  readonly seccomp: SeccompFact
  readonly words: FormatWords
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

/** The end of each runtime's text: its own remarks, the needs of seccomp, and who mounts. */
export function containerRemarks(
  plan: RightsPlan,
  { seccomp, words }: FormatFacts,
  { own = [], mount }: { own?: readonly string[]; mount: readonly string[] },
): string[] {
  return comments([
    ...own,
    ...networkRemark(plan),
    ...seccompRemark(seccomp, words),
    ...mount,
    ...remarks(plan),
  ])
}

function networkRemark(plan: RightsPlan): string[] {
  return reachesNetwork(plan)
    ? [
        'A network of its own, as is the default: the rights reach what is in it. Without a guard they also reach the',
        'network of a process outside that is handed a loaded program.',
      ]
    : []
}

function seccompRemark(seccomp: SeccompFact, { profile }: FormatWords): string[] {
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
        `Have one made that this text then names: ${profile}`,
      ]
    case 'unknown':
      return [
        'The default seccomp profiles of Podman 5.4, Docker 23, containerd 1.7 and newer let bpf(2) through to who has BPF;',
        `for others have one made where such a profile is: ${profile}`,
      ]
  }
}

/** That somebody mounts, and how. */
export function mountedBy(
  { plan, lend }: FormatWords,
  recipient: { container: string } | { cgroup: string },
  who = 'root of the host',
): string[] {
  return [
    `The bpffs is mounted by ${who} once the container runs. POLICY is what ${plan} prints by itself:`,
    `  ${lend(recipient, 'POLICY')}`,
    'Until then the kernel refuses what is loaded inside.',
  ]
}
