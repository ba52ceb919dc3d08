/** bpftoken delegate and undelegate: into a user namespace that exists, a container's of any runtime. */
import {
  delegateContext,
  delegate as delegateTo,
  planFor,
  planForContext,
  requireGuard,
  requireNetworkAllowed,
  undelegate as takeBack,
} from '../../delegation/delegate.ts'
import { describeAction } from '../../delegation/plan.ts'
import { openTarget, sharesOurNetwork } from '../../delegation/target.ts'
import { UsageError } from '../../errors.ts'
import { installedGuard } from '../installed-guard.ts'
import { Interrupted } from '../interrupted.ts'
import { note, print, printJson } from '../output.ts'
import { loadPolicy, loadVocabulary } from '../policy-file.ts'
import { requireRoot } from '../privilege.ts'

export interface DelegateOptions {
  pid: number
  policy: string
  path: string
  contextFd?: number
  dryRun?: boolean
  json?: boolean
}

export async function delegate(options: DelegateOptions): Promise<number> {
  requireRoot('bpftoken delegate')
  const vocabulary = await loadVocabulary()
  const policy = await loadPolicy(options.policy, vocabulary)
  const installed = await installedGuard()
  using guard = installed?.guard
  const unenforced = requireGuard(policy, installed?.holds)
  if (!options.path.startsWith('/')) throw new UsageError(`--path ${options.path} is not absolute`)
  using target = openTarget(options.pid)
  if (sharesOurNetwork(target)) requireNetworkAllowed(policy, vocabulary)

  const { facts } = target
  if (options.dryRun === true) {
    const known = guard && { ability: policy.name }
    const actions =
      options.contextFd === undefined
        ? planFor(policy, target, options.path, known)
        : planForContext(policy, target, options.contextFd, known)
    if (options.json === true) printJson({ target: facts, actions })
    else print(actions.map(describeAction).join('\n'))
    return 0
  }
  const abort = new AbortController()
  const stop = (signal: NodeJS.Signals): void => abort.abort(new Interrupted(signal))
  process.once('SIGINT', stop).once('SIGTERM', stop)
  for (const path of unenforced) note(`without the guard nothing enforces ${path}`)
  using lender = guard?.lend(policy)
  const how = { signal: abort.signal, guard: lender }
  if (options.contextFd !== undefined) {
    await delegateContext(policy, target, options.contextFd, vocabulary, how)
    if (options.json === true)
      printJson({ target: facts, contextFd: options.contextFd, ...idOf(lender?.delegation()) })
    else
      print(
        `process ${facts.pid} may now mount its context (descriptor ${options.contextFd})${andId(lender?.delegation())}`,
      )
    return 0
  }
  const made = await delegateTo(policy, target, vocabulary, { ...how, path: options.path })
  if (options.json === true) printJson({ target: facts, delegation: made, ...idOf(lender?.delegation()) })
  else
    print(
      `delegated to process ${facts.pid} at ${made.path}: ${made.options.join(' ')}${andId(lender?.delegation())}`,
    )
  return 0
}

/** The guard's number for it, for `revoke`; nothing where there is no guard. */
function idOf(id: bigint | undefined): { id?: number } {
  return id === undefined ? {} : { id: Number(id) }
}

function andId(id: bigint | undefined): string {
  return id === undefined ? '' : `\ndelegation ${id}: bpftoken revoke ${id} takes it back`
}

export interface UndelegateOptions {
  pid: number
  path: string
  json?: boolean
}

export async function undelegate(options: UndelegateOptions): Promise<number> {
  requireRoot('bpftoken undelegate')
  using target = openTarget(options.pid)
  const gone = await takeBack(target, await loadVocabulary(), { path: options.path })
  if (options.json === true) printJson({ target: target.facts, unmounted: gone })
  else {
    print(`unmounted ${gone.path} of process ${options.pid}: no new token can be made from it`)
    print('tokens made before, and what was loaded with them, go on until their holders exit')
  }
  return 0
}
