/** TCP congestion controls as this kernel has them: struct_ops that programs may be of. */
import type { BtfComposite } from '../../../src/ebpf/btf/btf.ts'
import { kernelBtf } from '../../../src/ebpf/kernel/btf.ts'
import { CONGESTION, MEMBERS, SHAPES } from './step.ts'

/** What a struct_ops map holds: state and references, and the struct itself as `data`. */
const VALUE = `bpf_struct_ops_${CONGESTION}`

export class Controls {
  /** Number of the value's type, for map_create. */
  readonly type: number
  /** Bytes of a value. */
  readonly bytes: number
  readonly #inner: BtfComposite
  readonly #data: number

  constructor() {
    const { types } = kernelBtf()
    this.type = types.find(VALUE, 'struct')[0]!
    this.bytes = types.sizeof(this.type)
    this.#inner = types.type(types.find(CONGESTION, 'struct')[0]!) as BtfComposite
    this.#data = offsetOf(types.type(this.type) as BtfComposite, 'data')
  }

  /** Expected attach type of a program that is to be this member. */
  member(name: string): number {
    return this.#inner.members.findIndex(member => member.name === name)
  }

  /** A value with these programs, in the order of MEMBERS. */
  value(name: number, progs: readonly number[]): Uint8Array {
    const value = new Uint8Array(this.bytes)
    const view = new DataView(value.buffer)
    for (const [i, prog] of progs.entries()) {
      const { member } = SHAPES[MEMBERS[i]!]
      view.setBigUint64(this.#data + offsetOf(this.#inner, member), BigInt(prog), true)
    }
    value.set(new TextEncoder().encode(`story${name}`), this.#data + offsetOf(this.#inner, 'name'))
    return value
  }
}

function offsetOf({ members }: BtfComposite, name: string): number {
  return members.find(member => member.name === name)!.bitOff / 8
}
