/**
 * A policy with a way back to its text: where each field stands. Pure, without what parses; so a
 * policy that was parsed before, and kept, can still be warned about with line and column.
 */
import { FormatError } from '../errors.ts'
import { type Policy, type PolicyJSON, policyFromJSON, policyToJSON } from './policy.ts'

/** In the text of a policy; both count from 1. */
export interface Position {
  readonly line: number
  readonly col: number
}

/** Positions of values by their path (`spec.rights.maps[2]`); the empty path is the whole. */
export type Positions = ReadonlyMap<string, Position>

export interface LocatedPolicy {
  readonly policy: Policy
  readonly positions: Positions
  /** Where the field at a path such as `spec.rights.cmds[1]` stands, or what encloses it. */
  locate(path: string): Position
}

export function locatedPolicy(policy: Policy, positions: Positions): LocatedPolicy {
  return { policy, positions, locate: path => locate(positions, pathSegments(path)) }
}

/** Position of the value at `path`, or of the nearest enclosing value that exists. */
export function locate(positions: Positions, path: readonly PropertyKey[]): Position {
  for (let length = path.length; length >= 0; length--) {
    const found = positions.get(pathText(path.slice(0, length)))
    if (found !== undefined) return found
  }
  return { line: 1, col: 1 }
}

/** `spec.rights.maps[2]`. Keys that are not plain words are quoted. */
export function pathText(path: readonly PropertyKey[]): string {
  let text = ''
  for (const segment of path) {
    if (typeof segment === 'number') text += `[${segment}]`
    else if (/^[\w-]+$/.test(String(segment))) text += `${text === '' ? '' : '.'}${String(segment)}`
    else text += `[${JSON.stringify(String(segment).slice(0, 64))}]`
  }
  return text
}

/** The inverse of `pathText`, for the plain keys that the schema has. */
export function pathSegments(path: string): (string | number)[] {
  return [...path.matchAll(/\[(\d+)\]|[^.[\]]+/g)].map(([text, index]) =>
    index === undefined ? text : Number(index),
  )
}

/** What `locatedPolicyToJSON` makes. A position is its path, line and column. */
interface LocatedPolicyJSON {
  readonly policy: PolicyJSON
  readonly positions: readonly (readonly [string, number, number])[]
}

/** JSON-safe data. `locatedPolicyFromJSON` is the exact inverse. */
export function locatedPolicyToJSON({ policy, positions }: LocatedPolicy): LocatedPolicyJSON {
  return {
    policy: policyToJSON(policy),
    positions: [...positions].map(([path, { line, col }]) => [path, line, col]),
  }
}

/** As `policyFromJSON`: for a cache that only its owner can write. Throws FormatError. */
export function locatedPolicyFromJSON(value: unknown): LocatedPolicy {
  const { policy, positions } = (value ?? {}) as Partial<LocatedPolicyJSON>
  if (!Array.isArray(positions)) throw new FormatError('policy JSON', 'has no positions')
  const entries = (positions as LocatedPolicyJSON['positions']).map(
    ([path, line, col]) => [path, { line, col }] as const,
  )
  return locatedPolicy(policyFromJSON(policy), new Map(entries))
}
