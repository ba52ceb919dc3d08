/** The maps that the guard's programs share with us. */
import { BpfMap } from '../ebpf/map.ts'
import { Owned } from '../ebpf/owned.ts'

export class GuardMaps implements Disposable {
  readonly directory: string
  readonly #owned = new Owned()
  readonly #maps = new Map<string, BpfMap>()

  /** Of the guard that is pinned in `directory`. This process must be a keeper: the caller has seen to it. */
  constructor(directory: string) {
    this.directory = directory
  }

  /** Opened when first asked for, and then until this is closed. ENOENT: there is none, or this process is no keeper. */
  map(name: string): BpfMap {
    const known = this.#maps.get(name)
    if (known !== undefined) return known
    const map = this.#owned.add(BpfMap.open(`${this.directory}/maps/${name}`))
    this.#maps.set(name, map)
    return map
  }

  [Symbol.dispose](): void {
    this.#owned[Symbol.dispose]()
  }
}
