/**
 * Which other programs may delegate, and how much: by executable, by cgroup, or by unit of systemd.
 */
import { readFileSync, realpathSync, statSync } from 'node:fs'
import path from 'node:path'
import { nameFrom } from '../ebpf/object-name.ts'
import { InputError, NotFoundError, NotSupportedError } from '../errors.ts'
import { parseMountInfo } from '../sys/mountinfo.ts'
import { CGROUP_ROOT, cgroupNamed, findCgroup, ROOT_CGROUP_ID } from './cgroup.ts'
import { GUARD_CGROUP_LEVELS, guard_cgroup, guard_delegator, guard_file } from './layout.ts'
import { readLists, sweepLists, writeTerms } from './lists.ts'
import type { GuardMaps } from './maps.ts'
import {
  decodeTerms,
  EVERYTHING,
  encodeLabel,
  encodeName,
  type GuardTerms,
  NO_CEILING,
  type RawTerms,
} from './terms.ts'

/**
 * Every process that runs this file; every process in this cgroup (a directory below
 * /sys/fs/cgroup) or below it, whenever it is made; the same for the cgroup of a unit.
 */
export type Delegator = { executable: string } | { cgroup: string } | { unit: string }

export interface AllowedDelegator {
  /** Names longer than the guard keeps begin with `…`. */
  readonly who: Delegator
  readonly implicit: boolean
  readonly ceiling: GuardTerms
}

export interface AllowOptions {
  /** What it lends has no rights beyond these, and all their limits. Default: everything. */
  readonly policy?: GuardTerms
  /**
   * It needs no `delegate` and no `abilities`: for programs that know nothing of us. What it lends,
   * then, is the ceiling.
   */
  readonly implicit?: boolean
}

const MINOR_BITS = 20
const UNIT = /^[A-Za-z0-9:_.\\@-]+\.(service|socket|mount|swap|scope|slice)$/

interface Entry {
  readonly map: 'files' | 'cgroups'
  readonly key: Uint8Array
}

/**
 * Replaces what was said of the same delegator before. NotFoundError: no such file, or no such
 * cgroup above. E2BIG: too many.
 */
export function allow(maps: GuardMaps, who: Delegator, options: AllowOptions = {}): void {
  const { policy, implicit = false } = options
  const entry = entryOf(who)
  const write = (ceiling: RawTerms): void =>
    maps
      .map(entry.map)
      .update(entry.key, guard_delegator.encode({ ceiling, implicit: implicit ? 1 : 0, name: labelOf(who) }))
  if (policy === undefined) write(implicit ? EVERYTHING : NO_CEILING)
  else writeTerms(maps, policy, write)
  // What had this name before: the file was replaced, or the cgroup above made anew.
  for (const old of entriesNamed(maps, who))
    if (!Buffer.from(old.key).equals(entry.key)) maps.map(old.map).delete(old.key)
}

/** What it has lent goes on. False: it was not allowed. */
export function disallow(maps: GuardMaps, who: Delegator): boolean {
  const entries = entriesNamed(maps, who)
  // It may have been allowed by another of its names.
  const present = entryOrNull(who)
  if (present !== undefined) entries.push(present)
  const known = entries.filter(({ map, key }) => maps.map(map).delete(key))
  sweepLists(maps)
  return known.length > 0
}

export function delegators(maps: GuardMaps): AllowedDelegator[] {
  return (['files', 'cgroups'] as const).flatMap(map =>
    [...maps.map(map).entries()].map(([, value]) => {
      const { ceiling, implicit, name } = guard_delegator.decode(value)
      return {
        who: whoOf(map, nameFrom(name)),
        implicit: implicit !== 0,
        ceiling: decodeTerms(ceiling!, readLists(maps, ceiling!)),
      }
    }),
  )
}

function whoOf(map: Entry['map'], name: string): Delegator {
  if (map === 'files') return { executable: name }
  return UNIT.test(name) ? { unit: name } : { cgroup: name }
}

function labelOf(who: Delegator): Uint8Array {
  return encodeLabel('executable' in who ? who.executable : 'cgroup' in who ? who.cgroup : who.unit)
}

function entriesNamed(maps: GuardMaps, who: Delegator): Entry[] {
  const map = 'executable' in who ? 'files' : 'cgroups'
  const label = labelOf(who)
  return [...maps.map(map).entries()]
    .filter(([, value]) => Buffer.from(guard_delegator.decode(value).name!).equals(label))
    .map(([key]) => ({ map, key }))
}

function entryOf(who: Delegator): Entry {
  if ('executable' in who) return { map: 'files', key: fileKey(who.executable) }
  return { map: 'cgroups', key: cgroupKey('cgroup' in who ? who.cgroup : unitCgroup(who.unit)) }
}

function entryOrNull(who: Delegator): Entry | undefined {
  try {
    return entryOf(who)
  } catch (error) {
    if (error instanceof NotFoundError) return undefined
    throw error
  }
}

/**
 * The device as the kernel knows it, which stat(2) does not tell of every file system (btrfs): that
 * of the mount. On overlayfs across several file systems the inode number may differ from the
 * kernel's, and the entry then fits nobody.
 */
function fileKey(executable: string): Uint8Array {
  let file: string
  try {
    file = realpathSync(executable)
  } catch (error) {
    throw new NotFoundError(`There is no executable ${executable}`, { context: { executable }, cause: error })
  }
  const holds = (mount: string): boolean => mount === '/' || file === mount || file.startsWith(`${mount}/`)
  const mounts = parseMountInfo(readFileSync('/proc/self/mountinfo', 'utf8')).filter(mount =>
    holds(mount.path),
  )
  // Of two on one place the later one is seen.
  const mount = mounts.reduce((best, one) => (one.path.length >= best.path.length ? one : best))
  const [major, minor] = mount.device.split(':').map(Number) as [number, number]
  const { ino } = statSync(file, { bigint: true })
  return guard_file.encode({ inode: ino, device: ((major << MINOR_BITS) | minor) >>> 0 })
}

function cgroupKey(directory: string): Uint8Array {
  if (!path.isAbsolute(directory)) throw new InputError(`The cgroup ${directory} is not an absolute path`)
  const plain = path.resolve(directory)
  if (plain === CGROUP_ROOT && findCgroup(plain).id === ROOT_CGROUP_ID) return guard_cgroup.encode({})
  const above = findCgroup(path.dirname(plain))
  if (above.level + 1 >= GUARD_CGROUP_LEVELS)
    throw new NotSupportedError(
      `${directory} is too deep: the guard knows ${GUARD_CGROUP_LEVELS - 1} levels`,
      {
        context: { cgroup: directory },
      },
    )
  return guard_cgroup.encode({ parent: above.id, name: encodeName(path.basename(plain), 'cgroup') })
}

/**
 * Where the unit's cgroup is; when it does not run, where systemd makes it unless its slice says
 * otherwise.
 */
function unitCgroup(unit: string): string {
  if (!UNIT.test(unit))
    throw new InputError(`"${unit}" is no name of a unit`, { hint: 'Write it in full: NAME.service' })
  if (unit.endsWith('.slice')) return path.join(CGROUP_ROOT, ...slices(unit))
  return cgroupNamed(unit) ?? path.join(CGROUP_ROOT, 'system.slice', unit)
}

/** `a-b.slice` is in `a.slice`; `-.slice` is the root. */
function slices(slice: string): string[] {
  const parts = slice
    .slice(0, -'.slice'.length)
    .split('-')
    .filter(part => part !== '')
  return parts.map((_, i) => `${parts.slice(0, i + 1).join('-')}.slice`)
}
