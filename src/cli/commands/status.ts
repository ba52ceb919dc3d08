/** bpftoken status: how the daemon is, on one screen. */
import type { RouteAnswer } from '../../client/client.ts'
import { EXIT } from '../../errors.ts'
import { daemonAt, type SocketOptions } from '../daemon/reach.ts'
import { columns, type Line, print, printJson, styled } from '../output.ts'

/** Exit 1: something is not as it should be. */
export async function status(options: SocketOptions & { json?: boolean }): Promise<number> {
  using daemon = await daemonAt(options)
  const answer = await daemon.status()
  if (options.json === true) printJson(answer)
  else print(...statusLines(answer))
  return answer.concerns.length === 0 ? EXIT.ok : EXIT.failed
}

/** Pure. */
export function statusLines(answer: RouteAnswer<'status'>): Line[] {
  const { version, pid, startedAt, guard, policies, loans, requests, registry, audit, concerns } = answer
  const rows = columns([
    ['daemon', `${version}, process ${pid}, since ${startedAt}`],
    ['guard', guardText(guard)],
    ['policies', `${policies.loaded}, read at ${policies.loadedAt}`],
    ...policies.faults.map(({ file, message }) => ['', `${file}: ${message}`]),
    ['loans', `${loans.live} live, ${loans.adopted} of others, ${loans.ended} ended`],
    ['requests', `${requests.waiting} waiting`],
    [
      'records',
      `schema ${registry.schema}, ${registry.fault ?? (registry.writable ? 'writable' : 'read-only')}`,
    ],
    ['audit', `${audit.records} records, the last ${audit.head.slice(0, 16)}`],
  ])
  return [
    ...rows,
    ...(concerns.length === 0
      ? [[styled('good', 'all is well')]]
      : concerns.map(concern => [styled('bad', 'not well: '), concern])),
  ]
}

function guardText({ installed, mode, why }: RouteAnswer<'status'>['guard']): string {
  const state = installed ? (mode ?? 'installed') : 'none: limits and derivation are not enforced'
  return why === undefined ? state : `${state} (${why})`
}
