/**
 * An unmodified systemd as the first process of namespaces of its own, with units whose
 * restrictions it enforces by BPF programs of its own. Each unit runs a script that tries
 * everything that any of them forbids.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { CACHE } from '../helpers/machine.ts'
import { Scratch } from '../helpers/scratch.ts'

/** Takes it along into a VM: --with .cache/vm/systemd. */
export const SYSTEMD_TREE = join(CACHE, 'vm/systemd')

const CGROUP = '/sys/fs/cgroup/systemd-test'
/** For a hang. */
const BOOT_TIMEOUT_MS = 300_000

/**
 * A try counts as refused when the kernel says EPERM, and as allowed whatever else becomes of it.
 */
const PROBE = `#!/bin/busybox sh
attempt() {
  name=$1; shift
  /bin/busybox "$@" >/tmp/$unit 2>&1
  if /bin/busybox grep -q 'Operation not permitted' /tmp/$unit; then echo "$name refused"; else echo "$name allowed"; fi
}
unit=$1
{
  attempt send ping -c 1 -W 1 127.0.0.1
  attempt bind timeout 1 /bin/busybox nc -l -p 0
  attempt device head -c 1 /dev/kmsg
  attempt file head -c 1 /sys/kernel/debug/sched/features
} >/results/$unit.new
/bin/busybox mv /results/$unit.new /results/$unit
exec /bin/busybox sleep 1000
`

const ENTER = `set -e
echo $$ >"$1/cgroup.procs"
exec /usr/bin/unshare --mount --pid --fork --kill-child --cgroup --uts --ipc --net sh -ec '
ip link set lo up
mount --make-rprivate /
mount -t overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" overlay "$2/root"
cd "$2/root"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t securityfs securityfs sys/kernel/security
mount -t debugfs debugfs sys/kernel/debug
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t bpf bpf sys/fs/bpf
mount --rbind /dev dev
mount -t tmpfs tmpfs run
pivot_root . old
umount -l /old
exec /bin/busybox env -i container=test /lib/systemd/systemd --log-target=console --show-status=no
' sh "$2" "$3"
`

const unitText = (settings: string): string => `[Unit]
DefaultDependencies=no
[Service]
Type=exec
StandardOutput=null
ExecStart=/probe %N
${settings}
`

/** What came of each try, by its name. */
export type Results = Readonly<Record<string, string>>

export class Systemd {
  readonly #scratch = new Scratch()
  readonly #process: ChildProcess
  readonly #exited: Promise<unknown>
  #log = ''

  /** Starts it with services of these names and settings. The caller awaits `stop`. */
  constructor(units: Readonly<Record<string, string>>) {
    const { path } = this.#scratch
    for (const dir of ['upper/etc/systemd/system', 'upper/results', 'upper/old', 'work', 'root'])
      mkdirSync(join(path, dir), { recursive: true })
    const write = (file: string, text: string, mode?: number): string =>
      this.#scratch.write(join('upper', file), text, mode)
    write('etc/machine-id', '')
    write('etc/os-release', 'ID=test\n')
    write('etc/passwd', 'root:x:0:0:root:/root:/bin/sh\n')
    write('etc/group', 'root:x:0:\n')
    write('probe', PROBE, 0o755)
    for (const [name, settings] of Object.entries(units))
      write(`etc/systemd/system/${name}.service`, unitText(settings))
    const wanted = Object.keys(units).map(name => `${name}.service`)
    write('etc/systemd/system/default.target', `[Unit]\nDefaultDependencies=no\nWants=${wanted.join(' ')}\n`)
    mkdirSync(CGROUP)
    this.#process = spawn('bash', ['-c', ENTER, 'bash', CGROUP, SYSTEMD_TREE, path], {
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    for (const stream of [this.#process.stdout!, this.#process.stderr!])
      stream.on('data', (bytes: Buffer) => {
        this.#log += bytes.toString()
      })
    this.#exited = new Promise(resolve => this.#process.once('close', resolve))
  }

  /** What the unit could do, when it has tried all. */
  async results(unit: string): Promise<Results> {
    const file = join(this.#scratch.path, 'upper/results', unit)
    for (let waitedMs = 0; !existsSync(file); waitedMs += 100) {
      if (waitedMs > BOOT_TIMEOUT_MS || this.#process.exitCode !== null)
        throw new Error(`systemd has not run ${unit}: ${this.#log}`)
      await sleep(100)
    }
    const lines = readFileSync(file, 'utf8').trim().split('\n')
    return Object.fromEntries(lines.map(line => line.split(' ')))
  }

  /** Of the unit, as it is seen from outside. */
  cgroup(unit: string): string {
    return `${CGROUP}/system.slice/${unit}.service`
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

function removeCgroup(path: string): void {
  for (const entry of readdirSync(path, { withFileTypes: true }))
    if (entry.isDirectory()) removeCgroup(join(path, entry.name))
  rmdirSync(path)
}
