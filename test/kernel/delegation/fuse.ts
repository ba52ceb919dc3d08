/**
 * A FUSE server in a workload's namespaces: it answers everything, but what it is told to keep
 * waiting.
 */
import { readSync, writeSync } from 'node:fs'
import type { Fd } from '../../../src/sys/fd.ts'
import { type Watch, watchReadable } from '../../../src/sys/poll.ts'
import type { Workload } from './workload.ts'

/** Requests, by the kernel's numbers (include/uapi/linux/fuse.h). */
export const FUSE = {
  LOOKUP: 1,
  FORGET: 2,
  GETATTR: 3,
  OPEN: 14,
  STATFS: 17,
  RELEASE: 18,
  FLUSH: 25,
} as const
const INIT = 26
const OPENDIR = 27
const RELEASEDIR = 29
const ACCESS = 34
const UNANSWERED = [FUSE.FORGET, 36 /* INTERRUPT */, 42 /* BATCH_FORGET */]
const ENOENT = -2
const ENOSYS = -38
const O_RDWR_NONBLOCK = 0o4002
const IN_BYTES = 40
const OUT_BYTES = 16

const ROOT = 1
const FILE = 2
const DIRECTORY = 3

function attributes(to: Buffer, at: number, node: number): void {
  to.writeBigUInt64LE(BigInt(node), at)
  to.writeUInt32LE(node === FILE ? 0o100666 : 0o40755, at + 60)
  to.writeUInt32LE(1, at + 64) // links
  to.writeUInt32LE(4096, at + 80) // block size
}

/** The body of the answer, or -errno. */
function answerTo(op: number, node: number, body: Buffer): Buffer | number {
  switch (op) {
    case INIT: {
      const out = Buffer.alloc(64)
      out.writeUInt32LE(7, 0)
      out.writeUInt32LE(31, 4)
      out.writeUInt32LE(4096, 20) // max_write
      return out
    }
    case FUSE.LOOKUP: {
      const name = body.toString('utf8', 0, body.indexOf(0))
      const found =
        name === 'f' || name === 'libbpf.so' ? FILE : name === 'd' && node === ROOT ? DIRECTORY : undefined
      if (found === undefined) return ENOENT
      const out = Buffer.alloc(128)
      out.writeBigUInt64LE(BigInt(found), 0)
      out.writeBigUInt64LE(3600n, 16) // how long the name is valid; attributes are not
      attributes(out, 40, found)
      return out
    }
    case FUSE.GETATTR: {
      const out = Buffer.alloc(104)
      attributes(out, 16, node)
      return out
    }
    case FUSE.OPEN:
    case OPENDIR:
      return Buffer.alloc(16)
    case FUSE.STATFS:
      return Buffer.alloc(80)
    case FUSE.FLUSH:
    case FUSE.RELEASE:
    case RELEASEDIR:
    case ACCESS:
      return Buffer.alloc(0)
    default:
      return ENOSYS
  }
}

/** Mounted by the workload, so that it is of its user namespace: a directory `d` and a file `f`. */
export class FuseServer implements Disposable {
  readonly #device: Fd
  readonly #watch: Watch
  readonly #kept: (() => void)[] = []
  #hanging: number | undefined
  #whenHung: () => void = () => {}

  /** `node` is a device 10:229 that the workload can open. */
  static async mount(workload: Workload, node: string, place: string): Promise<FuseServer> {
    const fd = await workload.must('openat', -100, node, O_RDWR_NONBLOCK, 0)
    const options = `fd=${fd},rootmode=40000,user_id=0,group_id=0,allow_other`
    await workload.must('mount', 'none', place, 'fuse', 0, options)
    const device = await workload.give(fd)
    await workload.must('close', fd)
    return new FuseServer(device)
  }

  private constructor(device: Fd) {
    this.#device = device
    this.#watch = watchReadable(device, () => this.#serve())
  }

  /** From now on, requests of that kind get no answer; resolves when there is the first one. */
  hang(op: number): Promise<void> {
    this.#hanging = op
    return new Promise(resolve => {
      this.#whenHung = resolve
    })
  }

  /** Answers all of those. */
  release(): void {
    this.#hanging = undefined
    for (const answer of this.#kept.splice(0)) answer()
  }

  get kept(): number {
    return this.#kept.length
  }

  #serve(): void {
    const bytes = Buffer.alloc(1 << 17)
    let length: number
    try {
      length = readSync(this.#device.number, bytes)
    } catch (error) {
      if ((error as { code?: string }).code === 'ENODEV') this.#watch[Symbol.dispose]() // It was unmounted.
      return
    }
    const op = bytes.readUInt32LE(4)
    const answer = (): void => this.#answer(bytes.subarray(0, length))
    if (op === this.#hanging) {
      this.#kept.push(answer)
      this.#whenHung()
    } else if (!UNANSWERED.includes(op as never)) answer()
  }

  #answer(request: Buffer): void {
    const node = Number(request.readBigUInt64LE(16))
    const body = answerTo(request.readUInt32LE(4), node, request.subarray(IN_BYTES))
    const out = Buffer.alloc(OUT_BYTES + (typeof body === 'number' ? 0 : body.length))
    out.writeUInt32LE(out.length, 0)
    request.copy(out, 8, 8, 16) // which request
    if (typeof body === 'number') out.writeInt32LE(body, 4)
    else body.copy(out, OUT_BYTES)
    try {
      writeSync(this.#device.number, out)
    } catch (error) {
      // Whoever asked does not wait any more.
      if (!['ENOENT', 'ENODEV'].includes((error as { code?: string }).code ?? '')) throw error
    }
  }

  /** Ends the connection, and with it every call that waits. */
  [Symbol.dispose](): void {
    this.#watch[Symbol.dispose]()
    this.#device.close()
  }
}
