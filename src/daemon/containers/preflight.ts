/**
 * What may keep the program of a container from using the loan, from what its runtime is about to
 * do: the process has all capabilities and no filter yet when the hook is called. Pure.
 */
import { type Concern, preflight, type TaskStatus } from '../../delegation/preflight.ts'
import type { Rights } from '../../policy/policy.ts'
import type { Vocabulary } from '../../policy/vocabulary.ts'
import { CAPABILITIES } from '../../uapi/constants.ts'
import type { OciConfig } from './oci-state.ts'

/** `rootUid`: our number for the root of its user namespace, undefined where it is not mapped. */
export function preflightConfig(
  { process, linux }: OciConfig,
  rootUid: number | undefined,
  rights: Rights,
  vocabulary: Vocabulary,
): Concern[] {
  const { capabilities = {}, user, noNewPrivileges = false } = process ?? {}
  const isRoot = (user?.uid ?? 0) === 0 && rootUid !== undefined
  const status: TaskStatus = {
    uids: isRoot ? [rootUid, rootUid, rootUid] : [],
    // Executing its program, root gets the bounding set, and any other keeps the ambient set.
    permitted: isRoot
      ? setOf(capabilities.bounding) & setOf(capabilities.permitted)
      : setOf(capabilities.ambient),
    ambient: setOf(capabilities.ambient),
    bounding: setOf(capabilities.bounding),
    noNewPrivs: noNewPrivileges,
    seccomp: 0,
  }
  return [...preflight(status, rootUid, rights, vocabulary), ...seccompConcern(bpfUnder(linux?.seccomp))]
}

function setOf(names: readonly string[] = []): bigint {
  return names.reduce((set, name) => {
    const bit = CAPABILITIES[name as keyof typeof CAPABILITIES]
    return bit === undefined ? set : set | (1n << BigInt(bit))
  }, 0n)
}

type Seccomp = NonNullable<NonNullable<OciConfig['linux']>['seccomp']>
export type BpfUnder = 'allowed' | 'refused' | 'depends'

const LETS_THROUGH = ['SCMP_ACT_ALLOW', 'SCMP_ACT_LOG']

/** What a seccomp profile does to bpf(2). `depends`: on its arguments, or its rules contradict. */
export function bpfUnder(seccomp: Seccomp | undefined): BpfUnder {
  if (seccomp === undefined) return 'allowed'
  const through = (action: string): BpfUnder => (LETS_THROUGH.includes(action) ? 'allowed' : 'refused')
  const rules = (seccomp.syscalls ?? []).filter(({ names }) => names?.includes('bpf') === true)
  const otherwise = through(seccomp.defaultAction)
  if (rules.length === 0) return otherwise
  const verdicts = new Set(rules.map(({ action }) => through(action)))
  const onAll = rules.some(({ args }) => args === undefined || args.length === 0)
  if (!onAll) verdicts.add(otherwise)
  return verdicts.size === 1 ? [...verdicts][0]! : 'depends'
}

const REMEDY =
  'Podman 5, Docker: --cap-add BPF makes the default profile allow it; Podman 4: --security-opt seccomp=PROFILE, of a profile that has bpf; Kubernetes: securityContext.seccompProfile'

function seccompConcern(bpf: BpfUnder): Concern[] {
  if (bpf === 'allowed') return []
  const certain = bpf === 'refused'
  const what = certain
    ? "the container's seccomp profile refuses bpf(2)"
    : "the container's seccomp profile lets bpf(2) through for some arguments only"
  return [{ code: 'seccomp', certain, what, remedy: REMEDY }]
}
