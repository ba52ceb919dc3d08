/**
 * The newest systemd of Debian as the first process of namespaces of its own, on this machine: it
 * knows BPF tokens, which the installed one may not. Commands run as if on a machine that it had
 * booted: with its numbers of processes, its cgroups and its /run, and this machine's programs.
 */
import assert from 'node:assert/strict'
import { existsSync, readFileSync, statSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { cgroupRoot } from '../../src/lending/recipient/cgroup.ts'
import { BootedSystemd } from './booted-systemd.ts'
import { CLI, execute, type Result } from './cli.ts'
import { HANG_MS } from './eventually.ts'
import { SID, sidCommand } from './sid.ts'

/**
 * Overlayfs takes some characters of a path for its own: the tree is shown where there are none.
 */
const ENTER = `mount -t tmpfs tmpfs /mnt
mkdir /mnt/tree /mnt/upper /mnt/work /mnt/root
mount --bind "$1" /mnt/tree
cp -a "$2"/upper/. /mnt/upper
mount -t overlay -o lowerdir=/mnt/tree,upperdir=/mnt/upper,workdir=/mnt/work overlay /mnt/root
cd /mnt/root`

const MOUNTS = `mount --bind "$2/run" run
mount -t tmpfs tmpfs tmp`

/** What the machine has that it seems to have booted. */
const INSIDE = `set -e
mount --make-rprivate /
mount -t proc proc /proc
mount --bind "$1/run" /run
mount --bind "$1/systemctl" /usr/bin/systemctl
mount -t cgroup2 cgroup2 /sys/fs/cgroup
shift
exec "$@"
`

type Files = Readonly<Record<string, string | Uint8Array>>

export interface Machine {
  /** Another tree of Debian's newest suite that has systemd and a busybox. */
  readonly tree?: string
  /** The paths in `files` that are made executable. */
  readonly programs?: readonly string[]
  /** Files and folders of this machine that are shown there, by their path there. */
  readonly shown?: Readonly<Record<string, string>>
}

/** A shell command that shows a file or folder of this machine. No path of ours has quotes. */
export function show(there: string, here: string): string {
  const make = statSync(here).isDirectory()
    ? `mkdir -p "${there}"`
    : `mkdir -p "${dirname(there)}"; : >>"${there}"`
  return `${make}; mount --bind "${here}" "${there}"`
}

export class SidSystemd {
  readonly #booted: BootedSystemd

  private constructor(files: Files, { tree = SID, programs, shown = {} }: Machine) {
    if (!existsSync('/usr/bin/systemctl')) throw new Error('there is no /usr/bin/systemctl to lay ours over')
    this.#booted = new BootedSystemd({
      tree,
      cgroup: join(cgroupRoot() ?? assert.fail('no cgroup2 is mounted'), 'bpftoken-test-systemd'),
      folders: ['tmp'],
      files: {
        'etc/os-release': 'ID=test\n',
        'etc/systemd/system/default.target': '[Unit]\nDefaultDependencies=no\n',
        ...files,
      },
      ...(programs === undefined ? {} : { programs }),
      enter: ENTER,
      mounts: [MOUNTS, ...Object.entries(shown).map(([there, here]) => show(there, here))].join('\n'),
    })
    this.#booted.write('systemctl', systemctl(), 0o755)
  }

  /** Starts it with these files, by their path. The caller awaits `stop`. */
  static async start(files: Files, machine: Machine = {}): Promise<SidSystemd> {
    const systemd = new SidSystemd(files, machine)
    const booted = systemd.#booted
    const socket = join(booted.path, 'run/systemd/private')
    for (const deadline = Date.now() + HANG_MS; !existsSync(socket); await sleep(50))
      if (Date.now() > deadline || booted.hasEnded) {
        await booted.stop()
        throw new Error(`systemd does not start: ${booted.log}`)
      }
    return systemd
  }

  /** Runs any program of this machine there. */
  execute(command: string, ...args: readonly string[]): Promise<Result> {
    const { pid } = this.#booted
    const first = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim()
    const words = [
      '--target',
      first,
      '--pid',
      '--cgroup',
      '--',
      'unshare',
      '--mount',
      'sh',
      '-c',
      INSIDE,
      'sh',
    ]
    return execute('nsenter', [...words, this.#booted.path, command, ...args])
  }

  cli(...args: readonly string[]): Promise<Result> {
    return this.execute(process.execPath, CLI, ...args)
  }

  /** What systemctl says; throws when it fails. */
  async systemctl(...args: readonly string[]): Promise<string> {
    const { status, stdout, stderr } = await this.execute('systemctl', ...args)
    assert.equal(status, 0, `${stderr}${this.#booted.log}`)
    return stdout.trim()
  }

  /** What it and the consoles of its units have printed so far. */
  get log(): string {
    return this.#booted.log
  }

  property(unit: string, name: string): Promise<string> {
    return this.systemctl('show', '--value', `--property=${name}`, unit)
  }

  /** Ends systemd and all its units. */
  stop(): Promise<void> {
    return this.#booted.stop()
  }
}

/**
 * A script that runs the tree's systemctl. Its root is not that of the first process. So it would
 * take itself for one in a chroot, and refuse.
 */
function systemctl(): string {
  return `#!/bin/sh\nexport SYSTEMD_IGNORE_CHROOT=1\nexec ${sidCommand('systemctl')} "$@"\n`
}
