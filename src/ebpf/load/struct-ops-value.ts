/**
 * A `struct_ops` value as the running kernel wants it. Pure, given the kernel's types.
 *
 * The object has the struct as its compiler knew it; the kernel's may have other members in other
 * places. Members are matched by name, programs by the member they are for. Source: libbpf,
 * bpf_map__init_kern_struct_ops.
 */
import { NotSupportedError } from '../../errors.ts'
import type { Btf, BtfComposite, BtfMember } from '../btf/btf.ts'
import { isFunctionPointer, memberNamed, type StructOps } from '../object/struct-ops.ts'

export interface KernelStructOps {
  /** The struct, e.g. `tcp_congestion_ops`: what its programs attach to. */
  readonly structId: number
  /** `bpf_struct_ops_NAME`, the type of the map's value. */
  readonly valueId: number
  readonly valueBytes: number
}

export interface StructOpsSlot {
  readonly program: string
  /** Number of the member in the kernel's struct: the program's expected attach type. */
  readonly member: number
  /** Byte of the value where the program's descriptor goes. */
  readonly off: number
}

export interface StructOpsValue extends KernelStructOps {
  readonly contents: Uint8Array
  readonly slots: readonly StructOpsSlot[]
}

function unsupported(map: string, message: string, hint?: string): NotSupportedError {
  return new NotSupportedError(`struct_ops "${map}": ${message}`, { context: { map }, hint })
}

/**
 * Places the object's struct into the kernel's. `loaded` are the programs that will be loaded; what
 * is not leaves its member empty. NotSupportedError: it says something the kernel cannot take.
 */
export function placeStructOps(
  map: string,
  ops: StructOps,
  local: Btf,
  kernel: Btf,
  of: KernelStructOps,
  loaded: ReadonlySet<string>,
): StructOpsValue {
  const struct = kernel.type(of.structId) as BtfComposite
  const value = kernel.type(of.valueId) as BtfComposite
  const data = value.members.find(member => kernel.resolve(member.type)?.id === of.structId)
  if (data === undefined) throw unsupported(map, `the kernel's ${value.name} has no ${struct.name}`)
  const contents = new Uint8Array(of.valueBytes)
  const slots: StructOpsSlot[] = []
  for (const member of (local.type(ops.typeId) as BtfComposite).members) {
    const program = ops.programs.get(member.name)
    if (program !== undefined && !loaded.has(program)) continue
    const mine = bytesOf(local, member, ops.data)
    const theirs = memberNamed(struct, member.name)
    if (theirs === undefined) {
      if (mine.some(byte => byte !== 0))
        throw unsupported(map, `sets "${member.name}", which this kernel's ${struct.name} does not have`)
      // Never in silence: what the member is for would not happen.
      if (program !== undefined)
        throw unsupported(
          map,
          `member "${member.name}" is program "${program}", and this kernel's ${struct.name} has no such member`,
          'Leave the program out, where the struct does without it, or run a newer kernel',
        )
      continue
    }
    const off = (data.bitOff + theirs.bitOff) / 8
    if (program !== undefined) {
      if (!isFunctionPointer(kernel, theirs.type))
        throw unsupported(map, `"${member.name}" is no function in this kernel`)
      slots.push({ program, member: struct.members.indexOf(theirs), off })
      continue
    }
    if (mine.every(byte => byte === 0)) continue
    if (member.bitSize !== 0 || theirs.bitSize !== 0 || kernel.sizeof(theirs.type) !== mine.length)
      throw unsupported(map, `"${member.name}" has another size in this kernel`)
    contents.set(mine, off)
  }
  return { ...of, contents, slots }
}

function bytesOf(btf: Btf, member: BtfMember, data: Uint8Array): Uint8Array {
  const off = Math.floor(member.bitOff / 8)
  const bytes =
    member.bitSize === 0 ? btf.sizeof(member.type) : Math.ceil(((member.bitOff % 8) + member.bitSize) / 8)
  return data.subarray(off, off + bytes)
}
