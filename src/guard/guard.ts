/**
 * The installed guard, through the maps that it shares with its programs. Start at `Guard.open`;
 * install.ts puts it there.
 *
 * This folder loads, fills and reads the guard; policies are decided elsewhere. Everything here
 * needs CAP_BPF and CAP_SYS_ADMIN in the initial user namespace, and to be root, who owns the
 * directory in which the guard is pinned.
 */
import { readdirSync } from 'node:fs'
import { RingBuffer } from '../ebpf/ringbuf.ts'
import { ConflictError, NotFoundError } from '../errors.ts'
import type { Fd } from '../sys/fd.ts'
import { confine, idOfCgroup, unconfine } from './confine.ts'
import { findDelegation, type GuardDelegation, listDelegations, revokeDelegation } from './delegations.ts'
import {
  type AllowedDelegator,
  type AllowOptions,
  allow,
  type Delegator,
  delegators,
  disallow,
} from './delegators.ts'
import { GUARD_DIRECTORY } from './directory.ts'
import { decodeEvent, type GuardEvent } from './event.ts'
import type { DelegationId } from './id.ts'
import { becomeKeeper } from './keeper.ts'
import { GUARD_ABI, guard_event } from './layout.ts'
import { type Lender, type LendOptions, lend } from './lender.ts'
import { sweepLists, writeTerms } from './lists.ts'
import { GuardMaps } from './maps.ts'
import { probeGuard } from './probe.ts'
import { renewDelegation } from './renew.ts'
import type { GuardTerms } from './terms.ts'

export { bootTimeNs } from './clock.ts'
export type { GuardDelegation } from './delegations.ts'
export type { AllowedDelegator, AllowOptions, Delegator } from './delegators.ts'
export { type CgroupId, type DelegationId, delegationId } from './id.ts'
export type { Lender, LendOptions } from './lender.ts'

export type GuardMode = 'enforce' | 'permissive'

export interface GuardTotals {
  readonly refused: bigint
  readonly wouldRefuse: bigint
  readonly lostEvents: bigint
}

export class Guard extends GuardMaps {
  /**
   * The guard that is installed in `directory`. NotFoundError: there is none. ConflictError: it is
   * of another version, which `installGuard` replaces. EPERM: this process may not be a keeper of
   * the guard. The caller disposes of it.
   */
  static open(directory: string = GUARD_DIRECTORY): Guard {
    const guard = Guard.openOrNull(directory)
    if (guard !== undefined) return guard
    throw new NotFoundError(`The guard is not installed in ${directory}`, {
      context: { directory },
      reason: 'guard-missing',
    })
  }

