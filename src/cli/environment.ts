/**
 * The environment of the program that `run` starts: a short list, and the variables that options
 * name.
 */
import { DEFAULT_PATH } from '../delegation/actions.ts'
import { UsageError } from '../errors.ts'
import type { HostUser } from './user.ts'

/**
 * The variables that the program gets of its caller's environment. All others may be secret, or
 * settings of root's.
 */
const KEPT = /^(PATH|TERM|LANG|LC_\w+|TZ)$/

const TOKEN_PATH = 'LIBBPF_BPF_TOKEN_PATH'

export interface EnvironmentWish {
  readonly user: Pick<HostUser, 'name' | 'home' | 'shell'>
  /** Where the delegation is mounted. */
  readonly tokenPath: string
  /** `NAME=VALUE`, or `NAME` for the caller's value. The last one of a name counts. */
  readonly named?: readonly string[] | undefined
  /** Everything that the caller has. */
  readonly keep?: boolean | undefined
}

/**
 * Pure. UsageError: a name that is none, or that the caller does not have, or a variable that is
 * not as the caller gave it.
 */
export function workloadEnvironment(
  caller: NodeJS.ProcessEnv,
  { user, tokenPath, named = [], keep = false }: EnvironmentWish,
): Record<string, string> {
  // Without a prototype, so that every name is one like others.
  const environment = Object.create(null) as Record<string, string>
  for (const [name, value] of Object.entries(caller))
    if (value !== undefined && (keep || KEPT.test(name))) environment[name] = value
  Object.assign(environment, { HOME: user.home, USER: user.name, LOGNAME: user.name, SHELL: user.shell })
  // Where every token-aware loader looks by itself needs no naming, unless our caller named another
  // place.
  if (tokenPath !== DEFAULT_PATH || caller[TOKEN_PATH] !== undefined) environment[TOKEN_PATH] = tokenPath
  for (const word of named) {
    const [, name, value] = /^([^=]+)(?:=(.*))?$/s.exec(word) ?? []
    if (name === undefined)
      throw new UsageError(`--env ${word} names no variable`, { hint: 'Give NAME or NAME=VALUE' })
    const given = value ?? (Object.hasOwn(caller, name) ? caller[name] : undefined)
    if (given === undefined)
      throw new UsageError(`--env ${name}: there is no such variable to pass on`, {
        hint: `Give --env ${name}=VALUE, or leave it out`,
      })
    environment[name] = given
  }
  for (const [name, value] of Object.entries(environment))
    refuseLost(`${name}=${value}`, `the variable ${name}`)
  return environment
}

/**
 * Fail closed: Node has put this character where there were bytes that are no UTF-8, and they are
 * lost. UsageError, also where it was there before.
 */
export function refuseLost(text: string, what: string): void {
  if (text.includes('\ufffd'))
    throw new UsageError(`${what} is no valid UTF-8, or holds the character U+FFFD`, {
      hint: 'Only text in UTF-8 can be passed on',
    })
}
