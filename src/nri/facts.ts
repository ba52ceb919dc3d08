/**
 * Pure: what the daemon is told of a container, as the route takes it. What is longer than it takes
 * is left out: a fact that is not known matches no policy, so that nobody gets more by it.
 */

import { FACTS_BYTES } from '../api/container-words.ts'
import type { RouteInput } from '../api/routes.ts'
import type { Container, PodSandbox } from './messages/nri_pb.ts'
import { type Annotations, ours } from './request.ts'

export type Facts = RouteInput<'announceContainers'>['body']['containers'][number]

const MAX_LINE_CHARS = 4096
const MAX_KEY_CHARS = 512
const MAX_KEYS = 1000
const ID = /^[\w.:@-]{1,255}$/
/**
 * containerd's own annotation of each container: the name by which the image was asked for. NRI has
 * no field for it before version 0.13. Other runtimes pass on what a pod has of that name.
 */
const IMAGE_ANNOTATION = 'io.kubernetes.cri.image-name'

/** Undefined: the daemon takes nothing of a container with this id. */
export function factsOf(pod: PodSandbox | undefined, container: Container): Facts | undefined {
  if (!ID.test(container.id)) return undefined
  const { id, name, annotations } = container
  const image = pod?.annotations[IMAGE_ANNOTATION] === undefined ? annotations[IMAGE_ANNOTATION] : undefined
  const podFacts = pod === undefined ? undefined : podOf(pod)
  const facts: Facts = {
    id,
    ...(isLine(name) ? { name } : {}),
    ...(image !== undefined && isLine(image) ? { image } : {}),
    // Not its labels: containerd puts those of the image among them, which whoever made that chose.
    ...annotated(annotations),
    ...(podFacts === undefined ? {} : { pod: podFacts }),
  }
  if (bytesOf(facts) <= FACTS_BYTES) return facts
  // Labels are what can be that long.
  const short = facts.pod === undefined ? facts : { ...facts, pod: withoutLabels(facts.pod) }
  return bytesOf(short) <= FACTS_BYTES ? short : { id }
}

/** Undefined: they would be more than the daemon takes. */
export function withDigest(facts: Facts, imageDigest: string): Facts | undefined {
  const all = { ...facts, imageDigest }
  return bytesOf(all) <= FACTS_BYTES ? all : undefined
}

type PodFacts = NonNullable<Facts['pod']>

/** Undefined: it has a name that the daemon does not take, and half of who it is must not be matched. */
function podOf({ name, namespace, uid, labels, annotations }: PodSandbox): PodFacts | undefined {
  if (![name, namespace, uid].every(text => text.length <= MAX_LINE_CHARS)) return undefined
  return { name, namespace, uid, ...labelled(labels), ...annotated(annotations) }
}

function isLine(text: string): boolean {
  return text !== '' && text.length <= MAX_LINE_CHARS
}

function labelled(labels: Annotations): { labels?: Record<string, string> } {
  const entries = Object.entries(labels).filter(
    ([key, value]) => key !== '' && key.length <= MAX_KEY_CHARS && value.length <= MAX_LINE_CHARS,
  )
  return entries.length === 0 || entries.length > MAX_KEYS ? {} : { labels: Object.fromEntries(entries) }
}

function annotated(annotations: Annotations): { annotations?: Record<string, string> } {
  const asked = ours(annotations)
  const keys = Object.keys(asked)
  const taken = keys.length > 0 && keys.length <= MAX_KEYS && keys.every(key => key.length <= MAX_KEY_CHARS)
  return taken ? { annotations: asked } : {}
}

function withoutLabels<T extends { labels?: unknown }>(facts: T): Omit<T, 'labels'> {
  const { labels: _, ...rest } = facts
  return rest
}

function bytesOf(facts: object): number {
  return Buffer.byteLength(JSON.stringify(facts))
}
