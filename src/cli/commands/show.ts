/** bpftoken show: what the guard knows of one delegation. */
import { EXIT } from '../../errors.ts'
import { Guard, type GuardDelegation } from '../../guard/guard.ts'
import { describeMask } from '../../policy/mask-text.ts'
import { formatSize } from '../../policy/quantity.ts'
import { MASK_DOMAINS, type Vocabulary } from '../../policy/vocabulary.ts'
import { delegationToJSON, stateOf, wallTime } from '../guard-text.ts'
import { columns, print, printJson } from '../output.ts'
import { loadVocabulary } from '../policy-file.ts'
import { requireRoot } from '../privilege.ts'

export async function show(id: number, options: { json?: boolean }): Promise<number> {
  requireRoot('bpftoken show')
  using guard = Guard.open()
  const found = guard.delegation(BigInt(id))
  if (options.json === true) printJson(delegationToJSON(found))
  else print(describeDelegation(found, await loadVocabulary()))
  return EXIT.ok
}

function describeDelegation(one: GuardDelegation, vocabulary: Vocabulary): string {
  const { live } = one
  return columns([
    ['delegation', String(one.id)],
    ['state', stateOf(one)],
    ['made', `${wallTime(one.createdNs)} by process ${one.delegatorPid}`],
    ['for', `user:[${one.userNamespace}]`],
    ...MASK_DOMAINS.map(domain => [
      domain,
      describeMask(vocabulary, domain, one.masks[domain]).join(' ') || 'none',
    ]),
    [
      'live',
      `${live.tokens} tokens, ${live.programs} programs, ${live.maps} maps of ${formatSize(live.mapBytes)}`,
    ],
  ])
}
