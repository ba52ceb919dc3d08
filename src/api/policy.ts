/** Documents about policies. Loads zod. */
import { z } from 'zod'
import { APPROVALS, EVENTS } from '../policy/policy.ts'
import { documentSchema } from '../policy/schema.ts'
import {
  capability,
  count,
  flag,
  id,
  level,
  mask,
  masks,
  risk,
  size,
  strict,
  text,
  texts,
  time,
} from './basics.ts'

const limit = z.int().min(1).optional()
const allowList = z.union([z.literal('any'), texts])

const terms = {
  rights: strict({ masks, capabilities: z.array(capability) }),
  limits: strict({
    tokens: limit,
    programs: limit,
    maps: limit,
    mapBytes: size.optional(),
    instructions: limit,
    lifetimeSec: limit,
  }),
  programs: strict({ digests: allowList }),
  targets: strict({ functions: allowList }),
  sharing: strict({ bindMount: flag, passToken: flag }),
  revocable: flag,
  network: z.enum(['own', 'host']),
  cgroups: z.enum(['own', 'any']),
  derive: strict({ allowed: flag, maxDepth: count }),
  mode: z.enum(['enforce', 'permissive']),
  events: z.enum(EVENTS),
}
/** What the guard holds to. */
export const guardTerms = strict(terms)

export const policyShow = strict({
  name: text,
  description: text.optional(),
  subjects: documentSchema.shape.spec.shape.subjects,
  approval: z.enum(APPROVALS),
  launch: z.literal('allowed').optional(),
  ...terms,
  guard: z.enum(['required', 'optional']),
})

export const policyShowMasks = z.array(strict({ option: text, hex: mask, words: text }))

const place = { path: text, line: id, col: id }
const exit = z.int().min(0).max(4).describe('What the command would exit with for this one alone')

export const policyCheck = z.array(
  z.discriminatedUnion('valid', [
    strict({
      file: text,
      valid: z.literal(true),
      findings: z.array(
        strict({ ...place, rule: text, severity: z.enum(['warning', 'note']), message: text, fix: text }),
      ),
      risk,
      tooRisky: flag,
      exit,
    }),
    strict({
      file: text,
      valid: z.literal(false),
      message: text,
      lines: texts,
      issues: z.array(strict({ ...place, message: text, suggestion: text.optional() })),
      exit,
    }),
  ]),
)

export const issues = policyCheck.element.options[1].shape.issues

export const policyDiff = strict({
  before: text,
  after: text,
  same: flag,
  differences: z.array(
    strict({
      path: text,
      before: text.optional(),
      after: text.optional(),
      grants: z.enum(['more', 'less', 'other']),
    }),
  ),
  risk: strict({ before: level, after: level }),
})

export const policyMerge = strict({
  policy: policyShow,
  rights: z.array(
    strict({ list: text.describe('cmds, maps, progs, attachs or capabilities'), word: text, from: texts }),
  ),
  risk: strict({ merged: level, before: z.array(level) }),
})

export const trace = z.array(
  strict({
    policy: text,
    subjects: z.enum(['unstated', 'nobody', 'matched', 'unmatched', 'unsupported']),
    entries: z.array(
      strict({
        path: text,
        matches: flag,
        fields: z.array(
          strict({
            field: text,
            wanted: text,
            outcome: z.enum(['matches', 'differs', 'unknown', 'unsupported']),
            found: text,
          }),
        ),
      }),
    ),
  }),
)

const judged = { at: time, trace }
export const policyTest = z.discriminatedUnion('allowed', [
  strict({
    allowed: z.literal(true),
    policy: text,
    because: z.enum(['subject', 'operator', 'any-subject']),
    entry: text.optional(),
    ...judged,
  }),
  strict({ allowed: z.literal(false), because: z.enum(['nobody-matches', 'unsupported']), ...judged }),
])

export const policyInstall = strict({ installed: texts })
