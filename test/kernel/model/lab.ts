/**
 * What the cases are tried in: a matrix of user namespaces, users, bpffs instances, tokens, programs
 * and other descriptors, each both in the kernel, by the executor, and as the model sees it.
 */
import { mkdirSync, readFileSync, rmdirSync } from 'node:fs'
import { runningKernel } from '../../../src/lending/kernel-model.ts'
import { decide } from '../../../src/model/decide.ts'
import type { BpffsInstance, File, Program, Token } from '../../../src/model/file.ts'
import type { Inode } from '../../../src/model/inode.ts'
import type { KernelFacts } from '../../../src/model/kernel.ts'
import { LSM_HOOKS, type Machine } from '../../../src/model/machine.ts'
import { MAP_TYPES } from '../../../src/model/map-types.ts'
import type { Pin } from '../../../src/model/pins.ts'
import { INITIAL, nestedIn, type Task, type UserNamespace } from '../../../src/model/task.ts'
import { ANY_MASK, MASK_DOMAINS, type Masks } from '../../../src/policy/vocabulary.ts'
import {
  bpf_attr_btf_load,
  bpf_attr_get_id,
  bpf_attr_link_create,
  bpf_attr_map_create,
  bpf_attr_obj,
  bpf_attr_prog_load,
  bpf_attr_prog_query,
  bpf_attr_token_create,
  bpf_cmd,
  bpf_map_flags,
} from '../../../src/uapi/bpf.ts'
import { CAPABILITIES } from '../../../src/uapi/constants.ts'
import { Targets } from '../delegation/attributes.ts'
import { Batch, Executor, type Step } from './executor.ts'
import { makeHooks, REFUSAL } from './hooks.ts'
import type { Random } from './random.ts'

export const ALL_CAPABILITIES = (1n << 41n) - 1n
export const CAPS = ['bpf', 'net_admin', 'perfmon', 'sys_admin', 'dac_override', 'dac_read_search'] as const
export type Cap = (typeof CAPS)[number]

/** The mask of a set of capabilities, of which each bit is one of `CAPS`. */
export function capsMask(set: number): bigint {
  let mask = 0n
  for (const [i, cap] of CAPS.entries())
    if ((set >> i) & 1)
      mask |= 1n << BigInt(CAPABILITIES[`CAP_${cap.toUpperCase()}` as keyof typeof CAPABILITIES])
  return mask
}

/** All of `CAPS`, as a set of bits; lower numbers are the other sets. */
export const ALL_CAPS = (1 << CAPS.length) - 1
const CAP_SETS = Array.from(
  { length: ALL_CAPS + 1 },
  (_, set) => new Set(CAPS.filter((_cap, i) => (set >> i) & 1)),
)
export const capsOf = (set: number): ReadonlySet<Cap> => CAP_SETS[set]!

const A = nestedIn(INITIAL, 'a', 0, [{ inside: 0, host: 100_000, count: 65_536 }])
const B = nestedIn(A, 'b', 100_000, [{ inside: 0, host: 100_000, count: 1000 }])
const C = nestedIn(INITIAL, 'c', 1000, [{ inside: 0, host: 200_000, count: 65_536 }])

/** By the executor's number of the context. */
export const CONTEXTS: readonly Omit<Task, 'capabilities'>[] = [
  { userNamespace: INITIAL, uid: 0 },
  { userNamespace: INITIAL, uid: 1000 },
  { userNamespace: A, uid: 100_000 },
  { userNamespace: A, uid: 101_000 },
  { userNamespace: B, uid: 100_000 },
  { userNamespace: C, uid: 200_000 },
  { userNamespace: A, uid: 100_000, seccomp: 'EACCES' },
]
/** The context that makes things for each namespace. */
const MAKER = new Map<UserNamespace, number>([
  [INITIAL, 0],
  [A, 2],
  [B, 4],
  [C, 5],
])

const TASKS = CONTEXTS.map(context => CAP_SETS.map((capabilities): Task => ({ ...context, capabilities })))
export const taskOf = (context: number, caps: number): Task => TASKS[context]![caps]!

