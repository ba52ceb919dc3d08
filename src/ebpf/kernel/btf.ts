/**
 * The running kernel's own types, as bytes to look things up in and as descriptors to hand to the
 * kernel.
 *
 * Reading types needs no rights: /sys/kernel/btf is world-readable. A descriptor is wanted only
 * where an id is of a module, and getting one is privileged.
 */
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { release } from 'node:os'
import { BpftokenError, NotSupportedError, SyscallError } from '../../errors.ts'
import { mapReadOnly } from '../../sys/memory.ts'
import { KERNEL_BTF, VMLINUX_BTF } from '../../uapi/kernel-paths.ts'
import { Btf } from '../btf/btf.ts'
import { findEnums } from '../btf/enums.ts'
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
/** Modules that are loaded later have ids near the newest one. A tenth of a second. */
const MORE_GUESSED_IDS = 65_536

let vmlinux: KernelBtf | undefined
interface ReadModule extends ModuleBtf {
  /** A module that was loaded again has another one. */
  readonly file: number
  readonly bytes: Uint8Array
}

let modules: ReadonlyMap<string, ReadModule> = new Map()
let modulesLookedAt = false

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
 * The types of each loaded module, by /sys/kernel/btf; read when first asked for, then kept.
 * `lookAtModulesAgain` has those seen that are loaded or unloaded later. Needs no capability. Since
 * Linux 5.11.
 */
export function moduleBtfs(): readonly ModuleBtf[] {
  if (!modulesLookedAt) modules = readModules()
  modulesLookedAt = true
  return [...modules.values()]
}

function readModules(): typeof modules {
  const found = new Map<string, ReadModule>()
  for (const name of namesIn(KERNEL_BTF)) {
    if (name === 'vmlinux') continue
    const path = `${KERNEL_BTF}/${name}`
    const file = statSync(path, { throwIfNoEntry: false })?.ino
    const known = modules.get(name)
    if (known !== undefined && known.file === file) {
      found.set(name, known)
      continue
    }
    const bytes = readOrNull(path)
    // Unloaded between the two looks.
    if (file === undefined || bytes === null) continue
    found.set(name, { name, file, bytes, types: Btf.parse(bytes, kernelBtf().types) })
  }
  return found
}

/** Who asks for modules next sees those that are loaded then; what is known of them is kept. */
export function lookAtModulesAgain(): void {
  modulesLookedAt = false
}

/**
 * Whether a descriptor is of the types that `moduleBtfs` gave of that module: of another build of it,
 * which was loaded meanwhile, ids mean something else.
 */
export function isModuleAsRead(name: string, object: BtfObject): boolean {
  const known = modules.get(name)
  return known !== undefined && Buffer.compare(known.bytes, object.raw()) === 0
}

/** What is read next comes from the kernel again. */
export function forgetKernelBtf(): void {
  vmlinux = undefined
  modules = new Map()
  lookAtModulesAgain()
}

/**
 * A descriptor of a module's types, for kernel functions and hooks of modules; undefined: no such
 * module. BPF_BTF_GET_NEXT_ID and BPF_BTF_GET_FD_BY_ID, since Linux 5.11. Needs CAP_SYS_ADMIN in
 * the initial user namespace or, since Linux 6.15, in that of a token that lends btf_get_fd_by_id;
 * EPERM names what is missing. `newestId`: the id of types that were loaded after the module's, by
 * which a token's holder, who cannot list ids, knows where to stop. The caller disposes of it.
 */
export function openModuleBtf(name: string, token?: TokenChoice, newestId?: number): BtfObject | undefined {
  return openKernelObject(name, token, newestId)
}

/** A descriptor of vmlinux's own types. As `openModuleBtf`. */
export function openVmlinuxBtf(token?: TokenChoice): BtfObject | undefined {
  return openKernelObject('vmlinux', token)
}

let vmlinuxId: number | undefined

/**
 * The id of vmlinux's own types, by which programs know them; it is the same until the next boot.
 * NotSupportedError: there are none. Needs what `openVmlinuxBtf` needs without a token.
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

function openKernelObject(name: string, token: TokenChoice, newestId = 0): BtfObject | undefined {
  for (const id of listedOrGuessedIds(newestId)) {
    const object = fromId(id, token)
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
 * the low ones are tried first, and then from the newest down.
 */
function* listedOrGuessedIds(newestId: number): Generator<number> {
  try {
    yield* btfIds()
    return
  } catch (error) {
    if (!(error instanceof SyscallError) || error.errnoName !== 'EPERM') throw error
  }
  for (let id = 1; id <= GUESSED_IDS; id++) yield id
  const last = Math.max(GUESSED_IDS, newestId - MORE_GUESSED_IDS)
  for (let id = newestId; id > last; id--) yield id
}

/** Undefined: no longer there. */
function fromId(id: number, token: TokenChoice): BtfObject | undefined {
  try {
    return BtfObject.fromId(id, { token })
  } catch (error) {
    if (error instanceof SyscallError && error.errnoName === 'ENOENT') return undefined
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
