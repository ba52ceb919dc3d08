/**
 * The hook `bpf`: commands that the kernel judges by the descriptor alone. What is attached, run or
 * put into a map, and what undoes it; and what else a confined cgroup may call.
 */
import { GUARD_LISTS } from '../../guard/layout.ts'
import { bpf_cmd, bpf_map_type } from '../../uapi/bpf.ts'
import { INITIAL } from '../task.ts'
import { type Actor, type Cgroup, isBelow, isHostRoot, isInside } from './actor.ts'
import type { Delegation } from './delegation.ts'
import type { Namespaces } from './namespaces.ts'
import type { GuardMap, GuardObject, GuardProgram } from './objects.ts'
import { type Owner, ownerOf, ownerOfLink, ownerOfMap, ownerOfProgram } from './owner.ts'
import type { Registry } from './registry.ts'
import type { GuardState } from './state.ts'
import { ENFORCE, has, hasFlag, isOn, PERMISSIVE, type Rules, rulesOf } from './terms.ts'
import { type GuardVerdict, Judged, PASSED } from './verdict.ts'
import type { GuardReason } from './words.ts'

/** What `target` of an attachment is. */
export type GuardTarget =
  | {
      readonly kind: 'cgroup'
      readonly cgroup: Cgroup
      /** What is attached to it without BPF_F_ALLOW_MULTI, of each type. */
      readonly alone?: readonly GuardProgram[]
    }
  | { readonly kind: 'map'; readonly map: GuardMap }
  /** A network namespace, by a descriptor. */
  | { readonly kind: 'netns'; readonly isHost: boolean }
  /** The number of a device, or of nothing. */
  | { readonly kind: 'other' }

/** A call of bpf(2), as far as the hook looks at it. Commands by their numbers. */
export interface GuardCall {
  readonly cmd: number
  /** What is attached or run, the link, or the map that is written to. */
  readonly object?: GuardObject
  /** Of enum bpf_attach_type; absent: the command names none. */
  readonly type?: number
  readonly target?: GuardTarget
  readonly flags?: number
  /** BPF_PROG_ATTACH with BPF_F_REPLACE: which; BPF_LINK_UPDATE: the new program or map. */
  readonly other?: GuardObject
  /** BPF_PROG_ATTACH of a flow dissector: the one that the caller's network has without a link. */
  readonly dissector?: GuardProgram
  /** Descriptors that are put into a map; undefined: the value names none. */
  readonly values?: readonly (GuardObject | undefined)[]
}

const {
  BPF_PROG_ATTACH,
  BPF_PROG_DETACH,
  BPF_PROG_TEST_RUN,
  BPF_LINK_CREATE,
  BPF_LINK_UPDATE,
  BPF_LINK_DETACH,
  BPF_MAP_FREEZE,
} = bpf_cmd
const BPF_F_ALLOW_MULTI = 2
const BPF_F_REPLACE = 4
const NO_TYPE = 0xffff_ffff

type Kind = 'cgroup' | 'device' | 'namespace' | 'map' | 'other' | 'unknown'

/** What the target is, by the attach type. */
function kindOf(type: number | undefined): Kind {
  if (type === undefined || type > GUARD_LISTS.lastType) return 'unknown'
  if (isOn('deviceTypes', type)) return 'device'
  if (isOn('namespaceTypes', type)) return 'namespace'
  if (isOn('mapTypes', type)) return 'map'
  return isOn('otherTypes', type) ? 'other' : 'cgroup'
}

/** All ones stand for no type. */
function isNetworkType(type: number | undefined): boolean {
  return type !== undefined && type !== NO_TYPE && (type > GUARD_LISTS.lastType || isOn('networkTypes', type))
}

/** What a call puts to work: of an update the new program, or the new map of struct_ops. */
function attachedBy({ cmd, object, other }: GuardCall): GuardObject | undefined {
  return cmd === BPF_LINK_UPDATE ? other : object
}

/** The cgroup that something is attached to; undefined: it is none. */
function targetCgroup({ type, target }: GuardCall): (GuardTarget & { kind: 'cgroup' }) | undefined {
  const kind = kindOf(type)
  if (kind !== 'cgroup' && kind !== 'unknown') return undefined
  return target?.kind === 'cgroup' ? target : undefined
}

