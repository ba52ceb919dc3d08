/**
 * Pure: whether a container asks for a loan. What is read is the annotations of its pod and, where
 * the runtime passes them on, its own. No other part of a container is looked at.
 */
import { ANNOTATIONS, POLICY_ANNOTATION, PREFLIGHT_ANNOTATION } from '../api/container-words.ts'
import { InputError } from '../errors.ts'
import type { Container, PodSandbox } from './messages/nri_pb.ts'

export type Annotations = Readonly<Record<string, string>>

/** Longer is no name of a policy, and more are no annotations of ours. */
const MAX_VALUE_CHARS = 253
const KNOWN: readonly string[] = [POLICY_ANNOTATION, PREFLIGHT_ANNOTATION]

/** Those that begin with `bpftoken.dev/`. */
export function ours(annotations: Annotations): Record<string, string> {
  return Object.fromEntries(Object.entries(annotations).filter(([key]) => key.startsWith(ANNOTATIONS)))
}

/** That of CreateContainer: both are optional messages. */
export interface Asker {
  readonly pod?: Pick<PodSandbox, 'annotations'> | undefined
  readonly container?: Pick<Container, 'annotations'> | undefined
}

/**
 * What it asks for; undefined: nothing, and it is left alone. InputError: it asks for something that
 * there is not, or for two things at once.
 */
export function requestOf({ pod, container }: Asker): Annotations | undefined {
  const [fromPod, own] = [ours(pod?.annotations ?? {}), ours(container?.annotations ?? {})]
  const asked = { ...fromPod, ...own }
  const keys = Object.keys(asked)
  if (keys.length === 0) return undefined
  for (const key of keys) {
    if (!KNOWN.includes(key))
      throw new InputError(`The annotation ${key.slice(0, MAX_VALUE_CHARS)} means nothing to bpftoken`, {
        hint: `Use ${KNOWN.join(' or ')}`,
      })
    if (asked[key]!.length > MAX_VALUE_CHARS)
      throw new InputError(`The annotation ${key} has more than ${MAX_VALUE_CHARS} characters`)
    if (fromPod[key] !== undefined && own[key] !== undefined && fromPod[key] !== own[key])
      throw new InputError(`The pod and the container say different things by the annotation ${key}`)
  }
  if (asked[POLICY_ANNOTATION] === undefined)
    throw new InputError(`The annotation ${POLICY_ANNOTATION} is missing: the others say how, and not what`)
  return asked
}
