/**
 * What the daemon asks of a guard, where no BPF-LSM program can be loaded: the records of what was
 * lent, in a file that outlives the daemon as the guard's pinned maps do. A record is there as long
 * as its mount is. It enforces nothing; test/vm/daemon.test.ts has the real one.
 */
import { existsSync, fstatSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { listInstances } from '../../../src/delegation/instances.ts'
import { NotFoundError, NotSupportedError } from '../../../src/errors.ts'
import {
  type DelegationId,
  delegationId,
  type Guard,
  type GuardDelegation,
} from '../../../src/guard/guard.ts'
import type { LendFacts } from '../../../src/lending/journal.ts'
import { type PolicyJSON, policyFromJSON, policyToJSON } from '../../../src/policy/policy.ts'
import type { Fd } from '../../../src/sys/fd.ts'
import { vocabulary } from '../delegation/lab.ts'

interface Kept {
  readonly id: number
  readonly policy: PolicyJSON
  readonly parent: number | undefined
  /** `user:[INODE]` */
  readonly userNamespace: string
  readonly path: string
  readonly revoked: boolean
  /** `major:minor`, once it is known. */
  readonly device?: string
}

export class PretendedGuard {
  readonly #file: string
  /** Those whose mount is being made are there, too. */
  readonly #making = new Set<number>()

  readonly #isThere: (userNamespace: string, path: string) => boolean

  /** `isThere`: whether what was lent so is there still; without it, whether it is mounted. */
  constructor(file: string, isThere: (userNamespace: string, path: string) => boolean = isMounted) {
    this.#file = file
    this.#isThere = isThere
  }

  /** As the parts of the daemon take it. */
  get guard(): Guard {
    return this as unknown as Guard
  }

  /** The superblock is made: it has a record from now on. */
  begin({ policy, parent, target, place }: LendFacts): DelegationId {
    if (!('path' in place)) throw new Error('only by path')
    const all = this.#read()
    const id = Math.max(0, ...all.map(one => one.id)) + 1
    const { userNamespace } = target
    this.#write([
      ...all,
      {
        ...{ id, userNamespace, policy: policyToJSON(policy), path: place.path, revoked: false },
        parent: parent === undefined ? undefined : Number(parent),
      },
    ])
    this.#making.add(id)
    return delegationId(id)
  }

  /** Its mount is there, or will not be. */
  end(id: DelegationId, device?: string): void {
    this.#making.delete(Number(id))
    if (device !== undefined)
      this.#write(this.#read().map(one => (one.id === Number(id) ? { ...one, device } : one)))
  }

  delegations(): GuardDelegation[] {
    return this.#read()
      .filter(({ id, userNamespace, path }) => this.#making.has(id) || this.#isThere(userNamespace, path))
      .map(({ id, policy, parent, userNamespace, revoked }) => ({
        id: delegationId(id),
        kind: 'bpffs',
        policy: policy.name,
        terms: policyFromJSON(policy),
        createdNs: 0n,
        expiresNs: undefined,
        revoked,
        revokedNs: revoked ? 1n : undefined,
        parent: parent === undefined ? undefined : delegationId(parent),
        cgroup: undefined,
        userNamespace: Number(/\d+/.exec(userNamespace)![0]),
        delegatorPid: process.pid,
        live: { tokens: 0, programs: 0, maps: 0, mapBytes: 0n, children: 0 },
      }))
  }

  delegation(id: DelegationId): GuardDelegation {
    const found = this.delegations().find(one => one.id === id)
    if (found === undefined) throw new NotFoundError(`There is no delegation ${id}`)
    return found
  }

  delegationAt(root: Fd): DelegationId | undefined {
    const { dev } = fstatSync(root.number)
    const device = `${dev >> 8}:${dev & 0xff}`
    const found = this.#read().find(one => one.device === device)
    return found && delegationId(found.id)
  }

  /** With all that is derived from it. */
  revoke(id: DelegationId): DelegationId[] {
    const ids = new Set([Number(id)])
    const all = this.#read()
    for (const one of all) if (one.parent !== undefined && ids.has(one.parent)) ids.add(one.id)
    this.#write(all.map(one => (ids.has(one.id) ? { ...one, revoked: true } : one)))
    return [...ids].map(one => delegationId(one))
  }

  /** As a guard of a version that knows no renewals: here nothing would hold to one. */
  renew(): never {
    throw new NotSupportedError('This guard renews nothing', { reason: 'guard-older' })
  }

  config() {
    return { mode: 'enforce' }
  }

  totals() {
    return { lostEvents: 0n }
  }

  async *events({ signal }: { signal: AbortSignal }): AsyncGenerator<never> {
    if (!signal.aborted) await new Promise(resolve => signal.addEventListener('abort', resolve))
  }

  #read(): readonly Kept[] {
    return existsSync(this.#file) ? (JSON.parse(readFileSync(this.#file, 'utf8')) as Kept[]) : []
  }

  #write(all: readonly Kept[]): void {
    writeFileSync(`${this.#file}.new`, JSON.stringify(all))
    renameSync(`${this.#file}.new`, this.#file)
  }
}

function isMounted(userNamespace: string, path: string): boolean {
  return listInstances(vocabulary).some(mount => mount.userNamespace === userNamespace && mount.path === path)
}
