/**
 * Runs a systemd from a folder as the first process of namespaces and of a cgroup of its own, as if
 * a machine had booted it. The caller says what else that machine has.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { endCgroup } from './cgroup.ts'
import { Scratch } from './scratch.ts'

export interface Boot {
  /** The folder with systemd and a busybox. */
  readonly tree: string
  /** The cgroup that is made for it, and removed at its end. */
  readonly cgroup: string
  /** Files that are added to the tree, by their path there. An account for root is added, too. */
  readonly files: Readonly<Record<string, string | Uint8Array>>
  /** The paths in `files` that are made executable. */
  readonly programs?: readonly string[]
  /** Folders that are added to the tree. */
  readonly folders: readonly string[]
  /**
   * A shell script that mounts the tree ($1) with the added files ($2/upper) over it, and enters
   * it.
   */
  readonly enter: string
  /**
   * A shell script that mounts more than /proc, /sys, cgroups and /dev. `enter` gives it the
   * scratch directory.
   */
  readonly mounts: string
}

const script = ({ enter, mounts }: Boot): string => `set -e
echo $$ >"$1/cgroup.procs"
exec /usr/bin/unshare --mount --pid --fork --kill-child --cgroup --uts --ipc --net sh -ec '
mount --make-rprivate /
${enter}
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount --rbind /dev dev
${mounts}
pivot_root . old
/bin/busybox umount -l /old
exec /bin/busybox env -i container=test /lib/systemd/systemd --log-target=console --show-status=no
' sh "$2" "$3"
`

const FILES = {
  'etc/machine-id': '',
  'etc/passwd': 'root:x:0:0:root:/root:/bin/sh\n',
  'etc/group': 'root:x:0:\n',
}

const FOLDERS = ['etc/systemd/system', 'proc', 'sys', 'dev', 'run', 'old']

export class BootedSystemd {
  readonly #scratch = new Scratch()
  readonly #cgroup: string
  readonly #process: ChildProcess
  readonly #exited: Promise<unknown>
  #log = ''

  /** The caller awaits `stop`. */
  constructor(boot: Boot) {
    const { path } = this.#scratch
    for (const folder of [...FOLDERS, ...boot.folders])
      mkdirSync(join(path, 'upper', folder), { recursive: true })
    for (const folder of ['work', 'root', 'run']) mkdirSync(join(path, folder))
    for (const [file, text] of Object.entries({ ...FILES, ...boot.files })) {
      mkdirSync(join(path, 'upper', dirname(file)), { recursive: true })
      this.write(join('upper', file), text, boot.programs?.includes(file) === true ? 0o755 : 0o644)
    }
    this.#cgroup = boot.cgroup
    mkdirSync(boot.cgroup)
    this.#process = spawn('bash', ['-c', script(boot), 'bash', boot.cgroup, boot.tree, path], {
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    for (const stream of [this.#process.stdout!, this.#process.stderr!])
      stream.on('data', (bytes: Buffer) => {
        this.#log += bytes.toString()
      })
    this.#exited = new Promise(resolve => this.#process.once('close', resolve))
  }

  /** The scratch directory: `upper` has the added files, `run` is for the script that mounts. */
  get path(): string {
    return this.#scratch.path
  }

  /** Writes a file into the scratch directory. */
  write(name: string, content: string | Uint8Array, mode?: number): string {
    return this.#scratch.write(name, content, mode)
  }

  /** The program that waits for systemd, which is its only child. */
  get pid(): number {
    return this.#process.pid!
  }

  get hasEnded(): boolean {
    return this.#process.exitCode !== null
  }

  /** What it has printed so far. */
  get log(): string {
    return this.#log
  }

  /** Ends systemd and all its units. */
  async stop(): Promise<void> {
    this.#process.kill('SIGKILL')
    await this.#exited
    await endCgroup(this.#cgroup)
    this.#scratch[Symbol.dispose]()
  }
}
