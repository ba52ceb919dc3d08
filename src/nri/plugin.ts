/**
 * What a runtime is answered: which containers get the hook. One that does not ask is left as it is,
 * and waits for nothing. One that asks is made only when the daemon knows it.
 */
import { create, toBinary } from '@bufbuild/protobuf'
import { MAX_CONTAINERS } from '../api/container-words.ts'
import { BpftokenError } from '../errors.ts'
import { adjustmentFor, type HookProgram, hasHook } from './adjustment.ts'
import type { Announcer } from './announcer.ts'
import { type Facts, factsOf } from './facts.ts'
import type { Inventory } from './inventory.ts'
import {
  ConfigureRequestSchema,
  ConfigureResponseSchema,
  type Container,
  CreateContainerRequestSchema,
  CreateContainerResponseSchema,
  Event,
  type PodSandbox,
  StateChangeEventSchema,
  SynchronizeRequestSchema,
  SynchronizeResponseSchema,
} from './messages/nri_pb.ts'
import { type Annotations, requestOf } from './request.ts'
import { CODE, decoded, RefusedCall } from './ttrpc.ts'

/** For the log: what happened, with its facts. */
export interface Tale {
  configured(facts: { runtimeName: string; runtimeVersion: string }): void
  synchronized(facts: { pods: number; containers: number }): void
  /** There are more than are remembered: the daemon is not told of so many, and what asks is refused. */
  cut(facts: { bound: number; pods: number; containers: number }): void
  /** A container gets the hook. */
  adjusted(facts: Who & { asked: Annotations; milliseconds: number }): void
  /** A container that asks is not made. */
  refused(facts: Who, why: Error): void
  /** The runtime has made it without the hook, or has not made it at all. */
  ignored(facts: Who & { made: boolean }): void
  /** There are too many, or it has a name that the daemon does not take; it did not ask. */
  unknown(facts: Who): void
  /** Nobody can say by which digest a registry names its image; policies that name one do not match. */
  noDigest(facts: Who, why: Error | undefined): void
}

export interface Who {
  readonly containerId: string
  readonly container: string
  readonly pod: string
  readonly namespace: string
}

/** For a container that was adjusted to be made. */
const MADE_MS = 30_000

const EVENTS = [Event.CREATE_CONTAINER, Event.POST_CREATE_CONTAINER, Event.REMOVE_CONTAINER]
/** A bit for each: the first event is bit 0. */
const SUBSCRIBED = EVENTS.reduce<number>((mask, event) => mask | (1 << (event - 1)), 0)

const NOTHING = new Uint8Array()

export interface PluginParts {
  readonly inventory: Inventory
  readonly announcer: Pick<Announcer, 'now' | 'soon'>
  readonly hook: HookProgram
  readonly tale: Tale
  /** For the daemon to be told of one that asks. */
  readonly answerMs: number
  readonly madeMs?: number
  /**
   * By which digest a registry names the image of a container that was made, as the runtime says;
   * undefined: by none.
   */
  imageDigest(containerId: string): Promise<string | undefined>
}

/** Of one connection with the runtime. */
export class Plugin implements Disposable {
  readonly #parts: PluginParts
  /** Adjusted, and not made yet; by id. */
  readonly #awaited = new Map<string, NodeJS.Timeout>()
  /** What came of a list that has more parts. */
  #synchronizing = new Everything()

  constructor(parts: PluginParts) {
    this.#parts = parts
  }

  /** RefusedCall: the runtime is told why not. */
  readonly answer = async (method: string, payload: Uint8Array): Promise<Uint8Array> => {
    switch (method) {
      case 'Configure':
        return this.#configure(payload)
      case 'Synchronize':
        return this.#synchronize(payload)
      case 'CreateContainer':
        return this.#createContainer(payload)
      case 'StateChange':
        return await this.#stateChange(payload)
      case 'Shutdown':
        return NOTHING
      default:
        throw new RefusedCall(`bpftoken does not know the method ${method}`, CODE.unimplemented)
    }
  };

  [Symbol.dispose](): void {
    for (const timer of this.#awaited.values()) clearTimeout(timer)
    this.#awaited.clear()
  }

  #configure(payload: Uint8Array): Uint8Array {
    const { runtimeName, runtimeVersion } = decoded(ConfigureRequestSchema, payload)
    this.#parts.tale.configured({ runtimeName, runtimeVersion })
    return toBinary(ConfigureResponseSchema, create(ConfigureResponseSchema, { events: SUBSCRIBED }))
  }

