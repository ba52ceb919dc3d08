/**
 * The installed guard, through the maps that it shares with its programs. Start at `Guard.open`; install.ts puts it there.
 *
 * This folder loads, fills and reads the guard; what policy says is decided elsewhere. All of it needs CAP_BPF and
 * CAP_SYS_ADMIN in the initial user namespace, and the owner of the directory where the guard is pinned: root.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { BpfMap, ELEMENT_FLAGS } from '../ebpf/map.ts'
import { Owned } from '../ebpf/owned.ts'
import { RingBuffer } from '../ebpf/ringbuf.ts'
import { ConflictError, NotFoundError, SyscallError } from '../errors.ts'
import { ANY_MASK, type Masks } from '../policy/vocabulary.ts'
import { GUARD_DIRECTORY } from './directory.ts'
import { decodeEvent, type GuardEvent } from './event.ts'
import {
  GUARD_ABI,
  guard_config,
  guard_delegation,
  guard_delegator,
  guard_file,
  guard_process,
  guard_totals,
  guard_usage,
  NAME_BYTES,
  NO_LIMIT64,
} from './layout.ts'
import { encodeName, encodeTerms, type GuardTerms } from './terms.ts'

export type GuardMode = 'enforce' | 'permissive'

/** One live loan, as the guard knows it. */
export interface GuardDelegation {
  readonly id: bigint
  readonly masks: Masks
  readonly createdNs: bigint
  /** Undefined: never. */
  readonly expiresNs: bigint | undefined
  readonly revoked: boolean
  readonly mode: GuardMode
  /** Inode number of the user namespace. */
  readonly userNamespace: number
  readonly delegatorPid: number
  readonly live: { tokens: number; programs: number; maps: number; mapBytes: bigint }
}

export interface GuardTotals {
  readonly refused: bigint
  readonly wouldRefuse: bigint
  readonly lostEvents: bigint
}

/** A delegator that lends one policy; closing it takes back the right to delegate, not what was lent. */
export interface Lender extends Disposable {
  /** For the mount option `abilities`. */
  readonly ability: string
  /** The delegation that was made last; undefined: none yet. */
  delegation(): bigint | undefined
}

const ID_BYTES = 8

function idKey(id: bigint): Uint8Array {
  const key = new Uint8Array(ID_BYTES)
  new DataView(key.buffer).setBigUint64(0, id, true)
  return key
}

function idOf(key: Uint8Array): bigint {
  return new DataView(key.buffer, key.byteOffset).getBigUint64(0, true)
}

/** Nanoseconds since boot, sleep included: the guard's clock. */
export function bootTimeNs(): bigint {
  const [seconds = '0'] = readFileSync('/proc/uptime', 'utf8').split(' ')
  return BigInt(Math.round(Number(seconds) * 1e9))
}

/** When the process began, in clock ticks since boot; undefined: there is no such process. */
function startTicks(pid: number): bigint | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    // Field 22. The second may hold blanks and brackets of its own.
    return BigInt(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19]!)
  } catch (error) {
    if (['ENOENT', 'ESRCH'].includes((error as NodeJS.ErrnoException).code ?? '')) return undefined
    throw error
  }
}

export class Guard implements Disposable {
  readonly directory: string
  readonly #owned = new Owned()
  readonly #maps = new Map<string, BpfMap>()

  private constructor(directory: string) {
    this.directory = directory
  }

  /**
   * The guard that is installed in `directory`. NotFoundError: there is none. ConflictError: it is of another version,
   * which `installGuard` replaces. The caller disposes of it.
   */
  static open(directory: string = GUARD_DIRECTORY): Guard {
    const guard = Guard.openOrNull(directory)
    if (guard !== undefined) return guard
    throw new NotFoundError(`The guard is not installed in ${directory}`, {
      context: { directory },
      hint: 'Install it as root: bpftoken guard install',
    })
  }

  /** As `open`; undefined where no guard is installed, or only half of one. */
  static openOrNull(directory: string = GUARD_DIRECTORY): Guard | undefined {
    try {
      readdirSync(`${directory}/links`)
    } catch (error) {
      if (['ENOENT', 'ENOTDIR', 'EACCES'].includes((error as NodeJS.ErrnoException).code ?? ''))
        return undefined
      throw error
    }
    const guard = new Guard(directory)
    try {
      const { abi } = guard.config()
      if (abi === GUARD_ABI) return guard
      throw new ConflictError(
        `The guard in ${directory} has layout ${abi}, and this program layout ${GUARD_ABI}`,
        {
          context: { directory, abi },
          hint: 'Remove it with the version that installed it, then install this one',
        },
      )
    } catch (error) {
      guard[Symbol.dispose]()
      throw error
    }
  }

