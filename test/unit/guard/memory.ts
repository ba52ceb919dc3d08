/** The guard's maps in memory, as its object declares them. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { BpfMap } from '../../../src/ebpf/map.ts'
import { parseObject } from '../../../src/ebpf/object/spec.ts'
import { tablesOf } from '../../../src/guard/maps.ts'
import { ROOT } from '../../helpers/machine.ts'

const object = parseObject(readFileSync(join(ROOT, 'bpf/guard.bpf.o')), { name: 'guard' })
export const types = object.btf!.types
export const declared = new Map(
  object.maps.filter(({ kind }) => kind === 'declared').map(map => [map.name, map]),
)

/** A map in memory, by the bytes of its keys. */
export class Memory {
  readonly elements = new Map<string, Uint8Array>()
  readonly keyBytes: number
  readonly valueBytes: number
  readonly isArray: boolean

  constructor(name: string, valueBytes?: number) {
    const map = declared.get(name)!
    this.keyBytes = map.keyBytes
    this.valueBytes = valueBytes ?? map.valueBytes
    this.isArray = map.type === 'array'
  }

  lookup(key: Uint8Array): Uint8Array | undefined {
    const found = this.elements.get(Buffer.from(key).toString('hex'))
    return found ?? (this.isArray ? new Uint8Array(this.valueBytes) : undefined)
  }

  update(key: Uint8Array, value: Uint8Array): void {
    assert.deepEqual([key.length, value.length], [this.keyBytes, this.valueBytes])
    this.elements.set(Buffer.from(key).toString('hex'), value)
  }

  delete(key: Uint8Array): boolean {
    return this.elements.delete(Buffer.from(key).toString('hex'))
  }

  readAll(): [Uint8Array, Uint8Array][] {
    return [...this.elements].map(([key, value]) => [Buffer.from(key, 'hex'), value])
  }

  entries = this.readAll
  keys = (): Uint8Array[] => this.readAll().map(([key]) => key)
}

/** Each that was asked for, in order. */
export const made: Memory[] = []
/** The guard's tables over maps in memory. */
export const tables = () =>
  tablesOf(name => {
    made.push(new Memory(name))
    return made.at(-1) as unknown as BpfMap
  })
