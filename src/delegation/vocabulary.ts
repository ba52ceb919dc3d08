/** The rights vocabulary of the running kernel: its BTF, in the policy layer's terms. */
import { readFileSync } from 'node:fs'
import { findEnums } from '../ebpf/btf/enums.ts'
import { NotSupportedError } from '../errors.ts'
import { DOMAIN_ENUMS, type KernelEnums, type Vocabulary, vocabularyFrom } from '../policy/vocabulary.ts'
import { mapReadOnly } from '../sys/memory.ts'
import { VMLINUX_BTF } from '../uapi/kernel-paths.ts'

let running: Vocabulary | undefined

/**
 * Words and bits that the running kernel knows. NotSupportedError without its BTF. Read once per
 * process.
 */
export function runningVocabulary(): Vocabulary {
  running ??= vocabularyFrom(readKernelEnums(VMLINUX_BTF))
  return running
}

/** The enumerators behind the vocabulary, from the BTF file of a kernel. */
export function readKernelEnums(path: string): KernelEnums {
  let btf: Uint8Array
  try {
    // Of another file somebody might cut off what is mapped.
    btf = (path === VMLINUX_BTF ? mapReadOnly(path) : undefined) ?? readFileSync(path)
  } catch (cause) {
    throw new NotSupportedError(`The kernel's type information ${path} cannot be read`, {
      cause,
      context: { path },
      hint: 'Run a kernel with CONFIG_DEBUG_INFO_BTF=y, and mount sysfs at /sys',
    })
  }
  const names = Object.values(DOMAIN_ENUMS).map(domain => domain.enumName)
  const found = findEnums(btf, names)
  const enums = names.map(name => [name, Object.fromEntries(found.get(name) ?? [])])
  return Object.fromEntries(enums) as KernelEnums
}
