/** bpftoken show: what the daemon knows of one loan, or without it the guard of one delegation. */
import { EXIT } from '../../errors.ts'
import { delegationId, Guard, type GuardDelegation } from '../../guard/guard.ts'
import { delegationToJSON, wallTime } from '../../lending/view.ts'
import { describeLimits } from '../../policy/limits-text.ts'
import { describeMask } from '../../policy/mask-text.ts'
import { formatSize } from '../../policy/quantity.ts'
import { MASK_DOMAINS, type Vocabulary } from '../../policy/vocabulary.ts'
import { type DaemonOptions, delegationIn, reachDaemon } from '../daemon/reach.ts'
import { cgroupText, recipientOf, stateOf } from '../guard-text.ts'
import { columns, print, printJson } from '../output.ts'
import { loadVocabulary } from '../policy-file.ts'
import type { LoanName } from '../tree/options.ts'

export interface ShowOptions extends DaemonOptions {
  json?: boolean
}

/** Where the daemon answers it knows both: a loan has the guard's number for it. */
export async function show(name: LoanName, options: ShowOptions): Promise<number> {
  using daemon = await reachDaemon(options, 'bpftoken show')
  if (daemon !== undefined)
    return (await import('../daemon/list.ts')).showThrough(daemon, name, options.json === true)
  const id = delegationIn(name)
  using guard = Guard.open()
  const found = guard.delegation(delegationId(id))
  if (options.json === true) printJson(delegationToJSON(found))
  else print(...describeDelegation(found, await loadVocabulary()))
  return EXIT.ok
}

function describeDelegation(one: GuardDelegation, vocabulary: Vocabulary): string[] {
  const { id, kind, policy, parent, cgroup, terms, live } = one
  const { limits, derive } = terms
  return columns([
    ['delegation', String(id)],
    ['policy', policy || 'none'],
    ['state', stateOf(one)],
    ['made', `${wallTime(one.createdNs)} by process ${one.delegatorPid}`],
    ['for', recipientOf(one)],
    ...(parent === undefined ? [] : [['from', `delegation ${parent}`]]),
    ...(kind === 'cgroup' || cgroup === undefined ? [] : [['tokens in', cgroupText(cgroup)]]),
    ...MASK_DOMAINS.map(domain => [
      domain,
      describeMask(vocabulary, domain, terms.rights.masks[domain]).join(' ') || 'none',
    ]),
    ...(kind === 'cgroup' ? [] : [['capabilities', terms.rights.capabilities.join(' ') || 'none']]),
    ['limits', describeLimits(limits)],
    ['rules', rulesOf(terms).join(', ')],
    ...(derive.allowed ? [['derive', `${derive.maxDepth} times in a row`]] : []),
    [
      'live',
      `${live.tokens} tokens, ${live.programs} programs, ${live.maps} maps of ${formatSize(live.mapBytes)}`,
    ],
    ...(live.children > 0 ? [['', `with what was lent on to ${live.children} derived delegations`]] : []),
  ])
}

function rulesOf({
  network,
  cgroups,
  sharing,
  revocable,
  programs,
  targets,
  events,
}: GuardDelegation['terms']): string[] {
  return [
    `network ${network}`,
    `cgroups ${cgroups}`,
    ...(sharing.passToken ? ['tokens may be passed'] : []),
    ...(sharing.bindMount ? ['bind mounts allowed'] : []),
    ...(revocable ? [] : ['attachments may outlive it']),
    ...(programs.digests === 'any' ? [] : [`${programs.digests.length} programs by digest`]),
    ...(targets.functions === 'any' ? [] : [`attach targets ${targets.functions.join(' ')}`]),
    `events ${events}`,
  ]
}