/** A descriptor that is there in the executor, under this number, and what it is. */
export interface Slot {
  readonly number: number
  readonly file: File
  readonly what: string
  /** What has a name in the directory, where the file is one. */
  readonly pins?: Readonly<Record<string, Pin>>
}

export const CLOSED_NUMBER = 900
const FIRST_NUMBER = 100
/** The register that holds the root of the bpffs which was made last. */
const ROOT = 60

const { BPF_F_TOKEN_FD, BPF_F_PATH_FD } = bpf_map_flags
export const LICENSE = 'GPL'
/** r0 = value */
const MOV = (value: number): number[] => [0xb7, 0, 0, 0, value, 0, 0, 0]
const EXIT = [0x95, 0, 0, 0, 0, 0, 0, 0]
export const LONG_PROGRAM = 4097
const LONG = [...Array.from({ length: LONG_PROGRAM - 1 }, () => MOV(1)).flat(), ...EXIT]

/** A BTF blob with one type, a signed int. */
function btfInt(): Buffer {
  const strings = Buffer.from('\0int\0')
  const words = new Uint32Array([0x0001_eb9f, 24, 0, 16, 16, strings.length, 1, 1 << 24, 4, (1 << 24) | 32])
  return Buffer.concat([Buffer.from(words.buffer), strings])
}

export class Lab {
  readonly executor: Executor
  readonly machine: Machine
  readonly kernel: KernelFacts
  readonly insns: { readonly zero: bigint; readonly one: bigint; readonly long: bigint; readonly bad: bigint }
  readonly license: bigint
  readonly btf: { readonly address: bigint; readonly size: number }
  /** Verifier's answers to the sample program: `type/attach` to an errno, or 0. */
  readonly verifier = new Map<string, number>()
  readonly #targets = new Map<number, { readonly id: number; readonly said: number }>()

  /** The target of a program type in the kernel's BTF, and what the verifier says of it: an errno, or 0. */
  target(type: number): { readonly id: number; readonly said: number } {
    return this.#targets.get(type) ?? { id: 0, said: 22 }
  }

  /** The hooks of security modules that can refuse here: bits of `LSM_HOOKS`. */
  hooks = 0

  slots: Slot[] = []
  /** Those whose file is of a kind. */
  of(kind: File['kind']): Slot[] {
    return this.slots.filter(slot => slot.file.kind === kind)
  }
  readonly cgroupDirectory: string | undefined
  #next = FIRST_NUMBER
  #fixed = 0
  #hasRoot = false
  readonly #batch = new Batch()
  /** Places in the list of slots. */
  readonly #directories: number[] = []
  readonly #ids = new Map<number, number>()

  private constructor(executor: Executor, machine: Machine) {
    this.executor = executor
    this.machine = machine
    this.kernel = machine.kernel
    const at = (bytes: Uint8Array): bigint => executor.address(executor.data(bytes))
    this.insns = {
      zero: at(new Uint8Array([...MOV(0), ...EXIT])),
      one: at(new Uint8Array([...MOV(1), ...EXIT])),
      long: at(new Uint8Array(LONG)),
      bad: 8n,
    }
    this.license = executor.address(executor.text(LICENSE))
    const btf = btfInt()
    this.btf = { address: at(btf), size: btf.length }
    this.cgroupDirectory = scratchCgroup(executor.pid)
  }

  static async open(): Promise<Lab> {
    const executor = new Executor()
    const sysctl = Number(readFileSync('/proc/sys/kernel/unprivileged_bpf_disabled', 'utf8')) as 0 | 1 | 2
    const lab = new Lab(executor, { kernel: runningKernel(), unprivilegedBpfDisabled: sysctl })
    try {
      lab.hooks = await makeHooks(executor, lab.kernel, lab.license)
      await lab.#makeContexts()
      await lab.#tryTypes()
      await lab.#makeSlots()
      lab.#fixed = lab.slots.length
      return lab
    } catch (error) {
      await lab.close()
      throw error
    }
  }

