/**
 * An unmodified Docker in a tree of its Debian suite: its daemon with the configuration that
 * docs/containers.md has, an image, and our daemon.
 */
import assert from 'node:assert/strict'
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Client, type Loan } from '../../src/client/client.ts'
import { runtimePath } from '../../src/sys/prebuilt.ts'
import { Bpftokend } from './bpftokend.ts'
import { CLI, type Result } from './cli.ts'
import { writePolicy } from './container-lab.ts'
import { DebianTree, hasEnded, type Suite } from './debian-tree.ts'
import { eventually } from './eventually.ts'
import { ROOT } from './machine.ts'
import { Scratch } from './scratch.ts'
import { SID } from './sid.ts'
import { xdpObject } from './xdp-object.ts'

/** An image that has only directories. The programs of its containers are those of the tree. */
export const IMAGE = 'localhost/directories:1'

/** As the recipe has it. */
const [, CONFIG] = /\n```json docker\n([\s\S]*?)\n```\n/.exec(
  readFileSync(join(ROOT, 'docs/containers.md'), 'utf8'),
) as unknown as [string, string]

/** As the packages would have it, with the user that dockerd makes for `userns-remap`. */
const SETUP = `ln -s /run /var/run
echo 'dockremap:x:54322:54322::/:/usr/sbin/nologin' >>/etc/passwd
echo 'dockremap:x:54322:' >>/etc/group
for file in /etc/subuid /etc/subgid; do echo dockremap:500000:65536 >$file; done
mkdir -p /etc/docker /usr/lib/bpftoken/prebuilds/linux-x64 /run/bpftoken
ln -s ${runtimePath()} /usr/lib/bpftoken/prebuilds/linux-x64/bpftoken-runc
mkdir /run/rootfs
cd /run/rootfs
mkdir proc sys dev etc run tmp usr mnt srv
for link in bin sbin lib lib64; do ln -s usr/$link $link; done
cd /
`

export class Docker implements AsyncDisposable {
  readonly scratch: Scratch
  readonly tree: DebianTree
  readonly daemon: Bpftokend
  readonly client: Client
  #dockerd: ChildProcess | undefined

  private constructor(scratch: Scratch, tree: DebianTree) {
    this.scratch = scratch
    this.tree = tree
    this.daemon = new Bpftokend(scratch.path)
    this.client = new Client({ socket: this.daemon.socket })
  }

  static async start(suite: Suite): Promise<Docker> {
    const scratch = new Scratch()
    scratch.write('pass.o', xdpObject())
    const socket = `ln -s ${scratch.path}/run/s.sock /run/bpftoken/bpftokend.sock\n`
    const tree = await DebianTree.start(`${suite}-engines`, {
      shown: [scratch.path],
      prepare: `${SETUP}${socket}`,
    })
    const docker = new Docker(scratch, tree)
    try {
      writePolicy(docker.daemon, 'dev')
      await docker.daemon.ready()
      await docker.run(CONFIG)
      const image = `tar -C /run/rootfs -c . | docker import - ${IMAGE}`
      const imported = await tree.execute('sh', '-c', image)
      assert.equal(imported.status, 0, imported.stderr)
      return docker
    } catch (error) {
      await docker[Symbol.asyncDispose]()
      throw new Error(tree.log.slice(-3000), { cause: error })
    }
  }

  /** Starts dockerd with this as its daemon.json, instead of the one that runs. */
  async run(config: string): Promise<void> {
    await this.#stop()
    const written = await this.tree.execute('sh', '-c', 'printf %s "$0" >/etc/docker/daemon.json', config)
    assert.equal(written.status, 0, written.stderr)
    const dockerd = this.tree.spawn('dockerd', `--cgroup-parent=${this.tree.cgroup}`)
    this.#dockerd = dockerd
    const answers = async (): Promise<boolean> => (await this.docker('version')).status === 0
    await eventually(async () => hasEnded(dockerd) || (await answers()), 'dockerd answers')
    assert.ok(!hasEnded(dockerd), this.tree.log.slice(-3000))
  }

  async #stop(): Promise<void> {
    if (this.#dockerd === undefined || hasEnded(this.#dockerd)) return
    const exited = once(this.#dockerd, 'exit')
    this.#dockerd.kill('SIGTERM')
    await exited
  }

  docker(...args: readonly string[]): Promise<Result> {
    return this.tree.execute('docker', ...args)
  }

  /** What docker says; throws when it fails. */
  async said(...args: readonly string[]): Promise<string> {
    const { status, stdout, stderr } = await this.docker(...args)
    assert.equal(status, 0, `${stderr}\n${this.daemon.log.slice(-2000)}`)
    return stdout.trim()
  }

  /** Options of `docker run` and `create`, with the image behind. */
  options(...own: readonly string[]): string[] {
    return [
      ...[
        '--volume',
        '/usr:/usr:ro',
        '--volume',
        `${SID}:/mnt:ro`,
        '--volume',
        `${this.scratch.path}:/srv:ro`,
      ],
      ...[...own, IMAGE],
    ]
  }

  /** `docker run --rm` of a script, to its end. */
  runs(script: string, ...options: readonly string[]): Promise<Result> {
    return this.docker('run', '--rm', ...this.options(...options), 'sh', '-c', script)
  }

  /** Runs bpftoken where Docker is. */
  cli(...args: readonly string[]): Promise<Result> {
    return this.tree.execute(process.execPath, CLI, ...args)
  }

  /** Loans that live, of the container of that name. */
  async loansOf(name: string): Promise<readonly Loan[]> {
    const id = await this.said('inspect', '--format={{.Id}}', name)
    const { loans } = await this.client.listLoans({ query: { state: 'live' } })
    return loans.filter(({ record }) => record?.recipient.container === id)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const all = (await this.docker('ps', '--all', '--quiet')).stdout.split('\n').filter(id => id !== '')
    if (all.length > 0) await this.docker('rm', '--force', ...all)
    await this.#stop()
    await this.tree[Symbol.asyncDispose]()
    const ours = async () => (await this.client.listLoans({ query: { state: 'live' } })).loans
    try {
      await eventually(
        async () => (await ours()).every(({ kind }) => kind === 'adopted'),
        'loans live on without containers',
      )
    } finally {
      this.client.close()
      await this.daemon[Symbol.asyncDispose]()
      this.scratch[Symbol.dispose]()
    }
  }
}
