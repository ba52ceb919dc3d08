/**
 * Which other programs may delegate, and how much: by executable, by cgroup, or by unit of systemd.
 */
import { readFileSync, realpathSync, statSync } from 'node:fs'
import path from 'node:path'
import { nameFrom } from '../ebpf/object-name.ts'
import { InputError, NotFoundError, NotSupportedError } from '../errors.ts'
import { parseMountInfo } from '../sys/mountinfo.ts'
import { CGROUP_ROOT } from '../uapi/kernel-paths.ts'
import { cgroupNamed, findCgroup, ROOT_CGROUP_ID } from './cgroup.ts'
import {
  GUARD_CGROUP_LEVELS,
  GUARD_NAME_BYTES,
  type guard_cgroup,
  type guard_delegator,
  type guard_file,
} from './layout.ts'
import { readLists, sweepLists, writeTerms } from './lists.ts'
import type { GuardMaps } from './maps.ts'
import type { Row, Table } from './table.ts'
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
 * One of three: every process that runs this file; every process in this cgroup (a directory below
 * /sys/fs/cgroup) or below, even if the cgroup is made later; the same for the cgroup of a unit.
 */
export type Delegator = { executable: string } | { cgroup: string } | { unit: string }

export interface AllowedDelegator {
  /** Names longer than the guard keeps begin with `…`. */
  readonly who: Delegator
  readonly implicit: boolean
  readonly ceiling: GuardTerms
}

export interface AllowOptions {
  /**
   * The ceiling: it lends no rights beyond this policy's, and always with its limits. Default:
   * everything.
   */
  readonly policy?: GuardTerms
  /**
   * It need not say `delegate` and `abilities`, for programs that know nothing of us. It then lends
   * on the terms of the ceiling.
   */
  readonly implicit?: boolean
}

const MINOR_BITS = 20
const UNIT = /^[A-Za-z0-9:_.\\@-]+\.(service|socket|mount|swap|scope|slice)$/

type FileKey = Row<typeof guard_file.fields>
type CgroupKey = Row<typeof guard_cgroup.fields>
type RawDelegator = Row<typeof guard_delegator.fields>
/** Either of two, which have their keys from `keyOf`. */
type Delegators = Table<FileKey | CgroupKey, RawDelegator, Partial<RawDelegator>>

/**
 * Replaces the earlier entry of the same delegator. NotFoundError: no such file, or no such cgroup
 * above. E2BIG: too many.
 */
export function allow(maps: GuardMaps, who: Delegator, options: AllowOptions = {}): void {
  const { policy, implicit = false } = options
  const table = tableOf(maps, who)
  const key = keyOf(who)
  const write = (ceiling: RawTerms): void =>
    table.set(key, { ceiling, implicit: implicit ? 1 : 0, name: labelOf(who) })
  if (policy === undefined) write(implicit ? EVERYTHING : NO_CEILING)
  else writeTerms(maps, policy, write)
  // The earlier owner of this name: the file was replaced, or the cgroup above was made anew.
  for (const old of keysNamed(table, who)) if (!table.isSameKey(old, key)) table.delete(old)
}

/** Its delegations go on. False: it was not allowed. */
export function disallow(maps: GuardMaps, who: Delegator): boolean {
  const table = tableOf(maps, who)
  const keys = keysNamed(table, who)
  // It may have been allowed by another name of the same thing.
  const present = keyOrNull(who)
  if (present !== undefined) keys.push(present)
  const known = keys.filter(key => table.delete(key))
  sweepLists(maps)
  return known.length > 0
}

export function delegators(maps: GuardMaps): AllowedDelegator[] {
  const { files, cgroups } = maps.tables
  const describe = (who: Delegator, { ceiling, implicit }: RawDelegator): AllowedDelegator => ({
    who,
    implicit: implicit !== 0,
    ceiling: decodeTerms(ceiling, readLists(maps, ceiling)),
  })
  return [
    ...[...files.values()].map(one => describe({ executable: nameFrom(one.name) }, one)),
    ...[...cgroups.values()].map(one => describe(cgroupOrUnit(nameFrom(one.name)), one)),
  ]
}

function cgroupOrUnit(name: string): Delegator {
  return UNIT.test(name) ? { unit: name } : { cgroup: name }
}

function labelOf(who: Delegator): Uint8Array {
  return encodeLabel('executable' in who ? who.executable : 'cgroup' in who ? who.cgroup : who.unit)
}

function tableOf({ tables }: GuardMaps, who: Delegator): Delegators {
  return ('executable' in who ? tables.files : tables.cgroups) as unknown as Delegators
}

function keysNamed(table: Delegators, who: Delegator): (FileKey | CgroupKey)[] {
  const label = labelOf(who)
  return [...table.entries()].filter(([, { name }]) => Buffer.from(name).equals(label)).map(([key]) => key)
}

function keyOf(who: Delegator): FileKey | CgroupKey {
  if ('executable' in who) return fileKey(who.executable)
  return cgroupKey('cgroup' in who ? who.cgroup : unitCgroup(who.unit))
}

function keyOrNull(who: Delegator): FileKey | CgroupKey | undefined {
  try {
    return keyOf(who)
  } catch (error) {
    if (error instanceof NotFoundError) return undefined
    throw error
  }
}

/**
 * The device as the kernel knows it: the one of the mount. stat(2) tells another one on some file
 * systems (btrfs). On overlayfs across several file systems the inode number may differ from the
 * kernel's, and then the entry matches nobody.
 */
function fileKey(executable: string): FileKey {
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
  // If two mounts lie on one place, the later one is seen.
  const mount = mounts.reduce((best, one) => (one.path.length >= best.path.length ? one : best))
  const [major, minor] = mount.device.split(':').map(Number) as [number, number]
  const { ino } = statSync(file, { bigint: true })
  return { inode: ino, device: ((major << MINOR_BITS) | minor) >>> 0 }
}

function cgroupKey(directory: string): CgroupKey {
  if (!path.isAbsolute(directory)) throw new InputError(`The cgroup ${directory} is not an absolute path`)
  const plain = path.resolve(directory)
  if (plain === CGROUP_ROOT && findCgroup(plain).id === ROOT_CGROUP_ID)
    return { parent: 0n, name: new Uint8Array(GUARD_NAME_BYTES) }
  const above = findCgroup(path.dirname(plain))
  if (above.level + 1 >= GUARD_CGROUP_LEVELS)
    throw new NotSupportedError(
      `${directory} is too deep: the guard knows ${GUARD_CGROUP_LEVELS - 1} levels`,
      {
        context: { cgroup: directory },
      },
    )
  return { parent: above.id, name: encodeName(path.basename(plain), 'cgroup') }
}

/**
 * Where the unit's cgroup is. For a unit that does not run: where systemd will make it, unless its
 * slice says otherwise.
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
