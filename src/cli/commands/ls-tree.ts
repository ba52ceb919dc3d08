/** bpftoken ls --tree: what is lent, by who has it, with what lives of it. */
import { EXIT } from '../../errors.ts'
import { type Lent, type LentDelegation, listLent } from '../../lending/lent.ts'
import type { Place } from '../../lending/place.ts'
import { delegationToJSON } from '../../lending/view.ts'
import { stateOf } from '../guard-text.ts'
import { installedGuard } from '../installed-guard.ts'
import { note, print, printJson, word } from '../output.ts'
import { loadVocabulary } from '../policy-file.ts'

export async function lsTree(options: { json?: boolean }): Promise<number> {
  const vocabulary = await loadVocabulary()
  using guard = process.geteuid?.() === 0 ? await installedGuard() : undefined
  if (process.geteuid?.() !== 0) note('not root: only the mounts of your own processes can be seen')
  const lent = await listLent(vocabulary, guard)
  const guarded = guard !== undefined
  if (options.json === true) {
    printJson({ guarded, lent: lent.map(toJSON) })
    return EXIT.ok
  }
  print(...(lent.length === 0 ? ['nothing is delegated'] : lent.flatMap(describe)))
  if (!guarded && lent.length > 0)
    print(
      'what was loaded under these, and what was derived from them, is not known: only the guard knows it',
    )
  return EXIT.ok
}

function toJSON({ delegations, ...rest }: Lent) {
  return { ...rest, delegations: delegations.map(treeToJSON) }
}

function treeToJSON({ delegation, derived, programs, maps, links }: LentDelegation): object {
  return { ...delegationToJSON(delegation), derived: derived.map(treeToJSON), programs, maps, links }
}

function describe({ place, userNamespace, mounts, delegations }: Lent): string[] {
  return [
    [placeText(place), ...(userNamespace === undefined ? [] : [userNamespace])].join('  '),
    ...mounts.map(({ path, mountId, pids, command, covered, options }) => {
      const more = pids.length > 1 ? ` and ${pids.length - 1} more` : ''
      const state = covered ? ', covered' : ''
      return `  mount ${mountId} at ${word(path)}${state}: process ${pids[0]} ${word(command)}${more}: ${options.join(' ')}`
    }),
    ...delegations.flatMap(one => below(one, '  ', '')),
  ]
}

function placeText(place: Place): string {
  switch (place.kind) {
    case 'container':
      return `${place.runtime === 'machine' ? 'machine' : `container of ${place.runtime}`} ${word(shortened(place.id))}`
    case 'unit':
      return `unit ${word(place.name)}`
    case 'cgroup':
      return `cgroup ${word(place.path)}`
    case 'unknown':
      return `unknown: ${place.why}`
  }
}

/** As runtimes show their long ids. */
function shortened(id: string): string {
  return /^[0-9a-f]{64}$/.test(id) ? id.slice(0, 12) : id
}

function below(
  { delegation, derived, programs, maps, links }: LentDelegation,
  indent: string,
  how: string,
): string[] {
  const { id, kind, policy, userNamespace } = delegation
  const of = policy === '' ? '' : ` of policy ${word(policy)}`
  const what = kind === 'cgroup' ? 'confinement' : 'delegation'
  const where = how === '' ? '' : `, to user:[${userNamespace}]`
  const inside = `${indent}  `
  const link = (one: { id: number; type: string; name: string }, at: string): string =>
    `${at}link ${one.id} ${one.type}${one.name === '' ? '' : ` of ${word(one.name)}`}`
  return [
    `${indent}${how}${what} ${id}${of}, ${stateOf(delegation)}${where}`,
    ...derived.flatMap(one => below(one, inside, 'derived ')),
    ...programs.flatMap(program => [
      `${inside}program ${program.id} ${program.type} ${word(program.name)}`,
      ...program.links.map(one => link({ ...one, name: '' }, `${inside}  `)),
    ]),
    ...maps.map(map => `${inside}map ${map.id} ${map.type} ${word(map.name)}`),
    ...links.map(one => link(one, inside)),
  ]
}
