/** bpftoken ls: what the daemon has lent; or every delegated bpffs of this machine, whoever made it. */
import { listInstances } from '../../delegation/instances.ts'
import { describeMask } from '../../policy/mask-text.ts'
import { MASK_DOMAINS } from '../../policy/vocabulary.ts'
import { type DaemonOptions, daemonIfAny } from '../daemon/reach.ts'
import { installedGuard } from '../installed-guard.ts'
import { note, print, printJson, styled, table, word } from '../output.ts'
import { loadVocabulary } from '../policy-file.ts'

export interface LsOptions extends DaemonOptions {
  tree?: boolean
  json?: boolean
}

/** Of the daemon's loans where it answers. */
export async function ls(options: LsOptions): Promise<number> {
  const isRoot = process.geteuid?.() === 0
  if (options.direct !== true) {
    using daemon = await daemonIfAny(options)
    if (daemon !== undefined) return (await import('../daemon/list.ts')).listThrough(daemon, options)
  }
  if (options.tree === true) return (await import('./ls-tree.ts')).lsTree(options)
  const vocabulary = await loadVocabulary()
  using guard = await installedGuard()
  const known = guard?.delegations() ?? []
  const instances = listInstances(vocabulary).map(instance => ({
    ...instance,
    // All of the namespace: the guard knows superblocks, not where they are mounted.
    delegations: known
      .filter(one => `user:[${one.userNamespace}]` === instance.userNamespace)
      .map(({ id }) => Number(id)),
  }))
  if (!isRoot) note('not root: only the mounts of your own processes can be seen')
  if (options.json === true) {
    printJson(
      instances.map(instance => ({
        ...instance,
        words: Object.fromEntries(
          MASK_DOMAINS.map(domain => [domain, describeMask(vocabulary, domain, instance.masks[domain])]),
        ),
      })),
    )
    return 0
  }
  if (instances.length === 0) {
    print('nothing is delegated')
    return 0
  }
  const rows = instances.map(i => [
    i.mountNamespace,
    i.userNamespace,
    String(i.ownerUid),
    String(i.mountId),
    word(i.path),
    i.covered ? 'covered' : '-',
    `${i.pids[0]} ${word(i.command)}${i.pids.length > 1 ? ` +${i.pids.length - 1}` : ''}`,
    i.delegations.join(',') || '-',
    i.options.map(option => option.replace('delegate_', '')).join(' '),
  ])
  const titles = [
    'MOUNT NAMESPACE',
    'USER NAMESPACE',
    'OWNER',
    'MOUNT',
    'PATH',
    'STATE',
    'PROCESS',
    'ID',
    'RIGHTS',
  ]
  print(...table([titles.map(title => styled('heading', title)), ...rows]))
  return 0
}
