/**
 * bpftoken explain: whether the daemon would lend to whoever asks, and why. What the kernel says to a
 * call is explain-call.ts.
 */
import type { RouteAnswer } from '../../client/client.ts'
import { EXIT, UsageError } from '../../errors.ts'
import type { Verdict } from '../../policy/decide.ts'
import type { DaemonOptions } from '../daemon/reach.ts'
import { heldRecipient } from '../daemon/recipient.ts'
import { print, printJson } from '../output.ts'
import type { RecipientOptions } from '../recipient.ts'
import type { LoanName } from '../tree/options.ts'

export interface ExplainOptions extends DaemonOptions, Omit<RecipientOptions, 'path'> {
  request?: boolean
  event?: number
  last?: boolean
  uid?: number
  delegation?: LoanName
  fix?: boolean
  yes?: boolean
  policy?: string
  json?: boolean
}

/** Exit 3: it would be refused. */
export async function explain(words: string[], options: ExplainOptions): Promise<number> {
  const source = sourceOf(words, options)
  requireFitting(source, options)
  if (source === 'words' && options.fix === true)
    return (await import('./explain-fix.ts')).fixWords(words, options)
  if (source === 'words') return (await import('./explain-call.ts')).explainWords(words, options)
  if (source !== 'request') return (await import('./explain-event.ts')).explainEvents(options)
  return explainRequest(options)
}

type Source = 'words' | 'request' | 'event' | 'last'

/** UsageError: there is none, or several. */
function sourceOf(words: string[], { request, event, last }: ExplainOptions): Source {
  const named: Source[] = [
    ...(words.length > 0 ? (['words'] as const) : []),
    ...(request === true ? (['request'] as const) : []),
    ...(event === undefined ? [] : (['event'] as const)),
    ...(last === true ? (['last'] as const) : []),
  ]
  const [only, ...others] = named
  if (only !== undefined && others.length === 0) return only
  throw new UsageError(
    only === undefined
      ? 'Say what is to be explained: --request, --event, --last, or a call or command after --'
      : 'One thing is explained at a time: --request, --event, --last, or a call or command after --',
  )
}

/** UsageError: an option that is about something else. */
function requireFitting(source: Source, options: ExplainOptions): void {
  const { fix, yes, policy, uid, delegation, container, unit, cgroup, pid, direct } = options
  const refuse = (given: Readonly<Record<string, unknown>>, why: string): void => {
    const [name] = Object.keys(given).filter(one => given[one] !== undefined && given[one] !== false)
    if (name !== undefined) throw new UsageError(`--${name} is for ${why}`)
  }
  if (source !== 'last') refuse({ uid, delegation }, '--last')
  if (source === 'event') refuse({ pid }, '--last, or a call after --')
  if (source === 'event' || source === 'last') refuse({ container, unit, cgroup }, 'a call after --')
  else refuse({ direct }, '--event and --last')
  if (source === 'request') refuse({ fix }, 'what was refused, not for a request')
  if (fix !== true) refuse({ yes }, '--fix')
  if (fix !== true && source !== 'request') refuse({ policy }, '--fix and --request')
}

async function explainRequest(options: ExplainOptions): Promise<number> {
  // A call of a process needs none of these, and start-up is felt.
  const { policyName } = await import('../daemon/policy-choice.ts')
  const { daemonAt } = await import('../daemon/reach.ts')
  const { verdictLines } = await import('../../policy/verdict-text.ts')
  const { pid, container, unit, cgroup } = options
  const isNamed = [pid, container, unit, cgroup].some(name => name !== undefined)
  const policy = options.policy === undefined ? {} : { policy: policyName(options.policy) }
  using daemon = await daemonAt(options)
  using recipient = isNamed ? await heldRecipient(options) : undefined
  const decision = await daemon.decide({
    body: { ...policy, ...(recipient === undefined ? {} : { recipient: { pidfd: recipient.pidfd } }) },
  })
  if (options.json === true) printJson(decision)
  else print(...decisionLines(decision, verdictLines))
  return decision.allowed ? EXIT.ok : EXIT.denied
}

const OF_POLICY = ['subject', 'operator', 'any-subject', 'nobody-matches', 'unsupported']

/** Pure. What is not a matter of subjects has the daemon's own words. */
function decisionLines(
  decision: RouteAnswer<'decide'>,
  verdictLines: (verdict: Verdict) => string[],
): string[] {
  const { allowed, because, trace = [] } = decision
  const [headline, ...why] = verdictLines({ ...decision, trace } as Verdict)
  return [OF_POLICY.includes(because) ? headline! : `${allowed ? 'Allowed' : 'Refused'}: ${because}`, ...why]
}
