/**
 * Attaching without a link: BPF_PROG_ATTACH, as programs did before links came, and still do. It
 * stays until it is detached, whoever closes what; the kernel's object holds the program. Anybody
 * who can open a cgroup can detach what was not attached with `multi`. Use a link where there is
 * one.
 */
import { progAttach, progDetach } from '../../sys/bpf.ts'
import { Fd } from '../../sys/fd.ts'
import { open } from '../../sys/open.ts'
import {
  BPF_F_ALLOW_MULTI,
  BPF_F_ALLOW_OVERRIDE,
  BPF_F_REPLACE,
  O_CLOEXEC,
  O_RDONLY,
  O_RDWR,
} from '../../uapi/constants.ts'
import type { BpfMap } from '../map.ts'
import type { Program } from '../prog.ts'
import { ATTACH_TYPES, type AttachType } from '../type-names.ts'
import { type Anchor, anchorOf } from './attach.ts'

/** To what: one of these. */
export interface HookTarget {
  /** A directory in a cgroup2 file system, or a descriptor of it. */
  readonly cgroup?: Fd | string
  /** A device, for TCX and netkit. */
  readonly ifindex?: number
  /** A `sockmap` or `sockhash`. */
  readonly map?: BpfMap
  /** A file such as /proc/self/ns/net. */
  readonly netns?: Fd | string
  /** An infrared receiver: /dev/lirc0. */
  readonly lirc?: Fd | string
}

/** Runs `use` with what the kernel's commands call the target. */
export function onTarget<T>(
  target: HookTarget,
  use: (attr: { target_fd: number } | { target_ifindex: number }, object: string) => T,
): T {
  const { cgroup, ifindex, map, netns, lirc } = target
  const given = [cgroup, ifindex, map, netns, lirc].filter(one => one !== undefined)
  if (given.length !== 1) throw new TypeError('give one of cgroup, ifindex, map, netns and lirc')
  if (ifindex !== undefined) return use({ target_ifindex: ifindex }, `device ${ifindex}`)
  if (map !== undefined) return use({ target_fd: map.fd.number }, `map ${map.type}`)
  const file = cgroup ?? netns ?? lirc!
  if (file instanceof Fd) return use({ target_fd: file.number }, 'a descriptor')
  using fd = open(file, (lirc === undefined ? O_RDONLY : O_RDWR) | O_CLOEXEC)
  return use({ target_fd: fd.number }, file)
}

export interface DirectOptions extends Anchor {
  readonly attachType: AttachType | number
  /**
   * Cgroups: `multi` lets others stand beside it and below; `override` lets children have another
   * one instead; by default, neither.
   */
  readonly mode?: 'multi' | 'override'
  /** Takes the place of this program, in one step. With `multi` for cgroups; since Linux 5.6. */
  readonly replace?: Program
  /** ESTALE: what is attached has changed since `queryAttached` told this. */
  readonly revision?: bigint
}

const MODES = { multi: BPF_F_ALLOW_MULTI, override: BPF_F_ALLOW_OVERRIDE }

function attrOf(program: Program, options: DirectOptions) {
  const { attachType, mode, replace, revision = 0n } = options
  const { flags, relative } = anchorOf(options)
  return {
    attach_bpf_fd: program.fd.number,
    attach_type: ATTACH_TYPES.number(attachType),
    attach_flags:
      flags | (mode === undefined ? 0 : MODES[mode]) | (replace === undefined ? 0 : BPF_F_REPLACE),
    replace_bpf_fd: replace?.fd.number ?? 0,
    relative_fd: relative,
    expected_revision: revision,
  }
}

/**
 * Attaches without a link. Anchors: TCX since Linux 6.6, netkit since 6.7, cgroups since 6.17.
 * EPERM: another attachment forbids it, or `cgroup_skb` without CAP_NET_ADMIN. EEXIST: the program
 * is there already. EINVAL: the target is not for this type; for `lirc` also a kernel without
 * CONFIG_BPF_LIRC_MODE2.
 */
export function attachDirectly(program: Program, target: HookTarget, options: DirectOptions): void {
  onTarget(target, (attr, object) => progAttach({ ...attr, ...attrOf(program, options) }, object))
}

/**
 * Detaches what was attached without a link; options as when it was attached. ENOENT: not there.
 */
export function detachDirectly(
  program: Program,
  target: HookTarget,
  options: Pick<DirectOptions, 'attachType' | 'revision'>,
): void {
  onTarget(target, (attr, object) => progDetach({ ...attr, ...attrOf(program, options) }, object))
}
