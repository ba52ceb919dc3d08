/** One story on the kernel, step by step. */
import { mkdirSync, readdirSync, rmdirSync, writeFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { ConflictError } from '../../../src/errors.ts'
import { findCgroup } from '../../../src/guard/cgroup.ts'
import { startTicks } from '../../../src/guard/clock.ts'
import { bootTimeNs, type DelegationId } from '../../../src/guard/guard.ts'
import { delegationIn } from '../../../src/guard/id.ts'
import { writeTerms } from '../../../src/guard/lists.ts'
import { EVERYTHING, NO_CEILING, type RawTerms } from '../../../src/guard/terms.ts'
import {
  bpf_attach_type,
  bpf_attr_iter_create,
  bpf_attr_link_create,
  bpf_attr_link_detach,
  bpf_attr_link_update,
  bpf_attr_map_create,
  bpf_attr_map_elem,
  bpf_attr_obj,
  bpf_attr_prog_attach,
  bpf_attr_prog_bind_map,
  bpf_attr_prog_test_run,
  bpf_attr_token_create,
  bpf_cmd,
  bpf_map_flags,
} from '../../../src/uapi/bpf.ts'
import { eventually } from '../../helpers/eventually.ts'
import type { Step as Call } from '../../kernel/model/executor.ts'
import { outcomeOf } from '../../kernel/model/outcome.ts'
import { CAST } from './cast.ts'
import { attachFlags, MAP_SHAPES, networkOf, RENEWAL_SEC } from './paper.ts'
import { DIRECTORY, FIRST_OF_STAGE, O_DIRECTORY, type Stage, type Thing, type Who } from './stage.ts'
import { CGROUPS, type CgroupName, type Said, type Shape, type Step, type Story, type To } from './step.ts'

const CGROUP_ROOT = '/sys/fs/cgroup'
const XDP_SKB_MODE = 2
/** The number of the device lo. */
const LOOPBACK = 1
const NS_PER_SEC = 1_000_000_000n
const { BPF_F_TOKEN_FD, BPF_F_PATH_FD, BPF_F_LINK } = bpf_map_flags
/** Longer than the guard believes that something has not expired. */
const TICK_MS = 30

/** What was made, with what later steps must know of it. */
interface Made extends Thing {
  readonly shape?: Shape
  readonly isArray?: boolean
  readonly isOfSockets?: boolean
  /** A struct_ops map that registers by itself. */
  readonly isControl?: boolean
}

/** One story on its way. */
export class Scene {
  readonly #stage: Stage
  readonly #story: Story
  readonly #cgroup: string
  readonly #things = new Map<number, Made>()
  readonly #roots = new Map<number, Thing>()
  readonly #pins = new Map<number, number>()
  readonly #cgroups = new Map<To, Thing>()
  readonly #placed: [context: number, path: string][] = []
  /** Flow dissectors that networks have without a link: the program, and who is in that network. */
  readonly #dissectors = new Map<number, { readonly prog: number; readonly as: number }>()
  /** Maps that hold themselves, registered without a link. */
  readonly #registered = new Set<number>()
  /** Words for the guard's numbers. */
  readonly words = new Map<bigint, string>()
  #registers = 1
  #places = 0
  #renewals = 0

  private constructor(stage: Stage, story: Story) {
    this.#stage = stage
    this.#story = story
    this.#cgroup = `${CGROUP_ROOT}/${stage.nextName()}`
  }

  /** A story begins: what it needs is there, and goes with it. */
  static async begin(stage: Stage, story: Story): Promise<Scene> {
    const scene = new Scene(stage, story)
    await scene.#begin()
    return scene
  }

  async #begin(): Promise<void> {
    const { guard } = this.#stage
    const { policies, mode, delegators } = this.#story
    guard.configure({ mode })
    // The namespaces are the same in all stories: their last delegation would be told of.
    for (const inode of [...guard.tables.namespaces.keys()]) guard.tables.namespaces.delete(inode)
    for (const path of [this.#cgroup, ...CGROUPS.map(name => this.#path(name))]) mkdirSync(path)
    for (const context of CAST.keys()) this.#enter(context, 'a')
    for (const name of CGROUPS) this.#cgroups.set(name, await this.#open(this.#path(name)))
    this.#cgroups.set('root', await this.#open(CGROUP_ROOT))
    for (const [i, policy] of policies.entries()) guard.installPolicy(`p${i}`, policy)
    for (const { as, ceiling, implicit, only } of delegators) {
      const cgroup = only === undefined ? undefined : findCgroup(this.#path(only))
      const write = (terms: RawTerms): void =>
        guard.tables.processes.set(this.#key(as), {
          ceiling: terms,
          implicit: implicit ? 1 : 0,
          cgroup: cgroup?.id ?? 0n,
          cgroup_level: cgroup?.level ?? 0,
        })
      if (ceiling === undefined) write(implicit ? EVERYTHING : NO_CEILING)
      else writeTerms(guard, policies[ceiling]!, write)
    }
    this.#stage.events()
  }

  /** Everything is taken away, and what the guard had of it goes. */
  async end(): Promise<void> {
    const { guard } = this.#stage
    await this.#detachAll()
    for (const { register } of [...this.#things.values(), ...this.#roots.values(), ...this.#cgroups.values()])
      await this.#stage.call({ as: 0 }, { op: 'close', in: register })
    for (const [as, path] of this.#placed)
      await this.#stage.call({ as }, { op: 'unmount', a: this.#stage.executor.text(path) })
    for (const { as } of this.#story.delegators) guard.tables.processes.delete(this.#key(as))
    for (const cgroup of CGROUPS)
      if (this.#isConfined(cgroup)) guard.unconfine(guard.idOfCgroup(this.#path(cgroup)))
    for (const i of this.#story.policies.keys()) guard.removePolicy(`p${i}`)
    for (const context of CAST.keys())
      writeFileSync(`${CGROUP_ROOT}/cgroup.procs`, String(this.#stage.pidOf(context)))
    for (const path of [...CGROUPS].reverse().map(name => this.#path(name))) rmdirSync(path)
    rmdirSync(this.#cgroup)
    for (const path of readdirSync(DIRECTORY)) rmdirSync(`${DIRECTORY}/${path}`)
    const isGone = (id: bigint): boolean => guard.tables.delegations.get(id as DelegationId) === undefined
    for (const [id, word] of this.words)
      await eventually(() => isGone(id), `the delegation ${word} of the story is left`)
    this.#stage.events()
  }

  /** What nobody's descriptor holds. The host must not refuse what it did not see attached. */
  async #detachAll(): Promise<void> {
    this.#stage.guard.configure({ mode: 'permissive' })
    const type = bpf_attach_type.BPF_FLOW_DISSECTOR
    for (const { prog, as } of this.#dissectors.values()) {
      const attr = bpf_attr_prog_attach.encode({ attach_bpf_fd: this.#fd(prog), attach_type: type }, 20)
      const cmd = bpf_cmd.BPF_PROG_DETACH
      await this.#stage.must({ context: as, op: 'bpf', cmd, attr, size: attr.length })
    }
    for (const map of this.#registered) {
      const attr = bpf_attr_map_elem.encode({ map_fd: this.#fd(map), key: this.#stage.scratch })
      const cmd = bpf_cmd.BPF_MAP_DELETE_ELEM
      await this.#stage.must({ context: 0, op: 'bpf', cmd, attr, size: attr.length })
    }
  }

  async play(step: Step): Promise<Said> {
    const result = await this.#play(step)
    const events = this.#stage.events()
    const word = (id: bigint | undefined): string => (id === undefined ? '-' : (this.words.get(id) ?? '?'))
    const told = events.filter(({ point }) => point === 'token_capable')
    return {
      outcome: typeof result === 'string' ? result : outcomeOf(result),
      notes: events
        .filter(({ point }) => point !== 'token_capable')
        .map(({ point, reason, verdict, delegation }) => `${point} ${reason} ${verdict} ${word(delegation)}`),
      capabilities: told.map(({ reason, verdict, delegation }) => `${reason} ${verdict} ${word(delegation)}`),
    }
  }

  /** What a delegation has in use. */
  usage(word: string): {
    tokens: number
    programs: number
    maps: number
    mapBytes: bigint
    children: number
  } {
    const id = [...this.words].find(([, one]) => one === word)![0]
    const { tokens, programs, maps, map_bytes, children } = this.#stage.guard.tables.usages.get(
      id as DelegationId,
    )
    return { tokens, programs, maps, mapBytes: map_bytes, children }
  }

  #path(name: CgroupName): string {
    return `${this.#cgroup}/${name}`
  }

  #key(context: number): { tgid: number; start_ticks: bigint } {
    const tgid = this.#stage.pidOf(context)
    return { tgid, start_ticks: startTicks(tgid)! }
  }

  #enter(context: number, cgroup: CgroupName): void {
    writeFileSync(`${this.#path(cgroup)}/cgroup.procs`, String(this.#stage.pidOf(context)))
  }

  async #open(path: string): Promise<Thing> {
    const a = this.#stage.executor.text(path)
    const register = this.#register()
    const call = { op: 'openat', a, b: O_DIRECTORY, out: register, givesFd: true } as const
    return { fd: await this.#stage.must({ context: 0, ...call }), register }
  }

  #register(): number {
    if (this.#registers >= FIRST_OF_STAGE) throw new Error('the story is too long')
    return this.#registers++
  }

  /** A call that gives a descriptor, kept under this name. */
  async #make(
    made: number,
    who: Who,
    call: Omit<Call, 'context' | 'capabilities'>,
    more: object = {},
  ): Promise<number> {
    const register = this.#register()
    const fd = await this.#stage.call(who, { ...call, out: register, givesFd: true })
    if (fd >= 0) this.#things.set(made, { fd, register, ...more })
    return fd
  }

  #bpf(who: Who, cmd: number, attr: Uint8Array, size = attr.length): Promise<number> {
    return this.#stage.call(who, { op: 'bpf', cmd, attr, size })
  }

  #fd(name: number): number {
    return this.#things.get(name)!.fd
  }

  async #play(step: Step): Promise<number | string> {
    const { executor } = this.#stage
    switch (step.do) {
      case 'fsopen':
        return this.#make(step.context, step, { op: 'fsopen' })
      case 'set': {
        const a = executor.text(step.key)
        const { register } = this.#things.get(step.context)!
        if (step.value === undefined) return this.#stage.call(step, { op: 'fsconfigFlag', in: register, a })
        return this.#stage.call(step, { op: 'fsconfigString', in: register, a, b: executor.text(step.value) })
      }
      case 'create':
        return this.#create(step)
      case 'fsmount': {
        const from = this.#things.get(step.context)!.register
        const result = await this.#make(step.mount, step, { op: 'fsmount', in: from })
        return result < 0 ? result : this.#openRoot(step.mount, step)
      }
      case 'copy': {
        const from = this.#things.get(step.mount)!.register
        const result = await this.#make(step.made, step, { op: 'copyMount', in: from })
        return result < 0 ? result : this.#openRoot(step.made, step)
      }
      case 'move':
        return this.#move(step)
      case 'token': {
        const attr = bpf_attr_token_create.encode({ bpffs_fd: this.#roots.get(step.mount)!.fd })
        const cmd = bpf_cmd.BPF_TOKEN_CREATE
        return this.#make(step.made, step, { op: 'bpf', cmd, attr, size: attr.length })
      }
      case 'map':
        return this.#map(step)
      case 'prog': {
        const attr = this.#stage.progAttr(step, step.token === undefined ? undefined : this.#fd(step.token))
        const cmd = bpf_cmd.BPF_PROG_LOAD
        const more = { shape: step.shape }
        return this.#make(step.made, step, { op: 'bpf', cmd, attr, size: attr.length }, more)
      }
      case 'pin':
        return this.#pin(step)
      case 'open':
        return this.#openPin(step)
      case 'pass':
        return this.#stage.call(step, { op: 'getFd', a: this.#fd(step.object), givesFd: true })
      case 'close': {
        const { register } = this.#things.get(step.object)!
        this.#things.delete(step.object)
        return this.#stage.call({ as: 0 }, { op: 'close', in: register })
      }
      case 'link':
      case 'attach':
      case 'detach':
      case 'unlink':
      case 'relink':
      case 'run':
      case 'put':
        return this.#use(step)
      case 'fill':
      case 'register':
      case 'iterate':
      case 'bind':
      case 'freeze':
        return this.#useMore(step)
      default:
        return this.#manage(step)
    }
  }

  async #create(step: Step & { do: 'create' }): Promise<number> {
    const { guard } = this.#stage
    const last = (): bigint => guard.tables.processes.get(this.#key(step.as))?.last_id ?? 0n
    const before = last()
    const register = this.#things.get(step.context)!.register
    const result = await this.#stage.call(step, { op: 'fsconfigCreate', in: register })
    const id = delegationIn(last())
    if (id !== undefined && id !== before) this.words.set(id, `c${step.context}`)
    return result
  }

  async #openRoot(mount: number, who: Who): Promise<number> {
    const { executor } = this.#stage
    const register = this.#register()
    const fd = await this.#stage.must({
      context: who.as,
      op: 'openat',
      in: this.#things.get(mount)!.register,
      a: executor.text('.'),
      b: O_DIRECTORY,
      out: register,
      givesFd: true,
    })
    this.#roots.set(mount, { fd, register })
    return 0
  }

  async #move(step: Step & { do: 'move' }): Promise<number> {
    const path = `${DIRECTORY}/place${++this.#places}`
    mkdirSync(path)
    const a = this.#stage.executor.text(path)
    const result = await this.#stage.call(step, {
      op: 'moveMount',
      in: this.#things.get(step.mount)!.register,
      a,
    })
    if (result >= 0) this.#placed.push([step.as, path])
    return result
  }

  #map(step: Step & { do: 'map' }): Promise<number> {
    const { controls } = this.#stage
    const { key } = MAP_SHAPES[step.type]
    const isOps = step.type === 'struct_ops'
    const flags = (step.token === undefined ? 0 : BPF_F_TOKEN_FD) | (step.byLink === true ? BPF_F_LINK : 0)
    const attr = bpf_attr_map_create.encode(
      {
        map_type: this.#stage.kernel.vocabulary.maps.bitOfName.get(step.type)!,
        key_size: key,
        value_size: isOps ? controls.bytes : MAP_SHAPES[step.type].value,
        max_entries: step.entries,
        map_flags: flags,
        ...(step.token === undefined ? {} : { map_token_fd: this.#fd(step.token) }),
        // The value's type is the kernel's, and yet the map must come with BTF of its own.
        ...(isOps ? { btf_fd: this.#stage.btf, btf_vmlinux_value_type_id: controls.type } : {}),
      },
      this.#stage.kernel.attrEnds.map_create,
    )
    const more = {
      isArray: step.type === 'prog_array',
      isOfSockets: /^sock/.test(step.type),
      isControl: isOps && step.byLink !== true,
    }
    return this.#make(
      step.made,
      step,
      { op: 'bpf', cmd: bpf_cmd.BPF_MAP_CREATE, attr, size: attr.length },
      more,
    )
  }

  #objAttr(object: number, mount: number, more: { bpf_fd?: number }): Uint8Array {
    const { executor } = this.#stage
    const pathname = executor.address(executor.text(`n${object}`))
    return bpf_attr_obj.encode(
      { pathname, file_flags: BPF_F_PATH_FD, path_fd: this.#roots.get(mount)!.fd, ...more },
      this.#stage.kernel.attrEnds.obj_pin,
    )
  }

  async #pin(step: Step & { do: 'pin' }): Promise<number> {
    const attr = this.#objAttr(step.object, step.mount, { bpf_fd: this.#fd(step.object) })
    const result = await this.#bpf(step, bpf_cmd.BPF_OBJ_PIN, attr)
    if (result >= 0) this.#pins.set(step.object, step.mount)
    return result
  }

  /** A program by its pin; an iterator by opening the file that its link's pin is. */
  #openPin(step: Step & { do: 'open' }): Promise<number> {
    const mount = this.#pins.get(step.object)!
    if (this.#things.get(step.object)!.shape === undefined) {
      const a = this.#stage.executor.text(`n${step.object}`)
      const { register } = this.#roots.get(mount)!
      return this.#stage.call({ as: step.as }, { op: 'openat', in: register, a, b: 0, givesFd: true })
    }
    const attr = this.#objAttr(step.object, mount, {})
    const call = { op: 'bpf' as const, cmd: bpf_cmd.BPF_OBJ_GET, attr, size: attr.length }
    return this.#stage.call({ as: step.as }, { ...call, givesFd: true })
  }

  /** Descriptor or number of what is attached to. */
  #target(to: To): number {
    if (typeof to === 'number') return this.#fd(to)
    if (to === 'lo') return LOOPBACK
    if (to === 'none') return 0
    const network = networkOf(to)
    return network === undefined ? this.#cgroups.get(to)!.fd : this.#stage.network(network)
  }

  #use(
    step: Step & { do: 'link' | 'attach' | 'detach' | 'unlink' | 'relink' | 'run' | 'put' },
  ): Promise<number> {
    const { scratch } = this.#stage
    switch (step.do) {
      case 'link': {
        const attr = bpf_attr_link_create.encode(
          {
            prog_fd: this.#fd(step.prog),
            target_fd: this.#target(step.to),
            attach_type: step.type ?? this.#attachType(step.prog),
            flags: step.to === 'lo' ? XDP_SKB_MODE : 0,
          },
          this.#stage.kernel.attrEnds.link_create,
        )
        const cmd = bpf_cmd.BPF_LINK_CREATE
        return this.#make(step.made, step, { op: 'bpf', cmd, attr, size: attr.length })
      }
      case 'attach':
        return this.#attach(step)
      case 'detach':
        return this.#detach(step)
      case 'unlink':
        return this.#bpf(
          step,
          bpf_cmd.BPF_LINK_DETACH,
          bpf_attr_link_detach.encode({ link_fd: this.#fd(step.link) }),
        )
      case 'relink': {
        const fields = { link_fd: this.#fd(step.link), new_prog_fd: this.#fd(step.prog) }
        return this.#bpf(step, bpf_cmd.BPF_LINK_UPDATE, bpf_attr_link_update.encode(fields))
      }
      case 'run': {
        const fields = { prog_fd: this.#fd(step.prog), data_in: scratch, data_size_in: 64 }
        return this.#bpf(step, bpf_cmd.BPF_PROG_TEST_RUN, bpf_attr_prog_test_run.encode(fields, 72))
      }
      case 'put': {
        const isNumber =
          this.#things.get(step.map)!.isArray !== true && this.#things.get(step.map)!.isOfSockets !== true
        const value = new Uint8Array(4)
        new DataView(value.buffer).setUint32(0, isNumber ? LOOPBACK : this.#fd(step.prog), true)
        return this.#update(step, step.map, value)
      }
    }
  }

  #attachType(prog: number): number {
    return this.#stage.attachType(this.#things.get(prog)!.shape!)
  }

  async #attach(step: Step & { do: 'attach' }): Promise<number> {
    const { shape } = this.#things.get(step.prog)!
    const attr = bpf_attr_prog_attach.encode(
      {
        target_fd: this.#target(step.to),
        attach_bpf_fd: this.#fd(step.prog),
        attach_type: step.type ?? this.#attachType(step.prog),
        attach_flags: attachFlags(shape!, step.replaces !== undefined),
        replace_bpf_fd: step.replaces === undefined ? 0 : this.#fd(step.replaces),
      },
      20,
    )
    const result = await this.#bpf(step, bpf_cmd.BPF_PROG_ATTACH, attr)
    const { network } = CAST[step.as]!
    if (result >= 0 && shape === 'dissector') this.#dissectors.set(network, { prog: step.prog, as: step.as })
    return result
  }

  async #detach(step: Step & { do: 'detach' }): Promise<number> {
    const attr = bpf_attr_prog_attach.encode(
      {
        target_fd: this.#target(step.to),
        attach_bpf_fd: step.isUnnamed === true ? 0 : this.#fd(step.prog),
        attach_type: step.type ?? this.#attachType(step.prog),
      },
      20,
    )
    const result = await this.#bpf(step, bpf_cmd.BPF_PROG_DETACH, attr)
    const isDissector = this.#things.get(step.prog)!.shape === 'dissector'
    if (result >= 0 && isDissector) this.#dissectors.delete(CAST[step.as]!.network)
    return result
  }

  async #useMore(step: Step & { do: 'fill' | 'register' | 'iterate' | 'bind' | 'freeze' }): Promise<number> {
    switch (step.do) {
      case 'fill': {
        const progs = step.progs.map(prog => this.#fd(prog))
        const value = this.#stage.controls.value(step.name, progs)
        const result = await this.#update(step, step.map, value)
        if (result >= 0 && this.#things.get(step.map)!.isControl === true) this.#registered.add(step.map)
        return result
      }
      case 'register': {
        const attr = bpf_attr_link_create.encode(
          { prog_fd: this.#fd(step.map), attach_type: bpf_attach_type.BPF_STRUCT_OPS },
          this.#stage.kernel.attrEnds.link_create,
        )
        const cmd = bpf_cmd.BPF_LINK_CREATE
        return this.#make(step.made, step, { op: 'bpf', cmd, attr, size: attr.length })
      }
      case 'iterate': {
        const attr = bpf_attr_iter_create.encode({ link_fd: this.#fd(step.link) })
        const cmd = bpf_cmd.BPF_ITER_CREATE
        return this.#make(step.made, step, { op: 'bpf', cmd, attr, size: attr.length })
      }
      case 'bind': {
        const fields = { prog_fd: this.#fd(step.prog), map_fd: this.#fd(step.map) }
        return this.#bpf(step, bpf_cmd.BPF_PROG_BIND_MAP, bpf_attr_prog_bind_map.encode(fields))
      }
      case 'freeze':
        return this.#bpf(
          step,
          bpf_cmd.BPF_MAP_FREEZE,
          bpf_attr_map_elem.encode({ map_fd: this.#fd(step.map) }, 4),
        )
    }
  }

  /** The only key there is. The guard reads values that have been touched. */
  #update(who: Who, map: number, value: Uint8Array): Promise<number> {
    const { executor, scratch } = this.#stage
    const mark = executor.mark()
    const offset = executor.data(value)
    const attr = bpf_attr_map_elem.encode({
      map_fd: this.#fd(map),
      key: scratch,
      value: executor.address(offset),
    })
    const call = { op: 'bpf', cmd: bpf_cmd.BPF_MAP_UPDATE_ELEM, attr, size: attr.length, b: offset } as const
    return this.#stage.call(who, call).finally(() => executor.forgetTexts(mark))
  }

  #isConfined(cgroup: CgroupName): boolean {
    return [...this.words.values()].includes(`in ${cgroup}`)
  }

  async #manage(
    step: Step & { do: 'revoke' | 'expire' | 'renew' | 'derive' | 'enter' | 'confine' | 'unconfine' },
  ): Promise<number | string> {
    const { guard } = this.#stage
    if (step.do === 'enter') {
      this.#enter(step.who, step.cgroup)
      return 0
    }
    if (step.do === 'confine' || step.do === 'unconfine') {
      const word = `in ${step.cgroup}`
      for (const [id, one] of this.words) if (one === word) this.words.delete(id)
      if (step.do === 'unconfine') guard.unconfine(guard.idOfCgroup(this.#path(step.cgroup)))
      else this.words.set(guard.confine(this.#path(step.cgroup), this.#story.policies[step.policy]!), word)
      return 0
    }
    const id = step.of === undefined ? 0n : [...this.words].find(([, word]) => word === `c${step.of}`)![0]
    if (step.do === 'derive') {
      const key = this.#key(step.by)
      guard.tables.processes.set(key, { ...guard.tables.processes.get(key)!, parent: id })
      return 0
    }
    if (step.do === 'revoke') guard.revoke(id as DelegationId)
    else if (step.do === 'expire') {
      const { id: _, ...record } = guard.tables.delegations.get(id as DelegationId)!
      guard.tables.delegations.set(id as DelegationId, { ...record, expires_ns: 1n })
      await sleep(TICK_MS)
    } else {
      const until = bootTimeNs() + BigInt(RENEWAL_SEC * ++this.#renewals) * NS_PER_SEC
      try {
        guard.renew(id as DelegationId, until)
      } catch (error) {
        if (error instanceof ConflictError) return String(error.context['why'])
        throw error
      }
    }
    return 0
  }
}
