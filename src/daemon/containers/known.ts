/**
 * What plugins of runtimes have announced of containers, in memory: after a restart they announce
 * again. Bounded. The word of root alone comes here.
 */
import type { RouteRequest } from '../../api/routes.ts'
import { ConflictError } from '../../errors.ts'

export type Announcement = RouteRequest<'announceContainers'>['body']
export type AnnouncedContainer = Announcement['containers'][number]

export interface KnownContainer extends AnnouncedContainer {
  readonly runtime: string
  readonly announcedAt: string
}

export class KnownContainers {
  readonly #byId = new Map<string, KnownContainer>()
  readonly #most: number

  constructor(most: number) {
    this.#most = most
  }

  get size(): number {
    return this.#byId.size
  }

  get(id: string): KnownContainer | undefined {
    return this.#byId.get(id)
  }

  all(): Iterable<KnownContainer> {
    return this.#byId.values()
  }

  /**
   * All of it or nothing. ConflictError: there would be more than are remembered, or another runtime
   * has announced a container of this id, and one of the two does not say the truth.
   */
  announce({ runtime, whole, containers, gone = [] }: Announcement, announcedAt: string): void {
    const added = new Map(containers.map(one => [one.id, { ...one, runtime, announcedAt }]))
    for (const id of added.keys()) {
      const other = this.#byId.get(id)
      if (other !== undefined && other.runtime !== runtime)
        throw new ConflictError(`Container ${id} was announced by "${other.runtime}" already`, {
          context: { id, runtime },
        })
    }
    const isGone = new Set(gone)
    const leaves = ({ id, runtime: by }: KnownContainer): boolean =>
      by === runtime && !added.has(id) && (whole || isGone.has(id))
    const left = [...this.#byId.values()].filter(one => !leaves(one))
    const fresh = [...added.keys()].filter(id => !this.#byId.has(id)).length
    if (left.length + fresh > this.#most)
      throw new ConflictError(`More than ${this.#most} containers would be known`, {
        context: { known: left.length, more: fresh },
        hint: 'Say which are gone',
      })
    for (const one of this.#byId.values()) if (leaves(one)) this.#byId.delete(one.id)
    for (const [id, one] of added) this.#byId.set(id, one)
  }
}