  #map(name: string): BpfMap {
    const known = this.#maps.get(name)
    if (known !== undefined) return known
    const map = this.#owned.add(BpfMap.open(`${this.directory}/maps/${name}`))
    this.#maps.set(name, map)
    return map
  }

  config(): { abi: number; mode: GuardMode; audit: boolean; build: number } {
    const { abi, mode, audit, build } = guard_config.decode(this.#map('config').lookup(0)!)
    return { abi: abi!, mode: mode === 0 ? 'permissive' : 'enforce', audit: audit !== 0, build: build! }
  }

  /** `mode` is for what belongs to no delegation: contexts without a mark, tokens that the guard did not see made. */
  configure(change: { mode?: GuardMode; audit?: boolean }): void {
    const now = this.config()
    const { mode, audit } = { ...now, ...change }
    this.#map('config').update(
      0,
      guard_config.encode({ ...now, mode: mode === 'enforce' ? 1 : 0, audit: audit ? 1 : 0 }),
    )
  }

  totals(): GuardTotals {
    const raw = guard_totals.decode(this.#map('totals').lookup(0)!)
    return { refused: raw.refused!, wouldRefuse: raw.would_refuse!, lostEvents: raw.lost_events! }
  }

  // ---- what may be delegated, and by whom ----

  /** Makes the terms known as ability `name`; what was lent under that name before keeps its terms. E2BIG: too many. */
  installPolicy(name: string, terms: GuardTerms): void {
    this.#map('policies').update(encodeName(name), encodeTerms(terms))
  }

  /** False: it was not known. */
  removePolicy(name: string): boolean {
    return this.#map('policies').delete(encodeName(name))
  }

  policies(): string[] {
    const names = [...this.#map('policies').keys()].map(key =>
      new TextDecoder().decode(key.subarray(0, key.indexOf(0))),
    )
    return names.sort()
  }

  /**
   * Lets every process that runs this executable delegate, `ceiling` at most. With `implicit` it needs no `delegate` and no
   * `abilities`: for programs that know nothing of us.
   */
  allowExecutable(
    file: { inode: bigint; major: number; minor: number },
    options: { ceiling?: Masks; implicit?: boolean } = {},
  ): void {
    const { ceiling = ANY, implicit = false } = options
    this.#map('files').update(
      fileKey(file),
      guard_delegator.encode({ ...ceiling, implicit: implicit ? 1 : 0 }),
    )
  }

  /** False: it was not allowed. */
  disallowExecutable(file: { inode: bigint; major: number; minor: number }): boolean {
    return this.#map('files').delete(fileKey(file))
  }

  /** Lets this process delegate what the policy lends, until the lender is closed. */
  lend(policy: GuardTerms & { readonly name: string }): Lender {
    this.#forgetDead()
    const processes = this.#map('processes')
    const key = guard_process.encode({ tgid: process.pid, start_ticks: startTicks(process.pid)! })
    // The policy as we read it, not whatever is installed under its name.
    const suffix = `@${process.pid}`
    const ability = `${policy.name.slice(0, NAME_BYTES - 2 - suffix.length)}${suffix}`
    processes.update(key, guard_delegator.encode(ANY))
    this.installPolicy(ability, policy)
    return {
      ability,
      delegation: () => {
        const value = processes.lookup(key)
        const last = value && guard_delegator.decode(value).last_id
        return last === 0n ? undefined : last
      },
      [Symbol.dispose]: () => {
        processes.delete(key)
        this.removePolicy(ability)
      },
    }
  }

  /** Delegators that were killed could not take themselves off the list. */
  #forgetDead(): void {
    const processes = this.#map('processes')
    for (const key of processes.keys()) {
      const { tgid, start_ticks } = guard_process.decode(key)
      if (startTicks(tgid!) === start_ticks) continue
      processes.delete(key)
      for (const name of this.policies()) if (name.endsWith(`@${tgid}`)) this.removePolicy(name)
    }
  }

  // ---- what is lent ----

  delegations(): GuardDelegation[] {
    const all = [...this.#map('delegations').entries()].map(([key, value]) =>
      this.#describe(idOf(key), value),
    )
    return all.sort((a, b) => (a.id < b.id ? -1 : 1))
  }

  /** NotFoundError: there is none with this id, or it has ended. */
  delegation(id: bigint): GuardDelegation {
    return this.#describe(id, this.#delegation(id))
  }

  #delegation(id: bigint): Uint8Array {
    const value = this.#map('delegations').lookup(idKey(id))
    if (value !== undefined) return value
    throw new NotFoundError(`There is no delegation ${id}`, {
      context: { delegation: String(id) },
      hint: 'See bpftoken guard status for those that live',
    })
  }

  #describe(id: bigint, value: Uint8Array): GuardDelegation {
    const raw = guard_delegation.decode(value)
    const usage = guard_usage.decode(
      this.#map('usages').lookup(idKey(id)) ?? new Uint8Array(guard_usage.size),
    )
    return {
      id,
      masks: { cmds: raw.cmds!, maps: raw.maps!, progs: raw.progs!, attachs: raw.attachs! },
      createdNs: raw.created_ns!,
      expiresNs: raw.expires_ns === NO_LIMIT64 ? undefined : raw.expires_ns!,
      revoked: raw.revoked_ns !== 0n,
      mode: raw.mode === 0 ? 'permissive' : 'enforce',
      userNamespace: raw.user_namespace!,
      delegatorPid: raw.delegator!,
      live: {
        tokens: usage.tokens!,
        programs: usage.programs!,
        maps: usage.maps!,
        mapBytes: usage.map_bytes!,
      },
    }
  }

  /**
   * Takes a delegation back: one write, after which no token of it can be made or used. What was loaded before stays.
   * When this returns, no hook that had seen the old state is still running. NotFoundError: no such delegation.
   */
  revoke(id: bigint): void {
    this.#change(id, { revoked_ns: bootTimeNs() || 1n })
    waitForPrograms()
  }

  /** Tokens of it are made in this cgroup (by id and depth) and below only. */
  confine(id: bigint, cgroup: { id: bigint; level: number }): void {
    this.#change(id, { cgroup: cgroup.id, cgroup_level: cgroup.level })
  }

  /** Its programs write a delegation once, when it is made: so to read and write back loses nothing. */
  #change(id: bigint, change: Parameters<typeof guard_delegation.encode>[0]): void {
    const raw = guard_delegation.decode(this.#delegation(id))
    try {
      this.#map('delegations').update(
        idKey(id),
        guard_delegation.encode({ ...raw, ...change } as typeof change),
        ELEMENT_FLAGS.exist,
      )
    } catch (error) {
      // It ended meanwhile.
      if (!(error instanceof SyscallError) || error.errnoName !== 'ENOENT') throw error
      this.#delegation(id)
    }
  }

  /** Every event from now on, and those that nobody has read yet. There may be one reader at a time. */
  async *events(options: { signal?: AbortSignal } = {}): AsyncGenerator<GuardEvent> {
    using ring = new RingBuffer(this.#map('events'))
    for await (const record of ring.records(options)) yield decodeEvent(record)
  }

  /** The events that nobody has read yet, without waiting for more. */
  pastEvents(): GuardEvent[] {
    using ring = new RingBuffer(this.#map('events'))
    const events: GuardEvent[] = []
    ring.drain(record => events.push(decodeEvent(record)))
    return events
  }

  [Symbol.dispose](): void {
    this.#owned[Symbol.dispose]()
  }
}

const ANY: Masks = { cmds: ANY_MASK, maps: ANY_MASK, progs: ANY_MASK, attachs: ANY_MASK }
const MINOR_BITS = 20

function fileKey(file: { inode: bigint; major: number; minor: number }): Uint8Array {
  return guard_file.encode({ inode: file.inode, device: ((file.major << MINOR_BITS) | file.minor) >>> 0 })
}

/**
 * Waits until every BPF program that runs now has ended. The kernel does that itself whenever a map within a map is
 * replaced (kernel/bpf/syscall.c, maybe_wait_bpf_programs).
 */
function waitForPrograms(): void {
  const plain = { type: 'array', keyBytes: 4, valueBytes: 4, maxEntries: 1, token: null } as const
  using inner = BpfMap.create(plain)
  using outer = BpfMap.create({ ...plain, type: 'array_of_maps', innerMap: inner })
  outer.updateFd(0, inner)
  outer.updateFd(0, inner)
}
