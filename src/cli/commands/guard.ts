/** bpftoken guard install, status and remove. */

import { printable } from '../../ebpf/printable.ts'
import { EXIT } from '../../errors.ts'
import { GUARD_DIRECTORY } from '../../guard/directory.ts'
import { Guard, type GuardMode } from '../../guard/guard.ts'
import { guardStatus, installGuard, removeGuard } from '../../guard/install.ts'
import { delegationToJSON } from '../../lending/view.ts'
import { mountOption } from '../../policy/mask-text.ts'
import { formatSize } from '../../policy/quantity.ts'
import { ANY_MASK, MASK_DOMAINS, type Masks, type Vocabulary } from '../../policy/vocabulary.ts'
import { describeWho, recipientOf, stateOf } from '../guard-text.ts'
import { print, printJson, styled, table } from '../output.ts'
import { loadVocabulary } from '../policy-file.ts'
import { requireRoot } from '../privilege.ts'
import { Progress } from '../progress.ts'

export interface InstallOptions {
  mode?: GuardMode
  audit?: boolean
  json?: boolean
}

export async function install(options: InstallOptions): Promise<number> {
  requireRoot('bpftoken guard install')
  using progress = new Progress({ atOnce: true })
  const removed: string[] = []
  const done = await installGuard({
    ...(options.mode === undefined ? {} : { mode: options.mode }),
    loading: () => progress.step('the kernel verifies and attaches the programs of the guard'),
    removing: path => removed.push(path),
  })
  using guard = Guard.open()
  progress[Symbol.dispose]()
  if (options.audit !== undefined) guard.configure({ audit: options.audit })
  const { mode, audit } = guard.config()
  if (options.json === true) printJson({ done, directory: GUARD_DIRECTORY, mode, audit, removed })
  else {
    for (const path of removed) print(`removed what no guard has put there: ${printable(path)}`)
    print(`guard ${done} in ${GUARD_DIRECTORY}, mode ${mode}`)
  }
  return EXIT.ok
}

export async function remove(options: { json?: boolean }): Promise<number> {
  requireRoot('bpftoken guard remove')
  await removeGuard()
  if (options.json === true) printJson({ done: 'removed', directory: GUARD_DIRECTORY })
  else print('guard removed: nothing but the kernel itself holds delegations to anything any more')
  return EXIT.ok
}

/** Exit 0: it is whole and enforces; 1: it does not. */
export async function status(options: { json?: boolean }): Promise<number> {
  requireRoot('bpftoken guard status')
  const found = guardStatus()
  using guard = Guard.openOrNull()
  const works = found.proven && found.missing?.length === 0
  if (options.json === true) {
    printJson({
      ...found,
      ...(guard === undefined
        ? {}
        : {
            mode: guard.config().mode,
            audit: guard.config().audit,
            totals: numbers(guard.totals()),
            policies: guard.policies(),
            delegators: guard.delegators(),
            delegations: guard.delegations().map(delegationToJSON),
          }),
    })
    return works ? EXIT.ok : EXIT.failed
  }
  if (found.missing === undefined) print(`not installed in ${found.directory}`)
  else if (found.missing.length > 0)
    print(`incomplete, without ${found.missing.join(', ')}: run bpftoken guard install`)
  else
    print(
      `installed in ${found.directory}${found.current ? '' : ', by another version: run bpftoken guard install'}`,
    )
  print(
    found.proven
      ? 'enforces: the reserved mount option is refused'
      : 'does not enforce: the reserved mount option is taken',
  )
  if (guard !== undefined) describeGuard(guard, await loadVocabulary())
  return works ? EXIT.ok : EXIT.failed
}

function describeGuard(guard: Guard, vocabulary: Vocabulary): void {
  const { mode, audit } = guard.config()
  const { refused, wouldRefuse, lostEvents } = guard.totals()
  print(`mode ${mode}, events of ${audit ? 'everything' : 'refusals'}`)
  print(`refused ${refused}, would have refused ${wouldRefuse}, events lost ${lostEvents}`)
  print(`policies: ${guard.policies().join(', ') || 'none'}`)
  for (const { who, implicit, ceiling } of guard.delegators())
    print(
      `delegator ${describeWho(who)}${implicit ? ', implicit' : ''}: ${rightsText(ceiling.rights.masks, vocabulary)}`,
    )
  const delegations = guard.delegations()
  if (delegations.length === 0) {
    print('no delegation lives')
    return
  }
  const rows = delegations.map(one => [
    String(one.id),
    one.policy || '-',
    stateOf(one),
    recipientOf(one),
    String(one.live.tokens),
    String(one.live.programs),
    String(one.live.maps),
    formatSize(one.live.mapBytes),
  ])
  const titles = ['ID', 'POLICY', 'STATE', 'FOR', 'TOKENS', 'PROGRAMS', 'MAPS', 'MAP BYTES']
  print(...table([titles.map(title => styled('heading', title)), ...rows]))
}

/** The most that a delegator may lend, in the words of mount options. */
function rightsText(masks: Masks, vocabulary: Vocabulary): string {
  if (MASK_DOMAINS.every(domain => masks[domain] === ANY_MASK)) return 'everything'
  const lent = MASK_DOMAINS.filter(domain => masks[domain] !== 0n)
  return (
    lent.map(domain => `${domain}=${mountOption(vocabulary, domain, masks[domain])}`).join(' ') || 'nothing'
  )
}

function numbers(totals: object): Record<string, number> {
  return Object.fromEntries(Object.entries(totals).map(([name, value]) => [name, Number(value)]))
}
