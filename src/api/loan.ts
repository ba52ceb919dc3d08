/** What is asked of the daemon about loans, and what it says of them. Loads zod. */
import { z } from 'zod'
import { LOAN_ENDS, LOAN_KINDS, LOAN_STATES } from '../policy/loan-words.ts'
import { account, count, flag, id, masks, pid, strict, text, texts, time } from './basics.ts'
import { actions } from './lending.ts'

/** Of a loan, as people and programs name it. */
export const loanId = z
  .string()
  .regex(/^loan-[1-9][0-9]{0,9}$/)
  .describe('The daemon gives a number once, also when the loan has ended')

/** A DNS label, as a policy's name is one. */
export const policyName = z
  .string()
  .max(63)
  .regex(/^[a-z0-9]([-a-z0-9]*[a-z0-9])?$/)

/** An absolute path as it is written: the kernel takes no more bytes, and no zero. */
export const path = z
  .string()
  .max(4095)
  .startsWith('/')
  .refine(value => !value.includes('\0'), 'has a zero byte')

const descriptor = z.int().min(0).max(0x7fff_ffff)
const contextFd = descriptor.describe(
  'A context of bpffs that the recipient has open, which it mounts itself',
)

/** Who is lent to. */
export const recipient = z
  .union([
    strict({ pid: z.int().min(1).max(0x7fff_ffff) }).describe(
      "A process by its number, as the daemon's own pid namespace counts",
    ),
    strict({ pidfd: descriptor }).describe(
      'A process by a pidfd that the asker has open: the number of the descriptor',
    ),
    strict({ self: z.literal(true) }).describe('Whoever asks'),
  ])
  .describe('Who is lent to: a process in the user namespace that is meant')

/** The same of a loan: also a program that is not there yet. */
export const lendRecipient = z.union([
  ...recipient.options,
  strict({
    launch: strict({
      control: descriptor.describe(
        'A Unix stream socket that the asker has open, over whose other end it says what is to be started',
      ),
      network: z.enum(['own', 'host']),
      identity: flag.describe("The program sees the user's own id, and not root's"),
    }),
  }).describe(
    'A program that bpftoken-launchd starts as the asker, in namespaces that are root’s: if the policy says `launch: allowed`. It starts once the loan is in place. What is said over the socket is for bpftoken-run to know',
  ),
])

/** Which policy: one that the daemon has, or, for root alone, the text of one. */
export const policyChoice = z.union([
  strict({ name: policyName }),
  strict({ document: z.string().max(256 * 1024) }).describe('YAML; root alone may bring its own'),
])

const seconds = z
  .int()
  .min(1)
  .max(10 * 365 * 86_400)

/** `POST /v1/loans` */
export const lendBody = strict({
  policy: policyChoice,
  recipient: lendRecipient.describe('Who is lent to'),
  place: z.union([strict({ path }), strict({ contextFd })]),
  /** Tokens can be made in this cgroup and below only. */
  cgroup: path.optional(),
  /** Root alone: also to whom the policy does not name. */
  anySubject: flag.optional(),
  /** Refuse where the process may not be able to use the loan. */
  strict: flag.optional(),
  /** Say what would be done, and do nothing. */
  dryRun: flag.optional(),
  /** Shorter than the policy lets it live. */
  lifetimeSec: seconds.optional(),
  /** Why it is asked for: shown to whoever approves. */
  comment: z.string().max(500).optional(),
})

/** `POST /v1/loans/{id}/derive` */
export const deriveBody = strict({
  policy: policyChoice,
  recipient,
  place: strict({ path }),
  /** Refuse a policy that asks for more than there is, instead of lending what there is. */
  exact: flag.optional(),
  lifetimeSec: seconds.optional(),
})

export const renewBody = strict({ lifetimeSec: seconds })

/** `POST /v1/revoke`: exactly one selector, so that nothing is taken back by omission. */
export const revokeBody = strict({
  what: z.union([
    strict({ loan: loanId }),
    strict({ delegation: id }).describe("By the guard's number"),
    strict({ container: z.string().min(1).max(255) }),
    strict({ unit: z.string().min(1).max(255) }),
    strict({ uid: account }),
    strict({ policy: policyName }),
    strict({ all: z.literal(true) }),
  ]),
  /** Also undo what was attached. */
  detach: flag.optional(),
  /** Also kill those inside that hold any of it. */
  kill: flag.optional(),
  dryRun: flag.optional(),
  comment: z.string().max(500).optional(),
})