  async close(): Promise<void> {
    await this.executor.close()
    if (this.cgroupDirectory !== undefined) rmdirSync(this.cgroupDirectory)
  }

  /** Steps by contexts with all their capabilities; each must succeed. */
  async #must(...steps: (Omit<Step, 'capabilities'> & { capabilities?: bigint })[]): Promise<number[]> {
    for (const step of steps) this.#batch.add({ capabilities: ALL_CAPABILITIES, ...step })
    const results = [...(await this.executor.run(this.#batch))]
    const failed = results.findIndex(result => result < 0)
    if (failed >= 0) throw new Error(`${JSON.stringify(steps[failed]!.op)}: ${results[failed]}`)
    return results
  }

  async #makeContexts(): Promise<void> {
    const { executor } = this
    const maps = (text: string): number => executor.text(text)
    await this.#must(
      { context: 0, op: 'spawn', a: 1 },
      { context: 1, op: 'setid', a: 1000 },
      { context: 0, op: 'spawn', a: 2, b: maps('0 100000 65536\n'), ownUserNamespace: true },
      { context: 2, op: 'spawn', a: 3 },
      { context: 3, op: 'setid', a: 1000 },
      { context: 2, op: 'spawn', a: 4, b: maps('0 0 1000\n'), ownUserNamespace: true },
      { context: 2, op: 'spawn', a: 6 },
      { context: 6, op: 'seccomp', a: EACCES },
      { context: 1, op: 'spawn', a: 5, b: maps('0 200000 65536\n'), ownUserNamespace: true },
    )
  }

