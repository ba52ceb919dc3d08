/**
 * The schema of a scenario: namespaces, tasks, policies, and a story of what tasks do. Imports zod:
 * load it only where a scenario is read.
 */
import { z } from 'zod'
import { API_VERSION } from '../../policy/schema.ts'
import { LSM_HOOKS } from '../machine.ts'
import { MACHINE_NAMES } from '../machine-names.ts'
import { MODEL_CAPABILITIES } from '../task.ts'
import { onlyItsFields } from './fields.ts'

export const SCENARIO_KIND = 'Scenario'

const name = z.string().regex(/^[a-z][a-z0-9-]{0,62}$/, { error: 'expected a name: a-z, 0-9 and "-"' })
const count = z.int().min(0).max(4_294_967_295)
const errno = z.string().regex(/^E[A-Z0-9]{2,15}$/, { error: 'expected an errno such as EPERM' })
const outcome = z.union([z.literal(['ok', 'refused']), errno], {
  error: 'expected ok, or an errno such as EPERM',
})
const cgroup = z.string().regex(/^(\/[A-Za-z0-9._-]{1,60}){1,15}$/, { error: 'expected a path such as /a/b' })
const word = z
  .string()
  .regex(/^[a-z][a-z0-9_]{0,40}$/, { error: 'expected a word of the kernel, such as xdp' })
const text = z.string().max(4096)

const step = z
  .strictObject({
    as: name.optional().describe('The task that does it.'),
    do: z
      .enum([
        ...(['fsopen', 'set', 'create', 'fsmount', 'mount', 'bind', 'move'] as const),
        ...(['token', 'map', 'prog', 'btf', 'btf_by_id', 'attach', 'detach', 'pin'] as const),
        ...(['pass', 'reopen', 'derive', 'revoke', 'renew', 'wait'] as const),
      ])
      .describe('What is done.'),
    context: name.optional().describe('fsopen, set, create, fsmount: the context, by its name.'),
    key: text.optional().describe('set: the mount option.'),
    value: text.optional().describe('set: its value; absent: a flag.'),
    options: z.record(z.string().max(64), text).optional().describe('mount: all options at once.'),
    mount: name.optional().describe('fsmount, mount: what is mounted; elsewhere: which is meant.'),
    to: name.optional().describe('bind, move: the new place; pass: the task that gets it.'),
    token: name.optional().describe('The token that is made, or used.'),
    type: word.optional().describe('map, prog: the type.'),
    attach: word.optional().describe('prog, attach: the attach type.'),
    target: z.string().max(128).optional().describe('prog: the function of the kernel it attaches to.'),
    prog: name.optional().describe('prog: its name from now on; attach: which program.'),
    instructions: count.optional().describe('prog: how many; absent: 2.'),
    digest: z
      .string()
      .regex(/^(tag:[0-9a-f]{16}|sha256:[0-9a-f]{64})$/, { error: 'expected tag:… or sha256:…' })
      .optional()
      .describe('prog: its digest, for the guard.'),
    cgroup: cgroup.optional().describe('attach, detach: the cgroup; absent: the own one of the task.'),
    bytes: count.optional().describe('map: for the guard, bytes of all its elements; absent: 8.'),
    delegator: name.optional().describe('derive: the task that lends what is derived.'),
    for: z
      .string()
      .regex(/^(\d{1,6}[dhms]){1,4}$/, { error: 'expected how long, such as 1h or 1d12h' })
      .optional()
      .describe('wait: how long; renew: to live so long from now on.'),
    lsm: z
      .partialRecord(z.enum(LSM_HOOKS), errno)
      .optional()
      .describe('What another security module refuses here.'),
    expect: outcome.optional().describe('What it must come to.'),
    because: z.string().max(200).optional().describe('Words that the deciding check must have.'),
  })
  .superRefine(onlyItsFields)
  .describe('One thing that somebody does.')

export const scenarioSchema = z
  .strictObject({
    apiVersion: z.literal(API_VERSION),
    kind: z.literal(SCENARIO_KIND),
    metadata: z.strictObject({ name, description: z.string().max(500).optional() }),
    spec: z.strictObject({
      kernel: z
        .enum([...MACHINE_NAMES, 'running'])
        .default('6.18')
        .describe('Whose facts: a known kernel, or the one that runs here.'),
      unprivilegedBpfDisabled: z.union([z.literal(0), z.literal(1), z.literal(2)]).default(2),
      userNamespaces: z
        .record(name, z.strictObject({ parent: name.default('init'), owner: count.default(0) }))
        .default({})
        .refine(declared => !('init' in declared), { error: '"init" is there already, and has no parent' }),
      tasks: z.record(
        name,
        z.strictObject({
          userNamespace: name.default('init'),
          uid: count.default(0).describe('In the initial namespace.'),
          capabilities: z.union([z.literal('all'), z.array(z.enum(MODEL_CAPABILITIES))]).default('all'),
          seccomp: z.enum(['EPERM', 'ENOSYS', 'EACCES']).optional(),
          cgroup: cgroup.optional().describe('Absent: one of its own.'),
          network: z.enum(['own', 'host']).default('own').describe('Whose network namespace it is in.'),
          confined: name.optional().describe('The policy that its cgroup is confined to.'),
        }),
      ),
      policies: z
        .record(name, z.record(z.string(), z.unknown()))
        .default({})
        .describe('Policies by name; each is what stands under `spec` of a policy.'),
      guard: z
        .strictObject({
          mode: z
            .enum(['enforce', 'permissive'])
            .default('enforce')
            .describe('For what belongs to no delegation.'),
          delegators: z.record(
            name,
            z.strictObject({ ceiling: name.optional(), implicit: z.boolean().default(false) }),
          ),
        })
        .optional()
        .describe('The guard, and who may delegate. Absent: there is none.'),
      story: z.array(step).min(1).max(1000),
    }),
  })
  .describe('A story about who may do what with BPF, and what it comes to.')

export type ScenarioDocument = z.output<typeof scenarioSchema>
export type ScenarioStep = ScenarioDocument['spec']['story'][number]