/** Who asked, as the kernel said it. Text that the kernel had for nobody is absent. */
export const asker = strict({
  pid,
  uid: account,
  gid: account,
  /** Whose share of the limits it took, where that is not its own user's. */
  owner: text.optional(),
  loginUid: account.optional(),
  executable: text.optional(),
  cgroup: text.optional(),
  unit: text.optional(),
  label: text.optional(),
  userNamespace: text,
  /** Where that is not the initial one: the number of it that no other gets. */
  userNamespaceId: text.optional(),
})

export const loan = strict({
  id: loanId,
  kind: z.enum(LOAN_KINDS),
  state: z.enum(LOAN_STATES),
  policy: text,
  policyDigest: text.describe('SHA-256 of the terms that were lent'),
  /** What was asked for, by whom, and why it was allowed. */
  spec: strict({
    askedAt: time,
    asker,
    place: z.union([strict({ path }), strict({ contextFd })]),
    parent: loanId.optional(),
    cgroup: text.optional(),
    because: text.describe('Which entry of the policy matched, or that root asked'),
    approvedBy: account.optional(),
    comment: text.optional(),
  }),
  /** What was made. Absent while it is being made. */
  record: strict({
    madeAt: time,
    expiresAt: time.optional(),
    capabilities: texts.describe('Which the policy lends: who starts the program gives it these'),
    recipient: strict({
      pid,
      userNamespace: text,
      mountNamespace: text,
      ownerUid: account,
      cgroup: text.optional(),
      unit: text.optional(),
      container: text.optional(),
    }),
    mount: strict({ mountId: count, device: text, path: text, masks, options: texts }).optional(),
    delegation: id.optional().describe("The guard's number for it; absent: no guard holds to its terms"),
    boot: text,
  }).optional(),
  /** What the kernel says now. Absent of loans that have ended. */
  status: strict({
    mounted: flag,
    processes: count,
    drift: texts.describe('In what it is not as it was made'),
    live: strict({
      tokens: count,
      programs: count,
      maps: count,
      mapBytes: z.union([count, text]),
    }).optional(),
    limits: strict({
      tokens: count.optional(),
      programs: count.optional(),
      maps: count.optional(),
      mapBytes: z.union([count, text]).optional(),
    }).optional(),
  }).optional(),
  ended: strict({
    at: time,
    why: z.enum(LOAN_ENDS),
    by: account.optional(),
    detail: text.optional(),
  }).optional(),
})

/** Something of the policy that was asked for and not given. */
export const removal = strict({ path: text, what: text, why: text })

/** What may keep the process from using the loan. */
export const concern = strict({ code: text, certain: flag, what: text, remedy: text })

/** Answer of `POST /v1/loans` and `derive`. */
export const lent = strict({
  loan,
  preflight: z.array(concern),
  unenforced: texts.describe('Fields of the policy that nobody holds to: there is no guard'),
  removed: z.array(removal).optional(),
})

/** Answer where somebody must approve first. */
export const requestId = z.string().regex(/^request-[1-9][0-9]{0,9}$/)
export const REQUEST_STATES = ['waiting', 'approved', 'denied', 'expired', 'withdrawn', 'failed'] as const
export const approvalRequest = strict({
  id: requestId,
  state: z.enum(REQUEST_STATES),
  policy: text,
  askedAt: time,
  /** When it is no longer waited for. */
  until: time,
  asker,
  recipient: strict({ pid, userNamespace: text }),
  place: z.union([strict({ path }), strict({ contextFd })]),
  comment: text.optional(),
  decided: strict({ at: time, by: account, comment: text.optional() }).optional(),
  /** The loan that came of it. */
  loan: loanId.optional(),
  why: text.optional().describe('Why it is over, where nobody has decided so'),
})
export const waiting = strict({ request: approvalRequest })

export const wouldLend = strict({
  dryRun: z.literal(true),
  policy: text,
  because: text,
  approval: flag.describe('Whether somebody must approve first'),
  actions,
  preflight: z.array(concern),
  unenforced: texts,
  removed: z.array(removal).optional(),
})

const objects = z.array(strict({ delegation: id, id, type: text, name: text }))
export const revoked = strict({
  dryRun: flag,
  /** With what is derived from them. */
  loans: z.array(loan),
  /** What was undone: present where `detach` or `kill` was asked for and a guard knows it. */
  undone: strict({
    detached: objects,
    stays: objects,
    killed: z.array(strict({ pid, task: text })),
    left: strict({ programs: count, maps: count, links: count }),
  }).optional(),
  complete: flag.describe('False: something that was to be undone stays, or may'),
})

export const loans = strict({ loans: z.array(loan) })
export const requests = strict({ requests: z.array(approvalRequest) })
export const decideBody = strict({ policy: policyName.optional(), recipient: recipient.optional() })
