/**
 * `fentry/nf_nat:bpf_ct_set_nat_info` names a module of the kernel, and what is in it; `vmlinux` is
 * the kernel itself. Pure.
 */
export const KERNEL = 'vmlinux'

export interface Target {
  /** Undefined: the kernel itself, or whatever module has it. */
  readonly module: string | undefined
  readonly name: string
}

export function moduleAndName(target: string): Target {
  const colon = target.indexOf(':')
  return {
    module: colon === -1 ? undefined : target.slice(0, colon),
    name: target.slice(colon + 1),
  }
}

/** The module that a target names; undefined: none, or the kernel itself. */
export function moduleOf(target: string): string | undefined {
  const { module } = moduleAndName(target)
  return module === KERNEL ? undefined : module
}
