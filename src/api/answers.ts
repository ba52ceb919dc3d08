/** Documents about single calls of bpf(2): why one is refused, and what a run made. Loads zod. */
import { z } from 'zod'
import { capability, count, domain, flag, masks, pid, risk, strict, text, texts, time } from './basics.ts'
import { check } from './simulate.ts'

const policyLine = strict({ list: z.enum([...domain.options, 'capabilities']), word: text })

export const explained = z.union([
  strict({
    call: text,
    verdict: z.enum(['ok', 'refused']),
    errno: text.optional(),
    cause: text,
    needed: text,
    found: text,
    capabilities: texts.describe('Those that the call needs, wherever they are asked for'),
    policy: policyLine.optional().describe('What a policy would have to say'),
    bpffs: text.optional().describe('Of which a token is made'),
    checks: z.array(check).describe('In the order in which the kernel makes them'),
    change: text,
  }),
  strict({ verdict: z.literal('ok'), cause: z.literal('none') }).describe('Of a command: none was refused'),
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
