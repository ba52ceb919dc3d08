/**
 * What is kept of a loan, of a request that waits for somebody's approval, and of an answer that is
 * given again to who asks again. Records do not change: a new one takes the place of the old.
 */
import { createHash } from 'node:crypto'
import { LOAN_ENDS, LOAN_KINDS, LOAN_STATES, type LoanState } from '../policy/loan-words.ts'
import type { PolicyJSON } from '../policy/policy.ts'
import { ASKER_FIELDS, type AskerFacts } from './asker-facts.ts'
import {
  account,
  digest,
  either,
  type Field,
  type Fields,
  flag,
  list,
  mask,
  matching,
  number,
  object,
  oneOf,
  optional,
  pathText,
  processId,
  recordNumber,
  shortText,
  text,
  wallTime,
  wide,
} from './fields.ts'

export type PlaceRecord = { readonly path: string } | { readonly contextFd: number }

/** Who was lent to, as it was then. */
export interface RecipientFacts {
  readonly pid: number
  readonly userNamespace: string
  /** Its number that is not used again before the next boot, in decimal; some kernels have none. */
  readonly userNamespaceId?: string | undefined
  readonly mountNamespace: string
  readonly ownerUid: number
  /** Host ids of user and group 0 inside, where they are mapped. */
  readonly rootUid?: number | undefined
  readonly rootGid?: number | undefined
  /** A host id that nobody has inside. */
  readonly unmappedUid?: number | undefined
  readonly cgroup?: string | undefined
  readonly unit?: string | undefined
  readonly container?: string | undefined
  /**
   * Its runtime asked for the loan, and said which container it is; and what its engine had written
   * down of it then, where nobody had announced it.
   */
  readonly told?: { readonly name?: string | undefined; readonly image?: string | undefined } | undefined
}

/** What was made, as the kernel showed it. */
export interface MadeRecord {
  readonly at: string
  readonly mountId?: number | undefined
  /** `major:minor` of the superblock: the same for all its mounts. */
  readonly device?: string | undefined
  readonly path?: string | undefined
  /** `0x` and hex digits, by domain. */
  readonly masks?: MasksRecord | undefined
  /** In the kernel's words. */
  readonly options?: readonly string[] | undefined
  /** The guard's number for it. */
  readonly delegation?: number | undefined
}

export interface MasksRecord {
  readonly cmds: string
  readonly maps: string
  readonly progs: string
  readonly attachs: string
}

export interface ExpiryRecord {
  readonly at: string
  /**
   * Nanoseconds since boot, sleep included, in decimal: this counts, whatever becomes of the clock.
   */
  readonly bootNs: string
}

export interface EndRecord {
  readonly at: string
  readonly why: (typeof LOAN_ENDS)[number]
  /** Undefined: nobody asked for it. */
  readonly by?: number | undefined
  readonly detail?: string | undefined
}

export interface LoanRecord {
  readonly id: number
  readonly kind: (typeof LOAN_KINDS)[number]
  readonly state: LoanState
  /** Of /proc/sys/kernel/random/boot_id. */
  readonly boot: string
  readonly policy: PolicyJSON
  /** `policyDigest` of it. */
  readonly policyDigest: string
  readonly asker: AskerFacts
  readonly askedAt: string
  readonly place: PlaceRecord
  /** The loan that it is derived from. */
  readonly parent?: number | undefined
  /** Tokens can be made in this cgroup and below only. */
  readonly cgroup?: string | undefined
  readonly because: string
  /** The entry of the policy that matched. */
  readonly entry?: string | undefined
  /** The decision's, as JSON text: see `traceText`. */
  readonly trace?: string | undefined
  readonly approvedBy?: number | undefined
  readonly comment?: string | undefined
  readonly recipient?: RecipientFacts | undefined
  readonly made?: MadeRecord | undefined
  readonly expires?: ExpiryRecord | undefined
  readonly ended?: EndRecord | undefined
}

