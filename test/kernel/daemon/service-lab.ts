/**
 * The daemon's service without HTTP, and askers that are real: processes that have connected to a
 * socket of ours, known by what the kernel says of them.
 */
import { once } from 'node:events'
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs'
import { connect, createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import type { RouteAnswer, RouteName, RouteRequest } from '../../../src/api/routes.ts'
import { bootId, type Clock, REAL_CLOCK } from '../../../src/daemon/clock.ts'
import { createService, type RunningService } from '../../../src/daemon/create-service.ts'
import type { Limits } from '../../../src/daemon/limits.ts'
import { Names } from '../../../src/daemon/names.ts'
import type { Log, Parts } from '../../../src/daemon/parts.ts'
import { Peer } from '../../../src/daemon/peer.ts'
import { PolicyFiles } from '../../../src/daemon/policies.ts'
import { runningVocabulary } from '../../../src/delegation/vocabulary.ts'
import type { Guard } from '../../../src/guard/guard.ts'
import { Audit } from '../../../src/registry/audit.ts'
import { EventStore } from '../../../src/registry/event-store.ts'
import { type Files, REAL_FILES } from '../../../src/registry/files.ts'
import { Registry } from '../../../src/registry/registry.ts'
import { descriptorOf } from '../../../src/sys/peer.ts'
import { CLONE_NEWNS, CLONE_NEWUSER } from '../../../src/uapi/constants.ts'
import { Scratch } from '../../helpers/scratch.ts'
import { Workload } from '../delegation/workload.ts'

const AF_UNIX = 1
const SOCK_STREAM = 1

export interface LabOptions {
  /** Of another lab, which is stopped. Default: a new one. */
  readonly directory?: string
  /** Before the service is made of them. */
  readonly prepare?: (stores: { registry: Registry; audit: Audit }) => void
  readonly limits?: Partial<Limits>
  /** It stays the caller's. */
  readonly guard?: Guard
  readonly clock?: Clock
  readonly lend?: Parts['lend']
  /** With faults. */
  readonly files?: Files
}

/** What was logged, for tests that look at it. */
export interface Logged extends Log {
  readonly lines: string[]
}

function logged(): Logged {
  const lines: string[] = []
  const say = (level: string) => (facts: object, message: string) => {
    const { err } = facts as { err?: Error }
    lines.push(`${level} ${message}${err === undefined ? '' : `: ${err.stack}`}`)
  }
  return { lines, info: say('info'), warn: say('warn'), error: say('error') }
}

export class ServiceLab implements AsyncDisposable {
  readonly #scratch: Scratch | undefined
  readonly #peers = new Set<Peer>()
  readonly #sockets = new Set<Socket>()
  readonly #connected: ((peer: Peer) => void)[] = []
  readonly #server = createServer(socket => this.#accept(socket))
  readonly names = new Names()
  readonly log = logged()
  readonly directory: string
  readonly stateDirectory: string
  readonly policyDirectory: string
  readonly #socketPath: string
  service!: RunningService
  registry!: Registry
  audit!: Audit
  events!: EventStore

  private constructor(directory: string | undefined) {
    this.#scratch = directory === undefined ? new Scratch() : undefined
    this.directory = directory ?? this.#scratch!.path
    this.stateDirectory = join(this.directory, 'state')
    this.policyDirectory = join(this.directory, 'policies')
    this.#socketPath = join(this.directory, `lab-${process.pid}.sock`)
  }

  static async open(options: LabOptions = {}): Promise<ServiceLab> {
    const lab = new ServiceLab(options.directory)
    mkdirSync(lab.policyDirectory, { recursive: true })
    await once(lab.#server.listen(lab.#socketPath), 'listening')
    chmodSync(lab.#socketPath, 0o666)
    await lab.start(options)
    return lab
  }

  /** As the daemon starts: again after `stop`, with what is on the disk. */
  async start({
    limits,
    guard,
    clock = REAL_CLOCK,
    lend,
    prepare,
    files = REAL_FILES,
  }: LabOptions = {}): Promise<void> {
    const vocabulary = runningVocabulary()
    this.registry = await Registry.open(this.stateDirectory, { boot: bootId(), files })
    this.audit = await Audit.open(this.stateDirectory, { files })
    this.events = await EventStore.open(this.stateDirectory, { files })
    prepare?.(this)
    const policies = new PolicyFiles(this.policyDirectory, vocabulary)
    const { registry, audit, events, names, log } = this
    this.service = createService({
      ...{ version: 'test', registry, audit, events, guard, policies, names, vocabulary, log },
      ...{ clock, limits, lend },
    })
    await this.service.reload()
    await this.service.start()
  }

  async stop(): Promise<void> {
    await this.service.stop()
    await this.events.close()
    await this.audit.close()
    await this.registry.close()
  }

  /** A policy of the daemon; `spec` is YAML. Counts after `reload`. */
  write(name: string, spec: string, file = `${name}.yaml`): void {
    const text = `apiVersion: bpftoken.dev/v1\nkind: DelegationPolicy\nmetadata: { name: ${name} }\nspec:\n${spec}\n`
    writeFileSync(join(this.policyDirectory, file), text)
  }

  /** The peer that this workload is, once it has connected. It lives as long as the lab. */
  async askerOf(workload: Workload): Promise<Peer> {
    const arrived = this.#next()
    const socket = await workload.must('socket', AF_UNIX, SOCK_STREAM, 0)
    const address = Buffer.alloc(110)
    address.writeUInt16LE(AF_UNIX, 0)
    address.write(this.#socketPath, 2)
    await workload.must('connect', socket, address, this.#socketPath.length + 3)
    return arrived
  }

  /** We ourselves. */
  async root(): Promise<Peer> {
    const arrived = this.#next()
    this.#sockets.add(connect(this.#socketPath))
    return arrived
  }

  #next(): Promise<Peer> {
    return new Promise(resolve => {
      this.#connected.push(resolve)
    })
  }

  #accept(socket: Socket): void {
    this.#sockets.add(socket)
    socket.on('error', () => {})
    const peer = Peer.of(descriptorOf(socket), this.names.accounts)
    this.#peers.add(peer)
    this.#connected.shift()?.(peer)
  }

  /** What a route answers this asker. */
  async ask<N extends RouteName>(
    route: N,
    asker: Peer,
    request: Partial<RouteRequest<N>> & object,
    { key, signal = new AbortController().signal }: { key?: string; signal?: AbortSignal } = {},
  ): Promise<{ status: number; body: RouteAnswer<N> }> {
    const handler = this.service.handlers[route] as (
      call: object,
      request: object,
    ) => Promise<{ status: number; body: RouteAnswer<N> }>
    return handler({ asker, signal, idempotencyKey: key }, { params: {}, query: {}, body: {}, ...request })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop()
    for (const peer of this.#peers) peer[Symbol.dispose]()
    for (const socket of this.#sockets) socket.destroy()
    await new Promise(resolve => this.#server.close(resolve))
    this.#scratch?.[Symbol.dispose]()
  }
}

/** A process of that user in a user and mount namespace that it made, with itself as root. */
export async function inOwnNamespaces(uid: number): Promise<Workload> {
  const workload = await Workload.onHost(uid)
  await workload.must('unshare', CLONE_NEWUSER | CLONE_NEWNS)
  for (const map of ['uid_map', 'gid_map']) writeFileSync(`/proc/${workload.pid}/${map}`, `0 ${uid} 1`)
  return workload
}
