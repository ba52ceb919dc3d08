/**
 * What to do next, in the words of this command line. Libraries say what went wrong, by a reason
 * and its facts; here is which command or option that means for who typed one.
 */
import {
  type BpftokenError,
  type ErrorContext,
  type Reason,
  SyscallError,
  UnreachableError,
} from '../errors.ts'
import type { Fact } from '../lending/doctor.ts'
import { hintFor } from '../uapi/hints.ts'
import { word } from './output.ts'

const INSTALL_GUARD = 'Install it as root: bpftoken guard install'

const START_DAEMON =
  'Start it: systemctl start bpftokend.socket, or bpftokend as root; root can also lend without it: --direct'

const OVERRIDE = 'say --any-subject to lend to it all the same'

/** Every reason has its words. */
const BY_REASON: Readonly<Record<Reason, (facts: ErrorContext) => string>> = {
  'approval-not-asked': () =>
    'Say spec.approval: none, or lend under it with bpftoken delegate, which asks bpftokend',
  'big-endian': () => 'Compile it for bpfel, or look at it with bpftoken obj show',
  'confinements-full': () => 'End one first: bpftoken unconfine',
  'delegation-unknown': () => 'See bpftoken guard status for those that live',
  'guard-missing': () => INSTALL_GUARD,
  'guard-needed': ({ fields }) =>
    fields === undefined
      ? INSTALL_GUARD
      : 'Install the guard (bpftoken guard install), remove these fields, or say spec.guard: optional to go on without their being enforced',
  'guard-older': () => 'Replace it as root, without a gap: bpftoken guard install',
  'launch-refused': () =>
    'Say spec.launch: allowed in the policy, or run it as root: sudo bpftoken run --user NAME',
  'launcher-missing': () => 'Start it: systemctl enable --now bpftoken-launchd.socket',
  'may-stand': () =>
    'End the processes of that user namespace, or unmount it there (bpftoken ls shows what is mounted); a guard could revoke it: bpftoken guard install',
  'more-than-parent': () => 'Ask for less, or leave out --strict to get what there is',
  'name-ambiguous': ({ container }) =>
    container === undefined ? 'Name one of them by its number: --pid' : 'Give the id, or more of it',
  'name-unknown': ({ container }) =>
    container === undefined
      ? "systemctl list-units shows those that there are; one of a user's has that user before it: --unit alice/web.service"
      : "podman ps --all and docker ps --all show those that there are; one of a user's has that user before it: --container alice/web",
  'names-unavailable': () => 'Name the process by its number instead: --pid',
  'network-shared': () =>
    'Give the workload its own network namespace (no --host-net) and a user namespace that root made, install the guard, or say spec.network: host',
  'no-place': () =>
    'Name the place: --attach xdp:DEVICE, tcx:DEVICE/ingress, netkit:DEVICE/primary, cgroup:PATH or netns:PATH',
  'no-user-namespace': () =>
    'A token works only inside a user namespace of its own: start the target in one, e.g. with bpftoken run',
  'not-confined': () => 'See bpftoken guard status for those that are',
  'not-delegated': () => 'See bpftoken ls for what is delegated where',
  'not-derivable': ({ why }) =>
    why === 'forbidden'
      ? 'Say spec.derive.allowed: true, with a larger maxDepth, in its policy'
      : why === 'confined'
        ? 'Name one that was lent to a user namespace'
        : 'Make a new delegation: bpftoken delegate',
  'nothing-to-derive': ({ delegation }) => `See bpftoken show ${delegation} for what it has`,
  'place-taken': ({ pid, path }) =>
    `Remove it with bpftoken undelegate --pid ${pid} --path ${word(String(path))}, or name another --path`,
  'state-damaged': () => 'Start it once with bpftokend --recover: what lives is found again in the kernel',
  'state-in-use': () => 'See systemctl status bpftokend: there is one for a state directory',
  'state-open-to-others': ({ path }) => `Make it root's alone: chown root: ${path}; chmod 0700 ${path}`,
  'state-schema': () =>
    'Start the version that wrote it, or start this one once with bpftokend --recover: what lives is found again in the kernel',
  'subject-refused': () => `Add this subject to spec.subjects of the policy, or ${OVERRIDE}`,
  'subjects-not-compared': () => 'Leave out spec.subjects, or say --any-subject to do it all the same',
  'subjects-unsupported': () => `Name users, cgroups, units or labels, or ${OVERRIDE}`,
  'tokens-unknown': () => 'Run Linux 6.9 or newer; bpftoken doctor shows what else is missing',
}

/** By operation and errno: instead of what uapi/hints.ts has for it. */
const BY_CALL: Readonly<Record<string, string>> = {
  'openat2 ENOENT': 'Make the directory inside the target first, or name another with --path',
}

export function hintOf(error: BpftokenError): string | undefined {
  // A daemon of another version may have reasons that this one has no words for.
  if (error.reason !== undefined && Object.hasOwn(BY_REASON, error.reason))
    return BY_REASON[error.reason](error.context)
  if (error instanceof UnreachableError) return error.hint ?? START_DAEMON
  if (!(error instanceof SyscallError)) return error.hint
  const { op, errnoName, hint } = error
  // A hint of its own says more than that of the operation.
  return (hint === hintFor(op, errnoName) ? BY_CALL[`${op} ${errnoName}`] : undefined) ?? hint
}

/** What `doctor` advises. */
export function remedyOf({ name, ok, remedy }: Fact): string | undefined {
  return ok ? remedy : (BY_FACT[name] ?? remedy)
}

const BY_FACT: Readonly<Record<string, string>> = {
  'default mount point': 'Mount sysfs at /sys, or name another directory with --path',
  guard: 'Where LSM programs can be loaded: bpftoken guard install',
}
