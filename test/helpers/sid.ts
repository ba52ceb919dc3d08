/** Debian's newest programs, unpacked into .cache and not installed: scripts/fetch-debs.sh. */
import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { CACHE } from './machine.ts'

export const SID = join(CACHE, 'sid')

/**
 * A program of the tree as words of a shell. It runs with the loader and the libraries of the tree,
 * whose path is `at` for whoever runs it.
 */
export function sidCommand(program: string, at = SID): string {
  const folder = ['bin', 'sbin'].find(name => existsSync(join(SID, 'usr', name, program)))
  return `${withSid(at)} '${join(at, 'usr', folder!, program)}'`
}

/** Words of a shell before a program that was built for the tree's libraries. */
export function withSid(at = SID): string {
  const usr = join(SID, 'usr')
  const triplet = readdirSync(join(usr, 'lib')).find(name => existsSync(join(usr, 'lib', name, 'libc.so.6')))
  const loader = readdirSync(join(usr, 'lib', triplet!)).find(name => /^ld-linux.*\.so\.\d+$/.test(name))
  const libraries = join(at, 'usr/lib', triplet!)
  const path = `${libraries}:${join(libraries, 'systemd')}`
  return `'${libraries}/${loader}' --library-path '${path}'`
}
