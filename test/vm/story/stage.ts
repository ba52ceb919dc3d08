/**
 * The kernel, under the guard that is installed, as the stage for stories: calls by the executor of
 * test/kernel/model, whose contexts share one table of descriptors.
 */
import { mkdirSync, readdirSync, readFileSync } from 'node:fs'
import { kernelBtf } from '../../../src/ebpf/kernel/btf.ts'
import { Program } from '../../../src/ebpf/prog.ts'
import { RingBuffer } from '../../../src/ebpf/ringbuf.ts'
import { decodeEvent, type GuardEvent } from '../../../src/guard/event.ts'
import type { Guard } from '../../../src/guard/guard.ts'
import { runningKernel } from '../../../src/lending/kernel-model.ts'
import type { KernelFacts } from '../../../src/model/kernel.ts'
import { Fd } from '../../../src/sys/fd.ts'
import { native } from '../../../src/sys/native.ts'
import { bpf_attr_prog_load, bpf_cmd, bpf_map_flags } from '../../../src/uapi/bpf.ts'
import { btfCommand } from '../../kernel/delegation/attributes.ts'
import { Batch, type Step as Call, Executor } from '../../kernel/model/executor.ts'
import { ALL_CAPABILITIES } from '../../kernel/model/lab.ts'
import { outcomeOf } from '../../kernel/model/outcome.ts'
import { CAST, ORDER } from './cast.ts'
import { Controls } from './controls.ts'
import type { Known } from './paper.ts'
import { BODIES, CONGESTION, FUNCTIONS, SHAPES, type Shape, type Step } from './step.ts'

export const DIRECTORY = '/tmp/guard-story'
export const O_DIRECTORY = 0o200000
/** Registers from here on are of the stage: networks, and BTF. */
export const FIRST_OF_STAGE = 120
const { BPF_F_TOKEN_FD } = bpf_map_flags
/** r0 = value; exit */
const MOV = (value: number): number[] => [0xb7, 0, 0, 0, value, 0, 0, 0]
const EXIT = [0x95, 0, 0, 0, 0, 0, 0, 0]
/** XDP_PASS; a cgroup's programs allow with 1. */
const RETURNS: Readonly<Record<Shape, number>> = {
  ...{ xdp: 2, device: 1, sock: 1, trace: 0, iter: 0, message: 1, stream: 1, dissector: 0 },
  ...{ ssthresh: 2, avoid: 0, undo: 2 },
}

export type Who = { readonly as: number; readonly caps?: 'none' }

/** What a name stands for: its descriptor, and the register that holds it. */
export interface Thing {
  readonly fd: number
  readonly register: number
}

/** Programs, descriptors and processes that all stories use. */
export class Stage implements Known {
  readonly guard: Guard
  readonly executor: Executor
  readonly kernel: KernelFacts = runningKernel()
  readonly controls = new Controls()
  /** A BTF object of the host's root. */
  btf = -1
  readonly #networks: number[] = []
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
      await stage.#open()
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

  /** Networks, and BTF for maps that must come with some. */
  async #open(): Promise<void> {
    const { executor } = this
    for (let network = 0; network < CAST.length - 1; network++) {
      const pid = this.pidOf(CAST.findIndex(one => one.network === network))
      const a = executor.text(`/proc/${pid}/ns/net`)
      const out = FIRST_OF_STAGE + network
      this.#networks[network] = await this.must({ context: 0, op: 'openat', a, b: 0, out, givesFd: true })
    }
    const { cmd, attr, blob, at } = btfLoad()
    new DataView(attr.buffer, attr.byteOffset).setBigUint64(at, executor.address(executor.data(blob)), true)
    const out = FIRST_OF_STAGE + CAST.length
    this.btf = await this.must({ context: 0, op: 'bpf', cmd, attr, size: attr.length, out, givesFd: true })
  }

  network(number: number): number {
    return this.#networks[number]!
  }

  get controlBytes(): number {
    return this.controls.bytes
  }

  /** As the host's root, for what the kernel says of each. */
  #load(): void {
    for (const [shape, { type }] of Object.entries(SHAPES) as [Shape, (typeof SHAPES)[Shape]][])
      for (let body = 0; body < BODIES; body++) {
        const code = Array.from({ length: body + 1 }, () => MOV(RETURNS[shape]))
        const insns = new Uint8Array([...code.flat(), ...EXIT])
        const { progs } = this.kernel.vocabulary
        const fields = bpf_attr_prog_load.fields
        const attr = bpf_attr_prog_load.encode({
          prog_type: progs.bitOfName.get(type)!,
          expected_attach_type: this.attachType(shape),
          insn_cnt: body + 2,
          attach_btf_id: targetOf(shape, 0),
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

  /** A name that no story has had. */
  nextName(): string {
    return `guard-story-${++this.#stories}`
  }

  pidOf(context: number): number {
    return this.#pids[context]!
  }

  progAttr(step: Step & { do: 'prog' }, token: number | undefined): Uint8Array {
    const { type } = SHAPES[step.shape]
    const { progs } = this.kernel.vocabulary
    return bpf_attr_prog_load.encode(
      {
        prog_type: progs.bitOfName.get(type)!,
        expected_attach_type: this.attachType(step.shape),
        insns: this.#bodies.get(`${step.shape}${step.body}`)!.address,
        insn_cnt: step.body + 2,
        license: this.#license,
        attach_btf_id: targetOf(step.shape, step.target),
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
    const of = SHAPES[shape]
    if ('member' in of) return this.controls.member(of.member)
    return this.kernel.vocabulary.attachs.bitOfName.get(of.attach)!
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

/** Of programs that have a target: its number in the kernel's types. */
function targetOf(shape: Shape, target: number | undefined): number {
  if (target === undefined || !HAS_TARGET.has(shape)) return 0
  const name = shape === 'trace' ? FUNCTIONS[target]! : shape === 'iter' ? 'bpf_iter_task' : CONGESTION
  const kind = shape === 'trace' ? 'typedef' : shape === 'iter' ? 'func' : 'struct'
  return kernelBtf().types.find(name, kind)[0]!
}

const HAS_TARGET: ReadonlySet<Shape> = new Set(['trace', 'iter', 'ssthresh', 'avoid', 'undo'])

function btfLoad() {
  const { cmd, attr, refs } = btfCommand()
  return { cmd, attr, at: refs[1] as number, blob: refs[2] as Uint8Array }
}
