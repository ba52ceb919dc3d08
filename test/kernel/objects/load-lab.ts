/**
 * A sandbox with a worker that loads objects, and delegations to it with just the masks that a test
 * wants.
 */
import { once } from 'node:events'
import { copyFileSync, cpSync, existsSync, rmSync } from 'node:fs'
import { basename, join } from 'node:path'
import { createInterface, type Interface } from 'node:readline'
import { delegate, undelegate } from '../../../src/delegation/delegate.ts'
import { Sandbox } from '../../../src/delegation/sandbox.ts'
import { openTarget, type Target } from '../../../src/delegation/target.ts'
import { runningVocabulary } from '../../../src/delegation/vocabulary.ts'
import type { Masks } from '../../../src/policy/vocabulary.ts'
import { CACHE, ROOT } from '../../helpers/machine.ts'
import { Scratch } from '../../helpers/scratch.ts'
import { policyWith } from '../delegation/lab.ts'

const NOBODY = 65534
const BPFTOOL = join(CACHE, 'host/usr/sbin/bpftool')
const vocabulary = runningVocabulary()

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
}

export interface LoadRequest {
  readonly file: string
  readonly only?: readonly string[]
  /** For the fixture network.bpf.o: attach, and let so many datagrams through. */
  readonly packets?: number
  /** Attach the program of that name to this cgroup, and detach it. */
  readonly attach?: { readonly program: string; readonly cgroup: string }
  /** This Debian's token-aware bpftool (libbpf 1.5) loads instead of us. */
  readonly bpftool?: true
}

export class LoadLab implements Disposable {
  readonly #sandbox: Sandbox
  readonly #target: Target
  readonly #lines: Interface

  readonly #stage: Scratch
  /** The object whose copy the worker reads. */
  #file: string | undefined

  private constructor(sandbox: Sandbox, target: Target, stage: Scratch) {
    this.#sandbox = sandbox
    this.#target = target
    this.#stage = stage
    this.#lines = createInterface({ input: sandbox.child.stdout! })
  }

  /** With these capabilities inside. The caller disposes of it, and then waits for `ended`. */
  static async start(capabilities: readonly string[]): Promise<LoadLab> {
    // The worker is an ordinary user, who may not reach this clone.
    const stage = new Scratch()
    for (const part of ['dist', 'package.json', 'build/Release/bpftoken.node', 'node_modules/node-gyp-build'])
      cpSync(join(ROOT, part), join(stage.path, part), { recursive: true })
    if (existsSync(BPFTOOL)) cpSync(BPFTOOL, join(stage.path, 'bpftool'))
    cpSync(join(__dirname, 'load-worker.cjs'), join(stage.path, 'load-worker.cjs'))
    const sandbox = await Sandbox.start({
      command: [process.execPath, join(stage.path, 'load-worker.cjs')],
      ...{ uid: NOBODY, gid: NOBODY, network: 'own', capabilities, stdio: ['pipe', 'pipe', 'inherit'] },
    })
    const lab = new LoadLab(sandbox, openTarget(sandbox.pid), stage)
    const ready = once(lab.#lines, 'line')
    await sandbox.release()
    await ready
    return lab
  }

  get ended(): Promise<unknown> {
    return this.#sandbox.exited
  }

  /** Loads under a delegation of these masks; with none at all where every mask is empty. */
  async load(masks: Masks, request: LoadRequest): Promise<LoadAnswer> {
    const empty = Object.values(masks).every(mask => mask === 0n)
    if (empty) return this.#ask(request)
    await delegate(policyWith(masks), this.#target, vocabulary)
    try {
      return await this.#ask(request)
    } finally {
      await undelegate(this.#target, vocabulary)
    }
  }

  async #ask({ file, ...request }: LoadRequest): Promise<LoadAnswer> {
    const copy = join(this.#stage.path, basename(file))
    if (file !== this.#file) {
      if (this.#file !== undefined) rmSync(join(this.#stage.path, basename(this.#file)))
      copyFileSync(file, copy)
      this.#file = file
    }
    const answer = once(this.#lines, 'line') as Promise<[string]>
    this.#sandbox.child.stdin!.write(`${JSON.stringify({ ...request, file: copy })}\n`)
    return JSON.parse((await answer)[0]) as LoadAnswer
  }

  [Symbol.dispose](): void {
    this.#lines.close()
    this.#stage[Symbol.dispose]()
    this.#target[Symbol.dispose]()
    this.#sandbox[Symbol.dispose]()
  }
}
