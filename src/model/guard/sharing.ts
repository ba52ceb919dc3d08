/** What may go elsewhere: descriptors, a bpffs, a pinned iterator. */
import { type Actor, isHostRoot } from './actor.ts'
import type { Delegation } from './delegation.ts'
import type { GuardLink, GuardMap, GuardObject, GuardToken } from './objects.ts'
import { ownerOfLink, ownerOfMap } from './owner.ts'
import type { GuardState } from './state.ts'
import { hasFlag, isOn, rulesOf } from './terms.ts'
import { type GuardVerdict, Judged, PASSED } from './verdict.ts'

export class Sharing {
  readonly #state: GuardState

  constructor(state: GuardState) {
    this.#state = state
  }

  /** file_receive: a token, program or map comes by SCM_RIGHTS or pidfd_getfd(2). */
  receive(actor: Actor, object: { readonly token: GuardToken } | GuardObject): GuardVerdict {
    if (!('token' in object) && object.kind === 'map') return this.openMap(actor, object.map)
    const token =
      'token' in object ? object.token : object.kind === 'program' ? object.program.token : undefined
    if (token === undefined) return PASSED
    const what = new Judged('receive')
    // Of a token that is revoked nothing can be made; what counts here is where it goes.
    if (this.#state.judgedBy(token.delegation, what)) {
      what.reason = 'none'
      const may = hasFlag(token.delegation.terms, 'passToken')
      if (!may && actor.task.userNamespace !== token.userNamespace) what.reason = 'stranger'
    }
    return this.#state.journal.judge(what, 'EACCES')
  }

  /** bpf_map, and the same: one that carries devices or sockets becomes somebody's descriptor. */
  openMap(actor: Actor, map: GuardMap): GuardVerdict {
    if (!isOn('deviceMaps', map.type) || isHostRoot(actor)) return PASSED
    const { what, of } = ownerOfMap(this.#state, map, new Judged('receive', { quiet: true }))
    if (of === undefined) return PASSED
    const isFenced = rulesOf(of.terms).ownNetwork && this.#state.isStranger(actor, of)
    what.reason = isFenced ? 'stranger' : 'none'
    return this.#state.journal.judge(what, 'EACCES')
  }

  /** move_mount: put somewhere once. `isPlaced`: it is somewhere already. */
  move(of: Delegation | undefined, mount: object, isPlaced: boolean): GuardVerdict {
    if (of === undefined || of.isGone) return PASSED
    const what = new Judged('move')
    what.under(of)
    if (!hasFlag(of.terms, 'bindMount')) {
      of.mount ??= mount
      if (of.mount !== mount || isPlaced) what.reason = 'elsewhere'
    }
    return this.#state.journal.judge(what, 'EACCES')
  }

  /** file_open of a token through /proc: in every mode. */
  reopen(): GuardVerdict {
    const what = new Judged('reopen')
    what.beyondMode('reopened')
    return this.#state.journal.judge(what, 'EACCES')
  }

  /** file_open of a pinned iterator, which is to attach. */
  openIterator(actor: Actor, link: GuardLink): GuardVerdict {
    const { of, what } = ownerOfLink(this.#state, link, new Judged('attach', { quiet: true }))
    if (isHostRoot(actor)) return of === undefined ? PASSED : this.#state.say(what, 'EACCES')
    if (of !== undefined && what.reason === 'none' && this.#state.isStranger(actor, of))
      what.reason = 'stranger'
    return this.#state.say(what, 'EACCES')
  }
}