export class Attaching {
  readonly #state: GuardState
  readonly #registry: Registry
  readonly #namespaces: Namespaces

  constructor(state: GuardState, registry: Registry, namespaces: Namespaces) {
    this.#state = state
    this.#registry = registry
    this.#namespaces = namespaces
  }

  judge(actor: Actor, call: GuardCall): GuardVerdict {
    const { cmd } = call
    const isUpdate = isOn('updateCommands', cmd)
    const isAttach = isOn('attachCommands', cmd)
    if (!isUpdate && !isAttach && !isOn('detachCommands', cmd) && !isOn('privilegedCommands', cmd))
      return PASSED
    const confinement = this.#registry.confinementOf(actor.cgroup)
    if (isUpdate) return this.#updating(actor, call, confinement !== undefined)
    for (const step of [
      () => (isHostRoot(actor) ? PASSED : this.#taking(actor, call)),
      () => (isAttach ? this.#attachment(actor, call, attachedBy(call)) : PASSED),
      () => (isAttach ? this.#namespaceRules(actor, call) : PASSED),
      () => (confinement === undefined ? PASSED : this.#confined(actor, call, confinement)),
    ]) {
      const verdict = step()
      if (verdict.refused) return verdict
    }
    return PASSED
  }

  // ---- attaching ----

  /** The first rule that an attachment breaks. A program that is only run reaches the network, too. */
  #rule(actor: Actor, { cmd, type, target }: GuardCall, rules: Rules): GuardReason {
    const reaches = cmd === BPF_PROG_TEST_RUN || isNetworkType(type)
    if (rules.ownNetwork && reaches && actor.inHostNetwork) return 'network'
    const named = cmd === BPF_LINK_CREATE && kindOf(type) === 'namespace' && target?.kind === 'netns'
    if (rules.ownNetwork && named && target.isHost) return 'network'
    if (rules.revocable && cmd === BPF_PROG_ATTACH && kindOf(type) !== 'map') return 'outlives'
    return 'none'
  }

  #cgroupRule(call: GuardCall, of: Delegation): GuardReason {
    if (hasFlag(of.terms, 'anyCgroup')) return 'none'
    if (call.cmd !== BPF_LINK_CREATE && call.cmd !== BPF_PROG_ATTACH) return 'none'
    const target = targetCgroup(call)
    if (target === undefined) return 'none'
    const own = of.cgroup ?? of.home
    // The root of all is nobody's own.
    const isOwn = own?.parent !== undefined && isBelow(target.cgroup, own)
    return isOwn ? 'none' : 'cgroup'
  }

  #terms(actor: Actor, call: GuardCall, of: Delegation): GuardReason {
    const reason = this.#rule(actor, call, rulesOf(of.terms))
    return reason === 'none' ? this.#cgroupRule(call, of) : reason
  }

  /** What a descriptor is, is judged by its own delegation. The host's root may, but not what has ended. */
  #attachment(actor: Actor, call: GuardCall, object: GuardObject | undefined): GuardVerdict {
    const { what, of } = ownerOf(this.#state, object, new Judged('attach', { quiet: true }))
    if (isHostRoot(actor)) return of === undefined ? PASSED : this.#state.say(what, 'EACCES')
    if (of !== undefined && what.reason === 'none' && this.#state.isStranger(actor, of))
      what.reason = 'stranger'
    if (of !== undefined && what.reason === 'none') what.reason = this.#terms(actor, call, of)
    return this.#state.say(what, 'EACCES')
  }

  /** By the caller's user namespace, for which the descriptor does not matter. */
  #namespaceRules(actor: Actor, call: GuardCall): GuardVerdict {
    const found = this.#namespaces.rulesAround(actor)
    if (found === undefined) return PASSED
    const what = new Judged('attach', { quiet: true })
    what.delegation = found.delegation
    what.mode = ENFORCE
    what.reason = this.#rule(actor, call, found.enforced)
    if (what.reason === 'none') {
      what.mode = PERMISSIVE
      what.reason = this.#rule(actor, call, found.watched)
    }
    return this.#state.say(what, 'EACCES')
  }

  // ---- taking away ----

  #taking(actor: Actor, call: GuardCall): GuardVerdict {
    switch (call.cmd) {
      case BPF_PROG_ATTACH:
      case BPF_LINK_CREATE:
        return this.#replacing(actor, call)
      case BPF_PROG_DETACH:
        return this.#detaching(actor, call)
      case BPF_LINK_DETACH:
      case BPF_LINK_UPDATE:
        return this.#takingLink(actor, call)
      default:
        return PASSED
    }
  }

