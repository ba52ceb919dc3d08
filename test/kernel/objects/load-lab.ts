/**
 * A sandbox with a worker that loads objects, and delegations to it with just the masks that a test
 * wants.
 */
import { copyFileSync, cpSync, existsSync, rmSync } from 'node:fs'
import { basename, join } from 'node:path'
import type { Masks } from '../../../src/policy/vocabulary.ts'
import { CACHE, ROOT } from '../../helpers/machine.ts'
import { Scratch } from '../../helpers/scratch.ts'
import { Worker } from '../delegation/worker.ts'

const BPFTOOL = join(CACHE, 'host/usr/sbin/bpftool')

export interface LoadAnswer {
  readonly ok: boolean
  /** Whether there was a token, where we load. */
  readonly token?: boolean
  readonly programs?: number
  readonly maps?: number
  readonly message?: string
  readonly errnoName?: string
  readonly hint?: string
  /** With `packets`: length and its square times `factor`, of each packet, from the ring buffer. */
  readonly events?: readonly number[]
  /** Packets counted in the maps of the map of maps. */
  readonly inner?: number
  readonly ingressBytes?: number
  readonly cgroupPackets?: number
  readonly links?: readonly string[]
  /** With `run`: what the program says to a TCP packet for port 80. */
  readonly verdict?: string
}

export interface LoadRequest {
  readonly file: string
  readonly only?: readonly string[]
  /** For the fixture network.bpf.o: attach, and let so many datagrams through. */
  readonly packets?: number
  /** Attach the program of that name to this cgroup, and detach it. */
  readonly attach?: { readonly program: string; readonly cgroup: string }
  /** Run this program with a packet. */
  readonly run?: string
  /** This Debian's token-aware bpftool (libbpf 1.5) loads instead of us. */
  readonly bpftool?: true
  /** In a bpffs of its own, which only a worker that is root can mount. */
  readonly fresh?: true
}

export class LoadLab implements Disposable {
  readonly #worker: Worker
  readonly #stage: Scratch
  /** The object whose copy the worker reads. */
  #file: string | undefined

  private constructor(worker: Worker, stage: Scratch) {
    this.#worker = worker
    this.#stage = stage
  }

  /** With these capabilities inside. The caller disposes of it, and then waits for `ended`. */
  static async start(capabilities: readonly string[]): Promise<LoadLab> {
    // The worker is an ordinary user, who may not reach this clone.
    const stage = new Scratch()
    for (const part of ['dist', 'package.json', 'build/Release/bpftoken.node'])
      cpSync(join(ROOT, part), join(stage.path, part), { recursive: true })
    if (existsSync(BPFTOOL)) cpSync(BPFTOOL, join(stage.path, 'bpftool'))
    cpSync(join(__dirname, 'load-worker.cjs'), join(stage.path, 'load-worker.cjs'))
    const program = join(stage.path, 'load-worker.cjs')
    return new LoadLab(await Worker.start([process.execPath, program], capabilities), stage)
  }

  get ended(): Promise<unknown> {
    return this.#worker.ended
  }

  /** Loads under a delegation of these masks; with none at all where every mask is empty. */
  load(masks: Masks, request: LoadRequest): Promise<LoadAnswer> {
    const empty = Object.values(masks).every(mask => mask === 0n)
    return this.#worker.ask(this.#staged(request), empty ? undefined : masks)
  }

  /** The same where these masks, of which one is not empty, are lent by the bare system calls. */
  loadBare(masks: Masks, request: LoadRequest): Promise<LoadAnswer> {
    return this.#worker.askBare(this.#staged(request), masks)
  }

  /** The request as the worker reads it, with the path of the copy that it can reach. */
  #staged({ file, ...request }: LoadRequest): string {
    const copy = join(this.#stage.path, basename(file))
    if (file !== this.#file) {
      if (this.#file !== undefined) rmSync(join(this.#stage.path, basename(this.#file)))
      copyFileSync(file, copy)
      this.#file = file
    }
    return JSON.stringify({ ...request, file: copy })
  }

  [Symbol.dispose](): void {
    this.#stage[Symbol.dispose]()
    this.#worker[Symbol.dispose]()
  }
}
