/** Documents about single calls of bpf(2): why one is refused, and what a run made. Loads zod. */
import { z } from 'zod'
import {
  account,
  capability,
  count,
  domain,
  flag,
  id,
  level,
  masks,
  pid,
  risk,
  strict,
  text,
  texts,
  time,
} from './basics.ts'
import { loanId } from './loan.ts'
import { check } from './simulate.ts'

const policyLine = strict({ list: z.enum([...domain.options, 'capabilities']), word: text })

/** What became of the wish to have it changed. */
const fixed = strict({
  applied: flag,
  ours: flag.describe('False: it is no line of a policy, and must be done elsewhere'),
  what: text,
  file: text.optional(),
  diff: text.optional().describe('Unified: what was changed, or would have been'),
  risk: strict({
    before: level,
    after: level,
    adds: risk.shape.items.describe('What the change adds'),
    findings: z.array(
      strict({ rule: text, severity: z.enum(['warning', 'note']), path: text, message: text, fix: text }),
    ),
  }).optional(),
  reloaded: flag.optional().describe('The daemon has read it'),
  run: texts.describe('Commands by which the change comes to hold'),
  again: strict({
    when: text.describe('Under which condition it is so'),
    call: text,
    verdict: z.enum(['ok', 'refused', 'failed']),
    cause: text,
    change: text,
  })
    .optional()
    .describe('What is said when it is asked again'),
}).optional()

/** Of an event of the guard. */
const explainedEvent = strict({
  event: strict({
    seq: z.int().min(1),
    at: time.describe('The last time'),
    point: text,
    reason: text,
    task: text,
    pid,
    uid: account,
    count: z.int().min(1),
  }),
  delegation: id.optional(),
  loan: loanId.optional(),
  state: z.enum(['live', 'revoked', 'expired', 'ended']).optional().describe('Of the delegation, now'),
  policy: text.optional(),
  call: text,
  verdict: text.describe('refused, would-refuse, or allowed'),
  errno: text.optional(),
  cause: text.describe("`guard-` and the guard's reason, or `none`"),
  needed: text,
  found: text,
  caution: text.optional(),
  edit: strict({ path: text, value: z.union([text, count, flag]) })
    .optional()
    .describe('What a policy would have to say'),
  change: text,
  fix: fixed,
})

/** Of a command that was run. */
const command = strict({ status: count.describe('As a shell has it') })

/** Of a call of bpf(2). */
const explainedCall = strict({
  call: text,
  verdict: z.enum(['ok', 'refused']),
  errno: text.optional(),
  cause: text,
  needed: text,
  found: text,
  capabilities: texts.describe('Those that the call needs, wherever they are asked for'),
  policy: policyLine.optional().describe('What a policy would have to say'),
  edit: strict({ path: text, value: z.union([text, count, flag]) })
    .optional()
    .describe('The same, of a field that is no such list'),
  notes: texts.describe('What is no cause, though it is often taken for one'),
  bpffs: text.optional().describe('Of which a token is made'),
  checks: z.array(check).describe('In the order in which the kernel makes them'),
  change: text,
  command: command.optional(),
  fix: fixed,
})

export const explained = z.union([
  explainedCall,
  explainedCall.extend({
    recorded: strict({ at: time, task: text, pid, uid: account, times: count }).describe(
      'Who has made it, and how often, as a recording has it; the last time',
    ),
  }),
  explainedEvent,
  strict({
    verdict: z.enum(['ok', 'failed']).describe('failed: for another reason'),
    cause: z.literal('none'),
    command: command.optional(),
  }).describe('Of a command: no call was refused'),
])

const askers = z.array(
  strict({
    task: text,
    pid: pid.describe('0: it has no number here'),
    innerPid: pid.describe('In its own PID namespace'),
    first: time,
    outcomes: z.record(text, count).describe('How many calls ended `ok`, or with which errno'),
    names: texts.describe('Of what the calls made'),
  }),
)
const right = strict({ domain, word: text, bit: count, askers })

export const recorded = strict({
  watched: text,
  tokens: flag.describe('False: the running kernel has no BPF tokens, and nothing can be lent here'),
  complete: flag.describe('False: calls were lost, and more may be needed'),
  lost: strict({ calls: count, processes: count }),
  calls: count,
  masks,
  rights: z.array(right),
  capabilities: z.array(strict({ name: capability, askers })),
  leftOut: z.array(right).describe('Asked for in calls that no right would have helped'),
  unserved: z
    .array(strict({ call: text, fails: flag, why: text, askers }))
    .describe('Calls for which a token changes nothing'),
  withoutToken: askers.describe('Of those who asked for rights: no attempt at a token was seen of them'),
  counted: z.record(text, count).describe('Calls that ask for nothing, by command'),
  risk,
})