  /** All that there is, in parts: what runs is known to the daemon again. */
  #synchronize(payload: Uint8Array): Uint8Array {
    const { inventory, announcer, tale } = this.#parts
    const { pods, containers, more } = decoded(SynchronizeRequestSchema, payload)
    this.#synchronizing.add(pods, containers)
    if (!more) {
      const all = this.#synchronizing
      this.#synchronizing = new Everything()
      // Refused, the runtime would go on without this plugin, and make those that ask without a loan.
      if (all.isCut) tale.cut({ bound: MAX_CONTAINERS, ...all.left })
      inventory.replace(all.facts())
      announcer.soon()
      tale.synchronized({ pods: all.pods.size, containers: inventory.size })
    }
    return toBinary(SynchronizeResponseSchema, create(SynchronizeResponseSchema, { more }))
  }

  async #createContainer(payload: Uint8Array): Promise<Uint8Array> {
    const { pod, container } = decoded(CreateContainerRequestSchema, payload)
    if (container === undefined) return NOTHING
    const who = whoIs(pod, container)
    const asked = this.#asked(pod, container, who)
    const facts = factsOf(pod, container)
    if (asked === undefined) {
      // Fail open: it did not ask, and its start depends on nothing of ours.
      if (facts === undefined || !this.#parts.inventory.add(facts)) this.#parts.tale.unknown(who)
      else this.#parts.announcer.soon()
      return NOTHING
    }
    const begun = performance.now()
    await this.#announce(asked, facts, who)
    this.#await(who)
    const milliseconds = Math.round(performance.now() - begun)
    this.#parts.tale.adjusted({ ...who, asked, milliseconds })
    const adjust = adjustmentFor(container, asked, this.#parts.hook)
    return toBinary(CreateContainerResponseSchema, create(CreateContainerResponseSchema, { adjust }))
  }

  #asked(pod: PodSandbox | undefined, container: Container, who: Who): Annotations | undefined {
    try {
      return requestOf({ pod, container })
    } catch (error) {
      throw this.#refuse(who, error as Error)
    }
  }

  /** Fail closed: one that asked is not made before the daemon knows who it is. */
  async #announce(asked: Annotations, facts: Facts | undefined, who: Who): Promise<void> {
    const { inventory, announcer, answerMs } = this.#parts
    if (facts === undefined || !tells(facts, asked))
      throw this.#refuse(who, new Error('its names or annotations are longer than the daemon takes'))
    if (!inventory.add(facts)) throw this.#refuse(who, new Error('the runtime has too many containers'))
    try {
      await announcer.now(answerMs)
    } catch (error) {
      this.#forget(facts.id)
      throw this.#refuse(who, error as Error)
    }
  }

  #refuse(who: Who, error: Error): RefusedCall {
    this.#parts.tale.refused(who, error)
    const hint = error instanceof BpftokenError && error.hint !== undefined ? `. ${error.hint}` : ''
    return new RefusedCall(`bpftoken lends nothing to container ${who.container}: ${error.message}${hint}`)
  }

  async #stateChange(payload: Uint8Array): Promise<Uint8Array> {
    const { event, pod, container } = decoded(StateChangeEventSchema, payload)
    if (container === undefined) return NOTHING
    if (event === Event.REMOVE_CONTAINER) {
      this.#madeOrGone(container.id)
      this.#forget(container.id)
    } else if (event === Event.POST_CREATE_CONTAINER && this.#madeOrGone(container.id)) {
      const who = whoIs(pod, container)
      if (!hasHook(container, this.#parts.hook)) this.#parts.tale.ignored({ ...who, made: true })
      await this.#addDigest(who)
    }
    return NOTHING
  }

  /**
   * Of one that asks: NRI does not tell the digest of the image, and the runtime knows it once it has
   * made the container. It starts it when this is answered. Fail closed: what is not known matches no
   * policy.
   */
  async #addDigest(who: Who): Promise<void> {
    const { inventory, announcer, answerMs, imageDigest, tale } = this.#parts
    try {
      const digest = await imageDigest(who.containerId)
      if (digest === undefined) tale.noDigest(who, undefined)
      else if (inventory.addDigest(who.containerId, digest)) await announcer.now(answerMs)
    } catch (error) {
      tale.noDigest(who, error as Error)
    }
  }

  #forget(id: string): void {
    this.#parts.inventory.remove(id)
    this.#parts.announcer.soon()
  }

  /** The runtime says when it has made it. If it does not, it made nothing of it, and need not say so. */
  #await(who: Who): void {
    const { tale, madeMs = MADE_MS } = this.#parts
    const timer = setTimeout(() => {
      this.#awaited.delete(who.containerId)
      this.#forget(who.containerId)
      tale.ignored({ ...who, made: false })
    }, madeMs)
    this.#madeOrGone(who.containerId)
    this.#awaited.set(who.containerId, timer)
  }

  #madeOrGone(id: string): boolean {
    clearTimeout(this.#awaited.get(id))
    return this.#awaited.delete(id)
  }
}

/** The pods and containers of the runtime, as far as they are remembered. */
class Everything {
  readonly pods = new Map<string, PodSandbox>()
  readonly #containers: Container[] = []
  /** How many there were besides. */
  readonly left = { pods: 0, containers: 0 }

  get isCut(): boolean {
    return this.left.pods > 0 || this.left.containers > 0
  }

  add(pods: readonly PodSandbox[], containers: readonly Container[]): void {
    for (const pod of pods)
      if (this.pods.size < MAX_CONTAINERS) this.pods.set(pod.id, pod)
      else this.left.pods++
    for (const container of containers)
      if (this.#containers.length < MAX_CONTAINERS) this.#containers.push(container)
      else this.left.containers++
  }

  facts(): Facts[] {
    return this.#containers.flatMap(container => {
      const pod = this.pods.get(container.podSandboxId)
      // Without its pod it would pass for one that root made.
      if (pod === undefined && this.left.pods > 0 && container.podSandboxId !== '') return []
      return factsOf(pod, container) ?? []
    })
  }
}

function whoIs(pod: PodSandbox | undefined, { id, name }: Container): Who {
  return { containerId: id, container: name, pod: pod?.name ?? '', namespace: pod?.namespace ?? '' }
}

/** Whether what the daemon is told has what was asked. */
function tells(facts: Facts, asked: Annotations): boolean {
  const told = { ...facts.pod?.annotations, ...facts.annotations }
  return Object.entries(asked).every(([key, value]) => told[key] === value)
}
