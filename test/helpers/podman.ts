/**
 * An unmodified Podman as if it were installed. That of this Debian is in a mount namespace of its
 * own, in which the tree of scripts/fetch-debs.sh lies over /usr and /etc, and where Podman keeps its
 * things is a tmpfs. Those of newer suites are in a tree of theirs. Processes are those of the host.
 */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { CLI, execute, type Result } from './cli.ts'
import { DebianTree, type Suite } from './debian-tree.ts'
import { CACHE } from './machine.ts'

export type PodmanSuite = 'bookworm' | Suite

/** Host ids from here on are for containers. */
const FIRST_ID = 300_000
/** An image that has only directories. The programs of its containers are those of the host. */
export const IMAGE = 'localhost/directories:1'
/** A user who exists in that mount namespace only, and has rootless containers. */
export const ALICE = { name: 'alice', uid: 54_321, home: '/run/alice' } as const

/**
 * One folder of the tree at a time: a path may have characters that overlayfs takes for its own.
 */
const BOOKWORM = `mount --make-rprivate /
mount -t tmpfs tmpfs /run
mkdir -p /run/lock /run/tree /run/upper/etc /run/upper/usr /run/work/etc /run/work/usr
mount --bind "$1" /run/tree
for part in usr etc; do
  mount -t overlay -o lowerdir=/run/tree/$part:/$part,upperdir=/run/upper/$part,workdir=/run/work/$part overlay /$part
done
mkdir -p /var/lib/containers
mount -t tmpfs tmpfs /var/lib/containers
# crun refuses to have both versions of cgroups.
if mountpoint -q /sys/fs/cgroup/unified; then umount /sys/fs/cgroup/unified; fi
`

/** What a service manager would do. */
const SERVICES = `mkdir -p /etc/containers/containers.conf.d
cat >/etc/containers/containers.conf.d/00-no-systemd.conf <<'X'
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
[containers]
log_driver = "k8s-file"
X
`

/** Users, and an image. */
const SETUP = `mkdir -p /run/user/${ALICE.uid} ${ALICE.home}
chown ${ALICE.uid}:${ALICE.uid} /run/user/${ALICE.uid} ${ALICE.home}
chmod 700 /run/user/${ALICE.uid}
echo '${ALICE.name}:x:${ALICE.uid}:${ALICE.uid}::${ALICE.home}:/bin/sh' >>/etc/passwd
echo '${ALICE.name}:x:${ALICE.uid}:' >>/etc/group
# Podman 5 finds ranges by libsubid, which asks for users that there are.
echo 'containers:x:54320:54320::/:/usr/sbin/nologin' >>/etc/passwd
for file in /etc/subuid /etc/subgid; do
  printf '%s\\n' containers:${FIRST_ID}:655360 ${ALICE.name}:1000000:65536 >$file
done
mkdir /run/rootfs /run/rootfs/proc /run/rootfs/sys /run/rootfs/dev /run/rootfs/etc /run/rootfs/run \\
  /run/rootfs/tmp /run/rootfs/usr /run/rootfs/mnt /run/rootfs/srv
for link in bin sbin lib lib64; do ln -s usr/$link /run/rootfs/$link; done
cp -a /run/rootfs /run/alice/rootfs
tar -C /run/rootfs -c . | podman --log-level error import --quiet - ${IMAGE} >/dev/null
chown -hR ${ALICE.uid}:${ALICE.uid} /run/alice/rootfs
`

/** Where Podman is as if it were installed. */
interface Place extends AsyncDisposable {
  /** The words of nsenter(1) that go before a command. */
  readonly enter: readonly string[]
  execute(command: string, ...args: readonly string[]): Promise<Result>
}

/** This machine, with the tree of scripts/fetch-debs.sh over it. */
class Overlaid implements Place {
  readonly #holder: ChildProcess

  private constructor(holder: ChildProcess) {
    this.#holder = holder
  }

