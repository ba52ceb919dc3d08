/**
 * The guard's judgements on this machine's processor: the programs of bpf/guard-cost.bpf.c with
 * tables of their own, run by a workload (judged.c) that holds a real token, maps and programs. For
 * a test of what they answer, and for bench/guard.ts.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface, type Interface } from 'node:readline'
import { compiled } from '../../../scripts/compiled.ts'
import { delegate } from '../../../src/delegation/delegate.ts'
import { openTarget } from '../../../src/delegation/target.ts'
import type { TypedValue } from '../../../src/ebpf/btf/typed-value.ts'
import { type LoadedObject, loadObject } from '../../../src/ebpf/load/object.ts'
import { GlobalVariables } from '../../../src/ebpf/object/global-variables.ts'
import { parseObject } from '../../../src/ebpf/object/spec.ts'
import { MAP_TYPES } from '../../../src/ebpf/type-names.ts'
import { delegationId } from '../../../src/guard/id.ts'
import { GUARD_ABI, guard_token } from '../../../src/guard/layout.ts'
import { type Tables, tablesOf } from '../../../src/guard/maps.ts'
import { NO_CEILING, type RawTerms } from '../../../src/guard/terms.ts'
import { fsopen } from '../../../src/sys/mount.ts'
import { struct, u64 } from '../../../src/uapi/codec.ts'
import { ROOT } from '../../helpers/machine.ts'
import { EVERYTHING, policyWith, vocabulary } from '../delegation/lab.ts'

/** What the workload is lent, in its records. Bounded, so that each bound is compared with. */
const DELEGATION = delegationId(4100)
const LIMIT = 1_000_000
const TERMS: RawTerms = {
  ...NO_CEILING,
  map_bytes: BigInt(LIMIT),
  tokens: LIMIT,
  programs: LIMIT,
  maps: LIMIT,
  instructions: LIMIT,
  mode: 1,
  flags: 0,
  events: 0,
  depth: 0,
}
const HOUR_NS = 3600n * 1_000_000_000n
const ATTR_WORDS = 32
const PATH = '/sys/fs/bpf'

/** struct request and struct found of bpf/guard-cost.bpf.c. */
const request = struct(40, {
  object: u64(0),
  token: u64(8),
  number: u64(16),
  allowed: u64(24),
  ns: u64(32),
})
const found = struct(48, {
  fd: u64(0),
  file: u64(8),
  object: u64(16),
  operations: u64(24),
  user_namespace: u64(32),
  network: u64(40),
})

type Found = Record<keyof (typeof found)['fields'], bigint>

/** What a hook is asked, again and again. A command or a capability is `number`. */
export interface Question {
  /** For each call the next one of the objects. */
  readonly calls: number
  readonly number?: number
  /** Address; undefined: the workload's. */
  readonly token?: bigint
  /**
   * Before each, the workload makes a map and closes it, so that the processor's caches hold what
   * they would.
   */
  readonly afterRealCalls?: boolean
}

export interface Answer {
  /** How many of the calls were allowed. */
  readonly allowed: number
  /** Nanoseconds of one call, with what it takes to ask and to read the clock: see `nothing`. */
  readonly ns: number
}

export interface Made {
  /** Nanoseconds for one, by bpf(2). */
  readonly ns: number
  readonly fds: readonly number[]
}

const wordsOf = (bytes: Uint8Array): string =>
  [...new BigUint64Array(bytes.buffer, bytes.byteOffset, bytes.length / 8)].join(' ')
const bytesOf = (words: readonly bigint[]): Uint8Array => new Uint8Array(new BigUint64Array(words).buffer)

export class Judgement implements Disposable {
  readonly #object: LoadedObject
  readonly #tables: Tables
  readonly #names: readonly string[]
  readonly #child: ChildProcess
  readonly #lines: Interface
  readonly #variables: GlobalVariables
  /** The workload's descriptor of its token, and where that is. */
  tokenFd = -1
  #token = 0n

