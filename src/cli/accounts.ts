/** The numbers of users and groups by name: the local files first, then every source that getent(1) knows. */
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import type { Accounts } from '../delegation/subject.ts'
import { MAX_ID } from '../policy/subject.ts'

/** A directory service that does not answer is as good as none. */
const GETENT_TIMEOUT_MS = 10_000

export const accounts: Accounts = {
  uidOf: name => idOf('passwd', name),
  gidOf: name => idOf('group', name),
}

/** The third field of the first line for this name; both files have the id there. */
function idOf(database: 'passwd' | 'group', name: string): number | undefined {
  const isIts = (line: string): boolean => line.startsWith(`${name}:`)
  const line = linesOf(`/etc/${database}`).find(isIts) ?? asked(database, name).find(isIts)
  const id = line?.split(':')[2]
  return id !== undefined && /^\d{1,10}$/.test(id) && Number(id) <= MAX_ID ? Number(id) : undefined
}

function linesOf(file: string): string[] {
  try {
    return readFileSync(file, 'utf8').split('\n')
  } catch {
    return [] // Not there, as in a small container: nobody is known by it.
  }
}

function asked(database: string, name: string): string[] {
  try {
    return execFileSync('getent', [database, '--', name], {
      encoding: 'utf8',
      timeout: GETENT_TIMEOUT_MS,
      stdio: ['ignore', 'pipe', 'ignore'],
    }).split('\n')
  } catch {
    return [] // It exits with 2: nobody of that name. Fail closed also where it cannot be asked.
  }
}
