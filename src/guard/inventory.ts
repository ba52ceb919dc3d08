/**
 * Which programs, maps, links and tokens of delegations live in the kernel at this moment, and
 * which processes hold them.
 *
 * BPF iterators (bpf/inventory.bpf.c) read it. They look each object up in the guard's own maps,
 * because tokens have no ids, and maps do not say which token they were made with. One pass over
 * all open files finds the holders, in threads with files of their own, too.
 */
import { readFileSync } from 'node:fs'
import path from 'node:path'
import { attachProgram } from '../ebpf/attach/section.ts'
import type { Link } from '../ebpf/link.ts'
import { loadObject } from '../ebpf/load/object.ts'
import { parseObject } from '../ebpf/object/spec.ts'
import { nameFrom } from '../ebpf/object-name.ts'
import { Owned } from '../ebpf/owned.ts'
import {
  LINK_TYPES,
  type LinkType,
  MAP_TYPES,
  type MapType,
  PROG_TYPES,
  type ProgType,
} from '../ebpf/type-names.ts'
import { FormatError } from '../errors.ts'
import { bytes, struct, u32, u64 } from '../uapi/codec.ts'
import type { DelegationId } from './id.ts'
import type { GuardMaps } from './maps.ts'

const OBJECT = path.resolve(__dirname, '../../bpf/inventory.bpf.o')

/** struct inventory_record of bpf/inventory.bpf.c; a test holds it against the compiled object. */
export const inventory_record = struct(48, {
  delegation: u64(0),
  kind: u32(8), // KINDS
  id: u32(12), // the kernel's; 0 for tokens, which have none; of a member: its user namespace
  type: u32(16), // of a program, map or link
  program: u32(20), // of a link: id; 0: it has none
  holder: u32(24), // tgid; 0: this is about the object itself
  within: u32(28), // 1: the holder is in the delegation's user namespace or confined cgroup, or in one below
  name: bytes(32, 16), // of the program (for links, too) or map; or of the holder
})

/** enum inventory_kind */
export const KINDS = { 1: 'program', 2: 'map', 3: 'link', 4: 'token', 5: 'member' } as const

export type InventoryRecord = ReturnType<typeof inventory_record.decode>

export interface LiveProgram {
  readonly delegation: DelegationId
  readonly id: number
  readonly type: ProgType
  readonly name: string
}

export interface LiveMap {
  readonly delegation: DelegationId
  readonly id: number
  readonly type: MapType
  readonly name: string
}

/** A detached link is listed, too, until its last descriptor is closed. */
export interface LiveLink {
  readonly delegation: DelegationId
  readonly id: number
  readonly type: LinkType
  /** Undefined for struct_ops. */
  readonly programId: number | undefined
  /** Of the program; for struct_ops, of the map. */
  readonly name: string
}

export interface LiveObjects {
  readonly programs: readonly LiveProgram[]
  readonly maps: readonly LiveMap[]
  readonly links: readonly LiveLink[]
}

/** A process with open files of delegations. */
export interface Holder {
  readonly pid: number
  /** Name of the process. */
  readonly task: string
  /**
   * Whether it is in the user namespace or confined cgroup of one of these delegations, or below.
   * Other processes were passed what they hold.
   */
  readonly within: boolean
  /** Ids, in order. A program can be held by a socket or perf event, too. */
  readonly programs: readonly number[]
  readonly maps: readonly number[]
  readonly links: readonly number[]
  /** Whether it has a token. */
  readonly token: boolean
}

/** The processes of these records, in the order of their numbers. */
export function holdersOf(records: readonly InventoryRecord[]): Holder[] {
  const pids = [...new Set(records.map(({ holder }) => holder!))].sort((a, b) => a - b)
  return pids.map(pid => {
    const held = records.filter(({ holder }) => holder === pid)
    const ids = (kind: (typeof KINDS)[keyof typeof KINDS]): number[] => {
      const found = held.filter(record => KINDS[record.kind as keyof typeof KINDS] === kind)
      return [...new Set(found.map(({ id }) => id!))].sort((a, b) => a - b)
    }
    return {
      pid,
      task: nameFrom(held[0]!.name),
      within: held.some(({ within }) => within !== 0),
      programs: ids('program'),
      maps: ids('map'),
      links: ids('link'),
      token: ids('token').length > 0,
    }
  })
}

