/**
 * Processes that hang in execve(2): they close a file of a FUSE of their own, and who serves it
 * does not answer. Whoever waits for one of them waits until it is let go, or killed.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { rmSync, writeFileSync } from 'node:fs'
import { AT_FDCWD, CLONE_NEWNS, CLONE_NEWUSER, O_CLOEXEC } from '../../../src/uapi/constants.ts'
import { HANG_MS } from '../../helpers/eventually.ts'
import { FUSE, FuseServer } from './fuse.ts'
import { Workload } from './workload.ts'

const MS_PER_SEC = 1000

export class HangingExec implements AsyncDisposable {
  readonly workload: Workload
  readonly #fuse: FuseServer
  readonly #lured: Workload[] = []
  /** Kills us at last, should we wait for it: we serve its FUSE, so that it never ends else. */
  #watchdog: ChildProcess | undefined

  private constructor(workload: Workload, fuse: FuseServer) {
    this.workload = workload
    this.#fuse = fuse
  }

  get pid(): number {
    return this.workload.pid
  }

  /**
   * A process of that user, in a user and mount namespace that it makes and in the host's network.
   * It does what is asked until `hang`.
   */
  static async prepare(uid: number): Promise<HangingExec> {
    const workload = await Workload.onHost(uid)
    await workload.must('unshare', CLONE_NEWUSER | CLONE_NEWNS)
    for (const map of ['uid_map', 'gid_map']) writeFileSync(`/proc/${workload.pid}/${map}`, `0 ${uid} 1`)
    return HangingExec.of(workload)
  }

  /** Of one that may mount FUSE in its mount namespace. It is disposed of with the result. */
  static async of(workload: Workload): Promise<HangingExec> {
    // In /dev, since a temporary directory may have no devices.
    const device = `/dev/bpftoken-test-fuse-${workload.pid}`
    execFileSync('mknod', ['-m', '666', device, 'c', '10', '229'])
    try {
      await workload.must('mount', 'none', '/mnt', 'tmpfs', 0, 'mode=755')
      await workload.must('mkdirat', AT_FDCWD, '/mnt/b', 0o755)
      const fuse = await FuseServer.mount(workload, device, '/mnt/b')
      await workload.must('openat', AT_FDCWD, '/mnt/b/f', O_CLOEXEC, 0)
      return new HangingExec(workload, fuse)
    } finally {
      rmSync(device)
    }
  }

  /**
   * Gives another process of its user, outside of its namespaces, a descriptor to hang by, and owns
   * it.
   */
  async lure(outside: Workload): Promise<void> {
    this.#lured.push(outside)
    const file = await this.workload.must('openat', AT_FDCWD, '/mnt/b/f', O_CLOEXEC, 0)
    const pidfd = await outside.must('pidfd_open', this.pid, 0)
    await outside.must('pidfd_getfd', pidfd, file, 0)
  }

  /** Resolves when it hangs, or who was lured. */
  async hang(who: Workload = this.workload): Promise<void> {
    const hung = this.#fuse.hang(FUSE.FLUSH)
    who.becomes('/bin/true', '').catch(() => {})
    await hung
    const script = `sleep ${(2 * HANG_MS) / MS_PER_SEC}; kill -9 ${process.pid}`
    this.#watchdog = spawn('sh', ['-c', script], { stdio: 'ignore', detached: true })
    this.#watchdog.unref()
  }

  /** It goes on, and becomes a program that ends at once. */
  async release(): Promise<void> {
    this.#fuse.release()
    await this.workload.exited
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#watchdog?.pid !== undefined) process.kill(-this.#watchdog.pid, 'SIGKILL')
    this.#fuse.release()
    for (const one of [this.workload, ...this.#lured]) {
      one[Symbol.dispose]()
      await one.exited
    }
    this.#fuse[Symbol.dispose]()
  }
}

/** Whether an ordinary user can mount FUSE in a user namespace here. */
export async function canHang(uid: number): Promise<boolean> {
  try {
    await using _ = await HangingExec.prepare(uid)
    return true
  } catch {
    return false
  }
}