  static async start(): Promise<Overlaid> {
    const script = `set -e\n${BOOKWORM}${SETUP}echo ready\nexec cat\n`
    const holder = spawn('unshare', ['--mount', 'sh', '-c', script, 'sh', join(CACHE, 'podman')], {
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    const [said] = await once(holder.stdout!, 'data')
    assert.equal(String(said), 'ready\n')
    return new Overlaid(holder)
  }

  get enter(): readonly string[] {
    return ['--target', String(this.#holder.pid), '--mount', '--']
  }

  execute(command: string, ...args: readonly string[]): Promise<Result> {
    return execute('nsenter', [...this.enter, command, ...args])
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const exited = once(this.#holder, 'exit')
    this.#holder.kill('SIGKILL')
    await exited
  }
}

/** No network, no cgroup, and limits that root without CAP_SYS_RESOURCE may set. */
const PLAIN = [
  ...['--network', 'none', '--cgroups', 'disabled'],
  ...['--ulimit', 'nofile=1024:1024', '--ulimit', 'nproc=1000:1000'],
  ...['--volume', '/usr:/usr:ro'],
] as const
const SLEEP = ['sleep', '1000'] as const

export class Podman {
  readonly #place: Place

  private constructor(place: Place) {
    this.#place = place
  }

  /**
   * Podman of that suite: in a tree of it, where `shown` are directories that it sees, or over this
   * machine. The caller awaits `end`.
   */
  static async start(suite: PodmanSuite = 'bookworm', shown: readonly string[] = []): Promise<Podman> {
    return new Podman(
      suite === 'bookworm'
        ? await Overlaid.start()
        : await DebianTree.start(`${suite}-engines`, {
            shown,
            network: 'host',
            prepare: `${SERVICES}${SETUP}`,
          }),
    )
  }

  /** The words of nsenter(1) that go before a command. */
  get enter(): readonly string[] {
    return this.#place.enter
  }

  /** Options of containers, so that their cgroups go with the place. */
  get cgroup(): readonly string[] {
    return this.#place instanceof DebianTree ? [`--cgroup-parent=${this.#place.cgroup}`] : []
  }

  /** Runs any program where Podman is. */
  execute(command: string, ...args: readonly string[]): Promise<Result> {
    return this.#place.execute(command, ...args)
  }

  /** Runs bpftoken there. */
  cli(...args: readonly string[]): Promise<Result> {
    return this.execute(process.execPath, CLI, ...args)
  }

  /** What podman says; throws when it fails. */
  async podman(...args: readonly string[]): Promise<string> {
    const { status, stdout, stderr } = await this.execute('podman', ...args)
    assert.equal(status, 0, stderr)
    return stdout.trim()
  }

  /** Starts a container of root's that sleeps, with further options of `podman run`. */
  sleeper(name: string, ...options: readonly string[]): Promise<string> {
    const words = ['run', '--detach', '--name', name, ...PLAIN, ...options, IMAGE, ...SLEEP]
    return this.podman(...words)
  }

  /** Runs podman as the user alice. */
  asAlice(command: string, ...args: readonly string[]): Promise<Result> {
    const id = String(ALICE.uid)
    const variables = [`HOME=${ALICE.home}`, `XDG_RUNTIME_DIR=/run/user/${id}`, `USER=${ALICE.name}`]
    const enter = ['--setuid', id, '--setgid', id, '--wdns=/', ...this.enter]
    return execute('nsenter', [...enter, 'env', ...variables, command, ...args])
  }

  /** Starts a container of alice's that sleeps. */
  async rootlessSleeper(name: string): Promise<void> {
    const words = ['run', '--detach', '--name', name, ...PLAIN, '--rootfs', `${ALICE.home}/rootfs`, ...SLEEP]
    const { status, stderr } = await this.asAlice('podman', ...words)
    assert.equal(status, 0, stderr)
  }

  /** The number of the container's first process. */
  async pid(name: string): Promise<number> {
    return Number(await this.podman('inspect', '--format', '{{.State.Pid}}', name))
  }

  /**
   * Ends containers. Podman may fail to remove one that conmon removes at the same time. That one
   * goes with the mount namespace.
   */
  async remove(...names: readonly string[]): Promise<void> {
    await this.execute('podman', 'rm', '--force', '--time', '0', ...names)
  }

  /** Ends all containers and the mount namespace. */
  async end(): Promise<void> {
    await this.asAlice('podman', 'rm', '--all', '--force', '--time', '0')
    await this.remove('--all')
    // Rootless Podman keeps a process that holds its user namespace.
    await this.asAlice('sh', '-c', 'kill "$(cat "$XDG_RUNTIME_DIR"/libpod/tmp/pause.pid)" 2>/dev/null')
    await this.#place[Symbol.asyncDispose]()
  }
}
