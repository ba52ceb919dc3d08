/**
 * What an object asks of the kernel when it is loaded: each command, what for, and the
 * capabilities. Pure.
 *
 * These are the needs of loading alone, with the rules of object.ts: types wherever the object has
 * them, every map that is made by itself, the chosen programs. What a loader asks for on top, to
 * find out what the kernel can do, is in loader-probes.ts.
 */

import { CLASS, LD_IMM64, OP, SLOT_BYTES } from '../ebpf/asm/insn.ts'
import type { Btf, BtfComposite } from '../ebpf/btf/btf.ts'
import type { FunctionSpec } from '../ebpf/object/functions.ts'
import type { MapDefinition } from '../ebpf/object/map-def.ts'
import { moduleAndName, moduleOf } from '../ebpf/object/module-name.ts'
import { functionsOf, whyBroken } from '../ebpf/object/reach.ts'
import { legacySection, type SectionRule } from '../ebpf/object/section-names.ts'
import type { ObjectMap, ObjectProgram, ObjectSpec } from '../ebpf/object/spec.ts'
import { needTypes } from '../ebpf/object/types-needed.ts'
import { quoted } from '../ebpf/printable.ts'
import { type Need, neededCapabilities } from '../ebpf/rights.ts'
import { ATTACH_TYPES, MAP_TYPES } from '../ebpf/type-names.ts'
import { bpf_func_id } from '../uapi/bpf.ts'
import type { CapabilityName } from '../uapi/constants.ts'
import { kernelPointerFrom } from './kernel-pointers.ts'
import { pointerArithmetic } from './pointer-arithmetic.ts'

/** One command that loading an object gives. */
export interface ObjectNeed {
  readonly need: Need
  /** The part of the object that asks for it: `program "x"`, `map "y"`. */
  readonly by: string
  readonly capabilities: readonly CapabilityName[]
  /** The rule for a program. */
  readonly rule?: SectionRule
  /** For a map: it holds global data. */
  readonly globalData?: boolean
  /** What is missing where it is not lent, and all is loaded the same; undefined: it must be lent. */
  readonly loses?: string
}

export interface ObjectNeeds {
  readonly needs: readonly ObjectNeed[]
  /** Questions that the file leaves open. */
  readonly notes: readonly string[]
  /** Why it cannot be loaded as it is. */
  readonly problems: readonly string[]
}

export interface NeedsOptions {
  /** Only these programs, whatever their sections say. */
  readonly programs?: readonly string[] | undefined
  /** Section names as libbpf before 1.0 and cilium/ebpf take them, with anything behind. */
  readonly looseSections?: boolean
  /**
   * Names of the members of a struct that programs can make (`tcp_congestion_ops`), in the kernel
   * where the object will be loaded; undefined: it has no such struct. Without this the object's
   * own idea of the struct has to do.
   */
  readonly kernelStruct?: ((name: string) => readonly string[] | undefined) | undefined
  /** It was loaded on the kernel that is asked about, so what the file leaves open is known. */
  readonly loadsHere?: boolean
}

/** All that loading the object asks for. */
export function objectNeeds(spec: ObjectSpec, options: NeedsOptions = {}): ObjectNeeds {
  return new Collector(spec, options).collect()
}

/** The programs that will be loaded. */
export function chosenPrograms(
  spec: ObjectSpec,
  names: readonly string[] | undefined,
): readonly ObjectProgram[] {
  return spec.programs.filter(({ name, autoload }) => (names === undefined ? autoload : names.includes(name)))
}

class Collector {
  readonly #spec: ObjectSpec
  readonly #options: NeedsOptions
  readonly #needs: ObjectNeed[] = []
  readonly #notes: string[] = []
  readonly #problems: string[] = []
  /** Of which member of which struct each program is, in maps that are made; the first one counts. */
  readonly #membersOf = new Map<string, { readonly typeId: number; readonly member: string }>()
  /** Numbers of a struct's members, by their names. */
  readonly #numbers = new Map<number, { readonly isOwn: boolean; readonly of: ReadonlyMap<string, number> }>()

