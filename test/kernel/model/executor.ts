/** The TypeScript side of executor.c: steps as bytes, data for its arena, and results. */
import { type ChildProcessByStdio, spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import type { Readable, Writable } from 'node:stream'
import { compiled } from '../../../scripts/compiled.ts'

export const STEP_BYTES = 240
export const MAX_STEPS = 8192
const ATTR_AT = 48
const ATTR_BYTES = 192
const ARENA = 0x2000_0000
const ARENA_BYTES = 1 << 20

export const OP = {
  bpf: 0,
  fsopen: 1,
  fsconfigString: 2,
  fsconfigFlag: 3,
  fsconfigCreate: 4,
  fsmount: 5,
  openat: 6,
  close: 7,
  dup: 8,
  mount: 9,
  spawn: 10,
  mkdirat: 11,
  setid: 12,
  seccomp: 13,
  moveMount: 14,
  copyMount: 15,
  getFd: 16,
  unmount: 17,
  hooks: 20,
  chmod: 21,
  chown: 22,
  unlink: 23,
} as const

/** One system call; fields as in struct step of executor.c. */
export interface Step {
  readonly context: number
  readonly op: keyof typeof OP
  /** Effective capabilities, as a mask. */
  readonly capabilities: bigint
  readonly givesFd?: boolean
  readonly ownUserNamespace?: boolean
  /** Of a context that is spawned: in the network namespace of the one that spawns it. */
  readonly sameNetwork?: boolean
  readonly cmd?: number
  readonly size?: number
  readonly a?: number
  readonly b?: number
  readonly in?: number
  readonly out?: number
  readonly attr?: Uint8Array
  /** Hooks of security modules that refuse during the step, as bits, and with which errno. */
  readonly refusing?: { readonly hooks: number; readonly errno: number }
  /** Registers whose descriptors are put into the attributes, and at which offset. */
  readonly patches?: readonly (readonly [register: number, offset: number])[]
}

/** Steps as the executor takes them. */
export class Batch {
  readonly #bytes = Buffer.alloc(MAX_STEPS * STEP_BYTES)
  count = 0

  add(step: Step): number {
    if (this.count === MAX_STEPS) throw new Error('a batch is full')
    const b = this.#bytes
    const at = this.count * STEP_BYTES
    b.fill(0, at, at + STEP_BYTES)
    b.writeUInt16LE(step.context, at)
    b.writeUInt16LE(OP[step.op], at + 2)
    b.writeUInt32LE(
      (step.givesFd ? 1 : 0) | (step.ownUserNamespace ? 2 : 0) | (step.sameNetwork ? 4 : 0),
      at + 4,
    )
    b.writeBigUInt64LE(step.capabilities, at + 8)
    b.writeUInt32LE(step.cmd ?? 0, at + 16)
    b.writeUInt32LE(step.size ?? 0, at + 20)
    b.writeUInt32LE(step.a ?? 0, at + 24)
    b.writeUInt32LE(step.b ?? 0, at + 28)
    b.writeInt32LE(step.in ?? -1, at + 32)
    b.writeInt32LE(step.out ?? -1, at + 36)
    for (const [i, [register, offset]] of (step.patches ?? []).entries()) {
      b[at + 40 + i] = register + 1
      b.writeUInt16LE(offset, at + 42 + i * 2)
    }
    b[at + 46] = step.refusing?.hooks ?? 0
    b[at + 47] = step.refusing?.errno ?? 0
    if (step.attr !== undefined) b.set(step.attr.subarray(0, ATTR_BYTES), at + ATTR_AT)
    return this.count++
  }

  clear(): void {
    this.count = 0
  }

  bytes(): Buffer {
    return Buffer.from(this.#bytes.subarray(0, this.count * STEP_BYTES))
  }
}

export class Executor {
  readonly #child: ChildProcessByStdio<Writable, Readable, null>
  #arenaEnd = 8
  readonly #texts = new Map<string, number>()
  #chunks: Buffer[] = []
  #have = 0
  #wake: (() => void) | undefined
  /** How, once it has. */
  #ended: string | undefined

  /** `hostNetwork`: context 0 stays in the network namespace that we are in. */
  constructor({ hostNetwork = false } = {}) {
    this.#child = spawn(compiled(join(__dirname, 'executor.c')), hostNetwork ? ['host-network'] : [], {
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    this.#child.stdout.on('data', (chunk: Buffer) => {
      this.#chunks.push(chunk)
      this.#have += chunk.length
      this.#wake?.()
    })
    this.#child.on('exit', (status, signal) => {
      this.#ended = signal ?? `status ${status}`
      this.#wake?.()
    })
    this.#child.stdin.on('error', () => {})
  }

  get pid(): number {
    return this.#child.pid!
  }

  /** Puts bytes into the arena. Gives the offset: of the address itself, see `address`. */
  data(bytes: Uint8Array, align = 8): number {
    const offset = Math.ceil(this.#arenaEnd / align) * align
    this.#arenaEnd = offset + bytes.length
    if (this.#arenaEnd > ARENA_BYTES) throw new Error('the arena is full')
    this.#send(1, bytes.length, offset, bytes)
    return offset
  }

  /** A C string in the arena; the same text is there once. */
  text(text: string): number {
    let offset = this.#texts.get(text)
    if (offset === undefined) {
      offset = this.data(Buffer.from(`${text}\0`), 1)
      this.#texts.set(text, offset)
    }
    return offset
  }

  /** How far the arena is used. */
  mark(): number {
    return this.#arenaEnd
  }

  get isNearlyFull(): boolean {
    return this.#arenaEnd > ARENA_BYTES - 16_384
  }

  /** Texts behind the mark may be written over: no step that is still to run uses them. */
  forgetTexts(mark: number): void {
    this.#arenaEnd = mark
    for (const [text, offset] of this.#texts) if (offset >= mark) this.#texts.delete(text)
  }

  address(offset: number): bigint {
    return BigInt(ARENA + offset)
  }

  /** What the steps came to: results, or -errno. */
  async run(batch: Batch): Promise<Int32Array> {
    const { count } = batch
    if (count === 0) return new Int32Array()
    const bytes = batch.bytes()
    batch.clear()
    this.#send(0, count, 0, bytes)
    const wanted = count * 4
    while (this.#have < wanted) {
      if (this.#ended !== undefined) throw new Error(`the executor has ended: ${this.#ended}`)
      await new Promise<void>(resolve => {
        this.#wake = resolve
      })
    }
    const all = Buffer.concat(this.#chunks)
    this.#chunks = all.length > wanted ? [all.subarray(wanted)] : []
    this.#have = all.length - wanted
    return new Int32Array(all.buffer.slice(all.byteOffset, all.byteOffset + wanted))
  }

  async close(): Promise<void> {
    if (this.#ended !== undefined) return
    this.#child.stdin.end()
    await once(this.#child, 'exit')
  }

  #send(kind: number, count: number, offset: number, bytes: Uint8Array): void {
    const head = Buffer.alloc(16)
    head.writeUInt32LE(kind, 0)
    head.writeUInt32LE(count, 4)
    head.writeUInt32LE(offset, 8)
    this.#child.stdin.write(head)
    this.#child.stdin.write(bytes)
  }
}
