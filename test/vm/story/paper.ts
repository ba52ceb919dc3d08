/** A story in the model: what each step comes to, and what the guard tells. */
import { type FsContext, NO_MASKS } from '../../../src/model/bpffs.ts'
import { decide, decideFs } from '../../../src/model/decide.ts'
import type { File } from '../../../src/model/file.ts'
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
  type GuardObject,
  type GuardTarget,
  type GuardToken,
  type GuardVerdict,
  ROOT_CGROUP,
} from '../../../src/model/guard/guard.ts'
import type { Machine } from '../../../src/model/machine.ts'
import { bpf_attach_type, bpf_cmd, bpf_map_flags } from '../../../src/uapi/bpf.ts'
import { Attachments } from './attachments.ts'
import { CAST } from './cast.ts'
import {
  type CgroupName,
  FUNCTIONS,
  type MapName,
  MEMBERS,
  type Said,
  SHAPES,
  type Shape,
  SKIPPED,
  type Step,
  type Story,
  type To,
} from './step.ts'
import {
  type ControlThing,
  drop,
  type LinkThing,
  type MapThing,
  type Mount,
  type Place,
  type ProgThing,
  type Thing,
  type TokenThing,
} from './things.ts'

/** What only the kernel that runs knows. */
export interface Known {
  /** A program's digest, as a policy names it. */
  tag(shape: Shape, body: number): string
  attachType(shape: Shape): number
  /** Bytes of a congestion control's value. */
  readonly controlBytes: number
}

interface Context {
  readonly mark: object
  fs: FsContext
  delegation?: Delegation
}

/** Bytes. The value of a struct_ops map is as large as the kernel has it. */
export const MAP_SHAPES: Readonly<Record<MapName, { readonly key: number; readonly value: number }>> = {
  hash: { key: 4, value: 4 },
  array: { key: 4, value: 4 },
  ringbuf: { key: 0, value: 0 },
  prog_array: { key: 4, value: 4 },
  devmap: { key: 4, value: 4 },
  sockmap: { key: 4, value: 4 },
  sockhash: { key: 4, value: 4 },
  struct_ops: { key: 4, value: 0 },
}

/** Each renewal moves the end further than the one before. */
export const RENEWAL_SEC = 72_000

export class Paper {
  readonly guard: Guard
  readonly #machine: Machine
  readonly #known: Known
  readonly #story: Story
  readonly #cgroups = new Map<CgroupName | 'root', Cgroup>([['root', ROOT_CGROUP]])
  readonly #at: CgroupName[] = CAST.map(() => 'a')
  readonly #contexts = new Map<number, Context>()
  readonly #mounts = new Map<number, Mount>()
  readonly #things = new Map<number, Thing>()
  readonly #attachments = new Attachments()
  /** Live delegations by the words for them. */
  readonly delegations = new Map<string, Delegation>()
  #places = 0
  #renewals = 0

