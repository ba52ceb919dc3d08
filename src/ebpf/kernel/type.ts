/**
 * Names in the running kernel's own types: what a program attaches to, calls or points at. A name
 * is looked for in vmlinux first and then in every module, as the kernel's loader tools do.
 */
import { InputError, NotFoundError } from '../../errors.ts'
import type { Btf, BtfKind } from '../btf/btf.ts'
import { KERNEL, moduleAndName } from '../object/module-name.ts'
import type { SectionRule } from '../object/section-names.ts'
import { kernelBtf, moduleBtfs } from './btf.ts'

export interface KernelType {
  readonly id: number
  /** Undefined: vmlinux. */
  readonly module: string | undefined
  readonly types: Btf
}

/**
 * The first type of that name and kind; undefined: this kernel has none. `only`: in this module
 * alone, or in vmlinux.
 */
export function findKernelType(name: string, kind: BtfKind, only?: string): KernelType | undefined {
  const vmlinux = kernelBtf().types
  const id = only === undefined || only === KERNEL ? vmlinux.find(name, kind)[0] : undefined
  if (id !== undefined) return { id, module: undefined, types: vmlinux }
  for (const { name: module, types } of moduleBtfs()) {
    if (only !== undefined && module !== only) continue
    const own = types.find(name, kind).find(found => found >= types.firstId)
    if (own !== undefined) return { id: own, module, types }
  }
  return undefined
}

/**
 * How the kernel names what a program of this attach type attaches to (libbpf,
 * btf_get_kernel_prefix_kind).
 */
function kernelName(rule: Pick<SectionRule, 'attachType'>, target: string): { name: string; kind: BtfKind } {
  switch (rule.attachType) {
    case 'trace_raw_tp':
      return { name: `btf_trace_${target}`, kind: 'typedef' }
    case 'lsm_mac':
    case 'lsm_cgroup':
      return { name: `bpf_lsm_${target}`, kind: 'func' }
    case 'trace_iter':
      return { name: `bpf_iter_${target}`, kind: 'func' }
    default:
      return { name: target, kind: 'func' }
  }
}

/**
 * The type a program attaches to: `tcp_connect`, or `nf_nat:bpf_ct_set_nat_info` for one of that
 * module alone. NotFoundError: this kernel has no such function, hook or tracepoint, or the module
 * is not loaded.
 */
export function findAttachTarget(
  program: string,
  rule: Pick<SectionRule, 'attachType'>,
  target: string | undefined,
): KernelType {
  if (target === undefined)
    throw new InputError(`Program "${program}" does not say what it attaches to`, {
      context: { program },
      hint: 'Name a target for it when loading',
    })
  const { module, name: plain } = moduleAndName(target)
  const { name, kind } = kernelName(rule, plain)
  const found = findKernelType(name, kind, module)
  if (found !== undefined) return found
  if (module === undefined || module === KERNEL)
    throw new NotFoundError(`Program "${program}" attaches to "${target}", which this kernel does not have`, {
      context: { program, target, type: name },
      hint: 'Load the module that has it, if one does; or leave the program out, or run another kernel',
    })
  const isLoaded = moduleBtfs().some(one => one.name === module)
  const what = isLoaded ? 'has no such target' : 'is not loaded, or shows no types'
  throw new NotFoundError(`Program "${program}" attaches to "${target}", and module "${module}" ${what}`, {
    context: { program, target, type: name, module },
    hint: isLoaded ? 'Leave the program out, or name another target' : `Load the module: modprobe ${module}`,
  })
}
