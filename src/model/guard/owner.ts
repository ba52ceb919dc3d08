/** Whose an object is: the delegation that it is judged by, whoever calls. */
import type { Delegation } from './delegation.ts'
import type { GuardLink, GuardMap, GuardObject, GuardProgram } from './objects.ts'
import type { GuardState } from './state.ts'
import type { Judged } from './verdict.ts'

/** The delegation of an object, and a first verdict; without both it is nobody's. */
export interface Owner {
  readonly of?: Delegation
  readonly what: Judged
}

export function ownerOfProgram(state: GuardState, program: GuardProgram, what: Judged): Owner {
  const { token, delegation } = program
  if (token === undefined) {
    // Of a cgroup that is or was confined.
    if (delegation === undefined || !state.judgedBy(delegation, what)) return { what }
    return { what, of: delegation }
  }
  if (!state.judgedBy(token.delegation, what)) return { what }
  if (delegation === undefined || delegation !== token.delegation) {
    what.beyondMode('mismatch')
    return { what }
  }
  return { what, of: delegation }
}

export function ownerOfMap(state: GuardState, { delegation }: GuardMap, what: Judged): Owner {
  return delegation !== undefined && state.judgedBy(delegation, what) ? { what, of: delegation } : { what }
}

export function ownerOfLink(state: GuardState, link: GuardLink, what: Judged): Owner {
  if ('program' in link) return ownerOfProgram(state, link.program, what)
  return 'map' in link ? ownerOfMap(state, link.map, what) : { what }
}

export function ownerOf(state: GuardState, object: GuardObject | undefined, what: Judged): Owner {
  if (object?.kind === 'program') return ownerOfProgram(state, object.program, what)
  if (object?.kind === 'map') return ownerOfMap(state, object.map, what)
  return object?.kind === 'link' ? ownerOfLink(state, object.link, what) : { what }
}
