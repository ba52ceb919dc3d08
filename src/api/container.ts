/**
 * What a runtime says of containers: to the hook that it calls while it makes one, and to a plugin
 * of it, which announces what there is. All of it is root's word. Loads zod.
 */
import { z } from 'zod'
import { strict, text, texts, time } from './basics.ts'
import { FACTS_BYTES, MAX_CONTAINERS } from './container-words.ts'
import { concern, loan } from './loan.ts'

/** Of one container, in one request: what is longer is refused before it is looked at. */
const KEYS = 1000

const line = z.string().max(4096)
const containerId = z
  .string()
  .min(1)
  .max(255)
  .regex(/^[\w.:@-]+$/)
const map = (value: z.ZodString) =>
  z
    .record(z.string().min(1).max(512), value)
    .refine(all => Object.keys(all).length <= KEYS, `has more than ${KEYS} keys`)
const annotations = map(z.string().max(64 * 1024))
const labels = map(line)
const runningPid = z.int().min(1).max(0x7fff_ffff)
const names = z.array(z.string().max(255)).max(1000)
const ids = z
  .array(
    z.object({
      containerID: z.int().min(0).max(0xffff_ffff),
      hostID: z.int().min(0).max(0xffff_ffff),
      size: z.int().min(0).max(0xffff_ffff),
    }),
  )
  .max(340)

/**
 * The state that a runtime gives a hook, as the runtime specification has it; other keys are
 * ignored. What ignores keys has its name for the API's document here: it is only ever taken.
 */
export const ociState = z
  .object({
    id: containerId,
    pid: runningPid.describe(
      'As the daemon counts: the first process of the container, which waits for the hook',
    ),
    status: line.optional(),
    bundle: line.startsWith('/'),
    root: line.min(1).optional().describe('The root directory: crun says it, also relative to the bundle'),
    annotations: annotations.optional(),
  })
  .meta({ id: 'OciState' })

/** What is looked at of the bundle's config.json; other keys are ignored. */
export const ociConfig = z
  .object({
    root: z.object({ path: line.min(1), readonly: z.boolean().optional() }).optional(),
    annotations: annotations.optional(),
    process: z
      .object({
        user: z.object({ uid: z.int().min(0).max(0xffff_ffff).optional() }).optional(),
        noNewPrivileges: z.boolean().optional(),
        capabilities: z
          .object({
            bounding: names.optional(),
            effective: names.optional(),
            permitted: names.optional(),
            inheritable: names.optional(),
            ambient: names.optional(),
          })
          .optional(),
      })
      .optional(),
    mounts: z
      .array(z.object({ destination: line, type: line.optional() }))
      .max(4000)
      .optional(),
    linux: z
      .object({
        uidMappings: ids.optional(),
        gidMappings: ids.optional(),
        namespaces: z
          .array(z.object({ type: line, path: line.optional() }))
          .max(64)
          .optional(),
        seccomp: z
          .object({
            defaultAction: line,
            defaultErrnoRet: z.number().optional(),
            syscalls: z
              .array(
                z.object({
                  names: names.optional(),
                  action: line,
                  errnoRet: z.number().optional(),
                  args: z
                    .array(
                      z.object({
                        index: z.number(),
                        value: z.number(),
                        valueTwo: z.number().optional(),
                        op: line,
                      }),
                    )
                    .max(64)
                    .optional(),
                }),
              )
              .max(2000)
              .optional()
              .describe('Rules that do not name bpf may be left out'),
          })
          .optional(),
      })
      .optional(),
  })
  .meta({ id: 'OciConfig' })

/** `POST /v1/hooks/oci`: a runtime is about to start a container, and waits. */
export const ociHookBody = strict({
  state: ociState,
  config: ociConfig.optional().describe('Where whoever asks could read it'),
  engine: strict({
    name: line.optional(),
    image: line.optional(),
    imageMayAsk: z
      .boolean()
      .optional()
      .describe('The annotations may be those of the image: whoever made that is not root'),
  })
    .optional()
    .describe("What the engine's own records say of it: Podman's, which its runtime is not told"),
}).meta({ id: 'OciHookBody' })

/** The container may start. Without a loan: it did not ask for one. */
export const ociHookAnswer = strict({
  loan: loan.optional(),
  preflight: z.array(concern).describe('What may keep the container from using the loan'),
  notes: texts,
})

/** Of a pod, as its runtime tells it: written by whoever may make pods. */
export const pod = strict({
  name: line,
  namespace: line,
  uid: line,
  labels: labels.optional(),
  annotations: annotations.optional(),
})

/** What a runtime tells of a container. What is not told matches no policy. */
export const announced = strict({
  id: containerId,
  name: line.optional(),
  image: line.optional(),
  imageDigest: line.optional(),
  labels: labels.optional(),
  pod: pod.optional(),
  annotations: annotations.optional(),
  pid: runningPid.optional(),
}).refine(
  facts => Buffer.byteLength(JSON.stringify(facts)) <= FACTS_BYTES,
  `its facts take more than ${FACTS_BYTES} bytes`,
)

const runtime = z
  .string()
  .regex(/^[a-z0-9][a-z0-9._-]{0,62}$/)
  .describe('Whoever announces, e.g. nri: each has its own containers')

/** `POST /v1/containers` */
export const announceBody = strict({
  runtime,
  whole: z
    .boolean()
    .describe(
      'These are all: what this runtime had announced besides is forgotten. What is too long for one request is announced in parts, of which only the first is whole',
    ),
  containers: z.array(announced).max(MAX_CONTAINERS),
  gone: z.array(containerId).max(MAX_CONTAINERS).optional(),
})
export const announcedAnswer = strict({ known: z.int().min(0) })

/** The same, and who has told it. */
export const knownContainer = strict({
  runtime: text,
  announcedAt: time,
  id: text,
  name: text.optional(),
  image: text.optional(),
  imageDigest: text.optional(),
  labels: labels.optional(),
  pod: pod.optional(),
  annotations: annotations.optional(),
  pid: runningPid.optional(),
})
export const containers = strict({ containers: z.array(knownContainer) })

/** What the commands about containers print. */
export const containersStatus = strict({
  hook: strict({ file: text, installed: z.boolean(), program: text.optional() }),
  podman: text.optional().describe('What Podman calls itself and its version'),
  problems: texts.describe('What is in the way of containers that ask; none: they are lent to'),
})
