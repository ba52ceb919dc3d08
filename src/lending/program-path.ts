/** Where programs of the system are. PATH is not asked, because somebody else may have set ours. */
import { existsSync } from 'node:fs'
import { join } from 'node:path'

const DIRECTORIES = ['/usr/bin', '/usr/sbin', '/bin', '/sbin', '/usr/local/bin', '/usr/local/sbin'] as const

/** The PATH of programs that are started without our environment. */
export const SYSTEM_PATH = DIRECTORIES.join(':')

/** Undefined: it is not installed. */
export function systemProgram(name: string): string | undefined {
  return DIRECTORIES.map(directory => join(directory, name)).find(existsSync)
}
