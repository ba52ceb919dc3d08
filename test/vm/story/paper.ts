/** A story in the model: what each step comes to, and what the guard tells. */
import { type FsContext, NO_MASKS } from '../../../src/model/bpffs.ts'
import { decide, decideFs } from '../../../src/model/decide.ts'
import type { BpffsInstance, File, Program } from '../../../src/model/file.ts'
import {
  type Asked,
  type Asker,
  askCommand,
  askMap,
  askProg,
  askToken,
} from '../../../src/model/guard/ask.ts'
import {
  type Actor,
  type Cgroup,
  type Delegation,
  Guard,
  type GuardCall,
  type GuardMap,
  type GuardProgram,
  type GuardTarget,
  type GuardToken,
  type GuardVerdict,
  ROOT_CGROUP,
} from '../../../src/model/guard/guard.ts'
import type { Machine } from '../../../src/model/machine.ts'
import { bpf_cmd } from '../../../src/uapi/bpf.ts'
import { CAST } from './cast.ts'
import {
  type CgroupName,
  FUNCTIONS,
  type MapName,
  type Said,
  SHAPES,
  SKIPPED,
  type Step,
  type Story,
  type To,
} from './step.ts'

/** What is held by several things, and freed with the last of them. */
interface Held {
  refs: number
  readonly free: () => void
}

interface TokenThing extends Held {
  readonly kind: 'token'
  readonly record: GuardToken
  readonly instance: BpffsInstance
}
interface MapThing extends Held {
  readonly kind: 'map'
  readonly type: MapName
  readonly record: GuardMap
  /** What a prog_array has at its one place. */
  prog?: ProgThing
}
interface ProgThing extends Held {
  readonly kind: 'prog'
  readonly shape: keyof typeof SHAPES
  readonly record: GuardProgram
  readonly program: Program
  readonly pins: Set<Mount>
}
interface LinkThing extends Held {
  readonly kind: 'link'
  prog: ProgThing
  /** The network of its device, or the cgroup; absent: it is detached. */
  at?: number | CgroupName | 'root'
}
type Thing = TokenThing | MapThing | ProgThing | LinkThing

interface Mount {
  readonly instance: BpffsInstance
  readonly delegation?: Delegation
  /** Where it is, and whose mount namespace that is of; absent: nowhere. */
  place?: { readonly by: number; readonly name: string }
}

interface Context {
  readonly mark: object
  fs: FsContext
  delegation?: Delegation
}

/** What is attached to a cgroup beside links. */
interface Attached {
  alone?: ProgThing
  readonly several: Set<ProgThing>
}

export const MAP_SHAPES: Readonly<Record<MapName, { readonly key: number; readonly value: number }>> = {
  hash: { key: 4, value: 4 },
  array: { key: 4, value: 4 },
  ringbuf: { key: 0, value: 0 },
  prog_array: { key: 4, value: 4 },
  devmap: { key: 4, value: 4 },
}

/** Each renewal moves the end further than the one before. */
export const RENEWAL_SEC = 72_000

export class Paper {
  readonly guard: Guard
  readonly #machine: Machine
  readonly #tags: (shape: keyof typeof SHAPES, body: number) => string
  readonly #story: Story
  readonly #cgroups = new Map<CgroupName | 'root', Cgroup>([['root', ROOT_CGROUP]])
  readonly #at: CgroupName[] = CAST.map(() => 'a')
  readonly #contexts = new Map<number, Context>()
  readonly #mounts = new Map<number, Mount>()
  readonly #things = new Map<number, Thing>()
  readonly #attached = new Map<CgroupName | 'root', Attached>()
  /** Live delegations by the words for them. */
  readonly delegations = new Map<string, Delegation>()
  #places = 0
  #renewals = 0

