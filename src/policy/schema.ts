/**
 * The schema of a policy document: the one source of its types, its JSON Schema and its field
 * reference.
 *
 * It describes the document as written. What needs the running kernel (are these words known?) is
 * parse.ts's business. Imports zod, so load it only where a document is parsed or documented.
 */
import { z } from 'zod'
import { USER_IDS } from '../uapi/number-range.ts'
import { type GlobKind, globFault } from './glob.ts'
import {
  APPROVALS,
  CAPABILITIES,
  DEFAULT_CAPABILITIES,
  DEFAULT_LIMITS,
  DEFAULT_TERMS,
  EVENTS,
  LAUNCHES,
} from './policy.ts'
import {
  DURATION_PATTERN,
  formatDuration,
  MAX_DURATION_SEC,
  parseDuration,
  parseSize,
  SIZE_PATTERN,
} from './quantity.ts'
import type { Subject } from './subject.ts'

export const API_VERSION = 'bpftoken.dev/v1'
export const KIND = 'DelegationPolicy'

const count = (description: string) =>
  z
    .int()
    .min(1)
    .max(2 ** 32 - 1)
    .optional()
    .describe(description)

const flag = (ifAbsent: boolean, description: string) => z.boolean().default(ifAbsent).describe(description)

const pattern = (regex: RegExp, expected: string) =>
  z.string().regex(regex, { error: `expected ${expected}` })

const duration = z
  .string()
  .regex(DURATION_PATTERN, { error: 'expected a duration such as 8h, 30m or 1h30m' })
  .transform((text, context) => {
    const seconds = parseDuration(text) ?? 0
    if (seconds > 0) return seconds
    const bounds = `from 1s to ${formatDuration(MAX_DURATION_SEC)}`
    context.addIssue({ code: 'custom', message: `expected a duration ${bounds}` })
    return z.NEVER
  })

const size = z
  .union([z.int().min(1), z.string().regex(SIZE_PATTERN)], {
    error: 'expected a size such as 64MiB, 1GiB or a number of bytes',
  })
  .transform((value, context) => {
    const bytes = parseSize(String(value)) ?? 0n
    if (bytes > 0n) return bytes
    context.addIssue({ code: 'custom', message: 'expected a size from 1 byte to 63 bits' })
    return z.NEVER
  })

const words = (noun: string, option: string) =>
  z
    .array(z.union([z.string(), z.int().min(0)], { error: 'expected a name, `any` or a number' }))
    .default([])
    .describe(
      `${noun}, in the words of the kernel's \`${option}\` option: lower case, no prefix. Also \`any\` (all 64 bits), or a number as a mask.`,
    )

const globText = pattern(/^[^\s]{1,255}$/, 'a name or pattern of up to 255 characters without blanks')

/** A pattern that glob.ts takes; JSON Schema knows its outer form only. */
const glob = (text: z.ZodString, kind: GlobKind) =>
  text.superRefine((value, context) => {
    const fault = globFault(value, kind)
    if (fault !== undefined) context.addIssue({ code: 'custom', message: fault })
  })

const textGlob = (description: string) => glob(globText, 'text').optional().describe(description)

const labels = (whose: string) =>
  z
    .record(z.string().regex(/^[A-Za-z0-9][\w./-]{0,127}$/), glob(globText, 'text'))
    .optional()
    .describe(`Labels of ${whose}; each must match.`)

const pathGlob = (noun: string, description: string) =>
  glob(pattern(/^\/[^\s]{0,1023}$/, `an absolute ${noun} without blanks`), 'path')
    .optional()
    .describe(description)

/** A name or an id. What follows goes to getent(1) and stands in colon-separated files. */
const account = (noun: string, id: string) => {
  const wrong = { error: `expected a ${noun} name, or a ${id} from 0 to ${USER_IDS.max}` }
  // A number in quotes, or one that is no integer, is not taken for a name.
  const name = z.string().regex(/^(?![+.]|[\d.]+$|0[xo])[^\s:/,-][^\p{Cc}:/,]{0,254}$/u, wrong)
  return z.union([name, z.int().min(USER_IDS.min, wrong).max(USER_IDS.max, wrong)], wrong).optional()
}

/** So that no field is in one of the two alone. */
type SubjectShape = { readonly [F in keyof Subject]-?: z.ZodType<Subject[F]> }

