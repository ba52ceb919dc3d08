/** Documents about BPF objects, what they need, and tokens. Loads zod. */
import { z } from 'zod'
import {
  account,
  capability,
  count,
  domain,
  flag,
  id,
  masks,
  risk,
  strict,
  text,
  texts,
  time,
  words,
} from './basics.ts'

const reason = { word: text, by: texts }
const fromTrying = z.literal(true).optional().describe('A load was refused without it')

export const plan = strict({
  loader: text,
  objects: texts,
  masks,
  rights: z.array(
    strict({
      ...reason,
      domain,
      bit: count,
      forLoader: flag,
      certain: flag,
      loses: text.optional(),
      fromTrying,
    }),
  ),
  capabilities: z.array(strict({ name: capability, by: texts, forLoader: flag, toAttach: flag, fromTrying })),
  notes: texts,
  problems: texts,
  trials: z
    .array(
      strict({
        object: text,
        outcome: z.enum(['loads', 'refused', 'unfinished']),
        loads: count,
        leftOut: z.array(capability),
        why: text.optional(),
      }),
    )
    .describe('How loading went, of the objects that were loaded to see'),
  watched: z
    .array(
      strict({
        object: text,
        outcome: z.enum(['loads', 'refused', 'unfinished', 'idle']),
        usesTokens: flag,
        complete: flag,
        why: text.optional(),
        beyond: z.array(strict({ domain, word: text, outcomes: texts, names: texts })),
        unasked: z.array(strict({ ...reason, domain, certain: flag })),
      }),
    )
    .describe('What the loader asked for that was run, and how that differs'),
  risk,
})

const anyDomain = z.enum([...domain.options, 'capabilities'])
export const planCheck = strict({
  policy: text,
  sufficient: flag,
  lacking: z.array(strict({ ...reason, domain: anyDomain, certain: flag })),
  needless: z.array(strict({ domain: anyDomain, word: text })),
  notes: texts,
  problems: texts,
})

const core = strict({
  unsatisfied: z.array(strict({ function: text, what: text })),
  errors: texts,
}).nullable()
export const objShow = z.array(
  strict({
    name: text,
    byteOrder: z.enum(['little', 'big']),
    license: text,
    btf: strict({ sizeBytes: count, types: count }).nullable(),
    coreRelocations: count,
    core: core.describe(
      "Accesses that the running kernel's types do not have; null where other kernels were asked for",
    ),
    otherKernels: z.array(strict({ kernel: text, core })).describe('The same for each other kernel'),
    programs: z.array(
      strict({
        name: text,
        section: text,
        type: text.nullable(),
        attachType: text.nullable(),
        target: text.nullable(),
        instructions: count,
        coreRelocations: count,
        autoload: flag,
        problem: text.nullable().describe('Why it cannot be loaded'),
      }),
    ),
    maps: z.array(
      strict({
        name: text,
        kind: text,
        type: text,
        keyBytes: count,
        valueBytes: count,
        maxEntries: count,
        flags: count,
        pinByName: flag,
        autocreate: flag,
        inner: text.nullable(),
        foreign: text.nullable().describe('What its definition says to another loader'),
        arenaDataBytes: count.nullable().describe('Global data in an arena'),
      }),
    ),
    externs: z.array(strict({ name: text, kind: text, weak: flag })),
  }),
)

export const objLink = strict({
  output: text,
  sizeBytes: count,
  unresolved: texts.describe('Externs that no object defines'),
})

export const objTypes = strict({
  output: text.nullable().describe('The file that was written'),
  text,
  types: z.record(text, text).describe('Names of declared types, by their names in C'),
})

const loaded = {
  token: text.nullable(),
  programs: z.array(strict({ name: text, id, type: text, tag: text, verifiedInsns: count, attached: flag })),
  maps: z.array(strict({ name: text, id, type: text, maxEntries: count })),
}
export const objLoad = strict(loaded)

/** What a map, a variable or a record holds: as its type says. */
const shown: z.ZodType = z.lazy(() =>
  z.union([z.number(), text, flag, z.array(shown), z.record(text, shown)]),
)
const reading = strict({
  map: text,
  kind: z.enum(['variables', 'array', 'hash']),
  perCpu: flag,
  rows: z.array(strict({ key: shown, value: shown })),
  more: count,
  cut: flag,
})
const watched = [
  strict({ type: z.literal('loaded'), ...loaded }),
  strict({ type: z.literal('counters'), at: time, maps: z.array(reading) }),
  strict({ type: z.literal('event'), at: time, map: text, value: shown }),
  strict({ type: z.literal('end'), at: time }),
] as const
export const objLoadWatch = z.discriminatedUnion('type', watched)

export const tryObject = z.discriminatedUnion('type', [
  strict({
    type: z.literal('policy'),
    file: text,
    policy: text.describe('YAML'),
    risk,
    user: text,
    uid: account,
    network: z.enum(['own', 'host']),
    attach: texts,
    idle: z.array(strict({ program: text, why: text, needsHost: flag })),
  }),
  ...watched,
])

export const init = strict({ directory: text, wrote: texts, kept: texts })

export const tokenShow = strict({
  path: text,
  masks,
  words,
  capabilities: strict({ bpf: flag, net_admin: flag, perfmon: flag, sys_admin: flag }),
  unbacked: z.array(strict({ prog: text, lacking: texts })),
})