  constructor(spec: ObjectSpec, options: NeedsOptions) {
    this.#spec = spec
    this.#options = options
    for (const { structOps, autocreate } of spec.maps)
      if (structOps !== undefined && autocreate)
        for (const [member, by] of structOps.programs)
          if (!this.#membersOf.has(by)) this.#membersOf.set(by, { typeId: structOps.typeId, member })
  }

  collect(): ObjectNeeds {
    const { btf, maps } = this.#spec
    const programs = chosenPrograms(this.#spec, this.#options.programs)
    if (btf !== undefined) this.#types(needTypes(this.#spec, programs))
    for (const map of maps) if (map.autocreate) this.#map(map)
    for (const program of programs) this.#program(program)
    this.#noteSymbols(programs)
    if (this.#options.loadsHere !== true) this.#noteModules(programs)
    return { needs: this.#needs, notes: this.#notes, problems: this.#problems }
  }

  #add(
    need: Need,
    by: string,
    more: readonly CapabilityName[] = [],
    about: Pick<ObjectNeed, 'rule' | 'globalData' | 'loses'> = {},
  ): void {
    const capabilities = [...new Set([...neededCapabilities(need), ...more])]
    this.#needs.push({ need, by, capabilities, ...about })
  }

  #types(neededFor: readonly string[]): void {
    const loses = 'names and source lines are missing in what the verifier and tools say'
    const about = neededFor.length === 0 ? { loses } : {}
    this.#add({ cmd: 'btf_load' }, 'types (BTF)', [], about)
  }

  #map(map: ObjectMap): void {
    const globalData = isGlobalData(map)
    const one = ({ type }: MapDefinition, by: string) => {
      const isBit = MAP_TYPES.number(type) < MAX_BITS
      if (!isBit) this.#problems.push(`${by}: there is no map type ${type}, and no token could lend it`)
      this.#add({ cmd: 'map_create', ...(isBit ? { mapType: type } : {}) }, by, [], { globalData })
    }
    one(map, `map ${quoted(map.name)}`)
    // Loaders make one of them, by which the kernel knows the others.
    if (map.inner !== undefined) one(map.inner, `inner maps of ${quoted(map.name)}`)
    if (map.foreign !== undefined)
      this.#notes.push(
        `map ${quoted(map.name)} ${map.foreign}, which means something to the loader that it was written for; libbpf refuses it, and bpftoken wants to be told`,
      )
  }