const subject = z
  .strictObject({
    user: account('user', 'uid').describe(
      'User name, or uid as a number. The real, effective, saved and file system uid must all be this one.',
    ),
    group: account('group', 'gid').describe(
      'Group name, or gid as a number: the primary group or a supplementary one.',
    ),
    cgroup: pathGlob(
      'cgroup path',
      'Path in the cgroup v2 hierarchy, from its root. `*` stands for any characters within one component, `**` for any number of components.',
    ),
    unit: textGlob(
      "Unit of the system's systemd; `*` stands for any characters. Units of a user's own systemd do not count: they bear any name that the user likes.",
    ),
    executable: pathGlob(
      'path',
      'Path of the program that `run` starts, absolute and without symbolic links; `*` and `**` as in `cgroup`. Of a process that runs in a user namespace of its own it is not known, since such a process can change it: `delegate` and `derive` never match an entry with it.',
    ),
    label: textGlob(
      'Security label that SELinux, AppArmor or Smack gave the process; `*` stands for any characters. An AppArmor profile counts in enforce mode, and is named without the mode.',
    ),
    container: z
      .strictObject({
        name: textGlob('Name of the container.'),
        image: textGlob('Image that it runs, as it was named.'),
        digest: pattern(/^sha256:[0-9a-f]{64}$/, 'sha256: with 64 hex digits')
          .optional()
          .describe('Digest of that image.'),
        labels: labels('the container'),
      })
      .refine(
        ({ labels: named, ...rest }) => Object.keys(rest).length > 0 || Object.keys(named ?? {}).length > 0,
        {
          error: 'name at least one of name, image, digest and labels',
          when: ({ issues }) => issues.length === 0,
        },
      )
      .optional()
      .describe(
        'A container that is being made, by what its runtime says to the daemon: see docs/containers.md. What the runtime does not say matches nobody.',
      ),
    kubernetes: z
      .strictObject({
        namespace: glob(globText, 'text').describe('Namespace of the pod.'),
        labels: labels('the pod'),
        serviceAccount: globText
          .optional()
          .describe(
            'Service account of the pod. No runtime knows it, so it is not supported yet: an entry with it matches nobody.',
          ),
      })
      .optional()
      .describe(
        'A container of such a pod of a Kubernetes cluster, while it is being made, by what its runtime announces to the daemon.',
      ),
  } satisfies SubjectShape)
  .refine(entry => Object.keys(entry).length > 0, {
    error: 'a subject without fields would match everyone; name at least one',
    // A misspelt field is reported as that, not also as a missing one.
    when: ({ issues }) => issues.length === 0,
  })
  .meta({ minProperties: 1 })

const rights = z
  .strictObject({
    cmds: words('bpf(2) commands', 'delegate_cmds'),
    maps: words('Map types', 'delegate_maps'),
    progs: words('Program types', 'delegate_progs'),
    attachs: words('Attach types', 'delegate_attachs'),
    capabilities: z
      .array(z.enum(CAPABILITIES))
      .default([...DEFAULT_CAPABILITIES])
      .describe(
        'Capabilities the token may stand in for. What `run` starts has these, and no others, in its own user namespace; of what is lent to otherwise the guard lets the token use no others.',
      ),
  })
  .describe('What is lent: the four masks of the kernel, and capabilities.')

const limits = z
  .strictObject({
    tokens: count(`Tokens alive at one time. Not stated: ${DEFAULT_LIMITS.tokens}, with the guard.`),
    programs: count(`Programs alive at one time. Not stated: ${DEFAULT_LIMITS.programs}, with the guard.`),
    maps: count(`Maps alive at one time. Not stated: ${DEFAULT_LIMITS.maps}, with the guard.`),
    mapBytes: size
      .optional()
      .describe(
        'Sum over live maps of max_entries x (key size + value size), or of the size of a ring buffer or arena: `64MiB`, `1GiB`, or bytes.',
      ),
    instructions: count('Instructions of one program, before verification.'),
    lifetime: duration.optional().describe('After this the delegation ends: `8h`, `30m`, `1h30m`.'),
  })
  .prefault({})
  .describe(
    'Quantities. Enforced by the guard. One that is not stated is not limited, but for the counts, which then have a default so that nobody fills the tables of the guard.',
  )

const digest = pattern(
  /^(sha256:[0-9a-f]{64}|tag:[0-9a-f]{16})$/,
  'sha256: with 64 or tag: with 16 hex digits',
)
const btfFunction = pattern(
  /^[A-Za-z_][A-Za-z0-9_.]{0,127}$/,
  'the name of a function, typedef or struct of the kernel',
)

