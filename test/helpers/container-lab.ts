/**
 * The daemon and unmodified runtimes, crun, runc and Podman, with our hook: for tests of containers
 * that ask for a loan by annotation. Runtimes run where `Podman` is, the daemon in a mount namespace
 * of its own machine.
 */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, lchownSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Client, type Loan } from '../../src/client/client.ts'
import { hookPath } from '../../src/sys/prebuilt.ts'
import { Bpftokend } from './bpftokend.ts'
import type { Result } from './cli.ts'
import { eventually } from './eventually.ts'
import { ROOT } from './machine.ts'
import { IMAGE, Podman, type PodmanSuite } from './podman.ts'
import { Scratch } from './scratch.ts'
import { SID, sidCommand } from './sid.ts'
import { xdpObject } from './xdp-object.ts'

export type Runtime = 'crun' | 'runc'
export const RUNTIMES: readonly Runtime[] = ['crun', 'runc']

/** Host id of a bundle's user 0. */
export const FIRST_ID = 400_000

/** A container that runs, whose script reads lines. */
export class Running implements AsyncDisposable {
  readonly #child: ChildProcess
  readonly #ended: Promise<unknown>
  readonly #forget: () => void
  out = ''

  constructor(child: ChildProcess, forget: () => void) {
    this.#child = child
    this.#ended = once(child, 'close')
    this.#forget = forget
    for (const stream of [child.stdout!, child.stderr!])
      stream.setEncoding('utf8').on('data', text => {
        this.out += text
      })
  }

  async says(word: string): Promise<void> {
    const { exitCode } = this.#child
    await eventually(() => this.out.includes(word) || this.#child.exitCode !== exitCode, `it says ${word}`)
    if (!this.out.includes(word)) throw new Error(this.out)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.stdin!.end()
    await this.#ended
    this.#forget()
  }
}

// biome-ignore lint/suspicious/noExplicitAny: a document whose form is the runtime's
export type Config = any

const CAPABILITIES = ['CAP_BPF', 'CAP_NET_ADMIN', 'CAP_KILL']

/** Loads an XDP program with an unmodified loader, and attaches it to the container's own loopback. */
export const ATTACH = [
  `${sidCommand('ip', '/mnt')} link set dev lo xdp obj /srv/pass.o sec xdp`,
  `${sidCommand('ip', '/mnt')} link show dev lo | grep -q prog/xdp`,
  'echo attached',
].join(' && ')

/** The same in a container of a newer suite, with what that has: bpftool loads and pins, iproute2 attaches. */
export const LOADS = [
  'bpftool prog load /srv/pass.o /sys/fs/bpf/pass',
  '/usr/sbin/ip link set dev lo xdp obj /srv/pass.o sec xdp',
  '/usr/sbin/ip link show dev lo | grep -q prog/xdp',
  'echo attached',
].join(' && ')

/** That a container has run `LOADS` to its end; `log` is the daemon's. */
export function hasLoaded({ status, stdout, stderr }: Result, log: string): void {
  assert.equal(status, 0, `${stdout}${stderr}\n${log.slice(-2000)}`)
  assert.match(stdout, /^attached$/m)
}

/** That a container has run, and the kernel has refused its program. */
export function isAlone({ status, stdout, stderr }: Result): void {
  assert.notEqual(status, 0)
  assert.doesNotMatch(stdout, /attached/)
  assert.match(`${stdout}${stderr}`, /EPERM|Operation not permitted/)
}

/** A policy file for XDP with unmodified loaders, with that as `spec` besides. */
export function writePolicy({ policies }: Bpftokend, name: string, more = '', network = 'own'): void {
  const text = readFileSync(join(ROOT, 'examples/policies/libbpf-xdp.yaml'), 'utf8')
    .replace('name: libbpf-xdp', `name: ${name}`)
    .replace('network: own', `network: ${network}`)
  writeFileSync(join(policies, `${name}.yaml`), `${text}${more}`, { mode: 0o644 })
}

export class ContainerLab implements AsyncDisposable {
  readonly scratch: Scratch
  readonly socket: string
  readonly client: Client
  daemon: Bpftokend
  readonly podman: Podman

  private constructor(scratch: Scratch, podman: Podman) {
    this.scratch = scratch
    this.podman = podman
    this.daemon = new Bpftokend(scratch.path)
    this.socket = this.daemon.socket
    this.client = new Client({ socket: this.socket })
  }

  /** With the runtimes of that suite. */
  static async open(suite: PodmanSuite = 'bookworm'): Promise<ContainerLab> {
    const scratch = new Scratch()
    const lab = new ContainerLab(scratch, await Podman.start(suite, [scratch.path]))
    try {
      lab.scratch.write('pass.o', xdpObject())
      lab.policy('dev')
      await lab.daemon.ready()
      return lab
    } catch (error) {
      // Else the file of tests would not end before its limit. The first error is the one to tell.
      await lab[Symbol.asyncDispose]().catch(() => {})
      throw error
    }
  }

