/** bpftoken undelegate: no new token can be made where it was mounted. */

import { EXIT } from '../../errors.ts'
import { type TakenBack, undelegate as takeBack } from '../../lending/undelegate.ts'
import { takenBackToJSON } from '../../lending/view.ts'
import { reachDaemon } from '../daemon/reach.ts'
import { installedGuard } from '../installed-guard.ts'
import type { UndelegateOptions } from '../loan-options.ts'
import { print, printJson, word } from '../output.ts'
import { loadVocabulary } from '../policy-file.ts'
import { openRecipient, recipientName } from '../recipient.ts'

/** Exit 1: it is still mounted somewhere. */
export async function undelegate(options: UndelegateOptions): Promise<number> {
  recipientName(options)
  using daemon = await reachDaemon(options, 'bpftoken undelegate')
  if (daemon !== undefined) return (await import('../daemon/take-back.ts')).undelegateThrough(daemon, options)
  using guard = await installedGuard()
  using recipient = await openRecipient(options)
  const taken = await takeBack({
    recipient,
    path: options.path,
    mount: options.mount,
    vocabulary: await loadVocabulary(),
    guard,
  })
  if (options.json === true) printJson(takenBackToJSON(taken))
  else print(...describe(taken))
  return taken.unmounted.copies.left.length === 0 ? EXIT.ok : EXIT.failed
}

function describe({ target, unmounted: gone }: TakenBack): string[] {
  const { unmounted, left } = gone.copies
  const more = unmounted === 0 ? '' : `, and ${unmounted} other ${unmounted === 1 ? 'mount' : 'mounts'} of it`
  return [
    `unmounted ${word(gone.path)} of process ${target.pid}${more}${left.length === 0 ? ': no new token can be made from it' : ''}`,
    ...left.map(
      ({ path, mountNamespace, pids }) =>
        `still mounted at ${word(path)} in ${mountNamespace} (process ${pids[0]}): tokens can be made there`,
    ),
    gone.revoked.length > 0
      ? `revoked delegation ${gone.revoked.join(', ')}: tokens made before serve no longer`
      : 'tokens made before, and what was loaded with them, go on until their holders exit',
  ]
}
