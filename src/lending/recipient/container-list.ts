/**
 * Containers as their engines describe them: which facts are read, and within which bounds. Pure.
 */
import { FormatError } from '../../errors.ts'

export interface Container {
  readonly source: 'Podman' | 'Docker'
  /** 64 hexadecimal digits. */
  readonly id: string
  readonly names: readonly string[]
  /** Its first process; undefined while it does not run. */
  readonly pid: number | undefined
  /** In the engine's own words: `running`, `exited`, `paused`. */
  readonly state: string
  /** When it was started, in milliseconds since the epoch; undefined: the engine does not say. */
  readonly startedAt: number | undefined
}

export const CONTAINER_ID = /^[0-9a-f]{64}$/
/** What Docker and Podman allow as a name; an id is one too. */
const CONTAINER_NAME = /^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}$/

export function isContainerName(text: string): boolean {
  return CONTAINER_NAME.test(text)
}

/** The objects of a JSON array. FormatError: it is none. */
export function recordsFrom(source: string, text: string): Record<string, unknown>[] {
  const list = jsonFrom(source, text)
  // Podman writes null for an empty list.
  if (list === null) return []
  if (!Array.isArray(list) || !list.every(isRecord))
    throw new FormatError(source, 'the answer is no list of containers')
  return list
}

export function jsonFrom(source: string, text: string): unknown {
  try {
    return JSON.parse(text.trim() === '' ? 'null' : text)
  } catch (cause) {
    throw new FormatError(source, 'the answer is no JSON', { cause })
  }
}

export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** The entries that can be names; Docker writes a slash before each. */
export function namesFrom(value: unknown): string[] {
  if (!Array.isArray(value)) return []
  return value.flatMap(name => {
    const text = typeof name === 'string' ? name.replace(/^\//, '') : ''
    return isContainerName(text) ? [text] : []
  })
}
