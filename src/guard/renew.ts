/** To let a delegation live longer than its record says. */
import { Link } from '../ebpf/link.ts'
import { Program } from '../ebpf/prog.ts'
import { ConflictError, NotSupportedError, SyscallError } from '../errors.ts'
import { bootTimeNs } from './clock.ts'
import { type RawDelegation, rawDelegation, waitForPrograms } from './delegations.ts'
import { type DelegationId, delegationIn } from './id.ts'
import type { GuardMaps } from './maps.ts'
import { endOf, type RenewalTables, renewalTables } from './renewals.ts'

/**
 * Lets a delegation end at `untilNs`, since boot, or with its origin if that is sooner. Gives when
 * it ends now. What it was derived to keeps its own end.
 *
 * What has ended stays ended. If a program refuses a call because the time is over while this runs,
 * this fails, and no call is allowed after that one.
 *
 * NotFoundError: there is no such delegation. ConflictError: it has ended, or would not end later.
 * NotSupportedError: programs of an older version enforce, which look at its record alone.
 */
export function renewDelegation(maps: GuardMaps, id: DelegationId, untilNs: bigint): bigint {
  const { renewals } = requireRenewing(maps, id)
  const raw = requireLive(maps, id)
  const now = endOf(maps, raw)
  if (now === undefined) refuse(id, 'endless', 'it does not expire')
  if (now! <= bootTimeNs()) refuse(id, 'expired', 'its time is over')
  const origin = delegationIn(raw.parent)
  const last = origin === undefined ? undefined : endOf(maps, rawDelegation(maps, origin))
  const until = last !== undefined && last < untilNs ? last : untilNs
  if (until <= now!)
    refuse(
      id,
      'sooner',
      until === last ? 'it ends with its origin' : 'it would end no later than it does now',
    )
  renewals.set(id, until)
  // Those that read the old end have said by then that the time was over, if it was.
  waitForPrograms()
  try {
    requireLive(maps, id)
  } catch (error) {
    renewals.delete(id)
    throw error
  }
  return until
}

function requireLive(maps: GuardMaps, id: DelegationId): RawDelegation {
  const raw = rawDelegation(maps, id)
  const { revocations, expired } = maps.tables
  if (revocations.get(id) !== undefined) refuse(id, 'revoked', 'it is revoked')
  if (expired.get(id) !== undefined) refuse(id, 'expired', 'its time is over')
  return raw
}

function refuse(id: DelegationId, why: string, text: string): never {
  throw new ConflictError(`Delegation ${id} cannot be renewed: ${text}`, {
    context: { delegation: String(id), why },
  })
}

/** The maps may be left from a newer version than that of the programs. */
function requireRenewing(maps: GuardMaps, id: DelegationId): RenewalTables {
  const tables = renewalTables(maps)
  const enforcing = [...mapsOfPrograms(maps.directory)]
  const known = tables?.renewals.map.info().id
  if (tables !== undefined && enforcing.length > 0 && enforcing.every(ids => ids.includes(known!)))
    return tables
  throw new NotSupportedError('The guard that is installed is of a version that renews nothing', {
    context: { delegation: String(id) },
    reason: 'guard-older',
  })
}

/** Which judges whether a token may be used, and so whether its time is over. */
const JUDGE = 'guard_token_cmd'

/** Of each version that enforces: there are two while one replaces the other. */
function* mapsOfPrograms(directory: string): Generator<readonly number[]> {
  for (const links of ['links', 'links-new']) {
    const link = openLink(`${directory}/${links}/${JUDGE}`)
    if (link === undefined) continue
    using _ = link
    using program = Program.fromId(link.info().programId)
    yield program.info().mapIds
  }
}

function openLink(file: string): Link | undefined {
  try {
    return Link.open(file)
  } catch (error) {
    if (error instanceof SyscallError && error.errnoName === 'ENOENT') return undefined
    throw error
  }
}