  /** As `open`; undefined where no guard is installed, only half of one, or none enforces. */
  static openOrNull(directory: string = GUARD_DIRECTORY): Guard | undefined {
    try {
      readdirSync(`${directory}/links`)
    } catch (error) {
      if (['ENOENT', 'ENOTDIR', 'EACCES'].includes((error as NodeJS.ErrnoException).code ?? ''))
        return undefined
      throw error
    }
    if (!probeGuard()) return undefined
    becomeKeeper()
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

  config(): { abi: number; mode: GuardMode; audit: boolean; build: number } {
    const { abi, mode, audit, build } = this.tables.config.read()
    return { abi, mode: mode === 0 ? 'permissive' : 'enforce', audit: audit !== 0, build }
  }

  /**
   * `mode` is for calls that belong to no delegation: with contexts without a mark, or with tokens
   * whose making the guard did not see.
   */
  configure(change: { mode?: GuardMode; audit?: boolean }): void {
    this.tables.config.change({
      ...(change.mode === undefined ? {} : { mode: change.mode === 'enforce' ? 1 : 0 }),
      ...(change.audit === undefined ? {} : { audit: Number(change.audit) }),
    })
  }

  totals(): GuardTotals {
    const { refused, would_refuse, lost_events } = this.tables.totals.read()
    return { refused, wouldRefuse: would_refuse, lostEvents: lost_events }
  }

  /**
   * Makes the terms known as ability `name`. Delegations that were lent under that name before keep
   * their terms. E2BIG: too many. NotSupportedError, NotFoundError: this kernel has no such digests
   * or functions.
   */
  installPolicy(name: string, terms: GuardTerms): void {
    writeTerms(this, terms, raw => this.tables.policies.set(name, raw))
  }

  /** False: it was not known. */
  removePolicy(name: string): boolean {
    const known = this.tables.policies.delete(name)
    sweepLists(this)
    return known
  }

  policies(): string[] {
    return [...this.tables.policies.keys()].sort()
  }

  /** Lets this process delegate what the policy lends, until the lender is closed. */
  lend(policy: GuardTerms & { readonly name: string }, options: LendOptions = {}): Lender {
    return lend(this, policy, options)
  }

  /**
   * Holds the tasks in this cgroup and below to the policy, for bpf(2) calls without a token. Gives
   * the delegation's id. A cgroup that is confined already gets the new policy, and counting begins
   * anew: objects that were loaded under the old one do not count any more. NotFoundError: there is
   * no such cgroup. ConflictError: all 63 ids are in use.
   */
  confine(directory: string, policy: GuardTerms & { readonly name: string }): DelegationId {
    return confine(this, directory, policy)
  }

  /** What was loaded goes on. NotFoundError: no cgroup is confined by this id. */
  unconfine(id: DelegationId): void {
    unconfine(this, id)
  }

  /**
   * The id by which the cgroup is confined. NotFoundError: it is not confined, or there is no such
   * cgroup.
   */
  idOfCgroup(directory: string): DelegationId {
    return idOfCgroup(this, directory)
  }

  /**
   * Lets another program delegate. An earlier entry for it is replaced. NotFoundError: no such
   * file, or no such cgroup above. E2BIG: too many.
   */
  allow(who: Delegator, options: AllowOptions = {}): void {
    allow(this, who, options)
  }

  /** Its delegations go on. False: it was not allowed. */
  disallow(who: Delegator): boolean {
    return disallow(this, who)
  }

  /** The programs that may delegate. */
  delegators(): AllowedDelegator[] {
    return delegators(this)
  }

  /** The live delegations and the confined cgroups. */
  delegations(): GuardDelegation[] {
    return listDelegations(this)
  }

  /** NotFoundError: there is none with this id, or it has ended. */
  delegation(id: DelegationId): GuardDelegation {
    return findDelegation(this, id)
  }

  /**
   * Revokes a delegation and all that are derived from it. Gives the ids of all, this one first.
   * Objects that were loaded before stay. When this returns, no hook that saw the old state is
   * still running. NotFoundError: no such delegation.
   */
  revoke(id: DelegationId): DelegationId[] {
    return revokeDelegation(this, id)
  }

  /**
   * Lets a delegation end at `untilNs`, since boot, or with its origin if that is sooner. Gives when
   * it ends now. What has ended stays ended. NotFoundError: no such delegation. ConflictError: it
   * has ended, or would not end later. NotSupportedError: programs of an older version enforce.
   */
  renew(id: DelegationId, untilNs: bigint): bigint {
    return renewDelegation(this, id, untilNs)
  }

  /** The delegation of which this bpffs root directory is; undefined: of none. */
  delegationAt(root: Fd): DelegationId | undefined {
    return this.tables.roots.get(root)
  }

  /**
   * Every event from now on, and those that nobody has read yet. There may be one reader at a time.
   */
  async *events(options: { signal?: AbortSignal } = {}): AsyncGenerator<GuardEvent> {
    using ring = new RingBuffer(this.map('events'))
    for await (const record of ring.records(options)) yield decodeEvent(record, ring.position)
  }

  /** The events that nobody has read yet, without waiting for more. */
  pastEvents(): GuardEvent[] {
    using ring = new RingBuffer(this.map('events'))
    const events: GuardEvent[] = []
    ring.drain(record => events.push(decodeEvent(record, ring.position)))
    return events
  }

  /**
   * The newest events, read by somebody or not: as many as the ring has room for. Takes none away,
   * so that any number may look.
   */
  rememberedEvents(): GuardEvent[] {
    using ring = new RingBuffer(this.map('events'))
    return ring.remembered(guard_event.size).map(({ record, end }) => decodeEvent(record, end))
  }
}
