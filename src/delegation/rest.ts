/**
 * What a program leaves behind, and the end of it: a cgroup of its own, and a helper that kills all
 * that is in the cgroup once we let go of it, whether we mean to or die. The helper is
 * native/rest.c.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, rmdirSync } from 'node:fs'
import path from 'node:path'
import { ConflictError, NotSupportedError, TimeoutError } from '../errors.ts'
import { type MountInfo, parseMountInfo } from '../sys/mountinfo.ts'
import { restPath } from '../sys/native.ts'
import { cgroup2Path } from '../sys/proc-file.ts'

export class Rest implements Disposable {
  /** The directory of the cgroup, which the program enters before it is the program. */
  readonly cgroup: string
  readonly #child: ChildProcess
  readonly #gone: Promise<number | null>

  private constructor(cgroup: string, child: ChildProcess) {
    this.cgroup = cgroup
    this.#child = child
    this.#gone = new Promise(resolve => child.once('exit', resolve))
    // That the helper has closed its end already is said by its status.
    child.stdin!.on('error', () => {})
  }

  /**
   * Makes the cgroup below our own, so that our limits hold for it. NotSupportedError: there is no
   * cgroup2 that we may write to, or it is older than Linux 5.14. The caller disposes of it.
   */
  static async prepare(): Promise<Rest> {
    const cgroup = path.join(ownCgroup(), `bpftoken-run-${process.pid}-${randomBytes(4).toString('hex')}`)
    try {
      mkdirSync(cgroup)
    } catch (cause) {
      throw unsupported(`no cgroup can be made below ${path.dirname(cgroup)}`, cause)
    }
    try {
      if (!existsSync(path.join(cgroup, 'cgroup.kill'))) throw unsupported('this kernel has no cgroup.kill')
      return new Rest(cgroup, await startHelper(cgroup))
    } catch (error) {
      rmdirSync(cgroup)
      throw error
    }
  }

  /** Kills all that is left; resolves when it is gone. */
  async end(timeoutMs: number): Promise<void> {
    this[Symbol.dispose]()
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(
        () => reject(new TimeoutError(`What is left in ${this.cgroup} did not die within ${timeoutMs} ms`)),
        timeoutMs,
      )
    })
    try {
      const status = await Promise.race([this.#gone, late])
      if (status !== 0)
        throw new ConflictError(`What is left in ${this.cgroup} could not be killed`, {
          context: { cgroup: this.cgroup, status: status ?? 'none' },
          hint: `Write 1 to ${this.cgroup}/cgroup.kill, and remove the directory`,
        })
    } finally {
      clearTimeout(timer)
    }
  }

  /** Lets go: the helper kills what is there, removes the cgroup and exits, some time soon. */
  [Symbol.dispose](): void {
    this.#child.stdin!.end()
  }
}

/** Resolves when it is ready: before that, nothing may be started that it has to end. */
async function startHelper(cgroup: string): Promise<ChildProcess> {
  // A session of its own: what ends us from a terminal must not end it before its work is done.
  const child = spawn(restPath(), [cgroup], { stdio: ['pipe', 'pipe', 'inherit'], env: {}, detached: true })
  await new Promise<void>((resolve, reject) => {
    child.once('error', cause => reject(new ConflictError('Cannot start bpftoken-rest', { cause })))
    child.once('exit', status => reject(new ConflictError(`bpftoken-rest ended with status ${status}`)))
    child.stdout?.once('data', () => resolve())
  })
  return child
}

function unsupported(why: string, cause?: unknown): NotSupportedError {
  return new NotSupportedError(`What a program leaves behind cannot be killed here: ${why}`, {
    cause,
    hint: 'Mount cgroup2 where it can be written to (Linux 5.14 or newer)',
  })
}

/** The directory of the cgroup that we are in, in version 2. */
function ownCgroup(): string {
  const [mount] = parseMountInfo(readFileSync('/proc/self/mountinfo', 'utf8'), 'cgroup2')
  const directory = mount && directoryOf(mount, readFileSync('/proc/self/cgroup', 'utf8'))
  if (directory === undefined) throw unsupported('our own cgroup is in no mounted cgroup2')
  return directory
}

/**
 * Where the cgroup2 of /proc/PID/cgroup is in this mount; undefined where the mount does not show
 * it.
 */
export function directoryOf(mount: Pick<MountInfo, 'root' | 'path'>, procCgroup: string): string | undefined {
  const own = cgroup2Path(procCgroup)
  if (own === undefined || !own.startsWith('/') || own.endsWith(' (deleted)')) return undefined
  const below = path.posix.relative(mount.root, own)
  if (below === '..' || below.startsWith('../') || own.startsWith('/..')) return undefined
  return path.posix.join(mount.path, below)
}
