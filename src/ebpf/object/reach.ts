/** Which functions a program consists of, and what keeps it from being loaded. Pure. */
import type { FunctionSpec } from './functions.ts'
import type { ObjectProgram, ObjectSpec } from './spec.ts'

/** A program's own function and all that it leads to. */
export function functionsOf(spec: ObjectSpec, program: ObjectProgram): FunctionSpec[] {
  const seen = new Set([program.function])
  const callback = spec.functions[program.function]!.exceptionCallback
  if (callback !== undefined) seen.add(callback)
  // Walking a set includes the items that are added meanwhile.
  for (const index of seen)
    for (const reference of spec.functions[index]!.references)
      if (reference.kind === 'function') seen.add(reference.target)
  return [...seen].map(index => spec.functions[index]!)
}

/** Why the program cannot be made whole; undefined: it can. */
export function whyBroken(spec: ObjectSpec, program: ObjectProgram): string | undefined {
  for (const { references } of functionsOf(spec, program))
    for (const reference of references) if (reference.kind === 'broken') return reference.why
  return undefined
}