  /** A policy file for XDP with unmodified loaders, with that as `spec` besides. */
  policy(name: string, more = '', network = 'own'): void {
    writePolicy(this.daemon, name, more, network)
  }

  /** Starts it anew, with what it knows. */
  async restart(signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    this.daemon.kill(signal)
    await this.daemon.ended
    this.daemon = await new Bpftokend(this.scratch.path).ready()
  }

  get hook(): { path: string; args: string[] } {
    return { path: hookPath(), args: ['bpftoken-hook', '--socket', this.socket] }
  }

  /** A bundle that runs `script` with our hook. `edit` changes its config.json before it is written. */
  bundle(name: string, script: string, edit: (config: Config, rootfs: string) => void = () => {}): string {
    const bundle = join(this.scratch.path, name)
    const rootfs = join(bundle, 'rootfs')
    for (const folder of ['proc', 'sys', 'dev', 'etc', 'run', 'tmp', 'usr', 'mnt', 'srv'])
      mkdirSync(join(rootfs, folder), { recursive: true })
    for (const link of ['bin', 'sbin', 'lib', 'lib64']) symlinkSync(`usr/${link}`, join(rootfs, link))
    lchownSync(rootfs, FIRST_ID, FIRST_ID)
    for (const folder of ['proc', 'sys', 'dev', 'etc', 'run', 'tmp', 'usr', 'mnt', 'srv'])
      lchownSync(join(rootfs, folder), FIRST_ID, FIRST_ID)
    chmodSync(bundle, 0o711)
    const config = this.#config(script)
    edit(config, rootfs)
    writeFileSync(join(bundle, 'config.json'), JSON.stringify(config))
    return bundle
  }

  #config(script: string): Config {
    const ids = [{ containerID: 0, hostID: FIRST_ID, size: 65_536 }]
    const bind = (source: string, destination: string): object => ({
      destination,
      type: 'bind',
      source,
      options: ['rbind', 'ro'],
    })
    return {
      ociVersion: '1.0.2',
      process: {
        user: { uid: 0, gid: 0 },
        args: ['sh', '-c', script],
        env: ['PATH=/usr/sbin:/usr/bin:/sbin:/bin', 'SECRET=not-for-the-daemon'],
        cwd: '/',
        capabilities: { bounding: CAPABILITIES, effective: CAPABILITIES, permitted: CAPABILITIES },
        noNewPrivileges: false,
      },
      root: { path: 'rootfs' },
      mounts: [
        { destination: '/proc', type: 'proc', source: 'proc' },
        { destination: '/dev', type: 'tmpfs', source: 'tmpfs', options: ['nosuid', 'mode=755', 'size=64k'] },
        { destination: '/sys', type: 'sysfs', source: 'sysfs', options: ['nosuid', 'noexec', 'nodev', 'ro'] },
        bind('/usr', '/usr'),
        bind(SID, '/mnt'),
        bind(this.scratch.path, '/srv'),
      ],
      hooks: { createRuntime: [this.hook] },
      annotations: { 'bpftoken.dev/policy': 'dev' },
      linux: {
        namespaces: ['pid', 'network', 'ipc', 'uts', 'mount', 'user'].map(type => ({ type })),
        uidMappings: ids,
        gidMappings: ids,
      },
    }
  }

