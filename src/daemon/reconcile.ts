/**
 * What the registry says against what there is: pure. It gives steps, which upkeep.ts takes.
 *
 * A loan that was being made when we died is taken back, whatever of it is there: nobody was told
 * that it was made. One that was made is kept. What nobody of ours has lent is listed, and left.
 */
import type { DelegatedInstance } from '../delegation/instances.ts'
import type { GuardDelegation } from '../guard/guard.ts'
import type { EndRecord, LoanRecord } from '../registry/loan-record.ts'
import { driftOf, sharesOf } from './mounts-of.ts'
import type { Seen } from './sight.ts'

export interface Found {
  readonly boot: string
  /** The first look since we started. */
  readonly first: boolean
  readonly mounts: readonly DelegatedInstance[]
  /** Undefined: there is no guard. */
  readonly delegations: readonly GuardDelegation[] | undefined
  /** User namespaces that some task is in. */
  readonly inhabited: { has(userNamespace: string): boolean }
  /** Loans whose user namespace is gone, though another one has its number by now. */
  readonly reused: ReadonlySet<number>
}

export type Step =
  /** There is nothing of it any more. */
  | {
      readonly do: 'end'
      readonly loan: number
      readonly why: EndRecord['why']
      readonly detail?: string | undefined
    }
  /** Something of it is there, and is to go. */
  | {
      readonly do: 'takeBack'
      readonly loan: number
      readonly why: EndRecord['why']
      readonly detail?: string | undefined
      /** What the guard has of it, which its record does not say. */
      readonly delegation?: number | undefined
    }
  | {
      readonly do: 'see'
      readonly loan: number
      readonly seen: Seen
      /** Processes that have it mounted. */
      readonly pids: readonly number[]
    }
  | {
      readonly do: 'adopt'
      readonly mounts: readonly DelegatedInstance[]
      readonly delegation: GuardDelegation | undefined
    }

const UNFINISHED = 'the daemon ended while it was being made'

/** `open`: loans that have not ended, without those that are being made now. */
export function reconcile(open: readonly LoanRecord[], found: Found): Step[] {
  const known = new Set(open.flatMap(({ made }) => made?.delegation ?? []))
  const ours = open.filter(({ id, boot }) => boot === found.boot && !found.reused.has(id))
  const shares = sharesOf(ours, found.mounts)
  const taken = new Set([...shares.values()].flat())
  const steps = open.map(loan =>
    loan.boot === found.boot
      ? judge(loan, shares.get(loan.id) ?? [], found, known)
      : ({ do: 'end', loan: loan.id, why: 'reboot' } as const),
  )
  return [...steps, ...strangers(found, taken, known)]
}

function judge(
  loan: LoanRecord,
  mounts: readonly DelegatedInstance[],
  found: Found,
  known: Set<number>,
): Step {
  const { id, state, ended, recipient } = loan
  switch (state) {
    case 'making': {
      const delegation = unknownDelegationOf(loan, found, known)
      if (delegation !== undefined) known.add(delegation)
      return mounts.length === 0 && delegation === undefined
        ? { do: 'end', loan: id, why: 'failed', detail: UNFINISHED }
        : { do: 'takeBack', loan: id, why: 'failed', detail: UNFINISHED, delegation }
    }
    case 'ending':
      return mounts.length === 0 && found.first === false
        ? { do: 'end', loan: id, why: ended?.why ?? 'lost' }
        : { do: 'takeBack', loan: id, why: ended?.why ?? 'lost' }
    default: {
      const lives =
        recipient !== undefined && !found.reused.has(id) && found.inhabited.has(recipient.userNamespace)
      const gone = mounts.length === 0 ? whyGone(loan, found, lives) : undefined
      if (gone !== undefined) return { do: 'end', loan: id, ...gone }
      const pids = mounts.flatMap(mount => mount.pids)
      const seen = { mounted: mounts.length > 0, processes: new Set(pids).size, drift: driftOf(loan, mounts) }
      return { do: 'see', loan: id, seen, pids }
    }
  }
}

/** Of a loan that lives by its record, and that nobody has mounted. Undefined: it may be in use. */
function whyGone(
  loan: LoanRecord,
  { first, delegations, reused }: Found,
  lives: boolean,
): Pick<EndRecord, 'why' | 'detail'> | undefined {
  const { made, kind } = loan
  if (reused.has(loan.id)) return { why: 'processes-gone' }
  const inGuard =
    made?.delegation !== undefined && delegations?.some(one => isRecordOf(loan, one, made.delegation!))
  if (inGuard === true) return undefined
  if (!lives) return { why: 'processes-gone' }
  // The guard keeps a record as long as the superblock is there, or a token of it.
  if (made?.delegation !== undefined && delegations !== undefined) return { why: 'undelegated' }
  if (kind === 'adopted') return { why: 'undelegated' }
  // A context that the workload has not mounted yet looks the same.
  if (first && made?.device !== undefined)
    return {
      why: 'lost',
      detail: 'it was not mounted when the daemon started; tokens that were made from it may be in use',
    }
  return undefined
}

function isRecordOf({ recipient }: LoanRecord, one: GuardDelegation, delegation: number): boolean {
  return Number(one.id) === delegation && `user:[${one.userNamespace}]` === recipient?.userNamespace
}

/** What was lent for a loan that was being made: to the same namespace, by the same policy. */
function unknownDelegationOf(
  { recipient, policy }: LoanRecord,
  { delegations = [] }: Found,
  known: ReadonlySet<number>,
): number | undefined {
  const found = delegations.find(
    one =>
      one.kind === 'bpffs' &&
      !known.has(Number(one.id)) &&
      `user:[${one.userNamespace}]` === recipient?.userNamespace &&
      one.policy !== '' &&
      policy.name.startsWith(one.policy),
  )
  return found && Number(found.id)
}

/** Of others: systemd, container managers, our own commands that work alone. */
function strangers(
  { mounts, delegations = [] }: Found,
  taken: ReadonlySet<DelegatedInstance>,
  known: ReadonlySet<number>,
): Step[] {
  const byDevice = new Map<string, DelegatedInstance[]>()
  for (const mount of mounts)
    if (!taken.has(mount)) byDevice.set(mount.device, [...(byDevice.get(mount.device) ?? []), mount])
  const strange = delegations.filter(
    one => one.kind === 'bpffs' && !one.revoked && !known.has(Number(one.id)),
  )
  const steps: Step[] = []
  const used = new Set<GuardDelegation>()
  for (const group of byDevice.values()) {
    const { userNamespace } = group[0]!
    const there = strange.filter(one => `user:[${one.userNamespace}]` === userNamespace)
    const others = [...byDevice.values()].filter(one => one[0]!.userNamespace === userNamespace)
    // Which superblock is which delegation's only the guard knows: it is told where it is clear.
    const delegation = there.length === 1 && others.length === 1 ? there[0] : undefined
    if (delegation !== undefined) used.add(delegation)
    steps.push({ do: 'adopt', mounts: group, delegation })
  }
  for (const delegation of strange)
    if (!used.has(delegation)) steps.push({ do: 'adopt', mounts: [], delegation })
  return steps
}
