/**
 * A simple model of the daemon: who has what, what waits, and what an answer must be. Users are
 * `root` and those that own a target of the same name. Times are seconds; nothing passes by itself.
 */

export type User = 'root' | 'alice' | 'bob'
export type Target = 'alice' | 'bob'
export type PolicyName = 'a' | 'b'

/** What a file of policies says: nothing, nonsense, or a policy. */
export type PolicyFile = 'none' | 'bad' | ModelPolicy

export interface ModelPolicy {
  /** Undefined: for root alone. */
  readonly subjects: readonly User[] | undefined
  readonly approval: boolean
  readonly lifetimeSec: number | undefined
}

export interface ModelLoan {
  readonly asker: User
  readonly target: Target
  readonly place: string
  readonly policy: PolicyName
  readonly parent: number | undefined
  /** How often it can be lent on in a row. */
  readonly depth: number
  /** The bound of its terms. */
  readonly termSec: number | undefined
  expires: number | undefined
  /** Undefined: it lives. More than one: whichever came first. */
  ended: readonly string[] | undefined
}

export interface ModelRequest {
  readonly asker: User
  readonly wish: Wish
  readonly policy: ModelPolicy
  readonly until: number
  state: string
  loan: number | undefined
}

export interface Wish {
  readonly policy: PolicyName
  readonly target: Target
  readonly place: string
  readonly lifetimeSec: number | undefined
}

/** What must come of asking. `failed`: a loan that is written down, and could not be made. */
export type Expected =
  | { readonly is: 'made' | 'waits' | 'failed' | 'done' }
  | { readonly is: 'same'; readonly loan: number | undefined; readonly request: number | undefined }
  | { readonly is: 'refused'; readonly code: string }

export const LIMITS = { openLoans: 4, waitingRequests: 2, approvalSec: 500 }

const refused = (code: string): Expected => ({ is: 'refused', code: `BPFTOKEN_${code}` })
const least = (...all: (number | undefined)[]): number | undefined => {
  const known = all.filter(one => one !== undefined)
  return known.length === 0 ? undefined : Math.min(...known)
}

export class Model {
  readonly how: { readonly guarded: boolean; readonly mounts: boolean }
  readonly loans = new Map<number, ModelLoan>()
  readonly requests = new Map<number, ModelRequest>()
  readonly policies = new Map<PolicyName, ModelPolicy>()
  readonly files = new Map<PolicyName, PolicyFile>()
  readonly #keys = new Map<string, { what: string; loan: number | undefined; request: number | undefined }>()
  now = 0

  /** `guarded`: there is a guard; `mounts`: what is lent has a place that nothing else can have. */
  constructor(how: Model['how']) {
    this.how = how
  }

  // What must come of it.

  lend(user: User, wish: Wish, key: string | undefined): Expected {
    const before = this.#again(user, ['lend', wish], key)
    if (before !== undefined) return before
    const policy = this.policies.get(wish.policy)
    if (policy === undefined) return refused('NOT_FOUND')
    if (!owns(user, wish.target) || !admits(policy, user, wish.target)) return refused('DENIED')
    if (policy.approval && user !== 'root') {
      const waiting = [...this.requests.values()].filter(
        ({ state, asker }) => state === 'waiting' && asker === user,
      )
      return waiting.length >= LIMITS.waitingRequests ? refused('BUSY') : { is: 'waits' }
    }
    return this.#make(user, wish)
  }

  derive(user: User, from: number, wish: Wish, key: string | undefined): Expected {
    const before = this.#again(user, ['derive', from, wish], key)
    if (before !== undefined) return before
    const parent = this.loans.get(from)!
    if (!this.sees(user, parent)) return refused('NOT_FOUND')
    if (!this.how.guarded) return refused('NOT_SUPPORTED')
    if (parent.ended !== undefined) return refused('CONFLICT')
    const policy = this.policies.get(wish.policy)
    if (policy === undefined) return refused('NOT_FOUND')
    if (policy.approval && user !== 'root') return refused('DENIED')
    if (!owns(user, wish.target)) return refused('DENIED')
    if (parent.depth === 0) return refused('CONFLICT')
    if (!admits(policy, user, wish.target)) return refused('DENIED')
    return this.#make(user, wish)
  }

  renew(user: User, id: number): Expected {
    const loan = this.loans.get(id)!
    if (!this.sees(user, loan)) return refused('NOT_FOUND')
    if (loan.ended !== undefined || loan.expires === undefined) return refused('CONFLICT')
    const last: Expected = this.how.guarded ? refused('NOT_SUPPORTED') : { is: 'done' }
    if (user === 'root') return last
    const policy = this.policies.get(loan.policy)
    if (policy === undefined) return refused('NOT_FOUND')
    if (policy.approval || !admits(policy, user, loan.target)) return refused('DENIED')
    return last
  }

  revoke(user: User, id: number): Expected {
    return this.sees(user, this.loans.get(id)!) ? { is: 'done' } : refused('NOT_FOUND')
  }

  approve(user: User, id: number): Expected {
    const { state, wish, policy, asker } = this.requests.get(id)!
    if (user !== 'root') return refused('DENIED')
    if (state !== 'waiting') return refused('CONFLICT')
    const now = this.policies.get(wish.policy)
    if (now === undefined || !same(now, policy)) return refused('CONFLICT')
    return this.#make(asker, wish)
  }

  deny(user: User, id: number): Expected {
    if (user !== 'root') return refused('DENIED')
    return this.requests.get(id)!.state === 'waiting' ? { is: 'done' } : refused('CONFLICT')
  }

