/** Which unprivileged host user a program runs as. */
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { UsageError } from '../errors.ts'

export interface HostUser {
  readonly name: string
  readonly uid: number
  readonly gid: number
  readonly home: string
}

function parsePasswd(line: string): HostUser | undefined {
  const [name, , uid, gid, , home] = line.split(':')
  if (name === undefined || home === undefined) return undefined
  return { name, uid: Number(uid), gid: Number(gid), home }
}

/** The entry for a name or number: the local file first, then every source that getent(1) knows. */
function lookUp(key: string): HostUser | undefined {
  const matches = (user: HostUser | undefined): boolean => user?.name === key || String(user?.uid) === key
  const local = readFileSync('/etc/passwd', 'utf8').split('\n').map(parsePasswd).find(matches)
  if (local !== undefined) return local
  try {
    return parsePasswd(execFileSync('getent', ['passwd', key], { encoding: 'utf8' }))
  } catch {
    return undefined // getent exits with 2: no such user.
  }
}

/**
 * The user named by `--user` (name, uid or uid:gid), else the one who called sudo, else nobody.
 * UsageError for host root: a loan to root would be none.
 */
export function resolveUser(wanted: string | undefined, env: NodeJS.ProcessEnv): HostUser {
  const user = wanted === undefined ? defaultUser(env) : namedUser(wanted)
  if (user.uid === 0 || user.gid === 0)
    throw new UsageError(`The program never runs as host root (${user.name}, ${user.uid}:${user.gid})`, {
      hint: 'Name an ordinary user with --user',
    })
  return user
}

function namedUser(wanted: string): HostUser {
  const pair = /^(\d+):(\d+)$/.exec(wanted)
  if (pair !== null) return { name: wanted, uid: Number(pair[1]), gid: Number(pair[2]), home: '/' }
  const user = lookUp(wanted)
  if (user !== undefined) return user
  if (/^\d+$/.test(wanted)) return { name: wanted, uid: Number(wanted), gid: Number(wanted), home: '/' }
  throw new UsageError(`There is no user "${wanted}"`, { hint: 'Give a user name, a uid, or uid:gid' })
}

function defaultUser(env: NodeJS.ProcessEnv): HostUser {
  const { SUDO_UID: uid, SUDO_GID: gid } = env
  if (uid !== undefined && gid !== undefined && /^[1-9]\d*$/.test(uid) && /^[1-9]\d*$/.test(gid))
    return { home: '/', name: uid, ...lookUp(uid), uid: Number(uid), gid: Number(gid) }
  return lookUp('nobody') ?? { name: 'nobody', uid: 65534, gid: 65534, home: '/' }
}
