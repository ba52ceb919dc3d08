/**
 * What a linked program's instructions refer to, filled in: descriptors of maps, fields of global
 * data, addresses and BTF ids of externs. What is not there becomes an instruction that the
 * verifier refuses if it can be reached.
 */

import { CLASS, LD_IMM64, OP, PSEUDO, SLOT_BYTES } from '../asm/insn.ts'
import type { BtfObject } from '../btf/object.ts'
import type { BpfMap } from '../map.ts'
import type { ObjectSpec } from '../object/spec.ts'
import type { ExternValue } from './extern-values.ts'
import type { LinkedProgram } from './linker.ts'

/**
 * Numbers of helpers that no kernel has, so that the verifier refuses just these instructions. The
 * same as libbpf's.
 */
const MAP_POISON = 2_001_000_000
const EXTERN_POISON = 2_002_000_000

const CALL = CLASS.JMP | OP.CALL
const KCONFIG = '.kconfig'

/** What there is to refer to. */
export interface Referents {
  readonly spec: ObjectSpec
  readonly maps: ReadonlyMap<string, BpfMap>
  readonly externs: ReadonlyMap<string, ExternValue>
  /** The types of a module, by a descriptor that stays open until the program is loaded. */
  readonly module: (name: string) => BtfObject
  /** Modules whose functions are called, by their place in fd_array, from index 1 on. */
  readonly callable: readonly string[]
  /** Maps for the program's jump tables, in their order. */
  readonly jumpTables: readonly BpfMap[]
  /** Byte offset of the global data in the arena. */
  readonly arenaOff: number
}

/** Changes the code in place. */
export function fillIn({ code, references, jumpTables }: LinkedProgram, referents: Referents): void {
  const view = new DataView(code.buffer, code.byteOffset, code.length)
  for (const reference of references) {
    const at = reference.slot * SLOT_BYTES
    switch (reference.kind) {
      case 'map':
        putMap(view, at, PSEUDO.MAP_FD, reference.map, 0, referents)
        break
      case 'data':
        putMap(view, at, PSEUDO.MAP_VALUE, reference.map, reference.off, referents)
        break
      case 'extern':
        putExtern(view, at, reference.extern, referents)
        break
      case 'arena':
        putMap(
          view,
          at,
          PSEUDO.MAP_VALUE,
          referents.spec.arena!.map,
          referents.arenaOff + reference.off,
          referents,
        )
    }
  }
  for (const [i, { slots }] of jumpTables.entries())
    for (const slot of slots) {
      const at = slot * SLOT_BYTES
      putSource(view, at, PSEUDO.MAP_VALUE)
      view.setInt16(at + 2, 0, true)
      view.setInt32(at + 4, referents.jumpTables[i]!.fd.number, true)
    }
}

function putMap(
  view: DataView,
  at: number,
  source: number,
  name: string,
  off: number,
  { maps, spec }: Referents,
): void {
  const map = maps.get(name)
  if (map !== undefined) {
    put(view, at, source, map.fd.number, off)
    return
  }
  // Code that is never reached may use a map that was not made. Both halves, since one alone is no
  // instruction.
  const number = MAP_POISON + spec.maps.findIndex(one => one.name === name)
  poisonCall(view, at, number)
  poisonCall(view, at + SLOT_BYTES, number)
}

function putExtern(view: DataView, at: number, name: string, referents: Referents): void {
  const value = referents.externs.get(name)!
  const isCall = view.getUint8(at) !== LD_IMM64
  switch (value.kind) {
    case 'kconfig':
      putMap(view, at, PSEUDO.MAP_VALUE, KCONFIG, value.off, referents)
      break
    case 'address':
      put(
        view,
        at,
        0,
        Number(BigInt.asIntN(32, value.address)),
        Number(BigInt.asIntN(32, value.address >> 32n)),
      )
      break
    case 'type': {
      const { module } = value
      if (!isCall) {
        put(view, at, PSEUDO.BTF_ID, value.id, module === undefined ? 0 : referents.module(module).fd.number)
        break
      }
      putSource(view, at, PSEUDO.KFUNC_CALL)
      view.setInt16(at + 2, module === undefined ? 0 : referents.callable.indexOf(module) + 1, true)
      view.setInt32(at + 4, value.id, true)
      break
    }
    case 'missing':
      if (isCall)
        poisonCall(view, at, EXTERN_POISON + referents.spec.externs.findIndex(one => one.name === name))
      else put(view, at, 0, 0, 0)
  }
}

function putSource(view: DataView, at: number, source: number): void {
  view.setUint8(at + 1, (view.getUint8(at + 1) & 0xf) | (source << 4))
}

/** Both halves of a 64-bit constant. */
function put(view: DataView, at: number, source: number, low: number, high: number): void {
  putSource(view, at, source)
  view.setInt32(at + 4, low, true)
  view.setInt32(at + SLOT_BYTES + 4, high, true)
}

function poisonCall(view: DataView, at: number, number: number): void {
  view.setUint8(at, CALL)
  view.setUint8(at + 1, 0)
  view.setInt16(at + 2, 0, true)
  view.setInt32(at + 4, number, true)
}

/**
 * What is behind an instruction that was made invalid here, from the verifier's log; undefined:
 * nothing of ours.
 */
export function explainMissing(log: readonly string[], spec: ObjectSpec): string | undefined {
  const number = Number(/invalid func unknown#(\d+)/.exec(log.join('\n'))?.[1] ?? -1)
  const map = spec.maps[number - MAP_POISON]
  if (map !== undefined) return `it uses map "${map.name}", which was not made`
  const extern = spec.externs[number - EXTERN_POISON]
  return extern && `it calls "${extern.name}", which this kernel does not have, without checking for it`
}
