/**
 * bpftoken delegate and undelegate: into a user namespace that exists, a container's of any
 * runtime.
 */

import { describeAction } from '../../delegation/actions.ts'
import {
  delegateContext,
  delegate as delegateTo,
  planFor,
  planForContext,
  requireGuard,
  undelegate as takeBack,
} from '../../delegation/delegate.ts'
import { type Concern, preflightTarget } from '../../delegation/preflight.ts'
import type { Target } from '../../delegation/target.ts'
import { EXIT, NotSupportedError } from '../../errors.ts'
import type { Guard, Lender } from '../../guard/guard.ts'
import type { Policy } from '../../policy/policy.ts'
import type { Vocabulary } from '../../policy/vocabulary.ts'
import { type AdmissionOptions, admitTarget } from '../admission.ts'
import { installedGuard } from '../installed-guard.ts'
import { interruption } from '../interrupted.ts'
import { requirePath } from '../mount-path.ts'
import { note, print, printJson, word } from '../output.ts'
import { loadPolicy, loadVocabulary } from '../policy-file.ts'
import { requireRoot } from '../privilege.ts'
import { openRecipient, type RecipientOptions, recipientName } from '../recipient.ts'

export interface DelegateOptions extends AdmissionOptions, RecipientOptions {
  policy: string
  path: string
  contextFd?: number
  onlyCgroup?: string
  strict?: boolean
  dryRun?: boolean
  json?: boolean
}

export async function delegate(options: DelegateOptions): Promise<number> {
  recipientName(options)
  requireRoot('bpftoken delegate')
  requirePath(options.path)
  const vocabulary = await loadVocabulary()
  const policy = await loadPolicy(options.policy, vocabulary)
  const installed = await installedGuard()
  using guard = installed?.guard
  const unenforced = requireGuard(policy, installed?.holds)
  if (options.onlyCgroup !== undefined && guard === undefined)
    throw new NotSupportedError(
      '--only-cgroup needs the guard: the kernel lets tokens be made in any cgroup',
      {
        context: { cgroup: options.onlyCgroup },
        hint: 'Install it as root: bpftoken guard install',
      },
    )
  using target = await openRecipient(options)
  const { record, confirm } = admitTarget(policy, target, {
    ...options,
    vocabulary,
    guarded: guard !== undefined,
  })
  const preflight = lookAhead(target, policy, vocabulary, options)
  if (options.dryRun === true) {
    const known = guard && { ability: policy.name }
    const actions =
      options.contextFd === undefined
        ? planFor(policy, target, options.path, known)
        : planForContext(policy, target, options.contextFd, known)
    if (options.json === true) printJson({ target: target.facts, actions, preflight, ...record })
    else print(...actions.map(describeAction))
    return EXIT.ok
  }
  for (const path of unenforced) note(`without the guard nothing enforces ${path}`)
  using lender = guard?.lend(policy, options.onlyCgroup === undefined ? {} : { cgroup: options.onlyCgroup })
  const also = { preflight, ...record }
  return await deliver({ ...options, policy, target, vocabulary, lender, confirm, also })
}

/**
 * What may keep the target from using the loan, told on stderr. NotSupportedError: there is
 * something, and that is not wanted.
 */
export function lookAhead(
  target: Target,
  policy: Policy,
  vocabulary: Vocabulary,
  { strict = false }: { strict?: boolean },
): Concern[] {
  const concerns = preflightTarget(target, policy.rights, vocabulary)
  if (strict && concerns.length > 0)
    throw new NotSupportedError(
      `Process ${target.facts.pid} could not use the loan: ${concerns.map(({ what }) => what).join('; ')}`,
      {
        context: { pid: target.facts.pid, concerns: concerns.map(({ code }) => code).join(',') },
        hint: concerns.map(({ remedy }) => remedy).join('. '),
      },
    )
  for (const { what, certain, remedy } of concerns) {
    note(`${certain ? 'warning' : 'this may not work'}: ${what}`)
    note(`  next: ${remedy}`)
  }
  return concerns
}

export interface Loan {
  readonly policy: Policy
  readonly target: Target
  readonly vocabulary: Vocabulary
  readonly lender: Lender | undefined
  readonly path: string
  readonly contextFd?: number
  readonly json?: boolean
  /** Throws when the target is no more who was admitted. */
  readonly confirm: () => void
  /** What else `--json` prints. */
  readonly also?: object
}

/** Makes the loan and tells of it; SIGINT and SIGTERM undo what was begun. */
export async function deliver(loan: Loan): Promise<number> {
  const { policy, target, vocabulary, lender, path, contextFd, confirm, json, also } = loan
  const { facts } = target
  const how = { signal: interruption(), guard: lender, confirm }
  if (contextFd !== undefined) {
    await delegateContext(policy, target, contextFd, vocabulary, how)
    if (json === true) printJson({ target: facts, contextFd, ...idOf(lender?.delegation()), ...also })
    else
      print(
        `process ${facts.pid} may now mount its context (descriptor ${contextFd})`,
        ...andId(lender?.delegation()),
      )
    return EXIT.ok
  }
  const made = await delegateTo(policy, target, vocabulary, { ...how, path })
  if (json === true) printJson({ target: facts, delegation: made, ...idOf(lender?.delegation()), ...also })
  else
    print(
      `delegated to process ${facts.pid} at ${word(made.path)}: ${made.options.join(' ')}`,
      ...andId(lender?.delegation()),
    )
  return EXIT.ok
}

/** The guard's number for it, for `revoke`; nothing where there is no guard. */
function idOf(id: bigint | undefined): { id?: number } {
  return id === undefined ? {} : { id: Number(id) }
}

function andId(id: bigint | undefined): string[] {
  return id === undefined ? [] : [`delegation ${id}: bpftoken revoke ${id} takes it back`]
}

export interface UndelegateOptions extends RecipientOptions {
  path: string
  mount?: number
  json?: boolean
}

export async function undelegate(options: UndelegateOptions): Promise<number> {
  recipientName(options)
  requireRoot('bpftoken undelegate')
  const installed = await installedGuard()
  using guard = installed?.guard
  requirePath(options.path)
  using target = await openRecipient(options)
  const gone = await takeBack(target, await loadVocabulary(), {
    path: options.path,
    mount: options.mount,
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
    const { unmounted, left } = gone.copies
    const more =
      unmounted === 0 ? '' : `, and ${unmounted} other ${unmounted === 1 ? 'mount' : 'mounts'} of it`
    print(
      `unmounted ${word(gone.path)} of process ${target.facts.pid}${more}${left.length === 0 ? ': no new token can be made from it' : ''}`,
    )
    for (const { path, mountNamespace, pids } of left)
      print(
        `still mounted at ${word(path)} in ${mountNamespace} (process ${pids[0]}): tokens can be made there`,
      )
    if (gone.revoked.length > 0)
      print(`revoked delegation ${gone.revoked.join(', ')}: tokens made before serve no longer`)
    else print('tokens made before, and what was loaded with them, go on until their holders exit')
  }
  return gone.copies.left.length === 0 ? EXIT.ok : EXIT.failed
}

/** Those that there are, with all that is derived from them. */
function revokeAll(guard: Guard, ids: readonly (bigint | undefined)[]): bigint[] {
  return ids.flatMap(id => (id === undefined ? [] : guard.revoke(id)))
}
