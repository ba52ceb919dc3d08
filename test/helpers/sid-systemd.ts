/**
 * The newest systemd of Debian as the first process of namespaces of its own, on this machine: it
 * knows BPF tokens, which the installed one may not. Commands run as if on a machine that it had
 * booted: with its numbers of processes, its cgroups and its /run, and this machine's programs.
 */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  statfsSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { CLI, execute, type Result } from './cli.ts'
import { HANG_MS } from './eventually.ts'
import { CACHE } from './machine.ts'
import { Scratch } from './scratch.ts'

const TREE = join(CACHE, 'sid')
const CGROUP2_MAGIC = 0x63677270
const CGROUP = join(
  ['/sys/fs/cgroup', '/sys/fs/cgroup/unified'].find(
    path => existsSync(path) && statfsSync(path).type >>> 0 === CGROUP2_MAGIC,
  ) ?? '/sys/fs/cgroup',
  'bpftoken-test-systemd',
)

/**
 * Overlayfs takes some characters of a path for its own: the tree is shown where there are none.
 */
const ENTER = `set -e
echo $$ >"$1/cgroup.procs"
exec unshare --mount --pid --fork --kill-child --cgroup --uts --ipc --net sh -ec '
mount --make-rprivate /
mount -t tmpfs tmpfs /mnt
mkdir /mnt/tree /mnt/upper /mnt/work /mnt/root
mount --bind "$1" /mnt/tree
cp -a "$2"/upper/. /mnt/upper
mount -t overlay -o lowerdir=/mnt/tree,upperdir=/mnt/upper,workdir=/mnt/work overlay /mnt/root
cd /mnt/root
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount --rbind /dev dev
mount --bind "$2/run" run
mount -t tmpfs tmpfs tmp
pivot_root . old
/bin/busybox umount -l /old
exec /bin/busybox env -i container=test /lib/systemd/systemd --log-target=console --show-status=no
' sh "$2" "$3"
`

/** Of the machine that it seems to have booted. */
const INSIDE = `set -e
mount --make-rprivate /
mount -t proc proc /proc
mount --bind "$1/run" /run
mount --bind "$1/systemctl" /usr/bin/systemctl
mount -t cgroup2 cgroup2 /sys/fs/cgroup
shift
exec "$@"
`

export class SidSystemd {
  readonly #scratch = new Scratch()
  readonly #process: ChildProcess
  readonly #exited: Promise<unknown>
  #log = ''

  private constructor(files: Readonly<Record<string, string | Uint8Array>>) {
    const { path } = this.#scratch
    for (const dir of ['upper/etc/systemd/system', 'upper/proc', 'upper/sys', 'upper/dev', 'upper/run'])
      mkdirSync(join(path, dir), { recursive: true })
    for (const dir of ['upper/tmp', 'upper/old', 'run']) mkdirSync(join(path, dir))
    const write = (file: string, text: string | Uint8Array, mode?: number): string =>
      this.#scratch.write(join('upper', file), text, mode)
    write('etc/machine-id', '')
    write('etc/os-release', 'ID=test\n')
    write('etc/passwd', 'root:x:0:0:root:/root:/bin/sh\n')
    write('etc/group', 'root:x:0:\n')
    write('etc/systemd/system/default.target', '[Unit]\nDefaultDependencies=no\n')
    for (const [file, text] of Object.entries(files)) write(file, text)
    this.#scratch.write('systemctl', systemctl(), 0o755)
    if (!existsSync('/usr/bin/systemctl')) throw new Error('there is no /usr/bin/systemctl to lay ours over')
    mkdirSync(CGROUP)
    this.#process = spawn('bash', ['-c', ENTER, 'bash', CGROUP, TREE, path], {
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    for (const stream of [this.#process.stdout!, this.#process.stderr!])
      stream.on('data', (bytes: Buffer) => {
        this.#log += bytes.toString()
      })
    this.#exited = new Promise(resolve => this.#process.once('close', resolve))
  }

  /** With these files, by their path. The caller awaits `stop`. */
  static async start(files: Readonly<Record<string, string | Uint8Array>>): Promise<SidSystemd> {
    const systemd = new SidSystemd(files)
    const socket = join(systemd.#scratch.path, 'run/systemd/private')
    for (const deadline = Date.now() + HANG_MS; !existsSync(socket); await sleep(50))
      if (Date.now() > deadline || systemd.#process.exitCode !== null) {
        await systemd.stop()
        throw new Error(`systemd does not start: ${systemd.#log}`)
      }
    return systemd
  }

  /** Runs any program of this machine there. */
  execute(command: string, ...args: readonly string[]): Promise<Result> {
    const pid = this.#process.pid
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
    return execute('nsenter', [...words, this.#scratch.path, command, ...args])
  }

  cli(...args: readonly string[]): Promise<Result> {
    return this.execute(process.execPath, CLI, ...args)
  }

  /** What systemctl says; throws when it fails. */
  async systemctl(...args: readonly string[]): Promise<string> {
    const { status, stdout, stderr } = await this.execute('systemctl', ...args)
    assert.equal(status, 0, `${stderr}${this.#log}`)
    return stdout.trim()
  }

  property(unit: string, name: string): Promise<string> {
    return this.systemctl('show', '--value', `--property=${name}`, unit)
  }

  /** Ends it with all its units. */
  async stop(): Promise<void> {
    this.#process.kill('SIGKILL')
    await this.#exited
    writeFileSync(`${CGROUP}/cgroup.kill`, '1')
    while (readFileSync(`${CGROUP}/cgroup.events`, 'utf8').includes('populated 1')) await sleep(20)
    removeCgroup(CGROUP)
    this.#scratch[Symbol.dispose]()
  }
}

/** That of the same tree, which finds its libraries there. */
function systemctl(): string {
  const triplet = readdirSync(join(TREE, 'usr/lib')).find(name =>
    existsSync(join(TREE, 'usr/lib', name, 'libc.so.6')),
  )
  const libraries = join(TREE, 'usr/lib', triplet!)
  const loader = readdirSync(libraries).find(name => /^ld-linux.*\.so\.\d+$/.test(name))
  const path = `${libraries}:${join(libraries, 'systemd')}`
  // It takes itself for one in a chroot: its root is not that of the first process.
  return `#!/bin/sh\nexport SYSTEMD_IGNORE_CHROOT=1\nexec '${libraries}/${loader}' --library-path '${path}' '${join(TREE, 'usr/bin/systemctl')}' "$@"\n`
}

function removeCgroup(path: string): void {
  for (const entry of readdirSync(path, { withFileTypes: true }))
    if (entry.isDirectory()) removeCgroup(join(path, entry.name))
  rmdirSync(path)
}