  /** Keeps what a register holds under a number of its own. */
  async #keep(register: number, what: string, file: File): Promise<void> {
    const number = this.#next++
    await this.#must(
      { context: 0, op: 'dup', in: register, a: number },
      { context: 0, op: 'close', in: register },
    )
    this.slots.push({ number, file, what })
  }

  async #makeSlots(): Promise<void> {
    const { executor } = this
    const open = async (path: string, flags: number, what: string, file: File): Promise<void> => {
      await this.#must({ context: 0, op: 'openat', a: executor.text(path), b: flags, out: 0, givesFd: true })
      await this.#keep(0, what, file)
    }
    this.slots.push({ number: CLOSED_NUMBER, file: { kind: 'closed' }, what: 'closed' })
    this.slots.push({ number: 0, file: { kind: 'other' }, what: 'standard input' })
    await open('/dev/null', 2, 'null', { kind: 'other' })
    await open('/proc', O_DIRECTORY, 'root of proc', { kind: 'root' })
    if (this.cgroupDirectory !== undefined) {
      await open(this.cgroupDirectory, O_DIRECTORY, 'cgroup', { kind: 'cgroup' })
      await open(this.cgroupDirectory, O_DIRECTORY | O_PATH, 'cgroup by O_PATH', {
        kind: 'cgroup',
        isPath: true,
      })
      const pins: Slot['pins'] = {
        'cgroup.procs': { kind: 'other', inode: { uid: 0, gid: 0, mode: 0o644 } },
      }
      for (const slot of this.of('cgroup')) this.slots[this.slots.indexOf(slot)] = { ...slot, pins }
    }
    await this.#object(bpf_cmd.BPF_MAP_CREATE, mapAttr(2, 4, 4, 1), 'array', { kind: 'map' })
    await this.#object(bpf_cmd.BPF_BTF_LOAD, this.btfAttr(), 'btf', { kind: 'btf', isKernel: false })
    await this.#object(bpf_cmd.BPF_BTF_GET_FD_BY_ID, bpf_attr_get_id.encode({ btf_id: 1 }), 'kernel btf', {
      kind: 'btf',
      isKernel: true,
    })
    for (const [type, attach] of PROGRAMS) await this.program(0, type, attach, undefined)
    const kprobe = this.slots.find(({ file }) => file.kind === 'prog' && file.prog.type === 'kprobe')!
    const attach_type = this.kernel.vocabulary.attachs.bitOfName.get('trace_kprobe_multi')!
    const multi = bpf_attr_link_create.encode({ prog_fd: kprobe.number, attach_type })
    const [said] = await this.tryOnce(bpf_cmd.BPF_LINK_CREATE, multi.subarray(0, 60))
    if (said === -EOPNOTSUPP) (this.kernel.lacks as Set<string>).add('multi')
    await open('/proc/self/ns/net', 0, 'network namespace', { kind: 'netns' })
    await this.#link()
    if (!this.kernel.hasTokens) return
    for (const ns of [A, A, A, INITIAL, INITIAL]) await this.#directory(ns)
    const root = await this.bpffs(A, { cmds: 1n, maps: 0n, progs: 0n, attachs: 0n }, 'a bpffs')
    const sub = executor.text('sub')
    const inode = { uid: 100_000, gid: 100_000, mode: 0o755 }
    this.slots[this.slots.indexOf(root)] = { ...root, pins: { sub: { kind: 'directory', inode } } }
    await this.#must(
      { context: 2, op: 'mkdirat', in: ROOT, a: sub },
      { context: 2, op: 'openat', in: ROOT, a: sub, b: O_DIRECTORY, out: 0, givesFd: true },
    )
    const { instance } = root.file as File & { kind: 'bpffs' }
    await this.#keep(0, 'directory in a bpffs', { kind: 'bpffs', instance, isRoot: false, inode })
    await this.#must({
      context: 2,
      op: 'openat',
      in: ROOT,
      a: executor.text('.'),
      b: O_DIRECTORY | O_PATH,
      out: 0,
      givesFd: true,
    })
    await this.#keep(0, 'bpffs by O_PATH', { kind: 'bpffs', instance, isRoot: true, isPath: true })
    const byPath = this.slots.length - 1
    this.slots[byPath] = { ...this.slots[byPath]!, pins: { sub: { kind: 'directory', inode } } }
    await this.bpffs(INITIAL, { cmds: 1n, maps: 2n, progs: 0n, attachs: 0n }, 'bpffs of init')
    await this.bpffs(A, { cmds: 0n, maps: 0n, progs: 0n, attachs: 0n }, 'bpffs without anything')
    await this.bpffs(
      INITIAL,
      { cmds: 0n, maps: 0n, progs: 0n, attachs: 0n },
      'bpffs of init without anything',
    )
    const everything = { cmds: ANY_MASK, maps: ANY_MASK, progs: ANY_MASK, attachs: ANY_MASK }
    for (const ns of [A, B, C]) {
      await this.bpffs(ns, everything, `bpffs of ${ns.name}`)
      await this.token(ns, everything)
    }
    const tokens = this.of('token')
    for (const slot of tokens)
      for (const [type, attach] of PROGRAMS)
        if (type !== 'socket_filter')
          await this.program(MAKER.get(tokenOf(slot).userNamespace)!, type, attach, slot)
  }

  async #object(cmd: number, attr: Uint8Array, what: string, file: File): Promise<void> {
    await this.#must({ context: 0, op: 'bpf', cmd, attr, size: attr.length, out: 0, givesFd: true })
    await this.#keep(0, what, file)
  }

  /** A link, to a network namespace that is nobody else's. */
  async #link(): Promise<void> {
    const [target] = this.of('netns')
    const prog = this.slots.find(({ file }) => file.kind === 'prog' && file.prog.type === 'sk_lookup')!
    const fields = {
      prog_fd: prog.number,
      target_fd: target!.number,
      attach_type: this.kernel.vocabulary.attachs.bitOfName.get('sk_lookup')!,
    }
    await this.#object(bpf_cmd.BPF_LINK_CREATE, bpf_attr_link_create.encode(fields, 60), 'link', {
      kind: 'link',
    })
  }

  /** A directory in a bpffs of its own, with something of every kind in it. Owners and modes: `renew`. */
  async #directory(ns: UserNamespace): Promise<void> {
    const { executor } = this
    const context = MAKER.get(ns)!
    const root = await this.bpffs(ns, { cmds: 1n, maps: 0n, progs: 0n, attachs: 0n }, `bpffs of ${ns.name}`)
    const [path, sub] = [executor.text('directory'), executor.text('sub')]
    await this.#must(
      { context, op: 'mkdirat', in: ROOT, a: path },
      { context, op: 'openat', in: ROOT, a: path, b: O_DIRECTORY, out: 0, givesFd: true },
      { context, op: 'mkdirat', in: 0, a: sub },
    )
    for (const kind of PINNED) {
      const attr = bpf_attr_obj.encode({
        pathname: executor.address(executor.text(kind)),
        bpf_fd: this.of(kind)[0]!.number,
        file_flags: BPF_F_PATH_FD,
      })
      const cmd = bpf_cmd.BPF_OBJ_PIN
      const patches = [[0, bpf_attr_obj.fields.path_fd.off]] as const
      await this.#must({ context, op: 'bpf', cmd, attr, size: 20, patches })
    }
    const { instance } = root.file as File & { kind: 'bpffs' }
    await this.#keep(0, `directory of ${ns.name}`, { kind: 'bpffs', instance, isRoot: false })
    this.#directories.push(this.slots.length - 1)
  }

  /** Other owners and modes of directories and pins. */
  async #renewInodes(random: Random): Promise<void> {
    const { executor } = this
    for (const at of this.#directories) {
      const slot = this.slots[at]!
      const file = slot.file as File & { kind: 'bpffs' }
      const users = file.instance.userNamespace === INITIAL ? [0, 1000, 5] : [100_000, 101_000, 150_000]
      const change = async (name: string): Promise<Inode> => {
        const inode = { uid: random.pick(users), gid: random.pick(users), mode: randomMode(random) }
        const a = executor.text(name)
        await this.#must(
          { context: 0, op: 'chown', cmd: slot.number, a, b: inode.uid, size: inode.gid },
          { context: 0, op: 'chmod', cmd: slot.number, a, b: inode.mode },
        )
        return inode
      }
      const pins: Record<string, Pin> = { sub: { kind: 'directory', inode: await change('sub') } }
      for (const kind of PINNED) pins[kind] = { kind, inode: await change(kind) }
      this.slots[at] = { ...slot, file: { ...file, inode: await change('.') }, pins }
    }
  }

  /** The number of an object that a slot names. */
  idOf({ number }: Slot): number {
    let id = this.#ids.get(number)
    if (id === undefined) {
      const text = readFileSync(`/proc/${this.executor.pid}/fdinfo/${number}`, 'utf8')
      id = Number(/^(?:map|prog|link|btf)_id:\s+(\d+)$/m.exec(text)?.[1])
      this.#ids.set(number, id)
    }
    return id
  }

  btfAttr(token?: number): Uint8Array {
    return bpf_attr_btf_load.encode(
      {
        btf: this.btf.address,
        btf_size: this.btf.size,
        ...(token === undefined ? {} : { btf_flags: BPF_F_TOKEN_FD, btf_token_fd: token }),
      },
      this.kernel.attrEnds.btf_load,
    )
  }

  /** A bpffs with these masks, made and configured as a delegator does. */
  async bpffs(ns: UserNamespace, masks: Masks, what: string): Promise<Slot> {
    const { executor } = this
    const maker = MAKER.get(ns)!
    if (this.#hasRoot) await this.#must({ context: 0, op: 'close', in: ROOT })
    this.#hasRoot = true
    const options = MASK_DOMAINS.map(domain => ({
      context: 0,
      op: 'fsconfigString' as const,
      in: 1,
      a: executor.text(`delegate_${domain}`),
      b: executor.text(`0x${masks[domain].toString(16)}`),
    }))
    await this.#must(
      { context: maker, op: 'fsopen', out: 1, givesFd: true },
      ...options,
      { context: 0, op: 'fsconfigCreate', in: 1 },
      { context: maker, op: 'fsmount', in: 1, out: 2, givesFd: true },
      { context: 0, op: 'close', in: 1 },
      {
        context: maker,
        op: 'openat',
        in: 2,
        a: executor.text('.'),
        b: O_DIRECTORY,
        out: ROOT,
        givesFd: true,
      },
      { context: 0, op: 'close', in: 2 },
    )
    const number = this.#next++
    await this.#must({ context: 0, op: 'dup', in: ROOT, a: number })
    const instance: BpffsInstance = { userNamespace: ns, masks }
    const slot: Slot = { number, file: { kind: 'bpffs', instance, isRoot: true }, what }
    this.slots.push(slot)
    return slot
  }

  /** A token of the bpffs that was made last. */
  async token(ns: UserNamespace, masks: Masks): Promise<void> {
    const attr = bpf_attr_token_create.encode({})
    await this.#must({
      context: MAKER.get(ns)!,
      op: 'bpf',
      cmd: bpf_cmd.BPF_TOKEN_CREATE,
      attr,
      size: attr.length,
      patches: [[ROOT, bpf_attr_token_create.fields.bpffs_fd.off]],
      out: 0,
      givesFd: true,
    })
    await this.#keep(0, `token of ${ns.name}`, { kind: 'token', token: { userNamespace: ns, masks } })
  }

  async program(context: number, type: string, attach: string, token: Slot | undefined): Promise<void> {
    const { progs, attachs } = this.kernel.vocabulary
    const [typeNumber, attachNumber] = [progs.bitOfName.get(type), attachs.bitOfName.get(attach)]
    if (typeNumber === undefined || attachNumber === undefined) return
    const attr = this.progAttr(typeNumber, attachNumber, token?.number)
    const prog: Program = {
      type,
      expectedAttach: attachNumber,
      ...(token === undefined ? {} : { token: tokenOf(token) }),
    }
    await this.#must({
      context,
      op: 'bpf',
      cmd: bpf_cmd.BPF_PROG_LOAD,
      attr,
      size: attr.length,
      out: 0,
      givesFd: true,
    })
    await this.#keep(0, `${type}${token === undefined ? '' : ` by ${token.what}`}`, { kind: 'prog', prog })
  }

  /** What the sample program of a type returns. */
  insnsFor(type: number): bigint {
    const word = this.kernel.vocabulary.progs.nameOfBit.get(type)
    return word?.startsWith('cgroup') === true ? this.insns.one : this.insns.zero
  }

  flagsFor(type: number): number {
    return this.kernel.vocabulary.progs.nameOfBit.get(type) === 'syscall' ? BPF_F_SLEEPABLE : 0
  }

  progAttr(type: number, attach: number, token?: number): Uint8Array {
    return bpf_attr_prog_load.encode(
      {
        prog_type: type,
        expected_attach_type: attach,
        insns: this.insnsFor(type),
        insn_cnt: 2,
        license: this.license,
        prog_flags: this.flagsFor(type) | (token === undefined ? 0 : BPF_F_TOKEN_FD),
        ...(token === undefined ? {} : { prog_token_fd: token }),
      },
      this.kernel.attrEnds.prog_load,
    )
  }

  /** Which types this kernel was built with, and what its verifier says of the sample programs. */
  async #tryTypes(): Promise<void> {
    const { kernel, machine } = this
    const root = taskOf(0, ALL_CAPS)
    const pairs: [number, number][] = []
    for (let type = 0; type < kernel.vocabulary.progs.nameOfBit.size; type++)
      for (let attach = 0; attach < kernel.vocabulary.attachs.nameOfBit.size; attach++)
        if (decide(machine, root, { op: 'prog_load', type, attach }).verdict === 'ok') {
          pairs.push([type, attach])
          this.#add(bpf_cmd.BPF_PROG_LOAD, this.progAttr(type, attach))
        }
    const said = await this.executor.run(this.#batch)
    for (const [i, [type, attach]] of pairs.entries())
      this.verifier.set(`${type}/${attach}`, Math.max(0, -said[i]!))
    const lacks = kernel.lacks as Set<string>
    const query = async (attach: string): Promise<number> => {
      const attach_type = kernel.vocabulary.attachs.bitOfName.get(attach) ?? 0
      const attr = bpf_attr_prog_query.encode(
        { target_fd: 0xffff_ffff, attach_type },
        kernel.attrEnds.prog_query,
      )
      return (await this.tryOnce(bpf_cmd.BPF_PROG_QUERY, attr))[0]!
    }
    if ((await query('netkit_primary')) === -22) lacks.add('netkit')
    if ((await query('lirc_mode2')) === -22) lacks.add('lirc')
    const refused = kernel.refusedProgs as Set<string>
    const attachs = [...kernel.vocabulary.attachs.nameOfBit]
    for (const [prog_type, word] of kernel.vocabulary.progs.nameOfBit) {
      for (const [expected_attach_type] of attachs)
        this.#add(
          bpf_cmd.BPF_PROG_LOAD,
          bpf_attr_prog_load.encode({ prog_type, expected_attach_type }, kernel.attrEnds.prog_load),
        )
      const results = await this.executor.run(this.#batch)
      // Without instructions it is E2BIG, but where the kernel refuses before it looks.
      const named = attachs.flatMap(([, attach], i) => (results[i] === -EPERM ? [`${word}/${attach}`] : []))
      for (const name of named.length === attachs.length ? [word] : named) refused.add(name)
    }
    await this.#tryProgs(pairs)
    const targets = new Targets()
    for (const [word, attach] of [
      ['tracing', 'trace_raw_tp'],
      ['lsm', 'lsm_mac'],
      ['struct_ops', 'cgroup_inet_ingress'],
    ] as const) {
      const type = kernel.vocabulary.progs.bitOfName.get(word)!
      const id = targets.of(word, attach)
      const attachType = kernel.vocabulary.attachs.bitOfName.get(attach)!
      const fields = bpf_attr_prog_load.decode(this.progAttr(type, attachType))
      const attr = bpf_attr_prog_load.encode({ ...fields, attach_btf_id: id }, kernel.attrEnds.prog_load)
      const [result] = await this.tryOnce(bpf_cmd.BPF_PROG_LOAD, attr)
      this.#targets.set(type, { id, said: result! < 0 ? -result! : 0 })
    }
    const absent = kernel.absentMaps as Set<string>
    const words = [...kernel.vocabulary.maps.nameOfBit].filter(([type]) => type !== 0)
    for (const [type, name] of words) {
      const word = name.replace(/_deprecated$/, '')
      const shape = MAP_TYPES[word]
      // Of those that name other things, the cases themselves tell.
      if (shape === undefined || shape.needsTypes !== undefined || shape.needsInner !== undefined) continue
      const { keySize, valueSize, maxEntries, flags } = shape.sample
      const attr = mapAttr(type, keySize, valueSize, maxEntries, flags)
      const [result] = await this.tryOnce(bpf_cmd.BPF_MAP_CREATE, attr)
      if (result === -22) absent.add(word)
    }
  }

  /** Program types that this kernel was built without: of their programs no security module is asked. */
  async #tryProgs(pairs: readonly (readonly [type: number, attach: number])[]): Promise<void> {
    const hooks = this.hooks & (1 << LSM_HOOKS.indexOf('bpf_prog_load'))
    if (hooks === 0) return
    const first = new Map([...pairs].reverse())
    for (const [type, attach] of first)
      this.#add(bpf_cmd.BPF_PROG_LOAD, this.progAttr(type, attach), { hooks, errno: REFUSAL.number })
    const results = await this.executor.run(this.#batch)
    const absent = this.kernel.absentProgs as Set<string>
    for (const [i, type] of [...first.keys()].entries())
      if (results[i] !== -REFUSAL.number) absent.add(this.kernel.vocabulary.progs.nameOfBit.get(type)!)
  }

  #add(cmd: number, attr: Uint8Array, refusing?: Step['refusing']): void {
    const step = { context: 0, op: 'bpf', capabilities: ALL_CAPABILITIES, cmd, attr } as const
    this.#batch.add({
      ...step,
      size: attr.length,
      givesFd: true,
      ...(refusing === undefined ? {} : { refusing }),
    })
  }

  async tryOnce(cmd: number, attr: Uint8Array): Promise<Int32Array> {
    this.#add(cmd, attr)
    return this.executor.run(this.#batch)
  }

  /** Other tokens than before, of random masks. */
  async renew(random: Random): Promise<void> {
    if (!this.kernel.hasTokens) return
    await this.#renewInodes(random)
    this.slots.length = this.#fixed
    this.#next = FIRST_NUMBER + this.#fixed + 10
    for (const ns of [A, A, A, A, A, A, A, A, A, A, A, B, B, C, C, C]) {
      const masks = randomMasks(random)
      await this.bpffs(ns, masks, `bpffs of ${ns.name}`)
      if (MASK_DOMAINS.some(domain => masks[domain] !== 0n)) await this.token(ns, masks)
    }
  }
}

