/**
 * Puts the guard into the kernel and takes it out. Maps and links are pinned, so that it goes on
 * enforcing when we have exited:
 *
 *   DIRECTORY/maps/NAME    made once, and kept from version to version
 *   DIRECTORY/links/NAME   one for each program
 *   DIRECTORY/links-new    while one version replaces another: both enforce until the old one is gone
 *
 * The programs themselves make sure that two versions at once count and record nothing twice.
 */
import { createHash } from 'node:crypto'
import {
  chmodSync,
  lchownSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statfsSync,
} from 'node:fs'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { attachProgram } from '../ebpf/attach/section.ts'
import { kernelBtf, kernelBtfId } from '../ebpf/kernel/btf.ts'
import { Link } from '../ebpf/link.ts'
import type { MapChoice } from '../ebpf/load/maps.ts'
import { loadObject } from '../ebpf/load/object.ts'
import { BpfMap } from '../ebpf/map.ts'
import { type ObjectSpec, parseObject } from '../ebpf/object/spec.ts'
import { programIds } from '../ebpf/object-id.ts'
import { Owned } from '../ebpf/owned.ts'
import { Program } from '../ebpf/prog.ts'
import { ConflictError, NotFoundError, NotSupportedError, SyscallError } from '../errors.ts'
import { getFdById, objGet } from '../sys/bpf.ts'
import { BPF_FS_MAGIC } from '../uapi/constants.ts'
import { GUARD_DIRECTORY } from './directory.ts'
import { Guard, type GuardMode } from './guard.ts'
import { becomeKeeper } from './keeper.ts'
import { GUARD_ABI } from './layout.ts'
import { type Tables, tablesOf } from './maps.ts'
import { probeGuard } from './probe.ts'

export { probeGuard } from './probe.ts'

const OBJECT = path.resolve(__dirname, '../../bpf/guard.bpf.o')
/** How long the kernel may take to detach what nothing refers to any more. */
const DETACH_TIMEOUT_MS = 10_000
const POLL_MS = 10
const LSM_LIST = '/sys/kernel/security/lsm'

export interface InstallOptions {
  readonly directory?: string
  /** For calls that belong to no delegation. Default: as it is; at first enforce. */
  readonly mode?: GuardMode
  /** Called before the kernel verifies the programs, because that takes seconds. */
  readonly loading?: () => void
  /** Called with the path of what is removed from `directory` because no guard has put it there. */
  readonly removing?: (path: string) => void
}

/** What `installGuard` did. */
export type Installed = 'installed' | 'replaced' | 'adopted'

/** The guard as it is found: nothing about it is stored. */
export interface GuardStatus {
  readonly directory: string
  /** Whether the reserved mount option is refused: the proof that some guard enforces. */
  readonly proven: boolean
  /** Control points without a pinned program. Undefined: nothing is pinned. */
  readonly missing: readonly string[] | undefined
  /** Whether the pinned programs are of this version. */
  readonly current: boolean
}

interface GuardObject {
  readonly spec: ObjectSpec
  /** Beginning of the SHA-256. */
  readonly build: number
}

function readObject(): GuardObject {
  const bytes = readFileSync(OBJECT)
  return {
    spec: parseObject(bytes, { name: 'guard' }),
    build: createHash('sha256').update(bytes).digest().readUInt32LE(0),
  }
}

/**
 * Installs the guard, or adopts the one that is there; one of another build is replaced without a
 * gap. Needs CAP_SYS_ADMIN, CAP_BPF and CAP_PERFMON in the initial user namespace.
 * NotSupportedError: this kernel cannot run it, with the remedy. ConflictError: its maps are of
 * another layout.
 */
