/**
 * The guard as one: a method for each of its hooks, and what its management does. Time is in seconds
 * of a clock that the caller moves.
 *
 * A hook has effects (it counts, marks, writes events), so it is asked only where the kernel would
 * ask it, and what it has put on record is let go where the kernel fails the call afterwards.
 */
import type { GuardTerms } from '../../guard/terms.ts'
import type { Masks } from '../../policy/vocabulary.ts'
import type { ModelCapability, UserNamespace } from '../task.ts'
import type { Actor, Cgroup } from './actor.ts'
import { Attaching, type GuardCall } from './attach.ts'
import type { Delegation } from './delegation.ts'
import { type Enabled, Enabling } from './enable.ts'
import { Namespaces } from './namespaces.ts'
import type { GuardLink, GuardMap, GuardObject, GuardProgram, GuardToken } from './objects.ts'
import { type Delegator, Registry, type Renewal } from './registry.ts'
import { Sharing } from './sharing.ts'
import { type GuardSettings, GuardState } from './state.ts'
import { type LoadedProgram, type MadeMap, Use } from './use.ts'
import type { GuardNote, GuardVerdict } from './verdict.ts'

export type { Actor, Cgroup } from './actor.ts'
export { ROOT_CGROUP } from './actor.ts'
export type { GuardCall, GuardTarget } from './attach.ts'
export type { Delegation } from './delegation.ts'
export type { GuardLink, GuardMap, GuardObject, GuardProgram, GuardToken } from './objects.ts'
export type { Delegator } from './registry.ts'
export type { GuardSettings } from './state.ts'
export type { LoadedProgram, MadeMap } from './use.ts'
export type { GuardNote, GuardVerdict } from './verdict.ts'
export type { GuardPoint, GuardReason } from './words.ts'

export class Guard {
  readonly #state: GuardState
  readonly #registry: Registry
  readonly #enabling: Enabling
  readonly #use: Use
  readonly #sharing: Sharing
  readonly #attaching: Attaching

  constructor(settings: GuardSettings = {}) {
    const namespaces = new Namespaces()
    this.#state = new GuardState(settings)
    this.#registry = new Registry(this.#state)
    this.#enabling = new Enabling(this.#state, this.#registry, namespaces)
    this.#use = new Use(this.#state, this.#registry, namespaces)
    this.#sharing = new Sharing(this.#state)
    this.#attaching = new Attaching(this.#state, this.#registry, namespaces)
  }

  /** Seconds since the story began. */
  get now(): number {
    return this.#state.now
  }

  set now(seconds: number) {
    this.#state.now = seconds
  }

  /** The events since they were taken last. */
  takeNotes(): GuardNote[] {
    return this.#state.journal.notes.splice(0)
  }

  // ---- management ----

  installPolicy(name: string, terms: GuardTerms): void {
    this.#registry.installPolicy(name, terms)
  }

  /** By the name of its process. */
  allow(process: string, delegator: Delegator): void {
    this.#registry.allow(process, delegator)
  }

  /** From now on what this process delegates is derived from a delegation; undefined: from none. */
  deriveBy(process: string, parent: Delegation | undefined): void {
    this.#registry.deriveBy(process, parent)
  }

  /** What is derived from it is revoked with it. */
  revoke(of: Delegation, all: Iterable<Delegation>): void {
    this.#registry.revoke(of, all)
  }

  /** Lets it end later: when it ends now, or why it cannot be. */
  renew(of: Delegation, until: number): Renewal {
    return this.#registry.renew(of, until)
  }

  /** Holds the tasks in a cgroup and below to a policy, for calls without a token. */
  confine(cgroup: Cgroup, policy: GuardTerms): Delegation {
    return this.#registry.confine(cgroup, policy)
  }

  unconfine(cgroup: Cgroup): void {
    this.#registry.unconfine(cgroup)
  }

  // ---- enabling ----

  /** fs_context_parse_param. `context` is known again by its identity; `old`: by mount(2). */
  option(context: object, actor: Actor, key: string, value?: string, old = false): GuardVerdict {
    return this.#enabling.option(context, actor, key, value, old)
  }

  /** sb_kern_mount: its delegation, if it has one, or a refusal. */
  superblock(context: object, actor: Actor, userNamespace: UserNamespace, masks: Masks): Enabled {
    return this.#enabling.superblock(context, actor, userNamespace, masks)
  }

  // ---- use ----

  /** bpf_token_create, through a mount of the bpffs; `place`: where that is; absent: nowhere. */
  tokenCreate(
    of: Delegation | undefined,
    actor: Actor,
    userNamespace: UserNamespace,
    mount: object,
    place?: string,
  ): { readonly verdict: GuardVerdict; readonly token?: GuardToken } {
    return this.#use.tokenCreate(of, actor, userNamespace, mount, place)
  }

  /** bpf_token_cmd: where it refuses, the kernel ignores the token. */
  tokenCmd(token: GuardToken, actor: Actor): GuardVerdict {
    return this.#use.tokenCmd(token, actor)
  }

  /** bpf_token_capable: one event for each token and capability. */
  tokenCapable(token: GuardToken, capability: ModelCapability): GuardVerdict {
    return this.#use.tokenCapable(token, capability)
  }

  /** bpf_map_create. Without a verdict against it the map is on record, if it is anybody's. */
  mapCreate(
    actor: Actor,
    token: GuardToken | undefined,
    made: MadeMap,
  ): { readonly verdict: GuardVerdict; readonly map: GuardMap } {
    return this.#use.mapCreate(actor, token, made)
  }

  /** bpf_prog_load, before the verifier. */
  progLoad(
    actor: Actor,
    token: GuardToken | undefined,
    program: LoadedProgram,
  ): { readonly verdict: GuardVerdict; readonly program: GuardProgram } {
    return this.#use.progLoad(actor, token, program)
  }

  /** bpf_prog: a program becomes a descriptor, when it is verified, from a pin, or by its id. */
  openProgram(actor: Actor, program: GuardProgram): GuardVerdict {
    return this.#use.openProgram(actor, program)
  }

  superblockFreed(of: Delegation): void {
    this.#use.superblockFreed(of)
  }

  tokenFreed(token: GuardToken): void {
    this.#use.tokenFreed(token)
  }

  mapFreed(map: GuardMap): void {
    this.#use.mapFreed(map)
  }

  programFreed(program: GuardProgram): void {
    this.#use.programFreed(program)
  }

  // ---- attaching and sharing ----

  /** bpf: each command, before anything else. */
  command(actor: Actor, call: GuardCall): GuardVerdict {
    return this.#attaching.judge(actor, call)
  }

  /** bpf_map: a map becomes a descriptor again, from a pin or by its id. */
  openMap(actor: Actor, map: GuardMap): GuardVerdict {
    return this.#sharing.openMap(actor, map)
  }

  /** file_receive: a token, program or map comes by SCM_RIGHTS or pidfd_getfd(2). */
  receive(actor: Actor, object: { readonly token: GuardToken } | GuardObject): GuardVerdict {
    return this.#sharing.receive(actor, object)
  }

  /** move_mount: put somewhere once. `isPlaced`: it is somewhere already. */
  move(of: Delegation | undefined, mount: object, isPlaced: boolean): GuardVerdict {
    return this.#sharing.move(of, mount, isPlaced)
  }

  /** file_open of a token through /proc: in every mode. */
  reopen(): GuardVerdict {
    return this.#sharing.reopen()
  }

  /** file_open of a pinned iterator, which is to attach. */
  openIterator(actor: Actor, link: GuardLink): GuardVerdict {
    return this.#sharing.openIterator(actor, link)
  }
}
