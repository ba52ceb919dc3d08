/**
 * Types of a kernel that CO-RE resolves against: the running kernel's, or another's from files, as
 * BTFHub has them for kernels that show none. Held by whoever loads or looks at several objects:
 * they are read once.
 *
 *   const kernel = KernelTypes.parse(readFileSync('5.4.0-91-generic.btf'), { name: '5.4.0-91' })
 *   await loadObject(spec, { kernelTypes: kernel })
 */
import { FormatError, InputError } from '../../errors.ts'
import { Btf } from '../btf/btf.ts'
import type { CoreTarget } from '../core/relo.ts'
import { isElf, parseElf } from '../elf/elf.ts'
import { kernelBtf, moduleBtfs } from './btf.ts'

/** How archives and compressed files begin in which types are handed out. */
const PACKED: readonly (readonly [what: string, start: readonly number[]])[] = [
  ['xz', [0xfd, 0x37, 0x7a, 0x58, 0x5a]],
  ['gzip', [0x1f, 0x8b]],
  ['zstd', [0x28, 0xb5, 0x2f, 0xfd]],
]

export class KernelTypes {
  /** What it is called in messages. */
  readonly name: string
  readonly #vmlinux: () => CoreTarget
  readonly #modules: () => readonly CoreTarget[]

  private constructor(name: string, vmlinux: () => CoreTarget, modules: () => readonly CoreTarget[]) {
    this.name = name
    this.#vmlinux = vmlinux
    this.#modules = modules
  }

  /** Those of the running kernel and its modules, which are read when they are first asked for. */
  static running(): KernelTypes {
    return new KernelTypes('vmlinux', kernelBtf, moduleBtfs)
  }

  /**
   * Another kernel's. Pure. `bytes` are raw BTF, or an ELF file with a section .BTF, such as a
   * vmlinux; they are kept. `modules` are the same for its modules, whose types continue the
   * kernel's: they are looked at where the kernel itself has no type of a name. FormatError: it is
   * none of that.
   */
  static parse(
    bytes: Uint8Array,
    options: { readonly name?: string; readonly modules?: Readonly<Record<string, Uint8Array>> } = {},
  ): KernelTypes {
    const name = options.name ?? 'vmlinux'
    const types = Btf.parse(rawBtf(bytes, name))
    const modules = Object.entries(options.modules ?? {}).map(([module, raw]) => {
      if (module === '') throw new InputError('A module without a name has no types')
      return { name: module, types: Btf.parse(rawBtf(raw, module), types) }
    })
    return new KernelTypes(
      name,
      () => ({ name, types }),
      () => modules,
    )
  }

  /** NotSupportedError: the running kernel shows none. */
  get vmlinux(): CoreTarget {
    return this.#vmlinux()
  }

  get modules(): readonly CoreTarget[] {
    return this.#modules()
  }
}

function rawBtf(bytes: Uint8Array, name: string): Uint8Array {
  const packed = PACKED.find(([, start]) => start.every((byte, i) => bytes[i] === byte))
  if (packed !== undefined)
    throw new FormatError('BTF', `the types of "${name}" are packed with ${packed[0]}`, {
      hint: 'Unpack the file first',
    })
  if (!isElf(bytes)) return bytes
  const data = parseElf(bytes).sections.find(section => section.name === '.BTF')?.data
  if (data !== undefined && data.length > 0) return data
  throw new FormatError('BTF', `the ELF file of "${name}" has no section .BTF`, {
    hint: 'Give a vmlinux that was built with CONFIG_DEBUG_INFO_BTF, or a file of raw BTF',
  })
}