  #program(program: ObjectProgram): void {
    const name = `program ${quoted(program.name)}`
    const rule =
      program.rule ??
      (this.#options.looseSections === true ? legacySection(program.section)?.rule : undefined)
    if (rule === undefined) {
      this.#problems.push(
        `${name} in section ${quoted(program.section)}: type unknown; leave the program out, or give its type when loading`,
      )
      return
    }
    const broken = whyBroken(this.#spec, program)
    if (broken !== undefined) this.#problems.push(`${name} cannot be loaded: ${broken}`)
    const attachType = rule.type === 'struct_ops' ? this.#member(program) : rule.attachType
    if (rule.type === 'struct_ops' && attachType === undefined) return
    const need: Need = {
      cmd: 'prog_load',
      progType: rule.type,
      ...(attachType === undefined ? {} : { attachType }),
    }
    this.#add(need, name, helperCapabilities(this.#spec, program), { rule })
    if (
      functionsOf(this.#spec, program).some(({ references }) =>
        references.some(one => one.kind === 'jump_table'),
      )
    )
      this.#add({ cmd: 'map_create', mapType: 'insn_array' }, `jump tables of ${name} (Linux 6.19)`)
    if (rule.type === 'ext') {
      // It replaces a function of another program. That program's BTF is opened by id.
      this.#add({ cmd: 'btf_get_fd_by_id' }, `types of what ${name} replaces`)
      this.#notes.push(
        `${name} replaces a function of another program: opening its types under a token needs Linux 6.15`,
      )
    } else if (rule.btfTarget && program.target === undefined) {
      this.#notes.push(
        `${name} in section ${quoted(program.section)} does not say what it attaches to: its loader has to`,
      )
    }
    const module = rule.btfTarget && program.target !== undefined ? moduleOf(program.target) : undefined
    if (module === undefined || rule.type === 'ext') return
    this.#add({ cmd: 'btf_get_fd_by_id' }, `types of module ${quoted(module)}, to which ${name} attaches`)
    this.#notes.push(
      `${name} attaches to module ${quoted(module)}: it has to be loaded, and opening its types under a token needs Linux 6.15`,
    )
  }

  /**
   * Expected attach type of a struct_ops program: the number of its member. Undefined: it is not
   * loaded.
   */
  #member(program: ObjectProgram): number | undefined {
    const { btf } = this.#spec
    const found = this.#membersOf.get(program.name)
    if (found !== undefined && btf !== undefined)
      return this.#memberOf(program, btf.types, found.typeId, found.member)
    this.#problems.push(`program ${quoted(program.name)} is for no struct_ops map that is made`)
    return undefined
  }

  #memberOf(program: ObjectProgram, types: Btf, typeId: number, member: string): number | undefined {
    const struct = types.type(typeId) as BtfComposite
    const name = struct.name.replace(/___.*$/s, '')
    const what = `program ${quoted(program.name)} is member ${quoted(member)} of struct ${quoted(name)}`
    let numbers = this.#numbers.get(typeId)
    if (numbers === undefined) {
      const theirs = this.#options.kernelStruct?.(name)
      const names = theirs ?? struct.members.map(one => one.name)
      // Of two with one name the first counts.
      const of = new Map([...names.entries()].reverse().map(([i, one]) => [one, i]))
      numbers = { isOwn: theirs === undefined, of }
      this.#numbers.set(typeId, numbers)
    }
    const number = numbers.of.get(member) ?? -1
    if (numbers.isOwn)
      this.#notes.push(`${what}: its attach bit is that of the object's own struct, not of a kernel's`)
    else if (number === -1) {
      this.#problems.push(
        `${what}, which this kernel does not have; leave the program out to load the others`,
      )
      return undefined
    }
    // bpf_token_allow_prog refuses numbers that are no attach type, whatever the mask.
    if (number >= ATTACH_TYPES.words().length) {
      this.#problems.push(`${what}: its number, ${number}, is no attach type, so no token can lend it`)
      return undefined
    }
    return number
  }

  /**
   * Symbols without a type are addresses, and only /proc/kallsyms tells these: to no workload, since
   * it wants CAP_SYSLOG in the initial user namespace. Weak ones then read as 0, which is an address
   * that is not there.
   */
  #noteSymbols(programs: readonly ObjectProgram[]): void {
    const untyped = new Map(
      this.#spec.externs
        .filter(({ kind, typeId }) => kind === 'ksym' && typeId === 0)
        .map(one => [one.name, one]),
    )
    if (untyped.size === 0) return
    for (const program of programs) {
      const used = new Set(
        functionsOf(this.#spec, program).flatMap(({ references }) =>
          references.flatMap(one => (one.kind === 'extern' && untyped.has(one.extern) ? [one.extern] : [])),
        ),
      )
      for (const weak of [false, true]) {
        const names = [...used].filter(name => untyped.get(name)!.weak === weak).sort()
        if (names.length === 0) continue
        const what = `program ${quoted(program.name)} uses the address of ${listed(names)}, declared without a type; the kernel hides addresses of symbols from workloads`
        if (weak)
          this.#notes.push(`${what}, where it counts as missing or keeps the program from being loaded`)
        else
          this.#problems.push(
            `${what}, so none can load it and have it work: declare the type, or load it as root`,
          )
      }
    }
  }

  /**
   * Types of modules are opened by id. Where a section's name does not say the module, only the
   * running kernel knows whether there is one.
   */
  #noteModules(programs: readonly ObjectProgram[]): void {
    const names = this.#spec.externs
      .filter(({ kind, typeId }) => kind === 'kfunc' || (kind === 'ksym' && typeId !== 0))
      .map(({ name }) => name)
    for (const { rule, target } of programs)
      if (rule?.btfTarget === true && rule.type !== 'ext' && target !== undefined)
        if (moduleAndName(target).module === undefined) names.push(target)
    if (names.length === 0) return
    this.#notes.push(
      `if a module, not the kernel itself, has ${listed([...new Set(names)])}: load the module, and add command btf_get_fd_by_id and capability sys_admin (Linux 6.15)`,
    )
  }
}

const SHOWN_NAMES = 4
/** Rights are bits of a u64. */
const MAX_BITS = 64

/** `"a", "b" or 3 others`. */
function listed(names: readonly string[]): string {
  const shown = names.slice(0, SHOWN_NAMES).map(quoted).join(', ')
  const others = names.length - SHOWN_NAMES
  return others <= 0 ? shown : `${shown} or ${others === 1 ? 'one other' : `${others} others`}`
}

/**
 * Helpers that the verifier gives only with CAP_PERFMON, besides those that only tracing programs
 * have. Source: kernel/bpf/helpers.c, bpf_base_func_proto; kernel/bpf/syscall.c,
 * syscall_prog_func_proto; net/core/filter.c, bpf_sk_base_func_proto.
 */