export class Inventory implements Disposable {
  readonly #owned: Owned
  readonly #links: ReadonlyMap<string, Link>
  readonly #maps: GuardMaps

  private constructor(owned: Owned, links: ReadonlyMap<string, Link>, maps: GuardMaps) {
    this.#owned = owned
    this.#maps = maps
    this.#links = links
  }

  /**
   * Loads the iterators, with the guard's maps. Needs what the guard's own programs need. The
   * caller disposes of it, and nothing stays loaded.
   */
  static async open(guard: GuardMaps): Promise<Inventory> {
    using owned = new Owned()
    const spec = parseObject(readFileSync(OBJECT), { name: 'inventory' })
    const maps = Object.fromEntries(spec.maps.map(({ name }) => [name, { use: guard.map(name) }]))
    const object = owned.add(await loadObject(spec, { token: null, maps }))
    const links = spec.programs.map(({ name }) => [name, owned.add(attachProgram(object, name))] as const)
    const kept = new Owned()
    owned.moveTo(kept)
    return new Inventory(kept, new Map(links), guard)
  }

  #all(program: string): InventoryRecord[] {
    const all = this.#links.get(program)!.readIterator()
    if (all.length % inventory_record.size !== 0)
      throw new FormatError('inventory', `${all.length} bytes are no whole number of records`)
    const records: InventoryRecord[] = []
    for (let off = 0; off < all.length; off += inventory_record.size)
      records.push(inventory_record.decode(all.subarray(off, off + inventory_record.size)))
    return records
  }

  #records(program: string, delegations: ReadonlySet<DelegationId>): InventoryRecord[] {
    return this.#all(program).filter(({ delegation }) => delegations.has(delegation as DelegationId))
  }

  #objects<Extra>(
    program: string,
    delegations: ReadonlySet<DelegationId>,
    extra: (record: InventoryRecord) => Extra,
  ): ({ delegation: DelegationId; id: number; name: string } & Extra)[] {
    return this.#records(program, delegations).map(record => ({
      delegation: record.delegation as DelegationId,
      id: record.id!,
      name: nameFrom(record.name),
      ...extra(record),
    }))
  }

  programs(delegations: ReadonlySet<DelegationId>): LiveProgram[] {
    return this.#objects('inventory_programs', delegations, ({ type }) => ({ type: PROG_TYPES.word(type!) }))
  }

  maps(delegations: ReadonlySet<DelegationId>): LiveMap[] {
    return this.#objects('inventory_maps', delegations, ({ type }) => ({ type: MAP_TYPES.word(type!) }))
  }

  links(delegations: ReadonlySet<DelegationId>): LiveLink[] {
    return this.#objects('inventory_links', delegations, ({ type, program }) => ({
      type: LINK_TYPES.word(type!),
      programId: program === 0 ? undefined : program!,
    }))
  }

  objects(delegations: ReadonlySet<DelegationId>): LiveObjects {
    return {
      programs: this.programs(delegations),
      maps: this.maps(delegations),
      links: this.links(delegations),
    }
  }

  /**
   * The processes with open files of these delegations. Pins and memory maps hold objects, too, and
   * are not seen here.
   */
  holders(delegations: ReadonlySet<DelegationId>): Holder[] {
    return holdersOf(this.#records('inventory_holders', delegations))
  }

  /**
   * All processes in the user namespaces of these delegations, or below, whether they hold
   * something or not. A delegation of which only maps are left gives none: by now the number of its
   * user namespace may belong to another one.
   */
  members(delegations: ReadonlySet<DelegationId>): Holder[] {
    const numbers = new Set(
      this.#maps.tables.delegations
        .all()
        .filter(({ id, ruled }) => ruled === 1 && delegations.has(id as DelegationId))
        .map(({ user_namespace }) => user_namespace),
    )
    return holdersOf(this.#all('inventory_members').filter(({ id }) => numbers.has(id!)))
  }

  [Symbol.dispose](): void {
    this.#owned[Symbol.dispose]()
  }
}
