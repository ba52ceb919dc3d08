/**
 * A story on the kernel, under the guard that is installed: calls by the executor of
 * test/kernel/model, whose contexts share one table of descriptors, and management by this process.
 */
import { mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { kernelBtf } from '../../../src/ebpf/kernel/btf.ts'
import { Program } from '../../../src/ebpf/prog.ts'
import { RingBuffer } from '../../../src/ebpf/ringbuf.ts'
import { ConflictError } from '../../../src/errors.ts'
import { findCgroup } from '../../../src/guard/cgroup.ts'
import { startTicks } from '../../../src/guard/clock.ts'
import { decodeEvent, type GuardEvent } from '../../../src/guard/event.ts'
import { bootTimeNs, type DelegationId, type Guard } from '../../../src/guard/guard.ts'
import { delegationIn } from '../../../src/guard/id.ts'
import { writeTerms } from '../../../src/guard/lists.ts'
import { EVERYTHING, NO_CEILING, type RawTerms } from '../../../src/guard/terms.ts'
import { runningKernel } from '../../../src/lending/kernel-model.ts'
import type { KernelFacts } from '../../../src/model/kernel.ts'
import { Fd } from '../../../src/sys/fd.ts'
import { native } from '../../../src/sys/native.ts'
import {
  bpf_attr_link_create,
  bpf_attr_link_detach,
  bpf_attr_link_update,
  bpf_attr_map_create,
  bpf_attr_map_elem,
  bpf_attr_obj,
  bpf_attr_prog_attach,
  bpf_attr_prog_load,
  bpf_attr_prog_test_run,
  bpf_attr_token_create,
  bpf_cmd,
  bpf_map_flags,
} from '../../../src/uapi/bpf.ts'
import { eventually } from '../../helpers/eventually.ts'
import { Batch, type Step as Call, Executor } from '../../kernel/model/executor.ts'
import { ALL_CAPABILITIES } from '../../kernel/model/lab.ts'
import { outcomeOf } from '../../kernel/model/outcome.ts'
import { CAST, ORDER } from './cast.ts'
import { MAP_SHAPES, RENEWAL_SEC } from './paper.ts'
import {
  BODIES,
  CGROUPS,
  type CgroupName,
  FUNCTIONS,
  type Said,
  SHAPES,
  type Shape,
  type Step,
  type Story,
  type To,
} from './step.ts'

const CGROUP_ROOT = '/sys/fs/cgroup'
const DIRECTORY = '/tmp/guard-story'
const O_DIRECTORY = 0o200000
const XDP_SKB_MODE = 2
const NS_PER_SEC = 1_000_000_000n
const { BPF_F_TOKEN_FD, BPF_F_PATH_FD } = bpf_map_flags
/** r0 = value; exit */
const MOV = (value: number): number[] => [0xb7, 0, 0, 0, value, 0, 0, 0]
const EXIT = [0x95, 0, 0, 0, 0, 0, 0, 0]
/** XDP_PASS; a cgroup's programs allow with 1. */
const RETURNS: Readonly<Record<Shape, number>> = { xdp: 2, device: 1, sock: 1, trace: 0 }
/** Longer than the guard believes that something has not expired. */
const TICK_MS = 30

type Who = { readonly as: number; readonly caps?: 'none' }

/** Programs, descriptors and processes that all stories use. */
export class Stage {
  readonly guard: Guard
  readonly executor: Executor
  readonly kernel: KernelFacts = runningKernel()
  readonly #ring: RingBuffer
  readonly #bodies = new Map<string, { readonly address: bigint; readonly tag: string }>()
  readonly #license: bigint
  readonly #scratch: bigint
  readonly #batch = new Batch()
  #pids: readonly number[] = []
  #stories = 0

  private constructor(guard: Guard) {
    this.guard = guard
    this.executor = new Executor({ hostNetwork: true })
    this.#ring = new RingBuffer(guard.map('events'))
    this.#license = this.executor.address(this.executor.text('GPL'))
    this.#scratch = this.executor.address(this.executor.data(new Uint8Array(256)))
  }

  static async open(guard: Guard): Promise<Stage> {
    const stage = new Stage(guard)
    try {
      mkdirSync(DIRECTORY, { recursive: true })
      await stage.#spawn()
      stage.#load()
      return stage
    } catch (error) {
      await stage.close()
      throw error
    }
  }

  async close(): Promise<void> {
    this.#ring[Symbol.dispose]()
    await this.executor.close()
  }

  /** A program's digest, as a policy names it. */
  tag(shape: Shape, body: number): string {
    return this.#bodies.get(`${shape}${body}`)!.tag
  }

  get tags(): string[] {
    return [...new Set([...this.#bodies.values()].map(({ tag }) => tag))]
  }

  async #spawn(): Promise<void> {
    const { executor } = this
    const maps = { 5: '0 100000 65536\n', 3: '0 0 1000\n', 4: '0 200000 65536\n' } as Record<number, string>
    const pids = [executor.pid]
    for (const context of ORDER) {
      const { parent, network } = CAST[context]!
      const ids = maps[context]
      await this.must({
        context: parent!,
        op: 'spawn',
        a: context,
        ...(ids === undefined ? {} : { b: executor.text(ids), ownUserNamespace: true }),
        sameNetwork: network === CAST[parent!]!.network,
      })
      pids[context] = childrenOf(pids[parent!]!).find(pid => !pids.includes(pid))!
    }
    await this.must({ context: 1, op: 'setid', a: 1000 })
    this.#pids = pids
  }

  /** As the host's root, for what the kernel says of each. */
  #load(): void {
    for (const [shape, { type, attach }] of Object.entries(SHAPES) as [Shape, (typeof SHAPES)[Shape]][])
      for (let body = 0; body < BODIES; body++) {
        const code = Array.from({ length: body + 1 }, () => MOV(RETURNS[shape]))
        const insns = new Uint8Array([...code.flat(), ...EXIT])
        const { progs, attachs } = this.kernel.vocabulary
        const fields = bpf_attr_prog_load.fields
        const attr = bpf_attr_prog_load.encode({
          prog_type: progs.bitOfName.get(type)!,
          expected_attach_type: attachs.bitOfName.get(attach)!,
          insn_cnt: body + 2,
          attach_btf_id: shape === 'trace' ? functionId(0) : 0,
        })
        const license = Buffer.from('GPL\0')
        const refs = [attr, fields.insns.off, insns, attr, fields.license.off, license] as const
        const result = native().bpf(bpf_cmd.BPF_PROG_LOAD, attr, ...refs)
        if (result < 0) throw new Error(`${shape}: ${outcomeOf(result)}`)
        using program = Program.fromFd(new Fd(result))
        const address = this.executor.address(this.executor.data(insns))
        this.#bodies.set(`${shape}${body}`, { address, tag: `tag:${program.info().tag}` })
      }
  }

  async call(who: Who, call: Omit<Call, 'context' | 'capabilities'>): Promise<number> {
    this.#batch.add({ context: who.as, capabilities: who.caps === 'none' ? 0n : ALL_CAPABILITIES, ...call })
    return (await this.executor.run(this.#batch))[0]!
  }

  async must(call: Omit<Call, 'capabilities'>): Promise<number> {
    const result = await this.call({ as: call.context }, call)
    if (result < 0) throw new Error(`${call.op}: ${outcomeOf(result)}`)
    return result
  }

  events(): GuardEvent[] {
    const events: GuardEvent[] = []
    this.#ring.drain(record => events.push(decodeEvent(record, this.#ring.position)))
    return events.filter(({ pid }) => this.#pids.includes(pid))
  }

  /** A story begins: what it needs is there, and goes with it. */
  async begin(story: Story): Promise<Scene> {
    const scene = new Scene(this, story, `guard-story-${++this.#stories}`)
    await scene.begin()
    return scene
  }

  pidOf(context: number): number {
    return this.#pids[context]!
  }

  progAttr(step: Step & { do: 'prog' }, token: number | undefined): Uint8Array {
    const { type, attach } = SHAPES[step.shape]
    const { progs, attachs } = this.kernel.vocabulary
    return bpf_attr_prog_load.encode(
      {
        prog_type: progs.bitOfName.get(type)!,
        expected_attach_type: attachs.bitOfName.get(attach)!,
        insns: this.#bodies.get(`${step.shape}${step.body}`)!.address,
        insn_cnt: step.body + 2,
        license: this.#license,
        attach_btf_id: step.target === undefined ? 0 : functionId(step.target),
        ...(token === undefined ? {} : { prog_flags: BPF_F_TOKEN_FD, prog_token_fd: token }),
      },
      this.kernel.attrEnds.prog_load,
    )
  }

  /** Room for a packet, and for keys and values. */
  get scratch(): bigint {
    return this.#scratch
  }

  attachType(shape: Shape): number {
    return this.kernel.vocabulary.attachs.bitOfName.get(SHAPES[shape].attach)!
  }
}

function childrenOf(parent: number): number[] {
  return readdirSync('/proc')
    .filter(name => /^\d+$/.test(name))
    .map(Number)
    .filter(pid => {
      try {
        return new RegExp(`^PPid:\\s${parent}$`, 'm').test(readFileSync(`/proc/${pid}/status`, 'utf8'))
      } catch {
        return false // It has ended.
      }
    })
}

function functionId(i: number): number {
  return kernelBtf().types.find(FUNCTIONS[i]!, 'typedef')[0]!
}

/** What a name stands for: its descriptor, and the register that holds it. */
interface Thing {
  readonly fd: number
  readonly register: number
}

/** One story on its way. */
export class Scene {
  readonly #stage: Stage
  readonly #story: Story
  readonly #cgroup: string
  readonly #things = new Map<number, Thing & { readonly shape?: Shape; readonly isArray?: boolean }>()
  readonly #roots = new Map<number, Thing>()
  readonly #pins = new Map<number, number>()
  readonly #cgroups = new Map<To, Thing>()
  readonly #placed: [context: number, path: string][] = []
  /** Words for the guard's numbers. */
  readonly words = new Map<bigint, string>()
  #registers = 1
  #places = 0
  #renewals = 0

  constructor(stage: Stage, story: Story, name: string) {
    this.#stage = stage
    this.#story = story
    this.#cgroup = `${CGROUP_ROOT}/${name}`
  }

  async begin(): Promise<void> {
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
    if (this.#registers > 63) throw new Error('the story is too long')
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
      case 'open': {
        const attr = this.#objAttr(step.prog, this.#pins.get(step.prog)!, {})
        const call = { op: 'bpf' as const, cmd: bpf_cmd.BPF_OBJ_GET, attr, size: attr.length }
        return this.#stage.call({ as: step.as }, { ...call, givesFd: true })
      }
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
    const { key, value } = MAP_SHAPES[step.type]
    const attr = bpf_attr_map_create.encode(
      {
        map_type: this.#stage.kernel.vocabulary.maps.bitOfName.get(step.type)!,
        key_size: key,
        value_size: value,
        max_entries: step.entries,
        ...(step.token === undefined
          ? {}
          : { map_flags: BPF_F_TOKEN_FD, map_token_fd: this.#fd(step.token) }),
      },
      this.#stage.kernel.attrEnds.map_create,
    )
    const more = { isArray: step.type === 'prog_array' }
    return this.#make(
      step.made,
      step,
      { op: 'bpf', cmd: bpf_cmd.BPF_MAP_CREATE, attr, size: attr.length },
      more,
    )
  }

  #objAttr(prog: number, mount: number, more: { bpf_fd?: number }): Uint8Array {
    const { executor } = this.#stage
    const pathname = executor.address(executor.text(`n${prog}`))
    return bpf_attr_obj.encode(
      { pathname, file_flags: BPF_F_PATH_FD, path_fd: this.#roots.get(mount)!.fd, ...more },
      this.#stage.kernel.attrEnds.obj_pin,
    )
  }

  async #pin(step: Step & { do: 'pin' }): Promise<number> {
    const attr = this.#objAttr(step.prog, step.mount, { bpf_fd: this.#fd(step.prog) })
    const result = await this.#bpf(step, bpf_cmd.BPF_OBJ_PIN, attr)
    if (result >= 0) this.#pins.set(step.prog, step.mount)
    return result
  }

  #use(
    step: Step & { do: 'link' | 'attach' | 'detach' | 'unlink' | 'relink' | 'run' | 'put' },
  ): Promise<number> {
    const { scratch } = this.#stage
    const typeOf = (prog: number): number => this.#stage.attachType(this.#things.get(prog)!.shape!)
    switch (step.do) {
      case 'link': {
        const isDevice = step.to === 'lo'
        const attr = bpf_attr_link_create.encode(
          {
            prog_fd: this.#fd(step.prog),
            target_fd: isDevice ? 1 : this.#cgroups.get(step.to)!.fd,
            attach_type: typeOf(step.prog),
            flags: isDevice ? XDP_SKB_MODE : 0,
          },
          this.#stage.kernel.attrEnds.link_create,
        )
        const cmd = bpf_cmd.BPF_LINK_CREATE
        return this.#make(step.made, step, { op: 'bpf', cmd, attr, size: attr.length })
      }
      case 'attach': {
        const { shape } = this.#things.get(step.prog)!
        const attr = bpf_attr_prog_attach.encode(
          {
            target_fd: this.#cgroups.get(step.to)!.fd,
            attach_bpf_fd: this.#fd(step.prog),
            attach_type: typeOf(step.prog),
            attach_flags: shape === 'sock' ? 0 : step.replaces === undefined ? 2 : 6,
            replace_bpf_fd: step.replaces === undefined ? 0 : this.#fd(step.replaces),
          },
          20,
        )
        return this.#bpf(step, bpf_cmd.BPF_PROG_ATTACH, attr)
      }
      case 'detach': {
        const attr = bpf_attr_prog_attach.encode(
          {
            target_fd: this.#cgroups.get(step.to)!.fd,
            attach_bpf_fd: this.#fd(step.prog),
            attach_type: typeOf(step.prog),
          },
          20,
        )
        return this.#bpf(step, bpf_cmd.BPF_PROG_DETACH, attr)
      }
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
        const { fd, isArray } = this.#things.get(step.map)!
        const value = new Uint8Array(4)
        new DataView(value.buffer).setUint32(0, isArray === true ? this.#fd(step.prog) : 1, true)
        const mark = this.#stage.executor.mark()
        const at = this.#stage.executor.address(this.#stage.executor.data(value))
        const attr = bpf_attr_map_elem.encode({ map_fd: fd, key: scratch, value: at })
        return this.#bpf(step, bpf_cmd.BPF_MAP_UPDATE_ELEM, attr).finally(() =>
          this.#stage.executor.forgetTexts(mark),
        )
      }
    }
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
