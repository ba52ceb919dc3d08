/** Which unprivileged host user a program runs as. */
import { UsageError } from '../errors.ts'
import { findEntry } from '../lending/accounts.ts'
import { parseWithin, USER_IDS } from '../uapi/number-range.ts'

export interface HostUser {
  readonly name: string
  readonly uid: number
  readonly gid: number
  readonly home: string
  readonly shell: string
}

/** The facts of a user without an entry in passwd. */
const NOTHING_KNOWN = { home: '/', shell: '/bin/sh' }

/** Finds the line of passwd(5) for a name, or a number in decimal digits. */
export type FindEntry = (key: string) => string | undefined

/**
 * UsageError: the entry gives no ids that the kernel has. Fail closed: it would cut them to some
 * that it has.
 */
function parseEntry(line: string): HostUser {
  const [name = '', , uidText = '', gidText = '', , home = '', shell = ''] = line.split(':')
  const uid = parseWithin(USER_IDS, uidText)
  const gid = parseWithin(USER_IDS, gidText)
  if (name === '' || uid === undefined || gid === undefined)
    throw new UsageError(`The entry of user "${name}" has no valid ids (${uidText}:${gidText})`, {
      hint: `Correct it, or give ids as --user uid:gid; ${ID_HINT}`,
    })
  return { name, uid, gid, home: home || NOTHING_KNOWN.home, shell: shell || NOTHING_KNOWN.shell }
}

const ID_HINT = `an id is a whole number from ${USER_IDS.min} to ${USER_IDS.max}`

/**
 * The user named by `--user` (name, uid or uid:gid), else the one who called sudo, else nobody.
 * UsageError: it is no user, or it is host root, to whom nothing can be lent.
 */
export function resolveUser(
  wanted: string | undefined,
  env: NodeJS.ProcessEnv,
  find: FindEntry = key => findEntry('passwd', key),
): HostUser {
  const user = wanted === undefined ? defaultUser(env, find) : namedUser(wanted, find)
  if (user.uid === 0 || user.gid === 0)
    throw new UsageError(`The program never runs as host root (${user.name}, ${user.uid}:${user.gid})`, {
      hint: 'Name an ordinary user with --user',
    })
  return user
}

/** Digits are a number, even if somebody has such a name. */
function namedUser(wanted: string, find: FindEntry): HostUser {
  const [uidText = '', gidText, ...more] = wanted.split(':')
  if (!/^[0-9]/.test(wanted) && gidText === undefined) return userOfName(wanted, find)
  const uid = parseWithin(USER_IDS, uidText)
  const gid = gidText === undefined ? undefined : parseWithin(USER_IDS, gidText)
  if (uid === undefined || (gidText !== undefined && gid === undefined) || more.length > 0)
    throw new UsageError(`"${wanted}" is no user`, {
      hint: `Give a user name, a uid, or uid:gid; ${ID_HINT}`,
    })
  return userOfIds(uid, gid, find)
}

/** With the group of the user's entry, else of the same number, where none is given. */
function userOfIds(uid: number, gid: number | undefined, find: FindEntry): HostUser {
  const line = find(String(uid))
  const known = line === undefined ? { ...NOTHING_KNOWN, name: String(uid), gid: uid } : parseEntry(line)
  return { ...known, uid, gid: gid ?? known.gid }
}

/** UsageError: nobody has this name. */
export function userOfName(name: string, find: FindEntry = key => findEntry('passwd', key)): HostUser {
  const line = USER_NAME.test(name) ? find(name) : undefined
  if (line === undefined)
    throw new UsageError(`There is no user "${name}"`, {
      hint: 'Give a user name, a uid, or uid:gid',
    })
  return parseEntry(line)
}

/**
 * No blanks or control characters, nothing that ends a field, nothing that looks like an option or
 * is of NIS.
 */
const USER_NAME = /^(?![-+])[^\s\p{C}:]{1,255}$/u

/** The number of a user, of root too: a name, or the number itself. UsageError as above. */
export function uidOf(wanted: string, find?: FindEntry): number {
  if (!/^[0-9]/.test(wanted)) return userOfName(wanted, find).uid
  const uid = parseWithin(USER_IDS, wanted)
  if (uid !== undefined) return uid
  throw new UsageError(`"${wanted}" is no user`, { hint: `Give a user name or a uid; ${ID_HINT}` })
}

function defaultUser(env: NodeJS.ProcessEnv, find: FindEntry): HostUser {
  const { SUDO_UID: uidText, SUDO_GID: gidText } = env
  // If root called sudo, that says nothing about a user.
  if ((uidText === undefined && gidText === undefined) || uidText === '0') return nobody(find)
  const uid = parseWithin(USER_IDS, uidText ?? '')
  const gid = parseWithin(USER_IDS, gidText ?? '')
  if (uid === undefined || gid === undefined)
    throw new UsageError(
      `SUDO_UID and SUDO_GID give no user (${uidText ?? 'absent'}:${gidText ?? 'absent'})`,
      {
        hint: `Name one with --user; ${ID_HINT}`,
      },
    )
  return userOfIds(uid, gid, find)
}

function nobody(find: FindEntry): HostUser {
  const line = find('nobody')
  return line === undefined ? { ...NOTHING_KNOWN, name: 'nobody', uid: 65534, gid: 65534 } : parseEntry(line)
}
