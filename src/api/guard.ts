/** Documents about the guard, and what it knows. Loads zod. */
import { z } from 'zod'
import { count, flag, id, pid, size, strict, text, texts, time } from './basics.ts'
import { instance } from './lending.ts'
import { guardTerms } from './policy.ts'

const mode = z.enum(['enforce', 'permissive'])
const directory = text

export const guardInstall = strict({
  done: z.enum(['installed', 'replaced', 'adopted']),
  directory,
  mode,
  audit: flag,
  removed: texts.describe('What lay in the directory and no guard had put there'),
})
export const guardRemove = strict({ done: z.literal('removed'), directory })

const cgroup = strict({ id: size, path: text.optional() })

export const show = strict({
  id,
  kind: z.enum(['bpffs', 'cgroup']),
  policy: text,
  terms: guardTerms,
  revoked: flag,
  userNamespace: count.optional(),
  delegatorPid: pid,
  createdAt: time,
  expiresAt: time.optional(),
  revokedAt: time.optional(),
  parent: id.optional(),
  cgroup: cgroup.optional(),
  live: strict({ tokens: count, programs: count, maps: count, mapBytes: size, children: count }),
})

const delegator = z.union([strict({ executable: text }), strict({ cgroup: text }), strict({ unit: text })])

export const guardStatus = strict({
  directory,
  proven: flag,
  missing: texts.optional(),
  current: flag,
  mode: mode.optional(),
  audit: flag.optional(),
  totals: strict({ refused: count, wouldRefuse: count, lostEvents: count }).optional(),
  policies: texts.optional(),
  delegators: z.array(strict({ who: delegator, implicit: flag, ceiling: guardTerms })).optional(),
  delegations: z.array(show).optional(),
})

export const guardAllow = strict({
  allowed: delegator,
  policy: text.optional(),
  implicit: flag,
  warnings: z.array(
    strict({
      kind: z.enum(['names', 'multi-call', 'interpreter', 'script']),
      what: text,
      names: texts.optional(),
    }),
  ),
})
export const guardDisallow = strict({ disallowed: delegator })

const object = { delegation: id, id, type: text, name: text }
const link = { ...object, programId: id.optional() }
export const live = {
  programs: z.array(strict(object)),
  maps: z.array(strict(object)),
  links: z.array(strict(link)),
}
const attachment = <Shape extends z.core.$ZodLooseShape>(also: Shape) =>
  z.discriminatedUnion('kind', [
    strict({ kind: z.literal('link'), ...link, ...also }),
    strict({ kind: z.literal('map'), ...object, ...also }),
  ])
export const holder = strict({
  pid,
  task: text,
  within: flag,
  programs: z.array(id),
  maps: z.array(id),
  links: z.array(id),
  token: flag,
})

const revoked = z.array(id)
const liveLink = strict(link)

/** A delegation with what is derived from it, and what lives of it. */
const tree: z.ZodType = strict({
  ...show.shape,
  get derived(): z.ZodType {
    return z.array(tree)
  },
  programs: z.array(strict({ ...object, links: z.array(liveLink) })),
  maps: z.array(strict(object)),
  links: z.array(liveLink),
})

export const lsTree = strict({
  guarded: flag,
  lent: z.array(
    strict({
      place: z.discriminatedUnion('kind', [
        strict({ kind: z.literal('container'), runtime: text, id: text }),
        strict({ kind: z.literal('unit'), name: text }),
        strict({ kind: z.literal('cgroup'), path: text }),
        strict({ kind: z.literal('unknown'), why: text }),
      ]),
      userNamespace: text.optional(),
      mounts: z.array(strict(instance)),
      delegations: z.array(tree),
    }),
  ),
})

export const revoke = z.union([
  strict({ revoked }),
  strict({
    revoked,
    detached: z.array(attachment({})),
    stays: z.array(attachment({ errnoName: text })),
    killed: z.array(holder),
    left: strict(live),
    holders: z.array(holder),
  }),
])

export const events = strict({
  seq: z.int().min(1).describe('Which one it is since the guard was installed'),
  time,
  delegation: id.optional(),
  holder: id.optional(),
  point: text,
  verdict: text,
  reason: text,
  pid,
  tid: pid,
  uid: z.int().min(0).max(0xffff_ffff),
  task: text,
  cgroup: size,
  cmd: text.optional(),
  type: text.optional(),
  name: text,
})

const occasions = z.array(
  strict({ verdict: text, task: text, pid, uid: z.int().min(0).max(0xffff_ffff), count: z.int().min(1) }),
)
export const eventsSuggest = strict({
  suggestions: z.array(
    strict({
      of: text.optional().describe('The loan, or the delegation; none: of no delegation'),
      additions: z.array(
        strict({ path: text, value: z.union([text, flag]), caution: text.optional(), occasions }),
      ),
      unanswered: z.array(strict({ reason: text, why: text, occasions })),
    }),
  ),
  leftOut: count.describe('Events beyond the bound, which were not looked at'),
})
