/**
 * A systemd out of a folder, as the first process of namespaces and of a cgroup of its own: as if a
 * machine had booted it. Who uses it says what else that machine has.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { endCgroup } from './cgroup.ts'
import { Scratch } from './scratch.ts'

export interface Boot {
  /** The folder with the systemd, which has a busybox, too. */
  readonly tree: string
  /** The cgroup to make, and to end with it. */
  readonly cgroup: string
  /** By their path on that machine: these files, and an account for root, lie over the tree. */
  readonly files: Readonly<Record<string, string | Uint8Array>>
  /** Those of `files` that are programs. */
  readonly programs?: readonly string[]
  /** Folders of that machine that the tree has not. */
  readonly folders: readonly string[]
  /** Shell: mounts the tree ($1) under what lies over it ($2/upper), and goes there. */
  readonly enter: string
  /**
   * Shell: what is mounted there besides /proc, /sys, cgroups and /dev; `enter` has the scratch
   * directory.
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

  /** The scratch directory: `upper` lies over the tree, `run` is for who mounts it. */
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

  /** What it has said. */
  get log(): string {
    return this.#log
  }

  /** Ends it with all its units. */
  async stop(): Promise<void> {
    this.#process.kill('SIGKILL')
    await this.#exited
    await endCgroup(this.#cgroup)
    this.#scratch[Symbol.dispose]()
  }
}
