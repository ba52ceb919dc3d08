/**
 * The typed policy, and its lossless JSON form.
 *
 * `Policy` is what everything behind the parser works with: words are resolved to masks, quantities
 * to numbers with their unit in the name, "empty means any" to the word `any`. This file needs
 * neither zod nor yaml, which together cost more start-up time than all the rest of a command; so a
 * policy that was parsed before comes back by `policyFromJSON` without them.
 */
import { FormatError } from '../errors.ts'
import { hexMask, hexMasks } from './mask-text.ts'
import type { Subject } from './subject.ts'
import { ANY_MASK, MASK_DOMAINS, type Masks } from './vocabulary.ts'

/** The capabilities that a token can stand in for: the four that bpf(2) tests through a token. */
export const CAPABILITIES = ['bpf', 'net_admin', 'perfmon', 'sys_admin'] as const
export type Capability = (typeof CAPABILITIES)[number]

/** Which of the guard's verdicts become events, from the fewest to the most. */
export const EVENTS = ['none', 'refused', 'all'] as const
export type Events = (typeof EVENTS)[number]

/** Whether somebody must agree before the policy is lent, from the value that grants most. */
export const APPROVALS = ['none', 'required'] as const
export type Approval = (typeof APPROVALS)[number]

/** Whether root's launcher may start programs under it, from the value that grants least. */
export const LAUNCHES = ['none', 'allowed'] as const
export type Launch = (typeof LAUNCHES)[number]

/** The rights that the kernel's masks and the guard's capability check enforce. */
export interface Rights {
  readonly masks: Masks
  readonly capabilities: readonly Capability[]
}

/**
 * Quantities. An absent field was not stated: `DEFAULT_LIMITS` has what then holds, if anything
 * does.
 */
export interface Limits {
  readonly tokens?: number
  readonly programs?: number
  readonly maps?: number
  /**
   * Sum over live maps of max_entries x (key size + value size), or of the size of a ring buffer or
   * arena.
   */
  readonly mapBytes?: bigint
  /** Per program, before verification. */
  readonly instructions?: number
  readonly lifetimeSec?: number
}

/**
 * What the guard holds to where a policy states no limit: so few that nobody fills its tables
 * alone. A default is no term of the policy: it needs no guard, and where there is none nothing is
 * limited.
 */
export const DEFAULT_LIMITS = { tokens: 1024, programs: 4096, maps: 4096 } as const satisfies Limits

/** Where each limit stands in a document. */
export const LIMIT_PATHS = {
  tokens: 'spec.limits.tokens',
  programs: 'spec.limits.programs',
  maps: 'spec.limits.maps',
  mapBytes: 'spec.limits.mapBytes',
  instructions: 'spec.limits.instructions',
  lifetimeSec: 'spec.limits.lifetime',
} as const satisfies Record<keyof Limits, string>

/** An allow-list. `any` is not the empty list: the meet of two disjoint lists allows nothing. */
export type AllowList = 'any' | readonly string[]

/**
 * The conditions of a loan: all of a policy except its name and who gets it. `attenuate` works on
 * these.
 */
export interface Terms {
  readonly rights: Rights
  readonly limits: Limits
  readonly programs: { readonly digests: AllowList }
  readonly targets: { readonly functions: AllowList }
  readonly sharing: { readonly bindMount: boolean; readonly passToken: boolean }
  /**
   * Whether attachments that no link holds are refused: they outlive the workload, and nothing of
   * ours undoes them.
   */
  readonly revocable: boolean
  /** `own`: the workload must not share the host's network namespace. */
  readonly network: 'own' | 'host'
  /** `own`: programs can be attached only to the workload's own cgroup, or to one below it. */
  readonly cgroups: 'own' | 'any'
  /** What to do with guard-only terms where the guard cannot run: refuse, or go on without them. */
  readonly guard: 'required' | 'optional'
  readonly derive: { readonly allowed: boolean; readonly maxDepth: number }
  readonly mode: 'enforce' | 'permissive'
  readonly events: Events
}

