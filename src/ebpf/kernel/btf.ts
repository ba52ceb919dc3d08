/**
 * The running kernel's own types, as bytes to look things up in and as descriptors to hand to the
 * kernel.
 *
 * Reading types needs no rights: /sys/kernel/btf is world-readable. A descriptor is wanted only
 * where an id is of a module, and getting one is privileged.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { release } from 'node:os'
import { BpftokenError, NotSupportedError, SyscallError } from '../../errors.ts'
import { mapReadOnly } from '../../sys/memory.ts'
import { KERNEL_BTF, VMLINUX_BTF } from '../../uapi/kernel-paths.ts'
import { Btf, findEnums } from '../btf/btf.ts'
import { BtfObject } from '../btf/object.ts'
import { isElf, parseElf } from '../elf/elf.ts'
import { btfIds } from '../object-id.ts'
import type { TokenChoice } from '../token.ts'
import { lookUpNamesBy } from '../type-names.ts'

export interface KernelBtf {
  readonly name: 'vmlinux'
  readonly types: Btf
  readonly bytes: Uint8Array
}

/** Types of a loaded module; ids below `types.firstId` are vmlinux's. */
export interface ModuleBtf {
  readonly name: string
  readonly types: Btf
}

/**
 * Where distributions put a kernel image with its types, for kernels that do not show them in sysfs
 * (libbpf, btf__load_vmlinux_btf).
 */
const IMAGES: readonly ((release: string) => string)[] = [
  r => `/boot/vmlinux-${r}`,
  r => `/lib/modules/${r}/vmlinux-${r}`,
  r => `/lib/modules/${r}/build/vmlinux`,
  r => `/usr/lib/modules/${r}/kernel/vmlinux`,
  r => `/usr/lib/debug/boot/vmlinux-${r}`,
  r => `/usr/lib/debug/boot/vmlinux-${r}.debug`,
  r => `/usr/lib/debug/lib/modules/${r}/vmlinux`,
]

/**
 * How many ids are tried where they cannot be listed. Modules that boot loads have the first ones.
 */
const GUESSED_IDS = 4096

let vmlinux: KernelBtf | undefined
let modules: readonly ModuleBtf[] | undefined

/**
 * The kernel's types, read once per process: /sys/kernel/btf/vmlinux, or else a kernel image on
 * disk. Needs no capability. NotSupportedError: neither is there. Since Linux 5.4, with
 * CONFIG_DEBUG_INFO_BTF.
 */
export function kernelBtf(): KernelBtf {
  vmlinux ??= readKernel()
  return vmlinux
}

function readKernel(): KernelBtf {
  const bytes = mapReadOnly(VMLINUX_BTF) ?? readOrNull(VMLINUX_BTF) ?? imageBtf()
  if (bytes === null)
    throw new NotSupportedError('This kernel does not show its types (BTF)', {
      context: { path: VMLINUX_BTF },
      hint: 'Run a kernel built with CONFIG_DEBUG_INFO_BTF, and have /sys mounted',
    })
  return { name: 'vmlinux', bytes, types: Btf.parse(bytes) }
}

lookUpNamesBy(enumName => {
  try {
    return findEnums(kernelBtf().bytes, [enumName]).get(enumName)
  } catch (error) {
    // Without its types a kernel has no words: the number stays a number.
    if (error instanceof BpftokenError) return undefined
    throw error
  }
})

function imageBtf(): Uint8Array | null {
  for (const path of IMAGES) {
    const bytes = readOrNull(path(release()))
    if (bytes === null || !isElf(bytes)) continue
    const data = parseElf(bytes).sections.find(({ name }) => name === '.BTF')?.data
    if (data !== undefined && data.length > 0) return data
  }
  return null
}

/**
 * The types of each loaded module, by /sys/kernel/btf; read when first asked for, then kept. A
 * module that is loaded later is seen after `forgetKernelBtf`. Needs no capability. Since Linux
 * 5.11.
 */
