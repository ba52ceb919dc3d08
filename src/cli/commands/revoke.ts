/** bpftoken revoke: take a delegation back, and undo what was loaded under it. */

import { EXIT, UsageError } from '../../errors.ts'
import type { DetachResult, Staying } from '../../guard/detach.ts'
import { delegationId } from '../../guard/guard.ts'
import type { Holder } from '../../guard/inventory.ts'
import { countLeft, detach, isUndone, revoke as revokeAll } from '../../lending/revoke.ts'
import { detachToJSON } from '../../lending/view.ts'
import { delegationIn, reachDaemon, requireNoneOf } from '../daemon/reach.ts'
import { requiredGuard } from '../installed-guard.ts'
import type { RevokeOptions } from '../loan-options.ts'
import { columns, note, print, printJson, word } from '../output.ts'
import type { LoanName } from '../tree/options.ts'

/**
 * Exit 1: something that was to be undone stays, or may stay: a program that is left may be
 * attached without a link.
 */
export async function revoke(name: LoanName | undefined, options: RevokeOptions): Promise<number> {
  using daemon = await reachDaemon(options, 'bpftoken revoke')
  if (daemon !== undefined)
    return (await import('../daemon/take-back.ts')).revokeThrough(daemon, name, options)
  const { container, unit, user, policy, all, dryRun, comment, kill = false, json = false } = options
  requireNoneOf({ container, unit, user, policy, all, 'dry-run': dryRun, comment })
  if (name === undefined) throw new UsageError('Say which delegation is taken back, by its number')
  const id = delegationIn(name)
  using guard = await requiredGuard()
  const ids = await revokeAll(guard, delegationId(id))
  // Told at once, because this much is done whatever becomes of the rest.
  if (!json) print(describeRevoked(ids))
  const revoked = ids.map(Number)
  if (options.detach !== true && !kill) {
    if (json) printJson({ revoked })
    else print('what was loaded with them goes on; bpftoken revoke --detach undoes that')
    return EXIT.ok
  }
  const tellUnseen = (one: bigint): void =>
    note(
      `delegation ${one} may have attached programs without links (revocable: false): they are not looked for`,
    )
  const result = await detach(guard, ids, { kill, tellUnseen })
  if (json) printJson({ revoked, ...detachToJSON(result) })
  else print(...describe(result, { id, kill }))
  return isUndone(result, { kill }) ? EXIT.ok : EXIT.failed
}

function describeRevoked([id, ...derived]: readonly bigint[]): string {
  const also = derived.length === 0 ? '' : `, with what is derived from it (${derived.join(', ')})`
  return `delegation ${id} is revoked${also}: no token of it is of use any more`
}

function describe(result: DetachResult, asked: { id: number; kill: boolean }): string[] {
  const { detached, stays, killed, left, holders } = result
  const rows = [
    ...detached.map(({ kind, id, type, name }) => ['detached', `${kind} ${id}`, type, `"${name}"`]),
    ...stays.map(one => [
      'attached',
      `${one.kind} ${one.id}`,
      one.type,
      `"${one.name}": ${whyStays(one)}, ${heldBy(holders.filter(({ links }) => links.includes(one.id)))}`,
    ]),
    ...killed.map(({ pid, task }) => ['killed', `process ${pid}`, word(task), '']),
  ]
  const lines = rows.length === 0 ? ['nothing was attached by a link'] : columns(rows)
  if (countLeft(result) === 0) return [...lines, 'nothing of it is left in the kernel']
  const { programs, maps, links } = left
  const counts = `${programs.length} programs, ${maps.length} maps, ${links.length} links`
  lines.push(`still in the kernel: ${counts}, ${heldBy(holders)}`)
  if (programs.length > 0)
    lines.push(
      'not all is undone: whether these programs run cannot be told, for what attached them without a link (netlink, setsockopt, ioctl, BPF_PROG_ATTACH) is not looked for',
    )
  const within = holders.filter(holder => holder.within)
  if (within.length > 0 && !asked.kill)
    lines.push(
      `who holds programs can attach them again; bpftoken revoke ${asked.id} --kill ends ${names(within)}`,
    )
  return lines
}

function whyStays({ errnoName }: Staying): string {
  return errnoName === 'EOPNOTSUPP' ? 'the kernel cannot detach its type' : `not detached, ${errnoName}`
}

function heldBy(holders: readonly Holder[]): string {
  return holders.length === 0
    ? 'no process has it open: pinned, in a map, in a message under way, mapped into memory, or attached without a link'
    : `held by ${names(holders)}`
}

function names(holders: readonly Holder[]): string {
  return holders
    .map(({ pid, task, within }) => `${word(task)} (${pid}${within ? '' : ', outside of the delegation'})`)
    .join(', ')
}