export function tokenOf(slot: Slot): Token {
  if (slot.file.kind !== 'token') throw new Error(`${slot.what} is no token`)
  return slot.file.token
}

function randomMode(random: Random): number {
  const bits = (): number => random.pick([7, 7, 6, 5, 4, 3, 2, 1, 0])
  return (bits() << 6) | (bits() << 3) | bits()
}

/** Masks of which most are of some use. */
function randomMasks(random: Random): Masks {
  const mask = (known: number): bigint => {
    const how = random.below(6)
    if (how < 2) return ANY_MASK
    if (how === 2) return 0n
    if (how === 3) return 1n << BigInt(random.below(known))
    return how === 4 ? random.bits64() : ANY_MASK & ~(1n << BigInt(random.below(known)))
  }
  const cmds = random.chance(70) ? (random.chance(50) ? ANY_MASK : 0xc0021n) : mask(40)
  return { cmds, maps: mask(36), progs: mask(33), attachs: mask(60) }
}

const EPERM = 1
const EACCES = 13
const EOPNOTSUPP = 95
const O_DIRECTORY = 0o200000
const O_PATH = 0o10000000
const BPF_F_SLEEPABLE = 0x10

/** What is pinned under its own name. */
const PINNED = ['map', 'prog', 'link'] as const

