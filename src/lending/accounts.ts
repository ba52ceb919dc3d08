/**
 * Users and groups of this machine: the local files first, then every source that getent(1) knows.
 */
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import type { Accounts } from '../delegation/subject.ts'
import { parseWithin, USER_IDS } from '../uapi/number-range.ts'
import { SYSTEM_PATH, systemProgram } from './program-path.ts'

/** A directory service that does not answer counts as none. */
const GETENT_TIMEOUT_MS = 10_000

type Database = 'passwd' | 'group'

/** The numbers of users and groups by name. */
export const accounts: Accounts = {
  uidOf: name => idOf('passwd', name),
  gidOf: name => idOf('group', name),
}

/** The line of passwd(5) or group(5) for a name, or for a number in decimal digits. */
export function findEntry(database: Database, key: string): string | undefined {
  // getent takes +1 and 01 for the number 1, so its answer is searched like the file.
  return entryIn(fileOf(database), key) ?? entryIn(askGetent(database, key), key)
}

/** The line whose name or number is `key`; both files have the number in the third field. */
export function entryIn(text: string, key: string): string | undefined {
  const field = /^[0-9]+$/.test(key) ? 2 : 0
  return text.split('\n').find(line => line.split(':')[field] === key)
}

/** Fail closed: a name of digits, or an id that the kernel would cut, is nobody's. */
function idOf(database: Database, name: string): number | undefined {
  if (/^[0-9]+$/.test(name)) return undefined
  return parseWithin(USER_IDS, findEntry(database, name)?.split(':')[2] ?? '')
}

function fileOf(database: Database): string {
  try {
    return readFileSync(`/etc/${database}`, 'utf8')
  } catch {
    return '' // Not there, as in a small container: nobody is known by it.
  }
}

function askGetent(database: Database, key: string): string {
  const getent = systemProgram('getent')
  if (getent === undefined) return ''
  try {
    return execFileSync(getent, [database, '--', key], {
      env: { PATH: SYSTEM_PATH, LC_ALL: 'C' },
      encoding: 'utf8',
      timeout: GETENT_TIMEOUT_MS,
      stdio: ['ignore', 'pipe', 'ignore'],
    })
  } catch {
    return '' // It exits with 2: nobody of that name. Fail closed also where it cannot be asked.
  }
}
