/** Whether root alone can replace a program that root's runtimes call. */
import { existsSync, lstatSync, realpathSync, statSync } from 'node:fs'
import { dirname } from 'node:path'
import { notOwnersAlone, othersMayExchange } from '../uapi/file-owner.ts'

const ROOT = 0

/**
 * Why root's runtime must not run this program: there is none, or somebody else could put another in
 * its place. Undefined: it may.
 */
export function unsafeProgram(path: string): string | undefined {
  // Where a link leads, whoever may change a folder there decides, too.
  if (existsSync(path) && realpathSync(path) !== path)
    return `a symbolic link leads to it; it is ${realpathSync(path)}`
  const facts = statSync(path, { throwIfNoEntry: false })
  if (facts === undefined) return `there is no ${path}`
  const why = notOwnersAlone(facts, ROOT)
  if (why !== undefined) return why
  if ((facts.mode & 0o111) === 0) return `${path} is not executable`
  for (let at = dirname(path); ; at = dirname(at)) {
    const open = othersMayExchange(lstatSync(at), ROOT)
    if (open !== undefined) return `${at}: ${open}`
    if (at === '/') return undefined
  }
}