  constructor(machine: Machine, story: Story, known: Known) {
    this.#machine = machine
    this.#story = story
    this.#known = known
    this.guard = new Guard({ mode: story.mode })
    const top = { name: 'story', parent: ROOT_CGROUP }
    const a = { name: 'a', parent: top }
    this.#cgroups
      .set('a', a)
      .set('a/below', { name: 'below', parent: a })
      .set('b', { name: 'b', parent: top })
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
    }
  }

  #get<K extends Thing['kind']>(name: number, kind: K): (Thing & { kind: K }) | undefined {
    const found = this.#things.get(name)
    return found?.kind === kind ? (found as Thing & { kind: K }) : undefined
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
      case 'fill':
        return this.#fill(step)
      case 'register':
        return this.#register(step)
      case 'iterate':
        return this.#iterate(step)
      case 'bind':
        return this.#bind(step)
      case 'freeze':
        return this.#freeze(step)
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
    const { key } = MAP_SHAPES[step.type]
    const value = step.type === 'struct_ops' ? this.#known.controlBytes : MAP_SHAPES[step.type].value
    const sizes = { keySize: key, valueSize: value, maxEntries: step.entries }
    const flags = step.byLink === true ? bpf_map_flags.BPF_F_LINK : 0
    const types =
      step.type === 'struct_ops'
        ? {
            types: {
              btf: { kind: 'btf' as const, isKernel: false },
              key: 0,
              value: 0,
              kernelType: 'known' as const,
            },
          }
        : {}
    const call = { op: 'map_create' as const, type, ...sizes, flags, ...types, ...this.#choice(token) }
    const bytes = BigInt(step.entries * (step.type === 'ringbuf' ? 1 : key + value))
    const { decision, made } = askMap(
      this.#asker(step, token?.record),
      call,
      { type, flags, bytes },
      bpf_cmd.BPF_MAP_CREATE,
    )
    if (made !== undefined) {
      const thing: MapThing = {
        kind: 'map',
        type: step.type,
        record: made,
        isFrozen: false,
        sockets: new Map(),
        ...(step.byLink === true ? { byLink: true } : {}),
        refs: 1,
        free: () => {
          if (thing.prog !== undefined) drop(thing.prog)
          for (const { prog } of thing.sockets.values()) drop(prog)
          for (const prog of thing.control?.progs ?? []) drop(prog)
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
    const { type: word } = SHAPES[step.shape]
    const [type, attach] = [this.#bit('progs', word), this.#known.attachType(step.shape)]
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
      digests: [this.#known.tag(step.shape, step.body)],
    }
    const { decision, made } = askProg(this.#asker(step, token?.record), call, loaded, bpf_cmd.BPF_PROG_LOAD)
    if (made !== undefined) {
      const keeps = made.token === undefined ? undefined : token
      if (keeps !== undefined) keeps.refs++
      const thing: ProgThing = {
        kind: 'prog',
        shape: step.shape,
        record: made,
        program: {
          type: word,
          expectedAttach: attach,
          ...(keeps === undefined ? {} : { token: keeps.instance }),
        },
        pins: new Set(),
        bound: new Set(),
        refs: 1,
        free: () => {
          this.guard.programFreed(made)
          for (const map of thing.bound) drop(map)
          if (keeps !== undefined) drop(keeps)
        },
      }
      this.#things.set(step.made, thing)
    }
    return decision.errno ?? 'ok'
  }

  #pin(step: Step & { do: 'pin' }): string | undefined {
    const thing = this.#get(step.object, 'prog') ?? this.#get(step.object, 'link')
    const mount = this.#mounts.get(step.mount)
    if (thing === undefined || mount === undefined) return undefined
    const exists = [...thing.pins].some(({ instance }) => instance === mount.instance)
    const { errno } = decide(this.#machine, this.#actor(step).task, {
      op: 'obj_pin',
      object: thing.kind === 'prog' ? { kind: 'prog', prog: thing.program } : { kind: 'link' },
      directory: { kind: 'bpffs', instance: mount.instance, isRoot: true },
      dotted: false,
      exists,
    })
    if (errno === undefined) {
      thing.pins.add(mount)
      thing.refs++
    }
    return errno ?? 'ok'
  }

  /** A program by BPF_OBJ_GET; the link of an iterator by open(2), which attaches it. */
  #open(step: Step & { do: 'open' }): string | undefined {
    const thing = this.#get(step.object, 'prog') ?? this.#get(step.object, 'link')
    if (thing === undefined || thing.pins.size === 0) return undefined
    if (thing.kind === 'link' && thing.on !== 'iterator') return undefined
    // The file is its maker's, and a stranger may not read it.
    if (step.as === 4) return 'EACCES'
    const actor = this.#actor({ as: step.as })
    const said =
      thing.kind === 'prog'
        ? this.guard.openProgram(actor, thing.record)
        : this.guard.openIterator(actor, { program: thing.prog.record })
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
          : { kind: 'other' },
    )
    return said.refused ? said.errno : 'ok'
  }

  /** What the hook sees as the target; undefined: the map is not there. */
  #target(to: To): GuardTarget | undefined {
    if (typeof to === 'number') {
      const map = this.#get(to, 'map')
      return map === undefined ? undefined : { kind: 'map', map: map.record }
    }
    if (to === 'lo' || to === 'none') return { kind: 'other' }
    const network = networkOf(to)
    if (network !== undefined) return { kind: 'netns', isHost: network === 0 }
    const alone = this.#attachments.alone(to as CgroupName | 'root')
    return {
      kind: 'cgroup',
      cgroup: this.#cgroups.get(to as CgroupName | 'root')!,
      ...(alone === undefined ? {} : { alone: [alone.record] }),
    }
  }

  /** Where a program of this shape comes to; undefined: it is none that fits. */
  #place(shape: Shape, to: To, as: number): Place | undefined {
    if (typeof to === 'number') {
      const map = this.#get(to, 'map')
      const fits = (shape === 'message' || shape === 'stream') && map !== undefined && isOfSockets(map)
      return fits ? { kind: 'map', map } : undefined
    }
    if (shape === 'iter') return to === 'none' ? { kind: 'iterator' } : undefined
    if (shape === 'xdp') return to === 'lo' ? { kind: 'device', network: CAST[as]!.network } : undefined
    const network = networkOf(to)
    if (shape === 'dissector') {
      if (to === 'none') return { kind: 'network', network: CAST[as]!.network }
      return network === undefined ? undefined : { kind: 'network', network }
    }
    if (shape !== 'device' && shape !== 'sock') return undefined
    if (to === 'lo' || to === 'none' || network !== undefined) return undefined
    return { kind: 'cgroup', name: to as CgroupName | 'root' }
  }

  #command(who: { as: number; caps?: 'none' }, call: GuardCall): GuardVerdict {
    return this.guard.command(this.#actor(who), call)
  }

  #link(step: Step & { do: 'link' }): string | undefined {
    const prog = this.#get(step.prog, 'prog')
    const target = this.#target(step.to)
    if (prog === undefined || target === undefined) return undefined
    const at = this.#place(prog.shape, step.to, step.as)
    if (at === undefined && step.type === undefined) return undefined
    const type = step.type ?? this.#known.attachType(prog.shape)
    const call = {
      op: 'link_create' as const,
      prog: { kind: 'prog' as const, prog: prog.program },
      target: FILE_OF[at?.kind ?? 'device'],
      attach: type,
      flags: step.to === 'lo' ? 2 : 0,
    }
    const command: GuardCall = {
      cmd: bpf_cmd.BPF_LINK_CREATE,
      object: { kind: 'program', program: prog.record },
      type,
      target,
    }
    if (at?.kind === 'iterator' || at === undefined) {
      // Of iterators the kernel's model says nothing, and of a type that does not go with the
      // program always the same.
      const said = this.#command(step, command)
      if (said.refused) return said.errno
      if (at === undefined || step.type !== undefined) return 'EINVAL'
    } else {
      const { decision }: Asked<never> = askCommand(this.#asker(step), call, command)
      if (decision.errno !== undefined) return decision.errno
    }
    const link: LinkThing = {
      kind: 'link',
      prog,
      on: at.kind,
      pins: new Set(),
      refs: 1,
      free: () => {
        this.#attachments.release(link)
        drop(link.prog)
      },
    }
    const errno = this.#attachments.link(link, at)
    if (errno !== undefined) return errno
    this.#things.set(step.made, link)
    return 'ok'
  }

  #attach(step: Step & { do: 'attach' }): string | undefined {
    const prog = this.#get(step.prog, 'prog')
    const replaced = step.replaces === undefined ? undefined : this.#get(step.replaces, 'prog')
    if (prog === undefined || (step.replaces !== undefined && replaced === undefined)) return undefined
    const target = this.#target(step.to)
    const at = this.#place(prog.shape, step.to, step.as)
    if (target === undefined || (at === undefined && step.type === undefined)) return undefined
    const there = this.#attachments.dissector(CAST[step.as]!.network)
    const said = this.#command(step, {
      cmd: bpf_cmd.BPF_PROG_ATTACH,
      object: { kind: 'program', program: prog.record },
      type: step.type ?? this.#known.attachType(prog.shape),
      target,
      flags: attachFlags(prog.shape, replaced !== undefined),
      ...(replaced === undefined ? {} : { other: { kind: 'program', program: replaced.record } }),
      ...(there === undefined ? {} : { dissector: there.record }),
    })
    if (said.refused) return said.errno
    if (at === undefined || step.type !== undefined) return 'EINVAL'
    return this.#attachments.attach(prog, at, replaced) ?? 'ok'
  }

  #detach(step: Step & { do: 'detach' }): string | undefined {
    const prog = this.#get(step.prog, 'prog')
    const target = this.#target(step.to)
    if (prog === undefined || target === undefined) return undefined
    const at = this.#place(prog.shape, step.to, step.as)
    if (at === undefined && step.type === undefined) return undefined
    const said = this.#command(step, {
      cmd: bpf_cmd.BPF_PROG_DETACH,
      ...(step.isUnnamed === true ? {} : { object: { kind: 'program', program: prog.record } }),
      type: step.type ?? this.#known.attachType(prog.shape),
      target,
    })
    if (said.refused) return said.errno
    if (step.type !== undefined && step.isUnnamed === true) {
      const device = { kind: 'device', exists: step.to === 'lo' } as const
      const call = { op: 'prog_detach', target: device, attach: step.type } as const
      return decide(this.#machine, this.#actor(step).task, call).errno ?? 'ok'
    }
    if (at === undefined || step.type !== undefined) return 'EINVAL'
    // What was attached alone the kernel detaches without its name.
    if (step.isUnnamed === true && prog.shape !== 'sock') return 'EINVAL'
    return this.#attachments.detach(prog, at) ?? 'ok'
  }

  #unlink(step: Step & { do: 'unlink' }): string | undefined {
    const link = this.#things.get(step.link)
    if (link === undefined) return undefined
    const said = this.#command(step, { cmd: bpf_cmd.BPF_LINK_DETACH, object: objectOf(link) })
    if (said.refused) return said.errno
    if (link.kind !== 'link' && link.kind !== 'control') return 'EINVAL'
    if (link.kind === 'link') return this.#attachments.unlink(link) ?? 'ok'
    this.#attachments.unregister(link)
    return 'ok'
  }

  #relink(step: Step & { do: 'relink' }): string | undefined {
    const link = this.#things.get(step.link)
    const next = this.#get(step.prog, 'prog') ?? this.#get(step.prog, 'map')
    if (link === undefined || next === undefined) return undefined
    // The kernel would put the map into its list twice.
    if (link.kind === 'control' && link.map === next) return undefined
    const said = this.#command(step, {
      cmd: bpf_cmd.BPF_LINK_UPDATE,
      object: objectOf(link),
      other: objectOf(next),
    })
    if (said.refused) return said.errno
    if (link.kind !== 'link' && link.kind !== 'control') return 'EINVAL'
    if (link.kind === 'link')
      return next.kind === 'prog' ? (this.#attachments.relink(link, next) ?? 'ok') : 'EINVAL'
    return next.kind === 'map' ? (this.#attachments.reregister(link, next) ?? 'ok') : 'EINVAL'
  }

  #fill(step: Step & { do: 'fill' }): string | undefined {
    const map = this.#get(step.map, 'map')
    const progs = step.progs.map(prog => this.#get(prog, 'prog'))
    if (map?.type !== 'struct_ops' || progs.some(prog => prog === undefined)) return undefined
    const said = this.#command(step, {
      cmd: bpf_cmd.BPF_MAP_UPDATE_ELEM,
      object: { kind: 'map', map: map.record },
    })
    if (said.refused) return said.errno
    const all = progs as ProgThing[]
    const isWhole = all.length === MEMBERS.length && all.every(({ shape }, i) => shape === MEMBERS[i])
    return this.#attachments.fill(map, step.name, all, isWhole) ?? 'ok'
  }

  #register(step: Step & { do: 'register' }): string | undefined {
    const map = this.#get(step.map, 'map')
    if (map === undefined) return undefined
    const said = this.#command(step, {
      cmd: bpf_cmd.BPF_LINK_CREATE,
      object: { kind: 'map', map: map.record },
      type: bpf_attach_type.BPF_STRUCT_OPS,
      target: { kind: 'other' },
    })
    if (said.refused) return said.errno
    const control: ControlThing = {
      kind: 'control',
      refs: 1,
      free: () => this.#attachments.unregister(control),
    }
    const errno = this.#attachments.register(control, map)
    if (errno !== undefined) return errno
    this.#things.set(step.made, control)
    return 'ok'
  }

  #iterate(step: Step & { do: 'iterate' }): string | undefined {
    const link = this.#get(step.link, 'link') ?? this.#get(step.link, 'control')
    if (link === undefined) return undefined
    const said = this.#command(step, { cmd: bpf_cmd.BPF_ITER_CREATE, object: objectOf(link) })
    if (said.refused) return said.errno
    if (link.kind === 'control' || link.on !== 'iterator') return 'EINVAL'
    const { prog } = link
    prog.refs++
    this.#things.set(step.made, { kind: 'iterator', refs: 1, free: () => drop(prog) })
    return 'ok'
  }

  #bind(step: Step & { do: 'bind' }): string | undefined {
    const [prog, map] = [this.#get(step.prog, 'prog'), this.#get(step.map, 'map')]
    if (prog === undefined || map === undefined) return undefined
    const said = this.#command(step, {
      cmd: bpf_cmd.BPF_PROG_BIND_MAP,
      object: { kind: 'program', program: prog.record },
    })
    if (said.refused) return said.errno
    if (!prog.bound.has(map)) map.refs++
    prog.bound.add(map)
    return 'ok'
  }

  #freeze(step: Step & { do: 'freeze' }): string | undefined {
    const map = this.#get(step.map, 'map')
    if (map === undefined) return undefined
    const object = { kind: 'map', map: map.record } as const
    const said = this.#command(step, { cmd: bpf_cmd.BPF_MAP_FREEZE, object })
    if (said.refused) return said.errno
    if (map.type === 'struct_ops') return 'ENOTSUPP'
    // Nobody may write to it any more.
    if (map.isFrozen) return 'EPERM'
    map.isFrozen = true
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
    if (map.type === 'struct_ops') return undefined
    const isArray = map.type === 'prog_array'
    const said = this.#command(step, {
      cmd: bpf_cmd.BPF_MAP_UPDATE_ELEM,
      object: { kind: 'map', map: map.record },
      values: isArray ? [{ kind: 'program', program: prog.record }] : [],
    })
    if (said.refused) return said.errno
    if (map.isFrozen) return 'EPERM'
    // A program is no socket.
    if (isOfSockets(map)) return 'ENOTSOCK'
    if (isArray) {
      prog.refs++
      if (map.prog !== undefined) drop(map.prog)
      map.prog = prog
    }
    return 'ok'
  }

  #close(name: number): string | undefined {
    const thing = this.#things.get(name)
    if (thing === undefined) return undefined
    // What holds itself could not be taken away when the story ends.
    if (thing.kind === 'map' && this.#attachments.isRegistered(thing)) return undefined
    if (thing.kind === 'prog' && this.#attachments.isDissector(thing)) return undefined
    this.#things.delete(name)
    drop(thing)
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

function objectOf(thing: Thing): GuardObject {
  switch (thing.kind) {
    case 'prog':
      return { kind: 'program', program: thing.record }
    case 'map':
      return { kind: 'map', map: thing.record }
    case 'link':
      return { kind: 'link', link: { program: thing.prog.record } }
    case 'control':
      return {
        kind: 'link',
        link: thing.map === undefined ? { isDetached: true } : { map: thing.map.record },
      }
    default:
      return { kind: 'other' }
  }
}

const isOfSockets = ({ type }: MapThing): boolean => type === 'sockmap' || type === 'sockhash'

export function networkOf(to: To): number | undefined {
  return typeof to === 'string' && to.startsWith('net') ? Number(to.slice(3)) : undefined
}

export function attachFlags(shape: Shape, replaces: boolean): number {
  if (replaces) return 6
  return shape === 'device' ? 2 : 0
}

/** What the kernel's model takes for a place. */
const FILE_OF = {
  cgroup: { kind: 'file', file: { kind: 'cgroup' } },
  device: { kind: 'device', exists: true },
  network: { kind: 'file', file: { kind: 'netns' } },
  map: { kind: 'file', file: { kind: 'sockmap' } },
  iterator: { kind: 'device', exists: false },
} as const
