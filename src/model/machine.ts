/** What the whole machine decides: its kernel, a sysctl, and what other security modules say. */
import type { ErrnoName } from './judge.ts'
import type { KernelFacts } from './kernel.ts'
import type { ModelCapability } from './task.ts'

/** Hooks of security modules that the calls of the model pass, in the order of a call. */
export const LSM_HOOKS = [
  'bpf',
  'bpf_token_create',
  'bpf_token_cmd',
  'bpf_token_capable',
  'bpf_map_create',
  'bpf_map',
  'bpf_prog_load',
  'bpf_prog',
] as const
export type LsmHook = (typeof LSM_HOOKS)[number]

export interface Machine {
  readonly kernel: KernelFacts
  /** sysctl kernel.unprivileged_bpf_disabled */
  readonly unprivilegedBpfDisabled: 0 | 1 | 2
  /** The capabilities for which `bpf_token_capable` does not refuse, where it refuses any. */
  readonly lsmLends?: ReadonlySet<ModelCapability>
  /** With what a security module refuses; absent: all agree. */
  readonly lsm?: Partial<Readonly<Record<LsmHook, ErrnoName>>>
}
