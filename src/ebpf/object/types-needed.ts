/**
 * What in an object cannot do without its types in the kernel. Pure.
 *
 * The kernel takes most programs and maps without types too: then names and source lines are
 * missing in what tools and the verifier say. Sources: kernel/bpf/verifier.c (check_ld_imm64,
 * process_spin_lock, check_kfunc_call,
 * check_abnormal_return), kernel/bpf/bpf_local_storage.c, kernel/bpf/btf.c
 * (btf_get_field_type, btf_check_type_match).
 */
import { bpf_func_id } from '../../uapi/bpf.ts'
import { CLASS, LD_IMM64, MODE, OP, SLOT_BYTES } from '../asm/insn.ts'
import type { Btf } from '../btf/btf.ts'
import { functionsOf } from './reach.ts'
import type { ObjectMap, ObjectProgram, ObjectSpec } from './spec.ts'

const STORAGE: readonly string[] = ['sk_storage', 'inode_storage', 'task_storage', 'cgrp_storage']

/** Structs in values that the verifier has to find before a program may use them. */
const SPECIAL_STRUCTS: ReadonlySet<string> = new Set([
  ...['bpf_spin_lock', 'bpf_res_spin_lock', 'bpf_timer', 'bpf_wq', 'bpf_task_work'],
  ...['bpf_list_head', 'bpf_list_node', 'bpf_rb_root', 'bpf_rb_node', 'bpf_refcount'],
])
const SPECIAL_TAGS: ReadonlySet<string> = new Set(['kptr', 'kptr_untrusted', 'percpu_kptr', 'uptr'])

/** Kernel functions that make an object of a type of the program. */
const ALLOCATORS: ReadonlySet<string> = new Set([
  ...['bpf_obj_new_impl', 'bpf_percpu_obj_new_impl', 'bpf_obj_new', 'bpf_percpu_obj_new'],
])

/** Types and members of one map that are looked at, and how deep. */
const MAX_LOOKS = 65_536
const MAX_DEPTH = 64

/**
 * Each part of the object that needs them, for people: `the spin lock in map "x"`. Empty: they are
 * a gift to whoever looks.
 */
export function needTypes(
  spec: ObjectSpec,
  programs: readonly ObjectProgram[],
  isMade: (map: ObjectMap) => boolean = ({ autocreate }) => autocreate,
): string[] {
  if (spec.btf === undefined) return []
  const { types } = spec.btf
  const reasons = new Set<string>()
  const maps = new Map(spec.maps.map(map => [map.name, map]))
  const found = new Map<ObjectMap, string | undefined>()
  const special = (map: ObjectMap): string | undefined => {
    if (!found.has(map)) found.set(map, specialIn(types, map))
    return found.get(map)
  }
  for (const map of spec.maps) {
    if (!isMade(map)) continue
    if (map.structOps !== undefined) reasons.add(`struct_ops map "${map.name}"`)
    else if (STORAGE.includes(map.type)) reasons.add(`storage map "${map.name}"`)
  }
  for (const program of programs) {
    if (program.rule?.type === 'ext') reasons.add(`program "${program.name}", which replaces a function`)
    if (spec.functions[program.function]!.exceptionCallback !== undefined)
      reasons.add(`the exception callback of program "${program.name}"`)
    const main = spec.functions[program.function]!
    for (const of of functionsOf(spec, program)) {
      const { code, references } = of
      const returns = of === main ? undefined : abnormalReturn(code)
      if (returns !== undefined) reasons.add(`${returns} of function "${of.name}"`)
      for (const reference of references) {
        if (reference.kind === 'function' && code[reference.slot * SLOT_BYTES] === LD_IMM64)
          reasons.add(`the callback "${spec.functions[reference.target]!.name}"`)
        if (reference.kind === 'extern' && ALLOCATORS.has(reference.extern))
          reasons.add(`"${reference.extern}"`)
        if (reference.kind !== 'map' && reference.kind !== 'data') continue
        const map = maps.get(reference.map)
        const what = map && special(map)
        if (what !== undefined) reasons.add(`${what} in map "${reference.map}"`)
      }
    }
  }
  return [...reasons]
}

const CALL = CLASS.JMP | OP.CALL

/**
 * What leaves a function in the midst of it, which the kernel allows below a program only where it
 * knows the function's type (check_abnormal_return).
 */
function abnormalReturn(code: Uint8Array): string | undefined {
  const view = new DataView(code.buffer, code.byteOffset, code.length)
  for (let at = 0; at + SLOT_BYTES <= code.length; at += SLOT_BYTES) {
    const opcode = code[at]!
    if (opcode === LD_IMM64) at += SLOT_BYTES
    else if (opcode === CALL) {
      const isHelper = code[at + 1]! >> 4 === 0
      if (isHelper && view.getInt32(at + 4, true) === bpf_func_id.BPF_FUNC_tail_call) return 'the tail call'
    } else if ((opcode & 7) === CLASS.LD && LOADS_PACKET.includes(opcode & 0xe0))
      return 'the load of a packet'
  }
  return undefined
}

const LOADS_PACKET: readonly number[] = [MODE.ABS, MODE.IND]

function specialIn(types: Btf, map: ObjectMap): string | undefined {
  const roots = [map.valueTypeId, map.inner?.valueTypeId ?? 0].filter(id => id !== 0)
  const seen = new Set<number>()
  let looks = 0
  const look = (id: number, depth = 0): string | undefined => {
    if (looks++ > MAX_LOOKS || depth > MAX_DEPTH || id === 0 || seen.has(id)) return undefined
    seen.add(id)
    const type = types.type(id)
    switch (type.kind) {
      case 'struct':
      case 'union':
        if (SPECIAL_STRUCTS.has(type.name)) return `struct ${type.name}`
        return first(type.members, member => look(member.type, depth + 1))
      case 'datasec':
        return first(type.vars, variable => look(variable.type, depth + 1))
      case 'ptr':
        return tagOf(types, type.type)
      case 'array':
      case 'var':
      case 'typedef':
      case 'const':
      case 'volatile':
      case 'restrict':
      case 'type_tag':
        return look(type.type, depth + 1)
      default:
        return undefined
    }
  }
  return first(roots, id => look(id))
}

/** The kernel reads the tag next to the pointer. */
function tagOf(types: Btf, pointee: number): string | undefined {
  if (pointee === 0) return undefined
  const type = types.type(pointee)
  return type.kind === 'type_tag' && SPECIAL_TAGS.has(type.name) ? `the ${type.name}` : undefined
}

function first<T, R>(items: readonly T[], find: (item: T) => R | undefined): R | undefined {
  for (const item of items) {
    const found = find(item)
    if (found !== undefined) return found
  }
  return undefined
}
