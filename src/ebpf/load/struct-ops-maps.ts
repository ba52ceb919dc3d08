/** The struct_ops maps of an object, placed into the running kernel's structs. */
import { ConflictError, InputError, NotSupportedError } from '../../errors.ts'
import type { Btf } from '../btf/btf.ts'
import { essentialName } from '../btf/names.ts'
import { findKernelType } from '../kernel/type.ts'
import type { ObjectMap, ObjectSpec } from '../object/spec.ts'
import type { Program } from '../prog.ts'
import { placeStructOps, type StructOpsValue } from './struct-ops-value.ts'

export interface PlacedStructOps extends StructOpsValue {
  /** The module that brings the struct; undefined: the kernel itself. */
  readonly module: string | undefined
}

export class StructOpsMaps {
  /** By the names of the maps. */
  readonly values = new Map<string, PlacedStructOps>()

  /**
   * `isMade` says which maps will be made, `loaded` which programs will be loaded. NotSupportedError:
   * this kernel lacks a struct or a member. ConflictError: a program is for two different members.
   */
  constructor(spec: ObjectSpec, isMade: (map: ObjectMap) => boolean, loaded: ReadonlySet<string>) {
    const local = spec.btf?.types
    for (const map of spec.maps) {
      const { name, structOps } = map
      if (structOps === undefined || local === undefined || !isMade(map)) continue
      const struct = essentialName(local.name(structOps.typeId))
      const value = findKernelType(`bpf_struct_ops_${struct}`, 'struct')
      const of = value && structOf(value, struct)
      if (of === undefined)
        throw new NotSupportedError(
          `struct_ops "${name}": this kernel has no ${struct} that programs can make`,
          {
            context: { map: name, struct },
            hint: 'Run a kernel that has it, or load the module that brings it',
          },
        )
      const placed = placeStructOps(name, structOps, local, value!.types, of, loaded)
      this.#requireSameMembers(placed)
      this.values.set(name, { ...placed, module: value!.module })
    }
  }

  /** A program is loaded for one member of one struct, however many maps name it. */
  #requireSameMembers({ slots, structId }: StructOpsValue): void {
    for (const { program, member } of slots)
      for (const other of this.values.values())
        for (const slot of other.slots)
          if (slot.program === program && (slot.member !== member || other.structId !== structId))
            throw new ConflictError(`Program "${program}" is for two different members of struct_ops maps`, {
              context: { program },
            })
  }

  /** What a program is for: a member, by its number, of a struct of the kernel. */
  memberFor(program: string): { number: number; structId: number; module: string | undefined } {
    for (const { slots, structId, module } of this.values.values()) {
      const slot = slots.find(one => one.program === program)
      if (slot !== undefined) return { number: slot.member, structId, module }
    }
    throw new InputError(`Program "${program}" is for no struct_ops map that is made`, {
      context: { program },
    })
  }

  /** What to put into each map, to register it. */
  contents(programs: ReadonlyMap<string, Program>): Map<string, Uint8Array> {
    const contents = new Map<string, Uint8Array>()
    for (const [name, value] of this.values) {
      const bytes = value.contents
      const view = new DataView(bytes.buffer)
      for (const { program, off } of value.slots) {
        const loaded = programs.get(program)
        if (loaded !== undefined) view.setBigUint64(off, BigInt(loaded.fd.number), true)
      }
      contents.set(name, bytes)
    }
    return contents
  }
}

/**
 * The kernel's struct within the value type of its maps; undefined: it is not what it should be.
 */
function structOf(
  value: { id: number; types: Btf },
  name: string,
): { structId: number; valueId: number; valueBytes: number } | undefined {
  const type = value.types.type(value.id)
  if (type.kind !== 'struct') return undefined
  for (const member of type.members) {
    const of = value.types.resolve(member.type)
    if (of?.kind === 'struct' && of.name === name)
      return { structId: of.id, valueId: value.id, valueBytes: type.size }
  }
  return undefined
}