  constructor(machine: Machine, story: Story, tags: (shape: keyof typeof SHAPES, body: number) => string) {
    this.#machine = machine
    this.#story = story
    this.#tags = tags
    this.guard = new Guard({ mode: story.mode })
    const top = { name: 'story', parent: ROOT_CGROUP }
    const a = { name: 'a', parent: top }
    this.#cgroups
      .set('a', a)
      .set('a/below', { name: 'below', parent: a })
      .set('b', { name: 'b', parent: top })
    for (const name of this.#cgroups.keys()) this.#attached.set(name, { several: new Set() })
    for (const [i, policy] of story.policies.entries()) this.guard.installPolicy(`p${i}`, policy)
    for (const { as, ceiling, implicit, only } of story.delegators)
      this.guard.allow(String(as), {
        implicit,
        ...(ceiling === undefined ? {} : { ceiling: story.policies[ceiling]! }),
        ...(only === undefined ? {} : { cgroup: this.#cgroups.get(only)! }),
      })
  }

  play(step: Step): Said {
    const outcome = this.#play(step)
    const notes = this.guard.takeNotes()
    if (outcome === undefined) return SKIPPED
    const word = (of: Delegation | undefined): string =>
      of === undefined ? '-' : ([...this.delegations].find(([, one]) => one === of)?.[0] ?? '?')
    const told = notes.filter(({ point }) => point === 'token_capable')
    return {
      outcome,
      notes: notes
        .filter(({ point }) => point !== 'token_capable')
        .map(({ point, reason, verdict, delegation }) => `${point} ${reason} ${verdict} ${word(delegation)}`),
      capabilities: told.map(({ reason, verdict, delegation }) => `${reason} ${verdict} ${word(delegation)}`),
    }
  }

  #actor(who: { as: number; caps?: 'none' }): Actor {
    const { task, network } = CAST[who.as]!
    return {
      process: String(who.as),
      task: who.caps === 'none' ? { ...task, capabilities: new Set() } : task,
      cgroup: this.#cgroups.get(this.#at[who.as]!)!,
      inHostNetwork: network === 0,
      // All contexts have one table.
      sharesDescriptors: true,
    }
  }

  #get<K extends Thing['kind']>(name: number, kind: K): (Thing & { kind: K }) | undefined {
    const found = this.#things.get(name)
    return found?.kind === kind ? (found as Thing & { kind: K }) : undefined
  }

  #drop(thing: Held): void {
    if (--thing.refs === 0) thing.free()
  }

