/**
 * What a runtime says of the container that it is making, read: who asks, for what, and where its
 * root will be. Pure.
 *
 * Runtimes differ in where they say the root. crun has it in the state, also relative to the bundle,
 * and with --privileged its bundle is "/". runc has it in the bundle's config.json alone.
 */
import { posix } from 'node:path'
import { ANNOTATIONS, POLICY_ANNOTATION, PREFLIGHT_ANNOTATION } from '../../api/container-words.ts'
import type { RouteRequest } from '../../api/routes.ts'
import { InputError } from '../../errors.ts'
import type { KnownContainer } from './known.ts'

export type HookBody = RouteRequest<'ociHook'>['body']
export type OciState = HookBody['state']
export type OciConfig = NonNullable<HookBody['config']>

export interface Wanted {
  readonly policy: string
  /** The container starts, too, where it could not use the loan. */
  readonly anyway: boolean
}

type Annotations = Readonly<Record<string, string>>

/**
 * What the container asks for; undefined: nothing. What a plugin of its runtime announced counts
 * before the state, which has only what the runtime passes on. InputError: it asks for what there is
 * not.
 */
export function wantedBy({ state, config }: HookBody, known: KnownContainer | undefined): Wanted | undefined {
  const { annotations = {} } = state
  if (known !== undefined) {
    const announced = wantedIn({ ...known.pod?.annotations, ...known.annotations })
    // Fail closed: it is not to start without what it asks for.
    if (announced === undefined && wantedIn(annotations) !== undefined)
      throw new InputError(
        `The state asks by ${POLICY_ANNOTATION}, which "${known.runtime}" has not announced`,
      )
    return announced
  }
  const wanted = wantedIn(annotations)
  const written = config?.annotations?.[POLICY_ANNOTATION]
  if (config?.annotations !== undefined && written !== wanted?.policy)
    throw new InputError(
      `The runtime's state and its config.json differ in ${POLICY_ANNOTATION}: ${JSON.stringify(wanted?.policy ?? null)} and ${JSON.stringify(written ?? null)}`,
    )
  return wanted
}

function wantedIn(annotations: Annotations): Wanted | undefined {
  const ours = Object.keys(annotations).filter(key => key.startsWith(ANNOTATIONS))
  if (ours.length === 0) return undefined
  const unknown = ours.find(key => key !== POLICY_ANNOTATION && key !== PREFLIGHT_ANNOTATION)
  if (unknown !== undefined)
    throw new InputError(
      `There is no annotation ${JSON.stringify(unknown)}; there are ${POLICY_ANNOTATION} and ${PREFLIGHT_ANNOTATION}`,
    )
  const policy = annotations[POLICY_ANNOTATION]
  const preflight = annotations[PREFLIGHT_ANNOTATION]
  if (policy === undefined)
    throw new InputError(`${PREFLIGHT_ANNOTATION} is of no use without ${POLICY_ANNOTATION}`)
  if (!/^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/.test(policy))
    throw new InputError(
      `${POLICY_ANNOTATION} ${JSON.stringify(policy.slice(0, 100))} is no name of a policy`,
    )
  if (preflight !== undefined && preflight !== 'warn')
    throw new InputError(
      `${PREFLIGHT_ANNOTATION} ${JSON.stringify(preflight.slice(0, 100))} is not known; there is "warn"`,
    )
  return { policy, anyway: preflight === 'warn' }
}

/**
 * The directory that will be the container's root, as its first process sees it now. InputError:
 * nobody says it, or it is not what a runtime can mean.
 */
export function rootfsOf({ state, config }: HookBody): string {
  const said = state.root ?? config?.root?.path
  if (said === undefined)
    throw new InputError(
      "Nobody says where the container's root is: the state has none, and there was no config.json to read",
    )
  const rootfs = posix.resolve(state.bundle, said)
  if (rootfs === '/')
    throw new InputError(`The container's root ${JSON.stringify(said)} is that of this machine`)
  return rootfs
}

/** Words of states in which a container is being made; runc says the first, crun the second. */
const BEING_MADE = ['creating', 'created']

/** InputError: it is not the moment in which a mount below the root is kept. */
export function requireBeingMade({ status }: OciState): void {
  if (status === undefined || BEING_MADE.includes(status)) return
  throw new InputError(
    `The container is ${JSON.stringify(status.slice(0, 40))}, not being made: the hook is for the stage createRuntime alone`,
  )
}

/** Keys that a runtime for Kubernetes adds, and nobody else; Podman has some of CRI-O's. */
const OF_A_POD = /^io\.kubernetes\.(cri\.(sandbox-|container-)|cri-o\.ContainerID$|pod\.)/

/** Podman's own word, which no image has in its place: its annotations may be those of the image. */
const isOfPodman = (annotations: Annotations): boolean => annotations['io.container.manager'] === 'libpod'

/**
 * Whether another than root of this machine may have written the annotations: whoever made the pod,
 * or the image.
 */
export function isAskedByAnother({ state, engine }: HookBody, known: KnownContainer | undefined): boolean {
  const { annotations = {} } = state
  return (
    known?.pod !== undefined ||
    Object.keys(annotations).some(key => OF_A_POD.test(key)) ||
    (engine?.imageMayAsk ?? isOfPodman(annotations))
  )
}