const spec = z.strictObject({
  subjects: z
    .array(subject)
    .max(256)
    .optional()
    .describe(
      'Who may get this delegation: any of these; within one entry every field must match. Nobody else gets it; an empty list is nobody. Absent: no restriction is stated, and root decides by naming the file.',
    ),
  approval: z
    .enum(APPROVALS)
    .default('none')
    .describe(
      '`required`: whoever asks the daemon for it waits until root approves or denies. Root, who names the policy, approves by that. Refused where others lend by it and nobody is asked: `policy install`, `guard allow`.',
    ),
  launch: z
    .enum(LAUNCHES)
    .default('none')
    .describe(
      '`allowed`: bpftoken-launchd may start the programs of the users whom `subjects` names, in namespaces that belong to root; where these users may make none themselves, or where they ask for it.',
    ),
  rights,
  limits,
  programs: z
    .strictObject({
      digests: z
        .array(digest)
        .default([])
        .describe(
          'Only programs with these digests, as the kernel computes them: `sha256:` where it does (6.18), else `tag:`. Empty means any. Enforced by the guard.',
        ),
    })
    .prefault({})
    .describe('Which programs may be loaded.'),
  targets: z
    .strictObject({
      functions: z
        .array(btfFunction)
        .default([])
        .describe(
          "Only these attach targets, by the name that the target has in the kernel's own BTF, not in its modules: `tcp_connect`, `bpf_lsm_file_open`, `btf_trace_sched_switch` (raw tracepoint), `tcp_congestion_ops` (struct_ops). Program types that choose their target only when attached (kprobe, tracepoint, raw_tracepoint, perf_event) are not held by it. Empty means any. Enforced by the guard.",
        ),
    })
    .prefault({})
    .describe('What tracing, LSM and struct_ops programs may attach to.'),
  sharing: z
    .strictObject({
      bindMount: flag(
        DEFAULT_TERMS.sharing.bindMount,
        'The instance may be bind-mounted elsewhere. The guard holds to `false`.',
      ),
      passToken: flag(
        DEFAULT_TERMS.sharing.passToken,
        'A token may be passed to another process. The guard holds to `false`.',
      ),
    })
    .prefault({})
    .describe('Whether the delegation may leave the place and the process it was made for.'),
  revocable: z
    .boolean()
    .default(DEFAULT_TERMS.revocable)
    .describe(
      'Attachments that no link holds (BPF_PROG_ATTACH to anything but a map, struct_ops without BPF_F_LINK) outlive the workload, and revoking cannot undo them. The guard refuses them when `true`.',
    ),
  network: z
    .enum(['own', 'host'])
    .default(DEFAULT_TERMS.network)
    .describe(
      "`own`: the workload must not share the host's network namespace; `host`: it may. Attaching to a device needs no capability, so this decides whose devices.",
    ),
  cgroups: z
    .enum(['own', 'any'])
    .default(DEFAULT_TERMS.cgroups)
    .describe(
      "`own`: what is attached to a cgroup is attached to the workload's own or one below it: that in which its first token was made, or to which the delegator binds them. The root of all cgroups is nobody's own. `any`: to every cgroup whose directory it can open. The guard holds to `own`.",
    ),
  guard: z
    .enum(['required', 'optional'])
    .default(DEFAULT_TERMS.guard)
    .describe(
      'Where the guard cannot run: `required` refuses a policy that uses guard-only fields, `optional` goes on without them.',
    ),
  derive: z
    .strictObject({
      allowed: flag(
        DEFAULT_TERMS.derive.allowed,
        'The workload may make a narrower delegation out of this one. Needs the guard.',
      ),
      maxDepth: z
        .int()
        .min(1)
        .max(16)
        .default(DEFAULT_TERMS.derive.maxDepth)
        .describe('How many times in a row.'),
    })
    .prefault({})
    .describe('Delegation of what was delegated.'),
  mode: z
    .enum(['enforce', 'permissive'])
    .default(DEFAULT_TERMS.mode)
    .describe(
      '`permissive`: the guard lets through what its terms would refuse, and records it. The kernel masks hold either way.',
    ),
  events: z
    .enum(EVENTS)
    .default(DEFAULT_TERMS.events)
    .describe(
      "Which of the guard's verdicts become events: `refused` (also what `permissive` let through), `all` of them, or `none`. `all` needs the guard.",
    ),
})

/** A policy document, as written in YAML or JSON. */
export const documentSchema = z
  .strictObject({
    apiVersion: z.literal(API_VERSION).describe('Version of this format.'),
    kind: z.literal(KIND).describe('Kind of document.'),
    metadata: z
      .strictObject({
        name: pattern(
          /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/,
          'up to 63 lower-case letters, digits and dashes, no dash at either end',
        ).describe('Name of the policy, as a DNS label.'),
        description: z.string().max(1024).optional().describe('One sentence for people.'),
      })
      .describe('What the policy is called.'),
    spec: spec.describe('Who gets what, how much, and on which terms.'),
  })
  .meta({ title: 'bpftoken delegation policy' })

/** A document after defaults and quantities are resolved. */
export type PolicyDocument = z.output<typeof documentSchema>
/** A document as its author may write it. */
export type PolicyDocumentInput = z.input<typeof documentSchema>

/** JSON Schema (draft 2020-12) of the document as written; for editors and other validators. */
export function policyJSONSchema(): Record<string, unknown> {
  return z.toJSONSchema(documentSchema, { io: 'input' })
}