export async function installGuard(options: InstallOptions = {}): Promise<Installed> {
  const { directory = GUARD_DIRECTORY, mode, loading, removing } = options
  requireTokens()
  requireLsm()
  requireBpffs(directory)
  const object = readObject()
  const own = mapsOfRunning(directory)
  removeStrays(directory, own, removing)
  makeDirectories(directory)
  using before = own.size === 0 ? undefined : Guard.openOrNull(directory)
  const whole = before !== undefined && missingLinks(directory, object.spec).length === 0
  if (whole && before.config().build === object.build) {
    if (mode !== undefined) before.configure({ mode })
    protect(
      before.tables,
      idsOf(declaredMaps(object.spec), name => before.map(name)),
      directory,
    )
    return 'adopted'
  }
  loading?.()
  await loadAndPin(object, own, options, mode ?? before?.config().mode ?? 'enforce')
  if (!probeGuard())
    throw new NotSupportedError('The guard is loaded, but the kernel does not ask it', {
      context: { directory },
      hint: 'Boot with bpf in the list of LSMs: lsm=...,bpf',
    })
  return before === undefined ? 'installed' : 'replaced'
}

/** The loader would name only the first thing that is missing. */
function requireTokens(): void {
  if (kernelBtf().types.find('bpf_lsm_bpf_token_create', 'func').length > 0) return
  throw new NotSupportedError('This kernel has no BPF tokens, so that there is nothing to guard', {
    hint: 'Run Linux 6.9 or newer',
  })
}

function requireLsm(): void {
  let list: string
  try {
    list = readFileSync(LSM_LIST, 'utf8')
  } catch {
    // Without securityfs nobody can tell; the proof at the end will.
    return
  }
  if (list.trim().split(',').includes('bpf')) return
  throw new NotSupportedError(`The guard needs the BPF LSM, and this kernel runs with ${list.trim()}`, {
    context: { lsm: list.trim() },
    hint: `Add bpf to the kernel's command line, lsm=${list.trim()},bpf, and boot again`,
  })
}

function requireBpffs(directory: string): void {
  const parent = path.dirname(directory)
  if (statfsSync(parent).type >>> 0 === BPF_FS_MAGIC) return
  throw new NotSupportedError(`${parent} is not a bpffs, so that nothing can be pinned in it`, {
    context: { directory },
    hint: `Mount one: mount -t bpf bpf ${parent}`,
  })
}

function makeDirectories(directory: string): void {
  for (const one of [directory, `${directory}/maps`]) {
    try {
      mkdirSync(one, { mode: 0o700 })
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
    }
  }
}

const declaredMaps = (spec: ObjectSpec): string[] =>
  spec.maps.filter(({ kind }) => kind === 'declared').map(({ name }) => name)

function idsOf(names: readonly string[], mapNamed: (name: string) => BpfMap): Set<number> {
  return new Set(names.map(name => mapNamed(name).info().id))
}

// ---- what lies in the directory ----

/**
 * Ids of the maps that the guard whose links are pinned here runs with, and says are its own: anybody
 * could have pinned others beside them. None: no guard enforces, or it is pinned elsewhere.
 */
function mapsOfRunning(directory: string): ReadonlySet<number> {
  if (!probeGuard()) return new Set()
  becomeKeeper()
  const pins = LINKS.flatMap(part =>
    namesIn(`${directory}/${part}`).map(name => `${directory}/${part}/${name}`),
  )
  const used = new Set(pins.flatMap(mapsUsedBy))
  using map = openPinned(`${directory}/maps/own_maps`)
  if (map === undefined || !used.has(map.info().id)) return new Set()
  const { own_maps } = tablesOf(() => map)
  return new Set([...own_maps.keys()].filter(id => used.has(id)))
}

/** Of the program of a pinned link; none unless that is of a type that the guard has. */
function mapsUsedBy(pin: string): readonly number[] {
  try {
    using link = new Link(objGet(pin))
    using program = Program.fromFd(getFdById('BPF_PROG_GET_FD_BY_ID', link.info().programId))
    const { type, mapIds } = program.info()
    return type === 'lsm' || type === 'tracing' ? mapIds : []
  } catch (error) {
    if (error instanceof SyscallError || error instanceof TypeError) return []
    throw error
  }
}

