/**
 * An unmodified systemd as the first process of namespaces of its own, with units whose
 * restrictions it enforces by BPF programs of its own. Each unit runs a script that tries
 * everything that any of them forbids.
 */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { BootedSystemd } from '../helpers/booted-systemd.ts'
import { CACHE } from '../helpers/machine.ts'

/** Takes it along into a VM: --with .cache/vm/systemd. */
export const SYSTEMD_TREE = join(CACHE, 'vm/systemd')

const CGROUP = '/sys/fs/cgroup/systemd-test'
/** Ends what hangs. */
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

const ENTER = `ip link set lo up
mount -t overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" overlay "$2/root"
cd "$2/root"`

const MOUNTS = `mount -t securityfs securityfs sys/kernel/security
mount -t debugfs debugfs sys/kernel/debug
mount -t bpf bpf sys/fs/bpf
mount -t tmpfs tmpfs run`

const unitText = (settings: string): string => `[Unit]
DefaultDependencies=no
[Service]
Type=exec
StandardOutput=null
ExecStart=/probe %N
${settings}
`

/** The result of each try, by its name. */
export type Results = Readonly<Record<string, string>>

export class Systemd {
  readonly #booted: BootedSystemd

  /** Starts it with services of these names and settings. The caller awaits `stop`. */
  constructor(units: Readonly<Record<string, string>>) {
    const services = Object.entries(units).map(([name, settings]) => [`${name}.service`, unitText(settings)])
    const wanted = services.map(([name]) => name)
    this.#booted = new BootedSystemd({
      tree: SYSTEMD_TREE,
      cgroup: CGROUP,
      folders: ['results'],
      files: {
        probe: PROBE,
        'etc/systemd/system/default.target': `[Unit]\nDefaultDependencies=no\nWants=${wanted.join(' ')}\n`,
        ...Object.fromEntries(services.map(([name, text]) => [`etc/systemd/system/${name}`, text!])),
      },
      programs: ['probe'],
      enter: ENTER,
      mounts: MOUNTS,
    })
  }

  /** What the unit could do, when it has tried all. */
  async results(unit: string): Promise<Results> {
    const file = join(this.#booted.path, 'upper/results', unit)
    for (let waitedMs = 0; !existsSync(file); waitedMs += 100) {
      if (waitedMs > BOOT_TIMEOUT_MS || this.#booted.hasEnded)
        throw new Error(`systemd has not run ${unit}: ${this.#booted.log}`)
      await sleep(100)
    }
    const lines = readFileSync(file, 'utf8').trim().split('\n')
    return Object.fromEntries(lines.map(line => line.split(' ')))
  }

  /** The unit's cgroup, by its path on this machine. */
  cgroup(unit: string): string {
    return `${CGROUP}/system.slice/${unit}.service`
  }

  /** Ends systemd and all its units. */
  stop(): Promise<void> {
    return this.#booted.stop()
  }
}