/** What is lent if a document does not say which. */
export const DEFAULT_CAPABILITIES: readonly Capability[] = ['bpf']

/**
 * The terms that hold if a document does not say otherwise. The schema uses them, and so does code
 * that makes terms without a document.
 */
export const DEFAULT_TERMS = {
  limits: {},
  programs: { digests: 'any' },
  targets: { functions: 'any' },
  sharing: { bindMount: false, passToken: false },
  revocable: true,
  network: 'own',
  cgroups: 'own',
  guard: 'required',
  derive: { allowed: false, maxDepth: 1 },
  mode: 'enforce',
  events: 'refused',
} as const satisfies Omit<Terms, 'rights'>

export interface Policy extends Terms {
  readonly name: string
  readonly description?: string
  /** Any of these, and nobody else. Absent: the operator who names the policy decides. */
  readonly subjects?: readonly Subject[]
  /**
   * Whether root must agree each time that it is asked for. No term of the loan: what is derived
   * from it has the word of its own policy.
   */
  readonly approval: Approval
  /**
   * That programs of those whom it names may be started in namespaces that are root's, where users
   * may make none. No term of the loan either.
   */
  readonly launch?: Exclude<Launch, 'none'>
}

/** Changes when the JSON form does, so that a cache written by another version is not read. */
const JSON_FORMAT = 'bpftoken.dev/policy-json/v4'

/** The result of `policyToJSON`: masks and byte counts are hex strings, all else is unchanged. */
export interface PolicyJSON extends Omit<Policy, 'rights' | 'limits'> {
  readonly format: typeof JSON_FORMAT
  readonly rights: {
    readonly masks: Readonly<Record<keyof Masks, string>>
    readonly capabilities: readonly Capability[]
  }
  readonly limits: Omit<Limits, 'mapBytes'> & { readonly mapBytes?: string }
}

/** The policy as JSON-safe data. `policyFromJSON` is the exact inverse. */
export function policyToJSON(policy: Policy): PolicyJSON {
  const { masks, capabilities } = policy.rights
  const { mapBytes, ...counts } = policy.limits
  return {
    format: JSON_FORMAT,
    ...policy,
    rights: {
      masks: hexMasks(masks),
      capabilities,
    },
    limits: { ...counts, ...(mapBytes === undefined ? {} : { mapBytes: hexMask(mapBytes) }) },
  }
}

/**
 * The policy that `policyToJSON` wrote. For a cache that only its owner can write: checks the
 * format's version and the numbers, but not again what the schema has checked. Throws FormatError.
 */
export function policyFromJSON(value: unknown): Policy {
  if (!isPolicyJSON(value)) throw new FormatError('policy JSON', `is not of the format ${JSON_FORMAT}`)
  const { format: _, rights, limits, ...rest } = value
  const masks = Object.fromEntries(MASK_DOMAINS.map(domain => [domain, fromHex(rights.masks[domain])]))
  const { mapBytes, ...counts } = limits
  return {
    ...rest,
    rights: { masks: masks as unknown as Masks, capabilities: rights.capabilities },
    limits: { ...counts, ...(mapBytes === undefined ? {} : { mapBytes: fromHex(mapBytes) }) },
  }
}

function isPolicyJSON(value: unknown): value is PolicyJSON {
  if (typeof value !== 'object' || value === null) return false
  const { format, rights, limits } = value as Partial<PolicyJSON>
  return format === JSON_FORMAT && typeof rights?.masks === 'object' && typeof limits === 'object'
}

function fromHex(text: unknown): bigint {
  if (typeof text === 'string' && /^0x[0-9a-f]{1,16}$/.test(text)) {
    const number = BigInt(text)
    if (number <= ANY_MASK) return number
  }
  throw new FormatError('policy JSON', 'a mask or size is not a 64-bit hex number')
}