/** What is attached in the cases. */
const PROGRAMS: readonly (readonly [type: string, attach: string])[] = [
  ['socket_filter', 'cgroup_inet_ingress'],
  ['cgroup_skb', 'cgroup_inet_ingress'],
  ['cgroup_skb', 'cgroup_inet_egress'],
  ['cgroup_sock', 'cgroup_inet_sock_create'],
  ['cgroup_device', 'cgroup_device'],
  ['xdp', 'xdp'],
  ['sched_cls', 'cgroup_inet_ingress'],
  ['sk_lookup', 'sk_lookup'],
  ['kprobe', 'cgroup_inet_ingress'],
  ['raw_tracepoint', 'cgroup_inet_ingress'],
  ['sk_msg', 'sk_msg_verdict'],
]

export function mapAttr(
  map_type: number,
  key_size: number,
  value_size: number,
  max_entries: number,
  map_flags = 0,
): Uint8Array {
  return bpf_attr_map_create.encode({ map_type, key_size, value_size, max_entries, map_flags }, 72)
}

/** A cgroup of our own to attach to; undefined where there is no cgroup2. */
function scratchCgroup(pid: number): string | undefined {
  const line = readFileSync('/proc/mounts', 'utf8')
    .split('\n')
    .find(mounted => mounted.split(' ')[2] === 'cgroup2')
  if (line === undefined) return undefined
  const root = line.split(' ')[1]!
  const path = `${root}/bpftoken-model-${pid}`
  mkdirSync(path)
  return path
}

/** For people. */
export function slotText({ what, file }: Slot): string {
  const masks =
    file.kind === 'token' ? file.token.masks : file.kind === 'bpffs' ? file.instance.masks : undefined
  const text = MASK_DOMAINS.map(domain => `${domain} 0x${masks?.[domain].toString(16)}`).join(' ')
  return masks === undefined ? what : `${what} (${text})`
}
