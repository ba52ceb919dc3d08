/** Which functions a program consists of, and what keeps it from being loaded. Pure. */
import { FormatError } from '../../errors.ts'
import { SLOT_BYTES } from '../asm/insn.ts'
import type { FunctionSpec } from './functions.ts'
import type { ObjectProgram, ObjectSpec } from './spec.ts'

/** As many as the verifier takes (BPF_MAX_SUBPROGS). */
export const MAX_FUNCTIONS = 256
/**
 * References and CO-RE relocations of all programs together, those of shared functions counted for
 * each: a hundred times those of the largest object that is known.
 */
const MAX_REFERENCES = 1 << 24
/** Slots of instructions, counted in the same way. */
const MAX_SLOTS = 1 << 26

/** What was found of an object before, by the numbers of its programs' functions. */
interface Reach {
  readonly byFunction: Map<number, readonly FunctionSpec[]>
  references: number
  slots: number
}

const known = new WeakMap<ObjectSpec, Reach>()

/**
 * A program's own function and all that it leads to; of more than the kernel takes, the first ones.
 * FormatError: programs share so much that looking at each would take too long.
 */
export function functionsOf(spec: ObjectSpec, { function: main }: ObjectProgram): readonly FunctionSpec[] {
  let reach = known.get(spec)
  if (reach === undefined) {
    reach = { byFunction: new Map(), references: 0, slots: 0 }
    known.set(spec, reach)
  }
  let found = reach.byFunction.get(main)
  if (found === undefined) {
    found = walk(spec, main)
    reach.byFunction.set(main, found)
    for (const { references, coreRelos, code } of found) {
      reach.references += references.length + coreRelos.length
      reach.slots += code.length / SLOT_BYTES
    }
    if (reach.references > MAX_REFERENCES || reach.slots > MAX_SLOTS)
      throw new FormatError(
        'BPF object',
        'programs share too many functions that are large or refer to too much',
      )
  }
  return found
}

function walk(spec: ObjectSpec, main: number): FunctionSpec[] {
  const seen = new Set([main])
  const callback = spec.functions[main]!.exceptionCallback
  if (callback !== undefined) seen.add(callback)
  // Walking a set includes the items that are added meanwhile.
  for (const index of seen)
    for (const reference of spec.functions[index]!.references)
      if (reference.kind === 'function' && seen.size <= MAX_FUNCTIONS) seen.add(reference.target)
  return [...seen].map(index => spec.functions[index]!)
}

/** Why the program cannot be made whole; undefined: it can. */
export function whyBroken(spec: ObjectSpec, program: ObjectProgram): string | undefined {
  const functions = functionsOf(spec, program)
  if (functions.length > MAX_FUNCTIONS) return tooManyFunctions(program.name)
  for (const { references } of functions)
    for (const reference of references) if (reference.kind === 'broken') return reference.why
  return undefined
}

export function tooManyFunctions(program: string): string {
  return `program "${program}" has more than ${MAX_FUNCTIONS} functions`
}
