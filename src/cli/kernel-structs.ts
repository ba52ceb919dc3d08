/** Structs of a kernel, which plans of struct_ops objects ask for. */
import { readFileSync } from 'node:fs'

import { Btf, type BtfComposite } from '../ebpf/btf/btf.ts'
import { VMLINUX_BTF } from '../uapi/kernel-paths.ts'
import { readKernelTypes } from './object-files.ts'

/**
 * Members of the structs of the running kernel, or of the one whose types are in `file`. Reads them
 * at the first question; few objects ask.
 */
export function structOfKernel(file?: string): (name: string) => readonly string[] | undefined {
  let kernel: Btf | null | undefined
  return name => {
    if (kernel === undefined)
      kernel = file === undefined ? kernelTypes() : readKernelTypes(file).vmlinux.types
    const id = kernel?.find(name, 'struct')[0]
    return id === undefined ? undefined : (kernel!.type(id) as BtfComposite).members.map(one => one.name)
  }
}

/** Null: this kernel does not tell. */
function kernelTypes(): Btf | null {
  try {
    return Btf.parse(readFileSync(VMLINUX_BTF))
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === undefined) throw error
    return null
  }
}
