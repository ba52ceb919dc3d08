/**
 * A runtime is about to start a container, and waits: whether it may, and with a loan if it asks for
 * one by annotation. The loan is mounted below the directory that the container will have as its
 * root, before it has it. All that is wrong is said, and keeps the container from starting.
 */
import type { RouteRequest } from '../../api/routes.ts'
import { subjectOfContainer } from '../../delegation/subject.ts'
import type { Target } from '../../delegation/target.ts'
import { BpftokenError, ConflictError } from '../../errors.ts'
import { requireNoApproval } from '../../lending/admission.ts'
import { type PreparedLoan, prepareLoan } from '../../lending/lend.ts'
import type { Policy } from '../../policy/policy.ts'
import { shareOf } from '../../registry/asker-facts.ts'
import { DEFAULT_BPFFS } from '../../uapi/kernel-paths.ts'
import { hintOf } from '../http/hints.ts'
import { type Asking, asking, besidesOf, confirmedBy, lifetimeOf, make, told } from '../lend.ts'
import type { Parts } from '../parts.ts'
import { chosenPolicy } from '../policy-choice.ts'
import { requireRoot } from '../records.ts'
import type { Answered, Call } from '../service.ts'
import { viewOf } from '../status-of.ts'
import { factsOf } from './facts.ts'
import type { KnownContainer } from './known.ts'
import {
  type HookBody,
  isAskedByAnother,
  requireBeingMade,
  rootfsOf,
  type Wanted,
  wantedBy,
} from './oci-state.ts'
import { preflightConfig } from './preflight.ts'

/** By then the container has its root, and what it has of the loan can be looked at. */
const STARTED_MS = 1000

/** `POST /v1/hooks/oci` */
export async function ociHookRoute(
  parts: Parts,
  call: Call,
  { body }: RouteRequest<'ociHook'>,
): Promise<Answered<'ociHook'>> {
  const who = await asking(call.asker)
  if (!who.isRoot) parts.rate.take(shareOf(who.facts))
  const { id, pid } = body.state
  const asked: { policy: unknown; recipient: unknown } = {
    policy: undefined,
    recipient: { container: id, pid },
  }
  try {
    return await told(parts, who, asked, async () => {
      requireRoot(who)
      const known = parts.containers.get(id)
      const wanted = wantedBy(body, known)
      if (wanted === undefined) return { status: 200, body: { preflight: [], notes: [] } }
      asked.policy = { name: wanted.policy }
      return await lendTo(parts, call, who, body, wanted, known)
    })
  } catch (error) {
    // Most runtimes hide what their hooks say. What others do is in the audit, bounded.
    if (!who.isRoot) throw error
    const hint = error instanceof BpftokenError ? hintOf(error) : undefined
    parts.log.warn({ ...asked, error, hint }, 'a container may not start')
    throw error
  }
}

async function lendTo(
  parts: Parts,
  { asker, signal }: Call,
  who: Asking,
  body: HookBody,
  wanted: Wanted,
  known: KnownContainer | undefined,
): Promise<Answered<'ociHook'>> {
  const askedAt = parts.clock.wall()
  const { id, pid } = body.state
  requireBeingMade(body.state)
  const rootfs = rootfsOf(body)
  const policy = await chosenPolicy(parts, { name: wanted.policy }, who.isRoot)
  const byAnother = isAskedByAnother(body, known)
  if (byAnother) requireNoApproval(policy, 'a container that is being made does not wait for that')
  using target = await asker.recipient({ pid }).catch(withRemedy)
  using prepared = confirmedBy(
    await prepare(parts, { policy, target, rootfs, body, wanted, known, byAnother }),
    asker,
    target,
  )
  const loan = await make(parts, prepared, {
    kind: 'delegate',
    who,
    askedAt,
    lifetimeSec: lifetimeOf(policy, undefined),
    container: { id, ...(known === undefined ? body.engine : undefined) },
    signal,
  })
  parts.lookWithin(STARTED_MS)
  const { preflight, unenforced } = besidesOf(prepared)
  const notes = [
    ...unenforced.map(field => `nobody holds to ${field} of the policy: there is no guard`),
    ...(body.config === undefined
      ? ['whether it can use the loan was not looked at: its config.json could not be read']
      : []),
  ]
  return { status: 200, body: { loan: viewOf(parts, loan), preflight, notes } }
}

interface ToPrepare {
  readonly policy: Policy
  readonly target: Target
  readonly rootfs: string
  readonly body: HookBody
  readonly wanted: Wanted
  readonly known: KnownContainer | undefined
  readonly byAnother: boolean
}

function prepare(
  { vocabulary, names, guard }: Parts,
  { policy, target, rootfs, body, wanted, known, byAnother }: ToPrepare,
): Promise<PreparedLoan> {
  const { config } = body
  const said = factsOf(known, body.engine)
  return prepareLoan({
    ...{ policy, vocabulary, guard, accounts: names.accounts, recipient: target, rootfs },
    place: { path: DEFAULT_BPFFS },
    // Whoever writes the annotations of a pod or an image is not root of this machine.
    by: byAnother ? 'subject' : 'operator',
    subject: () => subjectOfContainer(target.process, said),
    concerns:
      config === undefined ? [] : preflightConfig(config, target.facts.rootUid, policy.rights, vocabulary),
    onlyIfUsable: !wanted.anyway,
  })
}

const OWN_NAMESPACE =
  'Start it in a user namespace of its own (Podman: --userns=auto; Docker: userns-remap of its daemon; Kubernetes: hostUsers: false)'

function withRemedy(error: unknown): never {
  if (!(error instanceof BpftokenError) || error.reason !== 'no-user-namespace') throw error
  throw new ConflictError('The container would run in the user namespace of the host, where no token works', {
    context: error.context,
    cause: error,
    hint: OWN_NAMESPACE,
  })
}
