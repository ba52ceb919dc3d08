/** Which of the mounts that are found are of which loan. Pure. */
import type { DelegatedInstance } from '../delegation/instances.ts'
import { hexMask } from '../policy/mask-text.ts'
import { MASK_DOMAINS } from '../policy/vocabulary.ts'
import type { LoanRecord } from '../registry/loan-record.ts'

/**
 * All mounts of its superblock, those that were copied elsewhere too. The number of a superblock is
 * used again once it is gone; so one of them must be in the user namespace that was lent to, or in
 * one that lies in it, with the rights that were lent: whoever takes a copy along into a namespace of
 * its own, and unmounts the first, has not given the loan back.
 */
function mountsOf(loan: LoanRecord, found: readonly DelegatedInstance[]): readonly DelegatedInstance[] {
  const { made, recipient } = loan
  if (recipient === undefined) return []
  const isThere = (one: DelegatedInstance): boolean =>
    one.userNamespace === recipient.userNamespace && hasRights(one, loan)
  if (made?.device !== undefined) {
    const mounts = found.filter(one => one.device === made.device)
    const isBelow = (one: DelegatedInstance): boolean =>
      one.within?.includes(recipient.userNamespace) === true && hasRights(one, loan)
    return mounts.some(one => isThere(one) || isBelow(one)) ? mounts : []
  }
  // Where it was to be made, or the workload has put it: by what it grants to whom.
  const path = 'path' in loan.place ? loan.place.path : undefined
  const devices = new Set(
    found
      .filter(
        one =>
          isThere(one) &&
          (path === undefined ||
            (one.mountNamespace === recipient.mountNamespace && samePath(one.path, path))),
      )
      .map(({ device }) => device),
  )
  return found.filter(({ device }) => devices.has(device))
}

/**
 * The mounts of each loan, by its number. A superblock is of the loan that was made last of those that
 * say its number: an older one was gone by then, though all else of the two is the same, as of two
 * containers of a pod. Loans that do not say which superblock is theirs come after all that do.
 */
export function sharesOf(
  loans: Iterable<LoanRecord>,
  found: readonly DelegatedInstance[],
): ReadonlyMap<number, readonly DelegatedInstance[]> {
  const all = [...loans]
  const sure = all.filter(({ made }) => made?.device !== undefined)
  const unsure = all.filter(({ made }) => made?.device === undefined)
  const left = new Map<string, DelegatedInstance[]>()
  for (const mount of found) left.set(mount.device, [...(left.get(mount.device) ?? []), mount])
  const shares = new Map<number, readonly DelegatedInstance[]>()
  for (const loan of [...sure.sort(byLastMade), ...unsure]) {
    const device = loan.made?.device
    const mounts = mountsOf(loan, device === undefined ? [...left.values()].flat() : (left.get(device) ?? []))
    for (const mount of mounts) left.delete(mount.device)
    shares.set(loan.id, mounts)
  }
  return shares
}

function byLastMade(a: LoanRecord, b: LoanRecord): number {
  return Date.parse(b.made!.at) - Date.parse(a.made!.at) || b.id - a.id
}

/** Of the bits that this kernel knows; it shows no others. */
function hasRights(one: DelegatedInstance, { made, policy }: LoanRecord): boolean {
  if (made?.options !== undefined) return one.options.join() === made.options.join()
  return MASK_DOMAINS.every(domain => {
    const wanted = BigInt(policy.rights.masks[domain])
    return (one.masks[domain] & ~wanted) === 0n
  })
}

/** How the loan is mounted otherwise than it was made. */
export function driftOf({ made }: LoanRecord, mounts: readonly DelegatedInstance[]): string[] {
  if (made?.device === undefined) return mounts.length === 0 ? ['it is not mounted, or not yet'] : []
  const own = mounts.find(({ mountId }) => mountId === made.mountId)
  if (mounts.length === 0) return ['it is no longer mounted']
  const drift: string[] = []
  if (own === undefined) drift.push(`its own mount is gone, and ${mounts.length} others of it are there`)
  else {
    if (own.path !== made.path) drift.push(`it is mounted at ${own.path}, not at ${made.path}`)
    if (own.covered) drift.push('another mount lies above it, or its processes have left its root')
    const masks = MASK_DOMAINS.filter(domain => hexMask(own.masks[domain]) !== made.masks?.[domain])
    if (masks.length > 0) drift.push(`its rights are not those that were lent: ${masks.join(', ')}`)
    if (mounts.length > 1) drift.push(`there are ${mounts.length - 1} more mounts of it`)
  }
  return drift
}

function samePath(a: string, b: string): boolean {
  const plain = (path: string): string => path.replace(/\/+/g, '/').replace(/(.)\/$/, '$1')
  return plain(a) === plain(b)
}