const PERFMON_HELPERS: ReadonlySet<number> = new Set([
  bpf_func_id.BPF_FUNC_trace_printk,
  bpf_func_id.BPF_FUNC_perf_event_read,
  bpf_func_id.BPF_FUNC_get_current_task,
  bpf_func_id.BPF_FUNC_perf_event_read_value,
  bpf_func_id.BPF_FUNC_send_signal,
  bpf_func_id.BPF_FUNC_probe_read_user,
  bpf_func_id.BPF_FUNC_probe_read_kernel,
  bpf_func_id.BPF_FUNC_probe_read_user_str,
  bpf_func_id.BPF_FUNC_probe_read_kernel_str,
  bpf_func_id.BPF_FUNC_send_signal_thread,
  bpf_func_id.BPF_FUNC_skc_to_tcp6_sock,
  bpf_func_id.BPF_FUNC_skc_to_tcp_sock,
  bpf_func_id.BPF_FUNC_skc_to_tcp_timewait_sock,
  bpf_func_id.BPF_FUNC_skc_to_tcp_request_sock,
  bpf_func_id.BPF_FUNC_skc_to_udp6_sock,
  bpf_func_id.BPF_FUNC_copy_from_user,
  bpf_func_id.BPF_FUNC_snprintf_btf,
  bpf_func_id.BPF_FUNC_get_current_task_btf,
  bpf_func_id.BPF_FUNC_snprintf,
  bpf_func_id.BPF_FUNC_sys_bpf,
  bpf_func_id.BPF_FUNC_task_pt_regs,
  bpf_func_id.BPF_FUNC_trace_vprintk,
  bpf_func_id.BPF_FUNC_skc_to_unix_sock,
  bpf_func_id.BPF_FUNC_copy_from_user_task,
  bpf_func_id.BPF_FUNC_skc_to_mptcp_sock,
])
const PROBE_READ_HELPERS: ReadonlySet<number> = new Set([
  bpf_func_id.BPF_FUNC_probe_read_user,
  bpf_func_id.BPF_FUNC_probe_read_kernel,
  bpf_func_id.BPF_FUNC_probe_read_user_str,
  bpf_func_id.BPF_FUNC_probe_read_kernel_str,
])
function helperCapabilities(spec: ObjectSpec, program: ObjectProgram): CapabilityName[] {
  const helpers = helpersOf(spec, program)
  const needed: CapabilityName[] = []
  const pointers = kernelPointerFrom(functionsOf(spec, program), spec.externs, spec.btf?.types)
  const main = spec.functions[program.function]!
  if (
    pointers !== undefined ||
    [...helpers].some(id => PERFMON_HELPERS.has(id)) ||
    pointerArithmetic(main.code, program.rule?.type ?? '') !== undefined
  )
    needed.push('CAP_PERFMON')
  // Since Linux 6.14 a token lends it; before, CAP_SYS_ADMIN of the initial namespace was asked
  // for.
  if (helpers.has(bpf_func_id.BPF_FUNC_probe_write_user)) needed.push('CAP_SYS_ADMIN')
  return needed
}

/**
 * Whether the program calls `bpf_probe_read_kernel`, `bpf_probe_read_user` or their kin for
 * strings.
 */
export function readsByProbe(spec: ObjectSpec, program: ObjectProgram): boolean {
  return [...helpersOf(spec, program)].some(id => PROBE_READ_HELPERS.has(id))
}

/** Of a function, which many programs may share. */
const helpersIn = new WeakMap<FunctionSpec, ReadonlySet<number>>()

/** Numbers of the helpers that a program and its sub-programs call, reachable or not. */
export function helpersOf(spec: ObjectSpec, program: ObjectProgram): ReadonlySet<number> {
  const helpers = new Set<number>()
  for (const of of functionsOf(spec, program)) {
    let own = helpersIn.get(of)
    if (own === undefined) {
      own = helpersCalled(of.code)
      helpersIn.set(of, own)
    }
    for (const id of own) helpers.add(id)
  }
  return helpers
}

function helpersCalled(code: Uint8Array): ReadonlySet<number> {
  const helpers = new Set<number>()
  const view = new DataView(code.buffer, code.byteOffset, code.byteLength)
  for (let off = 0; off + SLOT_BYTES <= code.length; off += SLOT_BYTES) {
    const opcode = view.getUint8(off)
    if (opcode === LD_IMM64) off += SLOT_BYTES
    else if (opcode === (CLASS.JMP | OP.CALL) && view.getUint8(off + 1) >> 4 === 0)
      helpers.add(view.getInt32(off + 4, true))
  }
  return helpers
}

export function isGlobalData({ kind }: ObjectMap): boolean {
  return kind !== 'declared' && kind !== 'struct_ops'
}

/** Whether one of the programs, or of their sub-programs, uses a variable. */
export function useGlobalData(spec: ObjectSpec, programs: readonly ObjectProgram[]): boolean {
  // Once for all programs: an object may have thousands of both.
  const kconfig = new Set(spec.externs.filter(({ kind }) => kind === 'kconfig').map(({ name }) => name))
  return programs.some(program =>
    functionsOf(spec, program).some(({ references }) =>
      references.some(one => one.kind === 'data' || (one.kind === 'extern' && kconfig.has(one.extern))),
    ),
  )
}