/** Whether this is the pin of one of these maps. */
function isPinOf(ids: ReadonlySet<number>, pin: string): boolean {
  using map = openPinned(pin)
  return map !== undefined && ids.has(map.info().id)
}

/** Removes what is no pin of these maps, nor of a guard's program; where there are none, everything. */
function removeStrays(directory: string, own: ReadonlySet<number>, removing?: (path: string) => void): void {
  const remove = (stray: string): void => {
    removing?.(stray)
    removeTree(stray)
  }
  if (own.size === 0) {
    if (exists(directory)) remove(directory)
    return
  }
  for (const name of namesIn(directory)) {
    const part = `${directory}/${name}`
    if (!isDirectory(part) || !PARTS.includes(name)) remove(part)
    else
      for (const pin of namesIn(part).map(one => `${part}/${one}`))
        if (name === 'maps' ? !isPinOf(own, pin) : mapsUsedBy(pin).length === 0) remove(pin)
  }
}

/** Of an installation that was cut off all links may be in the second. */
const LINKS = ['links', 'links-new']
const PARTS = ['maps', ...LINKS]

const exists = (file: string): boolean => lstatSync(file, { throwIfNoEntry: false }) !== undefined
const isDirectory = (file: string): boolean =>
  lstatSync(file, { throwIfNoEntry: false })?.isDirectory() === true

// ---- loading ----

async function loadAndPin(
  { spec, build }: GuardObject,
  own: ReadonlySet<number>,
  { directory = GUARD_DIRECTORY, removing }: InstallOptions,
  mode: GuardMode,
): Promise<void> {
  using owned = new Owned()
  const names = declaredMaps(spec)
  const choices: Record<string, MapChoice> = {}
  for (const name of names) {
    const pinned = openPinned(`${directory}/maps/${name}`)
    if (pinned !== undefined && own.has(owned.add(pinned).info().id)) choices[name] = { use: pinned }
  }
  const object = owned.add(await loadObject(spec, { token: null, maps: choices }))
  const tables = tablesOf(name => object.map(name))
  const { abi } = tables.config.read()
  if (abi !== 0 && abi !== GUARD_ABI)
    throw new ConflictError(
      `The maps in ${directory} have layout ${abi}, and this program layout ${GUARD_ABI}`,
      {
        context: { directory, abi },
        hint: 'Remove the guard with the version that installed it, then install this one',
      },
    )
  // Before the programs run: they enforce if no mode is written yet.
  tables.config.change({
    abi: GUARD_ABI,
    mode: mode === 'enforce' ? 1 : 0,
    build,
    kernel_btf: kernelBtfId(),
  })
  const links = spec.programs.map(({ name }) => ({ name, link: owned.add(attachProgram(object, name)) }))
  // From here on the new programs enforce, and nobody else can put anything into the directory.
  becomeKeeper()
  const ids = idsOf(names, name => object.map(name))
  protect(tables, ids, directory)
  if (own.size > 0) removeStrays(directory, new Set([...own, ...ids]), removing)
  else for (const name of namesIn(directory)) if (name !== 'maps') removeTree(`${directory}/${name}`)
  for (const name of namesIn(`${directory}/maps`)) {
    const pin = `${directory}/maps/${name}`
    if (!names.includes(name) || !isPinOf(new Set([object.map(name).info().id]), pin)) removeTree(pin)
  }
  for (const name of names)
    if (!exists(`${directory}/maps/${name}`)) object.map(name).pin(`${directory}/maps/${name}`)
  const fresh = `${directory}/links-new`
  removeTree(fresh)
  mkdirSync(fresh, { mode: 0o700 })
  for (const { name, link } of links) link.pin(`${fresh}/${name}`)
  // The old ones may go.
  removeTree(`${directory}/links`)
  renameSync(fresh, `${directory}/links`)
}

