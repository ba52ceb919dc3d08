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
import { openTarget, sharesOurNetwork, type Target } from '../../delegation/target.ts'
import { EXIT, NotSupportedError, UsageError } from '../../errors.ts'
import type { Guard, Lender } from '../../guard/guard.ts'
import type { Policy } from '../../policy/policy.ts'
import type { Vocabulary } from '../../policy/vocabulary.ts'
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
  cgroup?: string
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
  if (options.cgroup !== undefined && guard === undefined)
    throw new NotSupportedError('--cgroup needs the guard: the kernel lets tokens be made in any cgroup', {
      context: { cgroup: options.cgroup },
      hint: 'Install it as root: bpftoken guard install',
    })
  using target = openRecipient(options, policy, vocabulary)
  if (options.dryRun === true) {
    const known = guard && { ability: policy.name }
    const actions =
      options.contextFd === undefined
        ? planFor(policy, target, options.path, known)
        : planForContext(policy, target, options.contextFd, known)
    if (options.json === true) printJson({ target: target.facts, actions })
    else print(actions.map(describeAction).join('\n'))
    return EXIT.ok
  }
  for (const path of unenforced) note(`without the guard nothing enforces ${path}`)
  using lender = guard?.lend(policy, options.cgroup === undefined ? {} : { cgroup: options.cgroup })
  return await deliver({ ...options, policy, target, vocabulary, lender })
}

/** The process that is lent to. UsageError, DeniedError: not there, or not this policy. The caller disposes of it. */
export function openRecipient(
  { pid, path }: { pid: number; path: string },
  policy: Policy,
  vocabulary: Vocabulary,
): Target {
  if (!path.startsWith('/')) throw new UsageError(`--path ${path} is not absolute`)
  const target = openTarget(pid)
  try {
    if (sharesOurNetwork(target)) requireNetworkAllowed(policy, vocabulary)
    return target
  } catch (error) {
    target[Symbol.dispose]()
    throw error
  }
}

export interface Loan {
  readonly policy: Policy
  readonly target: Target
  readonly vocabulary: Vocabulary
  readonly lender: Lender | undefined
  readonly path: string
  readonly contextFd?: number
  readonly json?: boolean
  /** What else `--json` prints. */
  readonly also?: object
}

/** Makes the loan and tells of it; SIGINT and SIGTERM undo what was begun. */
export async function deliver(loan: Loan): Promise<number> {
  const { policy, target, vocabulary, lender, path, contextFd, json, also } = loan
  const { facts } = target
  const abort = new AbortController()
  const stop = (signal: NodeJS.Signals): void => abort.abort(new Interrupted(signal))
  // To the end, and any number of times: once the loan is made it is told, and the status is 0.
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, stop)
  // Node takes its handlers away before it ends, and takes its time over the rest: so it ends at once.
  process.once('exit', () => process.exit())
  const how = { signal: abort.signal, guard: lender }
  if (contextFd !== undefined) {
    await delegateContext(policy, target, contextFd, vocabulary, how)
    if (json === true) printJson({ target: facts, contextFd, ...idOf(lender?.delegation()), ...also })
    else
      print(
        `process ${facts.pid} may now mount its context (descriptor ${contextFd})${andId(lender?.delegation())}`,
      )
    return EXIT.ok
  }
  const made = await delegateTo(policy, target, vocabulary, { ...how, path })
  if (json === true) printJson({ target: facts, delegation: made, ...idOf(lender?.delegation()), ...also })
  else
    print(
      `delegated to process ${facts.pid} at ${made.path}: ${made.options.join(' ')}${andId(lender?.delegation())}`,
    )
  return EXIT.ok
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
  const installed = await installedGuard()
  using guard = installed?.guard
  using target = openTarget(options.pid)
  const gone = await takeBack(target, await loadVocabulary(), {
    path: options.path,
    ...(guard === undefined
      ? {}
      : {
          revoke: root => revokeAll(guard, [guard.delegationAt(root)]),
          revokeIn: userNamespace =>
            revokeAll(
              guard,
              guard.delegations().map(one => (one.userNamespace === userNamespace ? one.id : undefined)),
            ),
        }),
  })
  if (options.json === true) printJson({ target: target.facts, unmounted: gone })
  else {
    print(`unmounted ${gone.path} of process ${options.pid}: no new token can be made from it`)
    if (gone.revoked.length > 0)
      print(`revoked delegation ${gone.revoked.join(', ')}: tokens made before serve no longer`)
    else print('tokens made before, and what was loaded with them, go on until their holders exit')
  }
  return EXIT.ok
}

/** Those that there are, with all that is derived from them. */
function revokeAll(guard: Guard, ids: readonly (bigint | undefined)[]): bigint[] {
  return ids.flatMap(id => (id === undefined ? [] : guard.revoke(id)))
}