  /** `undefined`: it is left out, since what it names is not there. */
  #play(step: Step): string | undefined {
    switch (step.do) {
      case 'fsopen':
      case 'set':
      case 'create':
      case 'fsmount':
        return this.#filesystem(step)
      case 'move':
        return this.#move(step)
      case 'copy':
        return this.#copy(step)
      case 'token':
        return this.#token(step)
      case 'map':
        return this.#map(step)
      case 'prog':
        return this.#prog(step)
      case 'pin':
        return this.#pin(step)
      case 'open':
        return this.#open(step)
      case 'pass':
        return this.#pass(step)
      case 'link':
        return this.#link(step)
      case 'attach':
        return this.#attach(step)
      case 'detach':
        return this.#detach(step)
      case 'unlink':
        return this.#unlink(step)
      case 'relink':
        return this.#relink(step)
      case 'run':
        return this.#run(step)
      case 'put':
        return this.#put(step)
      case 'close':
        return this.#close(step.object)
      default:
        return this.#manage(step)
    }
  }

  #filesystem(step: Step & { do: 'fsopen' | 'set' | 'create' | 'fsmount' }): string | undefined {
    const actor = this.#actor(step)
    if (step.do === 'fsopen') {
      const { context: fs, errno } = decideFs(this.#machine, actor.task, { op: 'fsopen' })
      if (fs !== undefined) this.#contexts.set(step.context, { mark: {}, fs })
      return errno ?? 'ok'
    }
    const context = this.#contexts.get(step.context)
    if (context === undefined) return undefined
    const { fs, mark } = context
    if (step.do === 'set') {
      if (fs.phase === 'options') {
        const said = this.guard.option(mark, actor, step.key, step.value)
        if (said.refused) return said.errno
      }
      const { key, value } = step
      const call = {
        op: 'fsconfig_set' as const,
        context: fs,
        key,
        ...(value === undefined ? {} : { value }),
      }
      const set = decideFs(this.#machine, actor.task, call)
      context.fs = set.context ?? fs
      return set.errno ?? 'ok'
    }
    if (step.do === 'fsmount') {
      const mounted = decideFs(this.#machine, actor.task, { op: 'fsmount', context: fs })
      context.fs = mounted.context ?? fs
      if (mounted.errno === undefined)
        this.#mounts.set(step.mount, {
          instance: { userNamespace: fs.userNamespace, masks: fs.masks },
          ...(context.delegation === undefined ? {} : { delegation: context.delegation }),
        })
      return mounted.errno ?? 'ok'
    }
    const created = decideFs(this.#machine, actor.task, { op: 'fsconfig_create', context: fs })
    context.fs = created.context ?? fs
    if (created.errno !== undefined) return created.errno
    const { verdict, delegation } = this.guard.superblock(mark, actor, fs.userNamespace, fs.masks ?? NO_MASKS)
    if (delegation !== undefined) {
      context.delegation = delegation
      this.delegations.set(`c${step.context}`, delegation)
    }
    if (verdict.refused) context.fs = { ...context.fs, phase: 'failed' }
    return verdict.refused ? verdict.errno : 'ok'
  }

  #move(step: Step & { do: 'move' }): string | undefined {
    const mount = this.#mounts.get(step.mount)
    if (mount === undefined) return undefined
    const said = this.guard.move(mount.delegation, mount, mount.place !== undefined)
    if (said.refused) return said.errno
    if (mount.place !== undefined && mount.place.by !== step.as) return 'EINVAL'
    mount.place = { by: step.as, name: `place ${++this.#places}` }
    return 'ok'
  }

  #copy(step: Step & { do: 'copy' }): string | undefined {
    const mount = this.#mounts.get(step.mount)
    // What is nowhere older kernels do not copy.
    if (mount?.place?.by !== step.as) return undefined
    const { place: _, ...rest } = mount
    this.#mounts.set(step.made, rest)
    return 'ok'
  }

  #asker(who: { as: number; caps?: 'none' }, token?: GuardToken): Asker {
    return {
      guard: this.guard,
      machine: this.#machine,
      actor: this.#actor(who),
      ...(token === undefined ? {} : { token }),
    }
  }

  #token(step: Step & { do: 'token' }): string | undefined {
    const mount = this.#mounts.get(step.mount)
    if (mount === undefined) return undefined
    const { instance, delegation, place } = mount
    const through = {
      mount,
      ...(delegation === undefined ? {} : { delegation }),
      ...(place === undefined ? {} : { place: place.name }),
    }
    const call = { op: 'token_create', bpffs: { kind: 'bpffs', instance, isRoot: true } } as const
    const { decision, made } = askToken(this.#asker(step), call, through, bpf_cmd.BPF_TOKEN_CREATE)
    if (made !== undefined)
      this.#things.set(step.made, {
        kind: 'token',
        record: made,
        instance,
        refs: 1,
        free: () => this.guard.tokenFreed(made),
      })
    return decision.errno ?? 'ok'
  }

  #choice(token: TokenThing | undefined): { token?: { flag: true; file: File } } {
    return token === undefined
      ? {}
      : { token: { flag: true, file: { kind: 'token', token: token.instance } } }
  }

  #bit(domain: 'maps' | 'progs' | 'attachs', word: string): number {
    return this.#machine.kernel.vocabulary[domain].bitOfName.get(word)!
  }

  #map(step: Step & { do: 'map' }): string | undefined {
    const token = step.token === undefined ? undefined : this.#get(step.token, 'token')
    if (step.token !== undefined && token === undefined) return undefined
    const type = this.#bit('maps', step.type)
    const { key, value } = MAP_SHAPES[step.type]
    const sizes = { keySize: key, valueSize: value, maxEntries: step.entries }
    const call = { op: 'map_create' as const, type, ...sizes, ...this.#choice(token) }
    const bytes = BigInt(step.entries * (step.type === 'ringbuf' ? 1 : key + value))
    const { decision, made } = askMap(
      this.#asker(step, token?.record),
      call,
      { type, bytes },
      bpf_cmd.BPF_MAP_CREATE,
    )
    if (made !== undefined) {
      const thing: MapThing = {
        kind: 'map',
        type: step.type,
        record: made,
        refs: 1,
        free: () => {
          if (thing.prog !== undefined) this.#drop(thing.prog)
          this.guard.mapFreed(made)
        },
      }
      this.#things.set(step.made, thing)
    }
    return decision.errno ?? 'ok'
  }

  #prog(step: Step & { do: 'prog' }): string | undefined {
    const token = step.token === undefined ? undefined : this.#get(step.token, 'token')
    if (step.token !== undefined && token === undefined) return undefined
    const { type: word, attach: attachWord } = SHAPES[step.shape]
    const [type, attach] = [this.#bit('progs', word), this.#bit('attachs', attachWord)]
    const target = step.target === undefined ? undefined : FUNCTIONS[step.target]!
    const instructions = step.body + 2
    const call = {
      op: 'prog_load' as const,
      type,
      attach,
      instructions,
      ...(target === undefined ? {} : { target: 1 }),
      ...this.#choice(token),
    }
    const loaded = {
      type,
      expectedAttach: attach,
      instructions,
      ...(target === undefined ? {} : { target }),
      digests: [this.#tags(step.shape, step.body)],
    }
    const { decision, made } = askProg(this.#asker(step, token?.record), call, loaded, bpf_cmd.BPF_PROG_LOAD)
    if (made !== undefined) {
      const keeps = made.token === undefined ? undefined : token
      if (keeps !== undefined) keeps.refs++
      this.#things.set(step.made, {
        kind: 'prog',
        shape: step.shape,
        record: made,
        program: {
          type: word,
          expectedAttach: attach,
          ...(keeps === undefined ? {} : { token: keeps.instance }),
        },
        pins: new Set(),
        refs: 1,
        free: () => {
          this.guard.programFreed(made)
          if (keeps !== undefined) this.#drop(keeps)
        },
      })
    }
    return decision.errno ?? 'ok'
  }

  #pin(step: Step & { do: 'pin' }): string | undefined {
    const prog = this.#get(step.prog, 'prog')
    const mount = this.#mounts.get(step.mount)
    if (prog === undefined || mount === undefined) return undefined
    const exists = [...prog.pins].some(({ instance }) => instance === mount.instance)
    const { errno } = decide(this.#machine, this.#actor(step).task, {
      op: 'obj_pin',
      object: { kind: 'prog', prog: prog.program },
      directory: { kind: 'bpffs', instance: mount.instance, isRoot: true },
      dotted: false,
      exists,
    })
    if (errno === undefined) {
      prog.pins.add(mount)
      prog.refs++
    }
    return errno ?? 'ok'
  }

  #open(step: Step & { do: 'open' }): string | undefined {
    const prog = this.#get(step.prog, 'prog')
    if (prog === undefined || prog.pins.size === 0) return undefined
    // The file is its maker's, and a stranger may not read it.
    if (step.as === 4) return 'EACCES'
    const said = this.guard.openProgram(this.#actor({ as: step.as }), prog.record)
    return said.refused ? said.errno : 'ok'
  }

  #pass(step: Step & { do: 'pass' }): string | undefined {
    const thing = this.#things.get(step.object)
    if (thing === undefined) return undefined
    const said = this.guard.receive(
      this.#actor(step),
      thing.kind === 'token'
        ? { token: thing.record }
        : thing.kind === 'prog'
          ? { kind: 'program', program: thing.record }
          : thing.kind === 'map'
            ? { kind: 'map', map: thing.record }
            : { kind: 'other' },
    )
    return said.refused ? said.errno : 'ok'
  }

  #target(to: To): GuardTarget {
    if (to === 'lo') return { kind: 'other' }
    const { alone } = this.#attached.get(to)!
    return {
      kind: 'cgroup',
      cgroup: this.#cgroups.get(to)!,
      ...(alone === undefined ? {} : { alone: [alone.record] }),
    }
  }

  #command(who: { as: number; caps?: 'none' }, call: GuardCall): GuardVerdict {
    return this.guard.command(this.#actor(who), call)
  }

  /** Whether a device has a link already. */
  #isTaken(network: number): boolean {
    return [...this.#things.values()].some(thing => thing.kind === 'link' && thing.at === network)
  }

  #link(step: Step & { do: 'link' }): string | undefined {
    const prog = this.#get(step.prog, 'prog')
    if (prog === undefined) return undefined
    const type = this.#bit('attachs', SHAPES[prog.shape].attach)
    const call = {
      op: 'link_create' as const,
      prog: { kind: 'prog' as const, prog: prog.program },
      target:
        step.to === 'lo'
          ? ({ kind: 'device', exists: true } as const)
          : ({ kind: 'file', file: { kind: 'cgroup' } } as const),
      attach: type,
      flags: step.to === 'lo' ? 2 : 0,
    }
    const command: GuardCall = {
      cmd: bpf_cmd.BPF_LINK_CREATE,
      object: { kind: 'program', program: prog.record },
      type,
      target: this.#target(step.to),
    }
    const { decision }: Asked<never> = askCommand(this.#asker(step), call, command)
    if (decision.errno !== undefined) return decision.errno
    const at = step.to === 'lo' ? CAST[step.as]!.network : step.to
    if (typeof at === 'number' && this.#isTaken(at)) return 'EBUSY'
    prog.refs++
    const link: LinkThing = {
      kind: 'link',
      prog,
      at,
      refs: 1,
      free: () => this.#drop(link.prog),
    }
    this.#things.set(step.made, link)
    return 'ok'
  }

  #attach(step: Step & { do: 'attach' }): string | undefined {
    const prog = this.#get(step.prog, 'prog')
    const replaced = step.replaces === undefined ? undefined : this.#get(step.replaces, 'prog')
    if (prog === undefined || (step.replaces !== undefined && replaced === undefined)) return undefined
    const type = this.#bit('attachs', SHAPES[prog.shape].attach)
    const isAlone = prog.shape === 'sock'
    const said = this.#command(step, {
      cmd: bpf_cmd.BPF_PROG_ATTACH,
      object: { kind: 'program', program: prog.record },
      type,
      target: this.#target(step.to),
      flags: isAlone ? 0 : replaced === undefined ? 2 : 6,
      ...(replaced === undefined ? {} : { other: { kind: 'program', program: replaced.record } }),
    })
    if (said.refused) return said.errno
    const there = this.#attached.get(step.to)!
    if (isAlone) {
      prog.refs++
      if (there.alone !== undefined) this.#drop(there.alone)
      there.alone = prog
      return 'ok'
    }
    if (there.several.has(prog) && prog !== replaced) return 'EINVAL'
    if (replaced !== undefined && !there.several.has(replaced)) return 'ENOENT'
    prog.refs++
    if (replaced !== undefined) {
      there.several.delete(replaced)
      this.#drop(replaced)
    }
    there.several.add(prog)
    return 'ok'
  }

  #detach(step: Step & { do: 'detach' }): string | undefined {
    const prog = this.#get(step.prog, 'prog')
    if (prog === undefined) return undefined
    const said = this.#command(step, {
      cmd: bpf_cmd.BPF_PROG_DETACH,
      object: { kind: 'program', program: prog.record },
      type: this.#bit('attachs', SHAPES[prog.shape].attach),
      target: this.#target(step.to),
    })
    if (said.refused) return said.errno
    const there = this.#attached.get(step.to)!
    if (prog.shape === 'sock') {
      if (there.alone === undefined) return 'ENOENT'
      this.#drop(there.alone)
      delete there.alone
      return 'ok'
    }
    if (!there.several.delete(prog)) return 'ENOENT'
    this.#drop(prog)
    return 'ok'
  }

  #unlink(step: Step & { do: 'unlink' }): string | undefined {
    const link = this.#get(step.link, 'link')
    if (link === undefined) return undefined
    const object = { kind: 'link', link: { program: link.prog.record } } as const
    const said = this.#command(step, { cmd: bpf_cmd.BPF_LINK_DETACH, object })
    if (said.refused) return said.errno
    delete link.at
    return 'ok'
  }

  #relink(step: Step & { do: 'relink' }): string | undefined {
    const [link, prog] = [this.#get(step.link, 'link'), this.#get(step.prog, 'prog')]
    if (link === undefined || prog === undefined) return undefined
    const said = this.#command(step, {
      cmd: bpf_cmd.BPF_LINK_UPDATE,
      object: { kind: 'link', link: { program: link.prog.record } },
      other: { kind: 'program', program: prog.record },
    })
    if (said.refused) return said.errno
    if (link.at === undefined) return 'ENOLINK'
    if (link.prog.shape !== prog.shape) return 'EINVAL'
    prog.refs++
    this.#drop(link.prog)
    link.prog = prog
    return 'ok'
  }

  #run(step: Step & { do: 'run' }): string | undefined {
    const prog = this.#get(step.prog, 'prog')
    if (prog === undefined) return undefined
    const object = { kind: 'program', program: prog.record } as const
    const said = this.#command(step, { cmd: bpf_cmd.BPF_PROG_TEST_RUN, object })
    return said.refused ? said.errno : 'ok'
  }

  #put(step: Step & { do: 'put' }): string | undefined {
    const [map, prog] = [this.#get(step.map, 'map'), this.#get(step.prog, 'prog')]
    if (map === undefined || prog === undefined) return undefined
    const isArray = map.type === 'prog_array'
    const said = this.#command(step, {
      cmd: bpf_cmd.BPF_MAP_UPDATE_ELEM,
      object: { kind: 'map', map: map.record },
      values: isArray ? [{ kind: 'program', program: prog.record }] : [],
    })
    if (said.refused) return said.errno
    if (isArray) {
      prog.refs++
      if (map.prog !== undefined) this.#drop(map.prog)
      map.prog = prog
    }
    return 'ok'
  }

  #close(name: number): string | undefined {
    const thing = this.#things.get(name)
    if (thing === undefined) return undefined
    this.#things.delete(name)
    this.#drop(thing)
    return 'ok'
  }

  #manage(
    step: Step & { do: 'revoke' | 'expire' | 'renew' | 'derive' | 'enter' | 'confine' | 'unconfine' },
  ): string | undefined {
    if (step.do === 'enter') {
      this.#at[step.who] = step.cgroup
      return 'ok'
    }
    if (step.do === 'confine' || step.do === 'unconfine') {
      const cgroup = this.#cgroups.get(step.cgroup)!
      if (step.do === 'confine') {
        const of = this.guard.confine(cgroup, this.#story.policies[step.policy]!)
        this.delegations.set(`in ${step.cgroup}`, of)
        return 'ok'
      }
      if (!this.delegations.delete(`in ${step.cgroup}`)) return undefined
      this.guard.unconfine(cgroup)
      return 'ok'
    }
    const of = step.of === undefined ? undefined : this.delegations.get(`c${step.of}`)
    if (step.of !== undefined && of === undefined) return undefined
    if (step.do === 'derive') {
      if (!this.#story.delegators.some(({ as }) => as === step.by)) return undefined
      this.guard.deriveBy(String(step.by), of)
      return 'ok'
    }
    if (step.do === 'revoke') this.guard.revoke(of!, this.delegations.values())
    else if (step.do === 'expire') of!.expiresAt = 0
    else {
      const end = this.guard.renew(of!, RENEWAL_SEC * ++this.#renewals)
      return typeof end === 'number' ? 'ok' : end
    }
    return 'ok'
  }
}
