/**
 * Who may see the page. An address that is printed has a secret, which is good once: it is exchanged
 * for a session, which is a cookie and a key.
 *
 * A browser sends cookies of 127.0.0.1 to every port of it, and so to whatever another user of the
 * machine listens with. So the cookie alone opens the page without what it shows; the key, which the
 * page keeps for its own origin, opens that.
 */
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto'

export type Role = 'viewer' | 'operator'

export interface Session {
  readonly role: Role
}

/** 256 bits. */
const SECRET_BYTES = 32
/** Base64url of so many bytes. */
const SECRET = /^[A-Za-z0-9_-]{43}$/

export function newSecret(): string {
  return randomBytes(SECRET_BYTES).toString('base64url')
}

/** What is kept of a secret, and compared: it says nothing of the secret. */
export function digestOf(secret: string): Buffer {
  return createHash('sha256').update(secret).digest()
}

/** Wrong secrets that are looked at, at once and in a second. */
const TRIES = 20
const TRIES_PER_SEC = 2

export type Entered =
  | { readonly cookie: string; readonly key: string; readonly role: Role }
  | 'wrong'
  /** There were too many wrong ones: it was not looked at. */
  | 'later'

export class Sessions {
  /** Secrets that nobody has used yet. */
  readonly #doors: { readonly role: Role; readonly digest: Buffer }[]
  readonly #sessions: { readonly role: Role; readonly cookie: Buffer; readonly key: Buffer }[] = []
  readonly #now: () => number
  #tries = TRIES
  #since: number

  /** `now` in milliseconds, of a clock that is not set. */
  constructor(
    doors: readonly { readonly role: Role; readonly digest: Buffer }[],
    now = () => performance.now(),
  ) {
    this.#doors = [...doors]
    this.#now = now
    this.#since = now()
  }

  /** A session for the secret of an address, once. */
  enter(secret: string): Entered {
    this.#refill()
    if (this.#tries < 1) return 'later'
    const door = SECRET.test(secret) ? found(this.#doors, secret, ({ digest }) => digest) : undefined
    if (door === undefined) {
      this.#tries--
      return 'wrong'
    }
    this.#doors.splice(this.#doors.indexOf(door), 1)
    const { role } = door
    const [cookie, key] = [newSecret(), newSecret()]
    this.#sessions.push({ role, cookie: digestOf(cookie), key: digestOf(key) })
    return { cookie, key, role }
  }

  /** Whose cookie it is. */
  byCookie(cookie: string): Session | undefined {
    return SECRET.test(cookie) ? found(this.#sessions, cookie, session => session.cookie) : undefined
  }

  /** Whose cookie it is, if the key is of the same session. */
  byCookieAndKey(cookie: string, key: string): Session | undefined {
    const session = SECRET.test(cookie) ? found(this.#sessions, cookie, one => one.cookie) : undefined
    if (session === undefined || !SECRET.test(key)) return undefined
    return timingSafeEqual(session.key, digestOf(key)) ? session : undefined
  }

  #refill(): void {
    const now = this.#now()
    this.#tries = Math.min(TRIES, this.#tries + ((now - this.#since) / 1000) * TRIES_PER_SEC)
    this.#since = now
  }
}

/** Looks at all of them, and in the same time whatever is wrong with the secret. */
function found<T>(all: readonly T[], secret: string, digest: (of: T) => Buffer): T | undefined {
  const wanted = digestOf(secret)
  return all.filter(one => timingSafeEqual(digest(one), wanted))[0]
}