export const REQUEST_STATES = ['waiting', 'approved', 'denied', 'expired', 'withdrawn', 'failed'] as const

export interface RequestRecord {
  readonly id: number
  readonly state: (typeof REQUEST_STATES)[number]
  readonly policy: string
  readonly policyDigest: string
  readonly askedAt: string
  /** When it is no longer waited for. */
  readonly until: string
  readonly asker: AskerFacts
  readonly recipient: { readonly pid: number; readonly userNamespace: string }
  readonly place: PlaceRecord
  readonly comment?: string | undefined
  readonly decided?:
    | { readonly at: string; readonly by: number; readonly comment?: string | undefined }
    | undefined
  /** The loan that came of it. */
  readonly loan?: number | undefined
  /** Of one that is over, and that nobody decided on. */
  readonly why?: string | undefined
  /** What it takes to go on waiting after a restart. Requests of schema 1 have it not. */
  readonly held?: HeldRecord | undefined
}

/**
 * Who waits, and for whom: processes by the inodes of their pidfds, which no other process has
 * before the next boot (since Linux 6.9); and what was asked for besides.
 */
export interface HeldRecord {
  readonly boot: string
  /** In decimal. */
  readonly asker: string
  readonly recipient: string
  readonly mountNamespace: string
  /** Nanoseconds since boot, sleep included, in decimal: when it is no longer waited for. */
  readonly untilBootNs: string
  readonly cgroup?: string | undefined
  readonly strict?: boolean | undefined
  readonly lifetimeSec?: number | undefined
}

/** What was answered to who gave an Idempotency-Key. */
export interface AnswerRecord {
  readonly uid: number
  /** Whose share of the limits it took, where that is not its own user's; as in `AskerFacts`. */
  readonly owner?: string | undefined
  readonly key: string
  readonly at: string
  /** Of what was asked, so that the same key for something else is told from a repetition. */
  readonly asked: string
  readonly status: number
  /** JSON text, where the answer cannot be made again from the loan or the request. */
  readonly body?: string | undefined
  readonly loan?: number | undefined
  readonly request?: number | undefined
}

const place: Field<PlaceRecord> = either<PlaceRecord, PlaceRecord>(
  object<{ readonly path: string }>({ path: pathText }),
  object<{ readonly contextFd: number }>({ contextFd: number(0, 0x7fff_ffff) }),
)
const asker = object<AskerFacts>(ASKER_FIELDS)
const comment = optional(text(2000))
const bootId = matching(/^[0-9a-f-]{1,64}$/, 'boot id')
const device = matching(/^[0-9]{1,10}:[0-9]{1,10}$/, 'device')
const sequence = number(1, Number.MAX_SAFE_INTEGER)
const rootId = optional(number(0, 0xffff_ffff))

/** In the file a loan names its policy by the digest. */
export type StoredLoan = Omit<LoanRecord, 'policy'>

const LOAN_FIELDS: Fields<StoredLoan> = {
  id: sequence,
  kind: oneOf(LOAN_KINDS),
  state: oneOf(LOAN_STATES),
  boot: bootId,
  policyDigest: digest,
  asker,
  askedAt: wallTime,
  place,
  parent: optional(sequence),
  cgroup: optional(pathText),
  because: text(500),
  entry: optional(text(500)),
  trace: optional(text(4096)),
  approvedBy: optional(account),
  comment,
  recipient: optional(
    object<RecipientFacts>({
      pid: processId,
      userNamespace: text(64),
      userNamespaceId: optional(wide),
      mountNamespace: text(64),
      ownerUid: number(0, 0xffff_ffff),
      rootUid: rootId,
      rootGid: rootId,
      unmappedUid: rootId,
      cgroup: optional(shortText),
      unit: optional(shortText),
      container: optional(shortText),
      told: optional(
        object<NonNullable<RecipientFacts['told']>>({
          name: optional(shortText),
          image: optional(shortText),
        }),
      ),
    }),
  ),
  made: optional(
    object<MadeRecord>({
      at: wallTime,
      mountId: optional(number(0, Number.MAX_SAFE_INTEGER)),
      device: optional(device),
      path: optional(pathText),
      masks: optional(object<MasksRecord>({ cmds: mask, maps: mask, progs: mask, attachs: mask })),
      options: optional(list(text(16_384), 16)),
      delegation: optional(recordNumber),
    }),
  ),
  expires: optional(object<ExpiryRecord>({ at: wallTime, bootNs: wide })),
  ended: optional(
    object<EndRecord>({
      at: wallTime,
      why: oneOf(LOAN_ENDS),
      by: optional(account),
      detail: optional(text(4096)),
    }),
  ),
}