  private constructor(object: LoadedObject) {
    this.#object = object
    this.#tables = tablesOf(name => object.map(name))
    this.#names = [...object.programs.keys()]
    const { valueTypeId } = object.spec.maps.find(({ name }) => name === '.bss')!
    this.#variables = new GlobalVariables(object.spec.btf!.types, valueTypeId!)
    // Root of the host as root inside, so that the token works; a network of its own, so that
    // attaching is allowed.
    this.#child = spawn(
      'unshare',
      ['--user', '--map-root-user', '--mount', '--net', compiled(join(__dirname, 'judged.c'))],
      { stdio: ['pipe', 'pipe', 'inherit', ...[...object.programs.values()].map(({ fd }) => fd.number)] },
    )
    this.#lines = createInterface({ input: this.#child.stdout! })
  }

  /**
   * Needs root, a kernel with tokens, and gcc. NotSupportedError and VerifierError: this kernel
   * cannot run the programs.
   */
  static async open(): Promise<Judgement> {
    const bytes = readFileSync(join(ROOT, 'bpf/guard-cost.bpf.o'))
    const judgement = new Judgement(
      await loadObject(parseObject(bytes, { name: 'guard-cost' }), { token: null }),
    )
    try {
      await judgement.#prepare()
      return judgement
    } catch (error) {
      judgement[Symbol.dispose]()
      throw error
    }
  }

  async #prepare(): Promise<void> {
    await this.#ask('empty 1') // It is inside.
    {
      using target = openTarget(this.#child.pid!)
      await delegate(policyWith(EVERYTHING), target, vocabulary)
    }
    this.tokenFd = Number(await this.#ask(`token ${PATH}`))
    const token = await this.find(this.tokenFd)
    this.#token = token.object
    const [programFd] = (await this.makePrograms(1)).fds
    const linkFd = Number(await this.#ask(`link ${programFd}`))
    const link = await this.find(linkFd)
    await this.close([linkFd, programFd!])
    using context = fsopen('bpf')
    const [map, prog, here] = await Promise.all(
      [this.#object.map('config').fd, this.#object.program('find_object').fd, context].map(fd =>
        this.#findHere(fd.number),
      ),
    )
    this.#setAddresses({
      address_of_bpf_token_fops: token.operations,
      address_of_bpf_map_fops: map!.operations,
      address_of_bpf_prog_fops: prog!.operations,
      address_of_bpf_link_fops: link.operations,
      // Of struct_ops alone, of which there is none here.
      address_of_bpf_iter_fops: 0n,
      address_of_bpf_link_fops_poll: 0n,
      // Nobody looks for it: a read there gives 0, so that no link was made.
      address_of_link_idr: 0n,
      address_of_fscontext_fops: here!.operations,
      address_of_init_user_ns: here!.user_namespace,
      address_of_init_net: here!.network,
    })
    this.#record()
  }

  /** What the guard would have on record of the workload and its token. */
  #record(): void {
    const userNamespace = statSync(`/proc/${this.#child.pid}/ns/user`).ino
    const { config, delegations, usages, namespaces } = this.#tables
    config.change({ abi: GUARD_ABI, mode: 1 })
    delegations.set(DELEGATION, {
      terms: TERMS,
      expires_ns: process.hrtime.bigint() + HOUR_NS,
      user_namespace: userNamespace,
      delegator: process.pid,
    })
    usages.set(DELEGATION, { superblocks: 1, tokens: 1 })
    this.#object.map('tokens').update(bytesOf([this.#token]), guard_token.encode({ delegation: DELEGATION }))
    const rules = { own_network: 1, revocable: 1 }
    namespaces.set(userNamespace, { delegation: DELEGATION, enforced: rules })
  }

  /** One line to the workload, and its answer. */
  #ask(question: string): Promise<string> {
    return new Promise((resolve, reject) => {
      const ended = (): void => reject(new Error(`The workload ended at "${question}"`))
      this.#lines.once('close', ended)
      this.#lines.once('line', answer => {
        this.#lines.off('close', ended)
        resolve(answer)
      })
      this.#child.stdin!.write(`${question}\n`)
    })
  }

  #fdOf(program: string): number {
    const at = this.#names.indexOf(program)
    if (at < 0) throw new Error(`There is no program "${program}"; there are ${this.#names.join(', ')}`)
    return 3 + at
  }

  /** Of a descriptor of the workload's: what it is in the kernel. */
  async find(fd: number): Promise<Found> {
    const asked = found.encode({ fd: BigInt(fd) })
    const answer = await this.#ask(`run ${this.#fdOf('find_object')} ${wordsOf(asked)}`)
    return found.decode(bytesOf(answer.trim().split(' ').map(BigInt))) as Found
  }

  /** The same of ours. */
  async #findHere(fd: number): Promise<Found> {
    const contextIn = found.encode({ fd: BigInt(fd) })
    const { context } = await this.#object.program('find_object').testRun({ contextIn })
    return found.decode(context) as Found
  }

  /** Asks a hook: `nothing`, or the name of one without `bpf_`. */
  async judge(hook: string, question: Question): Promise<Answer> {
    const { calls, number = 0, token = this.#token, afterRealCalls = false } = question
    const asked = wordsOf(request.encode({ number: BigInt(number), token }))
    const program = this.#fdOf(`measure_${hook}`)
    const answer = await this.#ask(`runs ${program} ${calls} ${Number(afterRealCalls)} ${asked}`)
    const [allowed, ns] = answer.split(' ').map(Number) as [number, number]
    return { allowed, ns: ns / calls }
  }

  async #make(what: string, count: number): Promise<Made> {
    const [ns, ...fds] = (await this.#ask(`${what} ${count}`)).split(' ').map(Number) as [number, ...number[]]
    return { ns: ns / count, fds }
  }

  /** Maps with keys and values of 4 bytes. */
  makeMaps(count: number, of: { type: 'array' | 'hash'; entries: number }): Promise<Made> {
    return this.#make(`maps ${MAP_TYPES.number(of.type)} ${of.entries}`, count)
  }

  makePrograms(count: number): Promise<Made> {
    return this.#make('programs', count)
  }

  /** Nanoseconds of one lookup in a map, or of one command that bpf(2) does not have. */
  async callMany(what: 'lookup' | 'empty', count: number): Promise<number> {
    return Number(await this.#ask(`${what} ${count}`)) / count
  }

  async close(fds: readonly number[]): Promise<void> {
    for (let at = 0; at < fds.length; at += 16) await this.#ask(`close ${fds.slice(at, at + 16).join(' ')}`)
  }

  /**
   * From now on hooks are asked about these, in this order and again from the start, a thousand or
   * so at most.
   */
  setObjects(addresses: readonly bigint[]): void {
    const objects = this.#object.map('objects')
    const each = addresses.map(address => bytesOf([address]))
    for (let i = 0; i < objects.maxEntries; i++) objects.update(i, each[i % each.length]!)
  }

  /**
   * From now on hooks are told that bpf(2) was given this: the beginning of union bpf_attr, in
   * words of 32 bits.
   */
  setAttr(words: readonly number[]): void {
    this.#setVariables({ attr: [...words, ...new Array(ATTR_WORDS - words.length).fill(0)] })
  }

  /** Of all symbols of the kernel's that the programs name. */
  #setAddresses(addresses: Record<string, bigint>): void {
    const unknown = [...this.#variables.all.keys()].filter(
      name => name.startsWith('address_of_') && addresses[name] === undefined,
    )
    if (unknown.length > 0) throw new Error(`Nobody finds out the ${unknown.join(', ')}`)
    this.#setVariables(addresses)
  }

  #setVariables(values: Record<string, TypedValue>): void {
    const map = this.#object.map('.bss')
    const bytes = map.lookup(0)!
    for (const [name, value] of Object.entries(values)) this.#variables.set(bytes, name, value)
    map.update(0, bytes)
  }

  /** Ends the delegation, or with `false` lets it live again. */
  revoke(isRevoked = true): void {
    const { revocations } = this.#tables
    if (isRevoked) revocations.set(DELEGATION, { revoked_ns: 1n })
    else revocations.clear(DELEGATION)
  }

  /**
   * Gives the delegation's record this end, since boot, and forgets that it has expired; with
   * `renewed`, a later one beside it.
   */
  endsAt(endNs: bigint, renewed?: bigint): void {
    const { delegations, expired, renewals } = this.#tables
    const { id: _, ...record } = delegations.get(DELEGATION)!
    delegations.set(DELEGATION, { ...record, expires_ns: endNs })
    expired.clear(DELEGATION)
    renewals.delete(DELEGATION)
    if (renewed !== undefined) this.renew(renewed)
  }

  /** Gives it a later end, as whoever renews it does. */
  renew(endNs: bigint): void {
    this.#tables.renewals.set(DELEGATION, endNs)
  }

  /** What is counted of the delegation. */
  usage() {
    return this.#tables.usages.get(DELEGATION)
  }

  totals() {
    return this.#tables.totals.read()
  }

  /** How many maps and programs are on record. */
  records(table: 'maps' | 'programs' | 'tokens'): number {
    return this.#object.map(table).readAll().length
  }

  [Symbol.dispose](): void {
    this.#lines.close()
    this.#child.kill()
    this.#object[Symbol.dispose]()
  }

  /** When the workload has ended. */
  async ended(): Promise<void> {
    if (this.#child.exitCode === null && this.#child.signalCode === null) await once(this.#child, 'exit')
  }
}
