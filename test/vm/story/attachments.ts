/**
 * What is attached, and to what, as the kernel has it once every check has passed: errno, or
 * undefined. Whatever is attached is held.
 */
import type { ErrnoName } from '../../../src/model/judge.ts'
import type { CgroupName } from './step.ts'
import {
  type ControlThing,
  drop,
  type LinkThing,
  type MapThing,
  type Place,
  type ProgThing,
} from './things.ts'

/** What is attached to a cgroup beside links. */
interface Attached {
  alone?: ProgThing
  readonly several: Set<ProgThing>
}

export class Attachments {
  readonly #cgroups = new Map<CgroupName | 'root', Attached>()
  /** Links of devices, by the device's network. */
  readonly #devices = new Map<number, LinkThing>()
  /** Flow dissectors: by a link, or by themselves. */
  readonly #networks = new Map<number, LinkThing | ProgThing>()
  /** Names that congestion controls have. */
  readonly #controls = new Set<number>()

  #cgroup(name: CgroupName | 'root'): Attached {
    const known = this.#cgroups.get(name) ?? { several: new Set() }
    this.#cgroups.set(name, known)
    return known
  }

  /** What anybody could take away from a cgroup. */
  alone(name: CgroupName | 'root'): ProgThing | undefined {
    return this.#cgroup(name).alone
  }

  /** The flow dissector that a network has without a link. */
  dissector(network: number): ProgThing | undefined {
    const there = this.#networks.get(network)
    return there?.kind === 'prog' ? there : undefined
  }

  isDissector(prog: ProgThing): boolean {
    return [...this.#networks.values()].includes(prog)
  }

  /** The host's dissector is for all networks, so that others cannot be beside it. */
  #isHidden(network: number): boolean {
    return [...this.#networks.keys()].some(one => (one === 0) !== (network === 0))
  }

  link(link: LinkThing, at: Place): ErrnoName | undefined {
    const { prog } = link
    switch (at.kind) {
      case 'device':
        if (this.#devices.has(at.network)) return 'EBUSY'
        this.#devices.set(at.network, link)
        break
      case 'network': {
        const there = this.#networks.get(at.network)
        if (there !== undefined) return there.kind === 'link' ? 'E2BIG' : 'EEXIST'
        if (this.#isHidden(at.network)) return 'EEXIST'
        this.#networks.set(at.network, link)
        break
      }
      case 'map': {
        const { sockets } = at.map
        const there = sockets.get(prog.shape)
        if (there?.link !== undefined) return 'EBUSY'
        if (there !== undefined) drop(there.prog)
        sockets.set(prog.shape, { prog, link })
        prog.refs++
        at.map.refs++
        break
      }
    }
    prog.refs++
    link.at = at
    return undefined
  }

  /** The link is closed, or detached. */
  release(link: LinkThing): void {
    const { at, prog } = link
    delete link.at
    if (at?.kind === 'device') this.#devices.delete(at.network)
    if (at?.kind === 'network') this.#networks.delete(at.network)
    if (at?.kind !== 'map') return
    at.map.sockets.delete(prog.shape)
    drop(prog)
    drop(at.map)
  }

  unlink(link: LinkThing): ErrnoName | undefined {
    if (link.on === 'iterator') return 'EOPNOTSUPP'
    this.release(link)
    return undefined
  }

  relink(link: LinkThing, prog: ProgThing): ErrnoName | undefined {
    const isOther = link.prog.shape !== prog.shape
    // Some look at the program first.
    if (isOther && (link.on === 'network' || link.on === 'map')) return 'EINVAL'
    if (link.at === undefined) return 'ENOLINK'
    if (isOther) return 'EINVAL'
    if (link.at.kind === 'map') {
      const slot = link.at.map.sockets.get(prog.shape)!
      prog.refs++
      drop(slot.prog)
      slot.prog = prog
    }
    prog.refs++
    drop(link.prog)
    link.prog = prog
    return undefined
  }

  attach(prog: ProgThing, at: Place, replaced?: ProgThing): ErrnoName | undefined {
    if (at.kind === 'network') return this.#attachDissector(prog, at.network)
    if (at.kind === 'map') {
      const there = at.map.sockets.get(prog.shape)
      if (there?.link !== undefined) return 'EBUSY'
      prog.refs++
      if (there !== undefined) drop(there.prog)
      at.map.sockets.set(prog.shape, { prog })
      return undefined
    }
    if (at.kind !== 'cgroup') return 'EINVAL'
    const there = this.#cgroup(at.name)
    if (prog.shape === 'sock') {
      prog.refs++
      if (there.alone !== undefined) drop(there.alone)
      there.alone = prog
      return undefined
    }
    if (there.several.has(prog) && prog !== replaced) return 'EINVAL'
    if (replaced !== undefined && !there.several.has(replaced)) return 'ENOENT'
    prog.refs++
    if (replaced !== undefined) {
      there.several.delete(replaced)
      drop(replaced)
    }
    there.several.add(prog)
    return undefined
  }

  #attachDissector(prog: ProgThing, network: number): ErrnoName | undefined {
    const there = this.#networks.get(network)
    if (there?.kind === 'link' || this.#isHidden(network)) return 'EEXIST'
    if (there === prog) return 'EINVAL'
    prog.refs++
    this.#networks.set(network, prog)
    if (there !== undefined) drop(there)
    return undefined
  }

  detach(prog: ProgThing, at: Place): ErrnoName | undefined {
    if (at.kind === 'network') {
      const there = this.#networks.get(at.network)
      if (there?.kind === 'link') return 'EINVAL'
      if (there !== prog) return 'ENOENT'
      this.#networks.delete(at.network)
    } else if (at.kind === 'map') {
      const there = at.map.sockets.get(prog.shape)
      if (there?.link !== undefined) return 'EBUSY'
      if (there?.prog !== prog) return 'ENOENT'
      at.map.sockets.delete(prog.shape)
    } else if (at.kind === 'cgroup' && prog.shape === 'sock') {
      const there = this.#cgroup(at.name)
      // The kernel takes what is there, whatever program is named.
      if (there.alone === undefined) return 'ENOENT'
      drop(there.alone)
      delete there.alone
      return undefined
    } else if (at.kind !== 'cgroup' || !this.#cgroup(at.name).several.delete(prog)) return 'ENOENT'
    drop(prog)
    return undefined
  }

  // ---- congestion controls ----

  /** Writes the value of a struct_ops map; without a link that registers it. */
  fill(map: MapThing, name: number, progs: readonly ProgThing[], isWhole: boolean): ErrnoName | undefined {
    if (map.control !== undefined) return 'EBUSY'
    if (!isWhole) return 'EINVAL'
    if (map.byLink !== true) {
      if (this.#controls.has(name)) return 'EEXIST'
      this.#controls.add(name)
      map.refs++
    }
    for (const prog of progs) prog.refs++
    map.control = { name, progs }
    return undefined
  }

  /** Whether nobody but its own write holds it registered. */
  isRegistered(map: MapThing): boolean {
    return map.control !== undefined && map.byLink !== true
  }

  register(control: ControlThing, map: MapThing): ErrnoName | undefined {
    if (map.byLink !== true || map.control === undefined) return 'EINVAL'
    if (this.#controls.has(map.control.name)) return 'EEXIST'
    this.#controls.add(map.control.name)
    control.map = map
    map.refs++
    return undefined
  }

  unregister(control: ControlThing): void {
    const { map } = control
    if (map === undefined) return
    delete control.map
    this.#controls.delete(map.control!.name)
    drop(map)
  }

  reregister(control: ControlThing, map: MapThing): ErrnoName | undefined {
    if (map.byLink !== true || map.control === undefined) return 'EINVAL'
    if (control.map === undefined) return 'ENOLINK'
    // What takes the place of another has its name.
    if (map.control.name !== control.map.control!.name) return 'EINVAL'
    map.refs++
    drop(control.map)
    control.map = map
    return undefined
  }
}