  /** What is of no delegation that was lent to a user namespace is the host's. */
  #mayTake(actor: Actor, { of, what }: Owner): boolean {
    if (of?.userNamespace !== undefined) return !this.#state.isStranger(actor, of)
    return (of !== undefined || what.reason === 'none') && actor.task.userNamespace === INITIAL
  }

  #refuseTaking(of: Delegation | undefined): GuardVerdict {
    const what = new Judged('detach')
    if (of === undefined) what.mode = this.#state.mode
    else what.under(of)
    what.reason = 'not-own'
    return this.#state.say(what, 'EACCES')
  }

  /** Whether something that is not the caller's was attached alone: that anybody can take away. */
  #hasOthers(actor: Actor, alone: readonly GuardProgram[] = []): boolean {
    return alone.some(program => {
      const { of } = ownerOfProgram(this.#state, program, new Judged('detach'))
      return of?.userNamespace === undefined || !isInside(actor, of.userNamespace)
    })
  }

  #takingProgram(actor: Actor, program: GuardProgram | undefined): GuardVerdict {
    if (program === undefined) return this.#refuseTaking(undefined)
    const owner = ownerOfProgram(this.#state, program, new Judged('detach'))
    return this.#mayTake(actor, owner) ? PASSED : this.#refuseTaking(owner.of)
  }

  #replacing(actor: Actor, call: GuardCall): GuardVerdict {
    const kind = kindOf(call.type)
    if ((kind === 'map' || kind === 'unknown') && call.target?.kind === 'map') {
      const owner = ownerOfMap(this.#state, call.target.map, new Judged('detach'))
      const verdict = this.#mayTake(actor, owner) ? PASSED : this.#refuseTaking(owner.of)
      if (verdict.refused) return verdict
    }
    if (call.cmd !== BPF_PROG_ATTACH) return PASSED
    const { flags = 0, other } = call
    if ((flags & BPF_F_REPLACE) !== 0) {
      const verdict = this.#takingProgram(actor, other?.kind === 'program' ? other.program : undefined)
      if (verdict.refused) return verdict
    }
    if (kind === 'namespace')
      return call.dissector === undefined ? PASSED : this.#takingProgram(actor, call.dissector)
    const cgroup = targetCgroup(call)
    const replaces = (flags & BPF_F_ALLOW_MULTI) === 0 && cgroup !== undefined
    return replaces && this.#hasOthers(actor, cgroup.alone) ? this.#refuseTaking(undefined) : PASSED
  }

  #detaching(actor: Actor, call: GuardCall): GuardVerdict {
    const kind = kindOf(call.type)
    const cgroup = targetCgroup(call)
    const program = call.object?.kind === 'program' ? call.object.program : undefined
    const owner =
      program === undefined
        ? { what: new Judged('detach') }
        : ownerOfProgram(this.#state, program, new Judged('detach'))
    if (program !== undefined && !this.#mayTake(actor, owner)) return this.#refuseTaking(owner.of)
    if (cgroup !== undefined && this.#hasOthers(actor, cgroup.alone)) return this.#refuseTaking(owner.of)
    return program !== undefined || kind === 'cgroup' ? PASSED : this.#refuseTaking(owner.of)
  }

  /** The new program of a link must be of the link's delegation. */
  #takingLink(actor: Actor, { cmd, object, other }: GuardCall): GuardVerdict {
    if (object?.kind !== 'link') return PASSED
    const owner = ownerOfLink(this.#state, object.link, new Judged('detach'))
    if (!this.#mayTake(actor, owner)) return this.#refuseTaking(owner.of)
    if (cmd !== BPF_LINK_UPDATE) return PASSED
    const next = ownerOf(this.#state, other, new Judged('detach'))
    return owner.of === next.of ? PASSED : this.#refuseTaking(next.of ?? owner.of)
  }

  // ---- what is put into a map ----

  #updating(actor: Actor, call: GuardCall, isConfined: boolean): GuardVerdict {
    // What the host's root could put into a map it could attach.
    if (isHostRoot(actor) && !isConfined) return PASSED
    const exchange = this.#exchanging(actor)
    if (exchange.refused) return exchange
    if (call.object?.kind !== 'map') return PASSED
    const { map } = call.object
    if (!isOn('carrierMaps', map.type)) return PASSED
    const verdict = this.#carrier(actor, map)
    if (verdict.refused || call.cmd === BPF_MAP_FREEZE || !isOn('objectMaps', map.type)) return verdict
    const values = call.values ?? []
    for (const value of values.slice(0, GUARD_LISTS.batchMax)) {
      if (value === undefined) continue
      const said = this.#attachment(actor, { cmd: call.cmd }, value)
      if (said.refused) return said
    }
    if (values.length <= GUARD_LISTS.batchMax) return PASSED
    const what = new Judged('attach')
    what.mode = this.#state.mode
    what.reason = 'unreadable'
    return this.#state.say(what, 'EACCES')
  }

  /** Where the descriptor can be exchanged it does not say which map is written to. */
  #exchanging(actor: Actor): GuardVerdict {
    if (!actor.inHostNetwork || actor.sharesDescriptors !== true) return PASSED
    const found = this.#namespaces.rulesAround(actor)
    if (found?.enforced.ownNetwork !== true) return PASSED
    const what = new Judged('attach')
    what.delegation = found.delegation
    what.mode = ENFORCE
    what.reason = 'network'
    return this.#state.say(what, 'EACCES')
  }

  /** The map itself, and the network that devices and sockets are of: that of whoever puts them in. */
  #carrier(actor: Actor, map: GuardMap): GuardVerdict {
    const { what, of } = ownerOfMap(this.#state, map, new Judged('attach', { quiet: true }))
    if (
      of !== undefined &&
      what.reason === 'none' &&
      map.type === bpf_map_type.BPF_MAP_TYPE_STRUCT_OPS &&
      this.#state.isStranger(actor, of)
    )
      what.reason = 'stranger'
    if (what.reason !== 'none' || !isOn('deviceMaps', map.type) || !actor.inHostNetwork)
      return this.#state.say(what, 'EACCES')
    if (of !== undefined && rulesOf(of.terms).ownNetwork) what.reason = 'network'
    // A permissive delegation does not speak for the others of the caller's user namespace.
    const own = this.#state.say(what, 'EACCES')
    if (own.refused) return own
    what.reason = 'none'
    const found = this.#namespaces.rulesAround(actor)
    if (found === undefined) return PASSED
    what.delegation = found.delegation
    what.mode = found.enforced.ownNetwork ? ENFORCE : PERMISSIVE
    if (found.enforced.ownNetwork || found.watched.ownNetwork) what.reason = 'network'
    return this.#state.say(what, 'EACCES')
  }

  // ---- confined cgroups ----

  #confined(actor: Actor, call: GuardCall, of: Delegation): GuardVerdict {
    const what = new Judged('command', { quiet: true })
    if (!this.#state.judgedBy(of, what)) return this.#state.say(what, 'EPERM')
    if (isOn('privilegedCommands', call.cmd)) {
      if (what.reason === 'none' && !has(of.terms.masks.cmds, call.cmd)) what.reason = 'rights'
      return this.#state.say(what, 'EPERM')
    }
    if (call.cmd !== BPF_PROG_ATTACH && call.cmd !== BPF_LINK_CREATE) return PASSED
    what.point = 'attach'
    what.reason = this.#terms(actor, call, of)
    return this.#state.say(what, 'EACCES')
  }
}
