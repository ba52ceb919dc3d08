/** The maps that the guard's programs share with us: which there are, and what is in each. */
import { BpfMap } from '../ebpf/map.ts'
import { nameFrom } from '../ebpf/object-name.ts'
import { Owned } from '../ebpf/owned.ts'
import type { Fd } from '../sys/fd.ts'
import { bytes, type Field, type Fields, type Struct, u32, u64 } from '../uapi/codec.ts'
import type { CgroupId, DelegationId } from './id.ts'
import {
  GUARD_NAME_BYTES,
  guard_cgroup,
  guard_config,
  guard_delegation,
  guard_delegator,
  guard_digest,
  guard_expired,
  guard_file,
  guard_function,
  guard_namespace,
  guard_pending,
  guard_process,
  guard_revocation,
  guard_terms,
  guard_totals,
  guard_usage,
} from './layout.ts'
import {
  Cells,
  type Codec,
  type KeyCodec,
  keyRow,
  number,
  OwnedSlots,
  type Row,
  row,
  Single,
  Slots,
  Table,
  via,
} from './table.ts'
import { encodeName } from './terms.ts'

/** How keys and values of a map are written, and how one is made a table. */
interface Kind<Of> {
  readonly key?: { readonly size: number }
  readonly value: { readonly size: number }
  on(map: BpfMap): Of
}

function table<Key, Value, Given>(
  key: Codec<Key>,
  value: Codec<Value, Given>,
): Kind<Table<Key, Value, Given>> {
  return { key, value, on: map => new Table(map, key, value) }
}

function cells<Key, Value>(key: KeyCodec<Key>, value: Codec<Value>): Kind<Cells<Key, Value>> {
  return { key, value, on: map => new Cells(map, key, value) }
}

function single<F extends Fields>(of: Struct<F>): Kind<Single<Row<F>>> {
  return { value: of, on: map => new Single(map, row(of)) }
}

function slots<F extends Fields>(of: Struct<F>): Kind<Slots<Row<F>>> {
  return { value: of, on: map => new Slots(map, row(of)) }
}

function ownedSlots<F extends Fields & { readonly id: Field<bigint> }>(
  of: Struct<F>,
): Kind<OwnedSlots<Row<F> & { readonly id: bigint }>> {
  return { value: of, on: map => new OwnedSlots(map, row(of) as never) }
}

const count = number(u32(0))
const address = number(u64(0))
const delegation = number(u64(0) as Field<DelegationId>)
const cgroup = number(u64(0) as Field<CgroupId>)
const timeNs = number(u64(0))
/** 64 bits in the maps, 32 in the records and everywhere above. */
const userNamespace = via(address, (inode: number) => BigInt(inode), Number)
/** struct guard_name, as text. */
const ability = via(number(bytes(0, GUARD_NAME_BYTES)), (text: string) => encodeName(text), nameFrom)
/** Storage on kernel objects goes by descriptor. */
const file: KeyCodec<Fd> = { size: 4, encode: fd => count.encode(fd.number) }

/**
 * Those maps that we read or write, as bpf/guard/state.h declares them. Who writes each is said
 * there, too.
 */
export const TABLES = {
  config: single(guard_config),
  totals: single(guard_totals),
  policies: table(ability, row(guard_terms)),
  /** 1 for what is on a list. */
  digests: table(keyRow(guard_digest), count),
  functions: table(keyRow(guard_function), count),
  processes: table(keyRow(guard_process), row(guard_delegator)),
  files: table(keyRow(guard_file), row(guard_delegator)),
  cgroups: table(keyRow(guard_cgroup), row(guard_delegator)),
  confined: table(cgroup, delegation),
  /** 1 for the id of a map. */
  own_maps: table(count, count),
  /** By a context's private data. */
  pending: table(address, row(guard_pending)),
  delegations: ownedSlots(guard_delegation),
  revocations: ownedSlots(guard_revocation),
  expired: ownedSlots(guard_expired),
  renewals: table(delegation, timeNs),
  usages: slots(guard_usage),
  namespaces: table(userNamespace, row(guard_namespace)),
  /** By the root directory of a bpffs. */
  roots: cells(file, delegation),
} as const

export type Tables = {
  readonly [Name in keyof typeof TABLES]: ReturnType<(typeof TABLES)[Name]['on']>
}

/** Each is made of its map when it is asked for first. ConflictError: that is of another layout. */
export function tablesOf(mapNamed: (name: string) => BpfMap): Tables {
  const tables = {}
  for (const [name, { on }] of Object.entries<Kind<unknown>>(TABLES)) {
    let made: unknown
    const get = (): unknown => {
      made ??= on(mapNamed(name))
      return made
    }
    Object.defineProperty(tables, name, { get, enumerable: true })
  }
  return tables as Tables
}

export class GuardMaps implements Disposable {
  readonly directory: string
  readonly tables: Tables = tablesOf(name => this.map(name))
  readonly #owned = new Owned()
  readonly #maps = new Map<string, BpfMap>()

  /**
   * Of the guard that is pinned in `directory`. This process must be a keeper: the caller has seen
   * to it.
   */
  constructor(directory: string) {
    this.directory = directory
  }

  /**
   * Opened when first asked for, and then until this is closed. ENOENT: there is none, or this
   * process is no keeper.
   */
  map(name: string): BpfMap {
    const known = this.#maps.get(name)
    if (known !== undefined) return known
    const map = this.#owned.add(BpfMap.open(`${this.directory}/maps/${name}`))
    this.#maps.set(name, map)
    return map
  }

  [Symbol.dispose](): void {
    this.#owned[Symbol.dispose]()
  }
}