export function moduleBtfs(): readonly ModuleBtf[] {
  modules ??= readModules()
  return modules
}

function readModules(): ModuleBtf[] {
  const found: ModuleBtf[] = []
  for (const name of namesIn(KERNEL_BTF)) {
    if (name === 'vmlinux') continue
    const bytes = readOrNull(`${KERNEL_BTF}/${name}`)
    // Unloaded between the two looks.
    if (bytes === null) continue
    found.push({ name, types: Btf.parse(bytes, kernelBtf().types) })
  }
  return found
}

/** What is read next comes from the kernel again. */
export function forgetKernelBtf(): void {
  vmlinux = undefined
  modules = undefined
}

/**
 * A descriptor of a module's types, for kernel functions and hooks of modules; undefined: no such
 * module, or it may not be opened. BPF_BTF_GET_NEXT_ID and BPF_BTF_GET_FD_BY_ID, since Linux 5.11.
 * Needs CAP_SYS_ADMIN in the initial user namespace or, since Linux 6.15, in that of a token that
 * lends btf_get_fd_by_id. The caller disposes of it.
 */
export function openModuleBtf(name: string, token?: TokenChoice): BtfObject | undefined {
  return openKernelObject(name, token)
}

/** A descriptor of vmlinux's own types. As `openModuleBtf`. */
export function openVmlinuxBtf(token?: TokenChoice): BtfObject | undefined {
  return openKernelObject('vmlinux', token)
}

let vmlinuxId: number | undefined

/**
 * The id of vmlinux's own types, by which programs know them; it is the same until the next boot.
 * NotSupportedError: there are none, or this process may not open them. Needs what
 * `openVmlinuxBtf` needs without a token.
 */
export function kernelBtfId(): number {
  vmlinuxId ??= findVmlinuxId()
  return vmlinuxId
}

function findVmlinuxId(): number {
  using object = openVmlinuxBtf(null)
  if (object !== undefined) return object.info().id
  throw new NotSupportedError('This kernel gives out no types (BTF) of its own', {
    hint: 'Run a kernel built with CONFIG_DEBUG_INFO_BTF, as root',
  })
}

function openKernelObject(name: string, token: TokenChoice): BtfObject | undefined {
  for (const id of listedOrGuessedIds()) {
    const object = fromId(id, token)
    if (object === 'refused') return undefined
    if (object === undefined) continue
    try {
      const info = object.info()
      if (info.kernel && info.name === name) return object
    } catch (error) {
      object.close()
      throw error
    }
    object.close()
  }
  return undefined
}

/**
 * A token lets its holder open types by id and yet not list ids. They are given out counting up, so
 * the low ones are tried.
 */
function* listedOrGuessedIds(): Generator<number> {
  try {
    yield* btfIds()
    return
  } catch (error) {
    if (!(error instanceof SyscallError) || error.errnoName !== 'EPERM') throw error
  }
  for (let id = 1; id <= GUESSED_IDS; id++) yield id
}

/** Undefined: no longer there. */
function fromId(id: number, token: TokenChoice): BtfObject | 'refused' | undefined {
  try {
    return BtfObject.fromId(id, { token })
  } catch (error) {
    if (!(error instanceof SyscallError)) throw error
    if (error.errnoName === 'ENOENT') return undefined
    if (error.errnoName === 'EPERM') return 'refused'
    throw error
  }
}

function namesIn(dir: string): string[] {
  try {
    return readdirSync(dir)
  } catch (error) {
    if (isMissing(error)) return []
    throw error
  }
}

function readOrNull(path: string): Uint8Array | null {
  try {
    return readFileSync(path)
  } catch (error) {
    if (isMissing(error)) return null
    throw error
  }
}

/** Not there, or not for us: either way the next place is looked at. */
function isMissing(error: unknown): boolean {
  const code = (error as NodeJS.ErrnoException).code
  return code === 'ENOENT' || code === 'EACCES' || code === 'ENOTDIR'
}