const REQUEST_FIELDS: Fields<RequestRecord> = {
  id: sequence,
  state: oneOf(REQUEST_STATES),
  policy: text(253),
  policyDigest: digest,
  askedAt: wallTime,
  until: wallTime,
  asker,
  recipient: object<RequestRecord['recipient']>({ pid: processId, userNamespace: text(64) }),
  place,
  comment,
  decided: optional(object<NonNullable<RequestRecord['decided']>>({ at: wallTime, by: account, comment })),
  loan: optional(sequence),
  why: optional(text(4096)),
  held: optional(
    object<HeldRecord>({
      boot: bootId,
      asker: wide,
      recipient: wide,
      mountNamespace: text(64),
      untilBootNs: wide,
      cgroup: optional(pathText),
      strict: optional(flag),
      lifetimeSec: optional(number(1, Number.MAX_SAFE_INTEGER)),
    }),
  ),
}

const ANSWER_FIELDS: Fields<AnswerRecord> = {
  uid: account,
  owner: optional(shortText),
  key: matching(/^[\x20-\x7e]{1,128}$/, 'key of 1 to 128 printable characters'),
  at: wallTime,
  asked: digest,
  status: number(100, 599),
  body: optional(text(64 * 1024)),
  loan: optional(sequence),
  request: optional(sequence),
}

/** Each gives a copy with known fields alone, or throws FormatError. */
export const storedLoan: Field<StoredLoan> = object(LOAN_FIELDS)
export const requestRecord: Field<RequestRecord> = object(REQUEST_FIELDS)
export const answerRecord: Field<AnswerRecord> = object(ANSWER_FIELDS)

/** SHA-256 in hex over the policy's JSON with sorted names: the same however it was made. */
export function policyDigest(policy: PolicyJSON): string {
  return createHash('sha256').update(canonical(policy)).digest('hex')
}

function canonical(value: unknown): string {
  return JSON.stringify(value, (_, item: unknown) =>
    typeof item === 'object' && item !== null && !Array.isArray(item)
      ? Object.fromEntries(Object.entries(item).sort(([a], [b]) => (a < b ? -1 : 1)))
      : item,
  )
}

const MAX_TRACE_CHARS = 2048

/**
 * A decision's trace as bounded text. Of a longer one only the entries that matched are kept, and
 * of these nothing where they are still too long.
 */
export function traceText(
  trace: readonly { readonly entries: readonly { readonly matches: boolean }[] }[],
): string | undefined {
  const whole = JSON.stringify(trace)
  if (whole.length <= MAX_TRACE_CHARS) return whole
  const matched = trace
    .map(policy => ({ ...policy, entries: policy.entries.filter(({ matches }) => matches) }))
    .filter(({ entries }) => entries.length > 0)
  const short = JSON.stringify(matched)
  return short.length <= MAX_TRACE_CHARS ? short : undefined
}

/** Whether a record in state `next` may take the place of one in state `now`. */
export function mayFollow(now: LoanState, next: LoanState): boolean {
  return now !== 'ended' && LOAN_STATES.indexOf(next) >= LOAN_STATES.indexOf(now)
}
