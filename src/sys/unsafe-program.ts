/** Whether root alone can replace a program that root's runtimes call. */
import { existsSync, lstatSync, realpathSync, statSync } from 'node:fs'
import { dirname } from 'node:path'

/**
 * Why root's runtime must not run this program: there is none, or somebody else could put another in
 * its place. Undefined: it may.
 */
export function unsafeProgram(path: string): string | undefined {
  // Where a link leads, whoever may change a folder there decides, too.
  if (existsSync(path) && realpathSync(path) !== path)
    return `a symbolic link leads to it; it is ${realpathSync(path)}`
  for (let at = path; ; at = dirname(at)) {
    const facts = at === path ? statSync(at, { throwIfNoEntry: false }) : lstatSync(at)
    if (facts === undefined) return `there is no ${at}`
    if (facts.uid !== 0) return `${at} belongs to user ${facts.uid}, not to root`
    const open = (facts.mode & 0o022) !== 0
    const sticky = facts.isDirectory() && (facts.mode & 0o1000) !== 0
    if (open && !sticky) return `others than root may write to ${at}`
    if (at === path && (facts.mode & 0o111) === 0) return `${at} is not executable`
    if (at === '/') return undefined
  }
}