/** Tells the programs which maps and pins are the guard's own. */
function protect({ config, own_maps }: Tables, ids: ReadonlySet<number>, directory: string): void {
  for (const id of ids) own_maps.set(id, 1)
  for (const old of own_maps.keys()) if (!ids.has(old)) own_maps.delete(old)
  const found = lstatSync(directory, { bigint: true })
  if (!found.isDirectory())
    throw new ConflictError(`${directory} is no directory any more`, { context: { directory } })
  config.change({
    first_map: Math.min(...ids),
    last_map: Math.max(...ids),
    pin_inode: found.ino,
    pin_device: kernelDevice(found.dev),
  })
  // Somebody may have made them before we could keep that from happening.
  for (const one of [directory, `${directory}/maps`]) {
    lchownSync(one, 0, 0)
    chmodSync(one, 0o700)
  }
}

/**
 * From the C library's form, where each number is in two parts (makedev(3)), to the kernel's: major
 * << 20 | minor.
 */
function kernelDevice(dev: bigint): number {
  const major = ((dev >> 8n) & 0xfffn) | ((dev >> 32n) & ~0xfffn)
  const minor = (dev & 0xffn) | ((dev >> 12n) & ~0xffn & 0xffff_ffffn)
  return Number(((major << 20n) | minor) & 0xffff_ffffn)
}

function programsIn(directory: string): number[] {
  return namesIn(directory).flatMap(name => {
    try {
      using link = new Link(objGet(`${directory}/${name}`))
      return [link.info().programId]
    } catch (error) {
      if (error instanceof SyscallError || error instanceof TypeError) return []
      throw error
    }
  })
}

/** Undefined: there is no map there, or one that this process may not open. */
function openPinned(file: string): BpfMap | undefined {
  try {
    return BpfMap.open(file)
  } catch (error) {
    if (error instanceof SyscallError || error instanceof TypeError) return undefined
    throw error
  }
}

function missingLinks(directory: string, spec: ObjectSpec): string[] {
  const pinned = new Set(namesIn(`${directory}/links`))
  return spec.programs.filter(({ name }) => !pinned.has(name)).map(({ target }) => target!)
}

function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []
    throw error
  }
}

/**
 * bpffs has no other files than pins, and removing a pin lets go of the object. Symbolic links are
 * not followed.
 */
function removeTree(file: string): void {
  rmSync(file, { recursive: true, force: true })
}

/**
 * Takes the guard out. Nothing enforces policies any more, and all records of delegations are gone.
 * A guard that is installed later does not know the tokens that are in use. NotFoundError: there is
 * none.
 */
export async function removeGuard(directory: string = GUARD_DIRECTORY): Promise<void> {
  if (namesIn(directory).length === 0)
    throw new NotFoundError(`The guard is not installed in ${directory}`, { context: { directory } })
  becomeKeeper()
  const programs = new Set(LINKS.flatMap(part => programsIn(`${directory}/${part}`)))
  removeTree(directory)
  // The kernel frees the unpinned objects one after the other, when it has time; a program goes
  // after its link.
  const attached = (): boolean => [...programIds()].some(id => programs.has(id))
  for (let waitedMs = 0; attached(); waitedMs += POLL_MS) {
    if (waitedMs >= DETACH_TIMEOUT_MS)
      throw new ConflictError('The guard is unpinned, and yet it is still attached', {
        context: { directory },
        hint: 'A process holds links of it: see bpftool link',
      })
    await sleep(POLL_MS)
  }
}

export function guardStatus(directory: string = GUARD_DIRECTORY): GuardStatus {
  const { spec, build } = readObject()
  const pinned = namesIn(`${directory}/links`).length > 0
  using guard = Guard.openOrNull(directory)
  return {
    directory,
    proven: probeGuard(),
    missing: pinned ? missingLinks(directory, spec) : undefined,
    current: guard?.config().build === build,
  }
}