  withdraw(user: User, id: number): Expected {
    const { asker, state } = this.requests.get(id)!
    if (user !== 'root' && user !== asker) return refused('NOT_FOUND')
    return state === 'waiting' ? { is: 'done' } : refused('CONFLICT')
  }

  sees(user: User, { asker, target }: ModelLoan): boolean {
    return user === 'root' || asker === user || target === user
  }

  // What has come of it.

  lent(id: number, user: User, wish: Wish, key: string | undefined): void {
    const policy = this.policies.get(wish.policy)!
    const { guarded } = this.how
    const ownSec = least(policy.lifetimeSec, wish.lifetimeSec)
    this.loans.set(id, {
      ...{ asker: user, target: wish.target, place: wish.place, policy: wish.policy },
      parent: undefined,
      depth: 2,
      termSec: guarded ? ownSec : policy.lifetimeSec,
      expires: ownSec === undefined ? undefined : this.now + ownSec,
      ended: undefined,
    })
    this.#keep(user, ['lend', wish], key, { loan: id })
  }

  derived(id: number, user: User, from: number, wish: Wish, key: string | undefined): void {
    const policy = this.policies.get(wish.policy)!
    const parent = this.loans.get(from)!
    const ownSec = least(policy.lifetimeSec, wish.lifetimeSec, parent.termSec)
    this.loans.set(id, {
      ...{ asker: user, target: wish.target, place: wish.place, policy: wish.policy },
      parent: from,
      depth: parent.depth - 1,
      termSec: ownSec,
      expires: least(ownSec === undefined ? undefined : this.now + ownSec, parent.expires),
      ended: undefined,
    })
    this.#keep(user, ['derive', from, wish], key, { loan: id })
  }

  /** One that could not be made: its place was taken. */
  couldNot(id: number, user: User, wish: Wish): void {
    this.loans.set(id, {
      ...{ asker: user, target: wish.target, place: wish.place, policy: wish.policy },
      ...{ parent: undefined, depth: 0, termSec: undefined, expires: undefined, ended: ['failed'] },
    })
  }

  waits(id: number, user: User, wish: Wish, key: string | undefined): void {
    const policy = this.policies.get(wish.policy)!
    this.requests.set(id, {
      ...{ asker: user, wish, policy, until: this.now + LIMITS.approvalSec },
      ...{ state: 'waiting', loan: undefined },
    })
    this.#keep(user, ['lend', wish], key, { request: id })
  }

  renewed(user: User, id: number, seconds: number): void {
    const loan = this.loans.get(id)!
    const now = user === 'root' ? undefined : this.policies.get(loan.policy)!.lifetimeSec
    loan.expires = this.now + least(loan.termSec, now, seconds)!
  }

  /** These, and what is derived from them. */
  end(ids: readonly number[], why: string): void {
    const chosen = new Set(ids)
    for (const [id, loan] of this.loans) {
      if (loan.ended !== undefined) continue
      const below = this.#above(id).some(one => chosen.has(one))
      if (chosen.has(id)) loan.ended = below ? [why, 'origin-ended'] : [why]
      else if (below) loan.ended = ['origin-ended']
    }
  }

  /** Those that this user takes back with `all`. */
  own(user: User): number[] {
    return [...this.loans].filter(([, loan]) => this.sees(user, loan)).map(([id]) => id)
  }

  pass(seconds: number): void {
    this.now += seconds
    const due = [...this.loans].filter(([, { expires }]) => expires !== undefined && expires <= this.now)
    this.end(
      due.map(([id]) => id),
      'expired',
    )
  }

  read(name: PolicyName, file: PolicyFile): void {
    this.files.set(name, file)
    if (file === 'none') this.policies.delete(name)
    else if (file !== 'bad') this.policies.set(name, file)
  }

  restart(): void {
    // A bad file keeps the policy that was good, as long as somebody remembers it.
    for (const [name, file] of this.files) if (file === 'bad') this.policies.delete(name)
    for (const request of this.requests.values())
      if (request.state === 'waiting' && request.until <= this.now) request.state = 'expired'
  }

  #make(user: User, { target, place }: Wish): Expected {
    const live = [...this.loans.values()].filter(({ ended }) => ended === undefined)
    if (user !== 'root' && live.filter(({ asker }) => asker === user).length >= LIMITS.openLoans)
      return refused('BUSY')
    const isTaken = this.how.mounts && live.some(one => one.target === target && one.place === place)
    return { is: isTaken ? 'failed' : 'made' }
  }

  #above(id: number): number[] {
    const above: number[] = []
    for (let at = this.loans.get(id)!.parent; at !== undefined; at = this.loans.get(at)!.parent)
      above.push(at)
    return above
  }

  #again(user: User, what: unknown, key: string | undefined): Expected | undefined {
    const kept = key === undefined ? undefined : this.#keys.get(`${user} ${key}`)
    if (kept === undefined) return undefined
    if (kept.what !== JSON.stringify(what)) return refused('CONFLICT')
    return { is: 'same', loan: kept.loan, request: kept.request }
  }

  #keep(
    user: User,
    what: unknown,
    key: string | undefined,
    { loan, request }: { loan?: number; request?: number },
  ): void {
    if (key !== undefined) this.#keys.set(`${user} ${key}`, { what: JSON.stringify(what), loan, request })
  }
}

function owns(user: User, target: Target): boolean {
  return user === 'root' || user === target
}

/** Of root the recipient is compared, of others they themselves. */
function admits({ subjects }: ModelPolicy, user: User, target: Target): boolean {
  if (user === 'root') return subjects === undefined || subjects.includes(target)
  return subjects?.includes(user) === true
}

function same(a: ModelPolicy, b: ModelPolicy): boolean {
  return JSON.stringify(a) === JSON.stringify(b)
}
