/** What the daemon says of itself, its policies, its records and the guard's events. Loads zod. */
import { z } from 'zod'
import { account, count, flag, id, level, strict, text, texts, time } from './basics.ts'
import { loanId, requestId } from './loan.ts'
import { trace } from './policy.ts'

export const status = strict({
  version: text,
  pid: id,
  startedAt: time,
  boot: text,
  guard: strict({
    installed: flag,
    mode: text.optional(),
    why: text.optional().describe('Why there is none, or it is of no use'),
  }),
  policies: strict({
    loaded: count,
    loadedAt: time,
    /** Files that are not as they were loaded: the old policy holds. */
    faults: z.array(strict({ file: text, message: text })),
  }),
  loans: strict({ live: count, ended: count, adopted: count }),
  requests: strict({ waiting: count }),
  registry: strict({ schema: count, writable: flag, fault: text.optional() }),
  audit: strict({ records: count, head: text }),
  /** Whatever is not as it should be, in sentences; none: all is well. */
  concerns: texts,
})

export const policyView = strict({
  name: text,
  description: text.optional(),
  digest: text,
  file: text,
  risk: level,
  approval: z.enum(['none', 'required']),
  /** Whether whoever asks may have it for a namespace of its own. */
  allowed: flag,
})
export const policies = strict({ policies: z.array(policyView) })
export const policyText = strict({ name: text, digest: text, file: text, document: text })

export const decision = strict({
  allowed: flag,
  policy: text.optional(),
  because: text,
  entry: text.optional(),
  at: time,
  trace: trace.optional(),
})

export const decideRequestBody = strict({ comment: z.string().max(500).optional() })

/** Alike events are one, with how often. */
export const guardEvent = strict({
  seq: count.describe('Grows; the first that is still kept may be any'),
  first: time,
  last: time,
  count: z.int().min(1),
  verdict: text,
  point: text,
  reason: text,
  delegation: id.optional(),
  loan: loanId.optional(),
  uid: account,
  pid: count,
  task: text,
  cmd: text.optional(),
  type: text.optional(),
  name: text,
  cgroup: text,
})
export const guardEvents = strict({
  events: z.array(guardEvent),
  lost: count.describe('Events that nobody got, since the guard was installed'),
  next: count.describe('To go on: events?after=NEXT'),
})

export const auditRecord = strict({
  seq: z.int().min(1),
  batch: z.int().min(1).describe('The first record that was written to the disk together with it'),
  at: time,
  /** Of the record before: the chain. */
  previous: text,
  hash: text,
  event: text.describe('What happened, e.g. lend.did'),
  loan: loanId.optional(),
  request: requestId.optional(),
  facts: z.record(text, z.unknown()),
})
export const auditRecords = strict({ records: z.array(auditRecord), next: count })
export const auditVerdict = strict({
  intact: flag,
  records: count,
  from: count,
  head: text,
  fault: strict({ seq: count, message: text }).optional(),
})

export const reloaded = strict({ loaded: count, faults: z.array(strict({ file: text, message: text })) })

export const pageAddresses = strict({
  viewer: text.describe('To look; a browser opens it once'),
  operator: text.optional().describe('To act, too; a browser opens it once'),
})

/** RFC 9457. `code` is of the error table, and so is the status. */
export const problem = strict({
  type: text,
  title: text,
  status: z.int().min(400).max(599),
  detail: text,
  code: text,
  reason: text.optional(),
  hint: text.optional(),
  context: z.record(text, z.union([text, z.number(), z.boolean()])).optional(),
  issues: z.array(z.unknown()).optional(),
  trace: trace.optional(),
})