  #words(runtime: Runtime, name: string): string[] {
    const own = runtime === 'crun' ? ['--cgroup-manager=disabled'] : []
    return [
      runtime,
      ...own,
      '--root',
      `/run/oci-${runtime}`,
      'run',
      '--bundle',
      join(this.scratch.path, name),
      name,
    ]
  }

  #forget(name: string): void {
    rmSync(join(this.scratch.path, name), { recursive: true, force: true })
  }

  /** `run`s the bundle to its end. */
  async run(runtime: Runtime, name: string): Promise<Result> {
    const [command, ...words] = this.#words(runtime, name)
    const ran = await this.podman.execute(command!, ...words)
    this.#forget(name)
    return ran
  }

  /** Starts the bundle. Ended when disposed of: its script ends when it can read nothing. */
  async start(runtime: Runtime, name: string): Promise<Running> {
    const child = spawn('nsenter', [...this.podman.enter, ...this.#words(runtime, name)], {
      stdio: ['pipe', 'pipe', 'pipe'],
    })
    return new Running(child, () => this.#forget(name))
  }

  /** Has this Podman call the hook. */
  async installHook(): Promise<void> {
    const { status, stdout, stderr } = await this.podman.cli('containers', 'install', '--socket', this.socket)
    if (status !== 0) throw new Error(`${stdout}${stderr}`)
  }

  /** Has this Podman run containers by that runtime, unless an option names another. */
  async podmanRuntime(runtime: Runtime): Promise<void> {
    const file = '/etc/containers/containers.conf.d/10-runtime.conf'
    const text = `[engine]\nruntime = "${runtime}"\n`
    const { status, stderr } = await this.podman.execute('sh', '-c', `printf %s "$0" >${file}`, text)
    if (status !== 0) throw new Error(stderr)
  }

  /** `podman run --rm` of a script in a container of the image, to its end. */
  podmanRun(
    script: string,
    ...options: readonly (string | { global: readonly string[] })[]
  ): Promise<Result> {
    const global = options.flatMap(one => (typeof one === 'string' ? [] : one.global))
    const own = options.filter(one => typeof one === 'string')
    return this.podman.execute(
      'podman',
      ...[...global, 'run', '--rm', ...this.options(...own), 'sh', '-c', script],
    )
  }

  /** Options of `podman run` and `create`, with the image behind. */
  options(...own: readonly string[]): string[] {
    return [
      ...(own.some(word => word.startsWith('--network')) ? [] : ['--network=none']),
      ...this.podOptions(...own),
    ]
  }

  /** The same for a container of a pod, which has the pod's network. */
  podOptions(...own: readonly string[]): string[] {
    return [
      ...PLAIN,
      ...this.podman.cgroup,
      ...['--volume', '/usr:/usr:ro', '--volume', `${SID}:/mnt:ro`],
      ...['--volume', `${this.scratch.path}:/srv:ro`, ...own, IMAGE],
    ]
  }

  /** The same for one that only sleeps: of mounts CRIU knows not many. */
  bareOptions(...own: readonly string[]): string[] {
    const sleep = ['--volume', '/usr/bin/busybox:/usr/bin/sleep:ro']
    return [...PLAIN, ...this.podman.cgroup, '--network=none', ...sleep, ...own, IMAGE]
  }

  /**
   * What a hook of stage createRuntime is told, and the mounts that it sees, of a container with the
   * annotation `test.records`.
   */
  async recorded(run: () => Promise<Result>): Promise<{ root: string; mounts: string }> {
    const script = [
      'cat >/run/record.state',
      'cat config.json >/run/record.config',
      'cat /proc/self/mountinfo >/run/record.mounts',
    ].join(' && ')
    const hook = {
      version: '1.0.0',
      hook: { path: '/usr/bin/sh', args: ['sh', '-c', script], env: ['PATH=/usr/bin'] },
      when: { annotations: { '^test\\.records$': '.*' } },
      stages: ['createRuntime'],
    }
    const read = async (...command: [string, ...string[]]): Promise<string> => {
      const { status, stdout, stderr } = await this.podman.execute(...command)
      if (status !== 0) throw new Error(stderr)
      return stdout
    }
    const file = '/usr/share/containers/oci/hooks.d/10-record.json'
    await read('sh', '-c', `printf %s "$0" >${file}`, JSON.stringify(hook))
    const { status, stderr } = await run()
    if (status !== 0) throw new Error(stderr)
    const state = JSON.parse(await read('cat', '/run/record.state'))
    const config = JSON.parse(await read('cat', '/run/record.config'))
    return { root: state.root ?? config.root.path, mounts: await read('cat', '/run/record.mounts') }
  }

  /** What CRIU has said went wrong with its last checkpoint of the container. */
  async dumpLog(name: string): Promise<string> {
    const id = await this.podman.podman('inspect', '--format={{.Id}}', name)
    const file = `/var/lib/containers/storage/overlay-containers/${id}/userdata/dump.log`
    const { stdout } = await this.podman.execute('cat', file)
    return stdout
      .split('\n')
      .filter(line => line.includes('Error'))
      .join('\n')
  }

  /** The last lines of the audit that say such an event, the newest first. */
  async audited(event: string): Promise<readonly Record<string, unknown>[]> {
    const { records } = await this.client.audit({ query: { limit: 10_000 } })
    return records
      .filter(record => record.event === event)
      .map(record => record.facts)
      .reverse()
  }

  /** Loans that live, as the daemon has seen them last. */
  async loans(): Promise<readonly Loan[]> {
    using client = new Client({ socket: this.socket })
    const { loans } = await client.listLoans({ query: { state: 'live' } })
    // Others may lend on this machine, too.
    return loans.filter(({ kind }) => kind !== 'adopted')
  }

  /**
   * Ends it with all containers. No loan may live then: the daemon has found no mount and no process
   * of any. The tier looks for what else is left.
   */
  async [Symbol.asyncDispose](): Promise<void> {
    try {
      await this.podman.end()
      await eventually(async () => (await this.loans()).length === 0, 'loans live on without containers')
    } finally {
      this.client.close()
      await this.daemon[Symbol.asyncDispose]()
      this.scratch[Symbol.dispose]()
    }
  }
}

/** Limits that root without CAP_SYS_RESOURCE may set. */
const PLAIN = ['--ulimit', 'nofile=1024:1024', '--ulimit', 'nproc=1000:1000'] as const

/** What unmodified loaders need of Podman 4: its seccomp profile lets bpf(2) through only with SYS_ADMIN. */
export const ABLE = ['--userns=auto', '--cap-add=BPF,NET_ADMIN', '--security-opt=seccomp=unconfined'] as const
export const ASKS = ['--annotation', 'bpftoken.dev/policy=dev'] as const
