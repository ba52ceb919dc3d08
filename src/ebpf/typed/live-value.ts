/**
 * Structs and arrays in memory that programs share with us, as objects that read and write through:
 * `data.config.port = 80` changes the two bytes of `port` and no others. Pure memory.
 *
 * Numbers, pointers and strings are read when they are asked for. Reading several of them is not one
 * look: a program may write in between.
 */

import { ConflictError } from '../../errors.ts'
import type { Codec, Field } from '../btf/typed-value.ts'

/** Memory that values live in. */
export interface Memory {
  /** What it is called in messages. */
  readonly name: string
  readonly writable: boolean
  /** Again each time: it may be gone. */
  readonly bytes: () => Uint8Array
}

const INSPECT = Symbol.for('nodejs.util.inspect.custom')

function viewOf({ bytes }: Memory): DataView {
  const { buffer, byteOffset, byteLength } = bytes()
  return new DataView(buffer, byteOffset, byteLength)
}

/** Struct, union or array: an object that reads and writes through. Others: what they are now. */
export function liveValue(memory: Memory, codec: Codec, bit: number): unknown {
  if (codec.fields !== undefined) return liveStruct(memory, codec, codec.fields, bit)
  if (codec.elements !== undefined) return liveArray(memory, codec, codec.elements, bit)
  const view = viewOf(memory)
  if (codec.isBytes === true && memory.writable)
    return new Uint8Array(view.buffer, view.byteOffset + bit / 8, codec.sizeBytes)
  return codec.read(view, bit)
}

/** Sets what is there. RangeError and TypeError as of `writeValue`; ConflictError: it is read-only. */
export function setLive(memory: Memory, codec: Codec, bit: number, value: unknown, path: string): void {
  if (!memory.writable)
    throw new ConflictError(`"${path}" cannot be set any more`, {
      context: { variable: path, section: memory.name },
      hint: 'Set constants when the object is loaded; of other variables make one global, so that the section can be mapped',
    })
  // What is wrong about a value, its codec says.
  codec.write(viewOf(memory), bit, value as Parameters<Codec['write']>[2], path)
}

function liveStruct(memory: Memory, codec: Codec, fields: readonly Field[], bit: number): object {
  const object = {}
  // Unlike assignment, this makes a plain member even of __proto__.
  for (const { name, bitOff, codec: field } of fields)
    Object.defineProperty(object, name, {
      enumerable: true,
      configurable: true,
      get: () => liveValue(memory, field, bit + bitOff),
      set: (value: unknown) => setLive(memory, field, bit + bitOff, value, name),
    })
  Object.defineProperty(object, INSPECT, { value: () => codec.read(viewOf(memory), bit) })
  return object
}

function liveArray(
  memory: Memory,
  whole: Codec,
  { codec, count }: { readonly codec: Codec; readonly count: number },
  bit: number,
): object {
  const place = (key: string | symbol): number | undefined => {
    if (typeof key !== 'string' || !/^(?:0|[1-9][0-9]*)$/.test(key)) return undefined
    const index = Number(key)
    return index < count ? bit + index * codec.sizeBytes * 8 : undefined
  }
  const shown = new Array<unknown>(count)
  // What prints an array looks at the one behind the proxy.
  Object.defineProperty(shown, INSPECT, { value: () => whole.read(viewOf(memory), bit) })
  return new Proxy(shown, {
    get(target, key) {
      const at = place(key)
      return at === undefined ? Reflect.get(target, key) : liveValue(memory, codec, at)
    },
    set(_, key, value) {
      const at = place(key)
      if (at === undefined) throw new RangeError(`an array of ${count} has no "${String(key)}" to be set`)
      setLive(memory, codec, at, value, String(key))
      return true
    },
    has: (target, key) => place(key) !== undefined || Reflect.has(target, key),
    getOwnPropertyDescriptor(target, key) {
      const at = place(key)
      return at === undefined
        ? Reflect.getOwnPropertyDescriptor(target, key)
        : { configurable: true, enumerable: true, writable: true, value: liveValue(memory, codec, at) }
    },
    ownKeys: () => [...Array.from({ length: count }, (_, i) => `${i}`), 'length'],
    deleteProperty: () => false,
    defineProperty: () => false,
  })
}
