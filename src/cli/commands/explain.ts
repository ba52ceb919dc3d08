/**
 * bpftoken explain: whether the daemon would lend to whoever asks, and why. What the kernel says to a
 * call is explain-call.ts.
 */
import type { RouteAnswer } from '../../client/client.ts'
import { EXIT, UsageError } from '../../errors.ts'
import type { Verdict } from '../../policy/decide.ts'
import { verdictLines } from '../../policy/verdict-text.ts'
import { policyName } from '../daemon/policy-choice.ts'
import { daemonAt, type SocketOptions } from '../daemon/reach.ts'
import { heldRecipient } from '../daemon/recipient.ts'
import { print, printJson } from '../output.ts'
import type { RecipientOptions } from '../recipient.ts'

interface ExplainOptions extends SocketOptions, Omit<RecipientOptions, 'path'> {
  request?: boolean
  policy?: string
  json?: boolean
}

/** Exit 3: it would be refused. */
export async function explain(words: string[], options: ExplainOptions): Promise<number> {
  if (words.length > 0) {
    if (options.request === true || options.policy !== undefined)
      throw new UsageError('A request is explained without a call or command')
    const { explainWords } = await import('./explain-call.ts')
    return explainWords(words, options)
  }
  if (options.request !== true)
    throw new UsageError('Say what is to be explained: --request, or a call or command after --')
  const { pid, container, unit, cgroup } = options
  const isNamed = [pid, container, unit, cgroup].some(name => name !== undefined)
  const policy = options.policy === undefined ? {} : { policy: policyName(options.policy) }
  using daemon = await daemonAt(options)
  using recipient = isNamed ? await heldRecipient(options) : undefined
  const decision = await daemon.decide({
    body: { ...policy, ...(recipient === undefined ? {} : { recipient: { pidfd: recipient.pidfd } }) },
  })
  if (options.json === true) printJson(decision)
  else print(...decisionLines(decision))
  return decision.allowed ? EXIT.ok : EXIT.denied
}

const OF_POLICY = ['subject', 'operator', 'any-subject', 'nobody-matches', 'unsupported']

/** Pure. What is not a matter of subjects has the daemon's own words. */
export function decisionLines(decision: RouteAnswer<'decide'>): string[] {
  const { allowed, because, trace = [] } = decision
  const [headline, ...why] = verdictLines({ ...decision, trace } as Verdict)
  return [OF_POLICY.includes(because) ? headline! : `${allowed ? 'Allowed' : 'Refused'}: ${because}`, ...why]
}
