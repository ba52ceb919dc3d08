/**
 * An unmodified containerd of a Debian suite, in a tree of that suite. Tests speak to it by the CRI,
 * as kubelet does.
 */
import assert from 'node:assert/strict'
import type { ChildProcess } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { execute, type Result } from './cli.ts'
import { CriClient } from './cri/client.ts'
import { DebianTree, hasEnded, needsTree, type Suite, treeOf } from './debian-tree.ts'
import { eventually } from './eventually.ts'
import { ROOT } from './machine.ts'
import { Scratch } from './scratch.ts'

export type LowRuntime = 'runc' | 'crun'

/** A container of it can run what the tree has in /usr. */
const IMAGE = 'localhost/bpftoken-test:1'
/** On the host, of the first id in a pod's user namespace, and how many there are. */
const FIRST_ID = 2_100_000_000
const IDS = 65_536

/** `{ skip: reason }` where the suite's tree has none. */
export const needsContainerd = (suite: Suite): { skip?: string } => needsTree(suite, 'usr/bin/containerd')

/** As the recipe has it. */
const [, TAKES_PLUGINS] = /\n```toml\n([\s\S]*?)\n```\n/.exec(
  readFileSync(join(ROOT, 'docs/containers/containerd.md'), 'utf8'),
) as unknown as [string, string]

const NETWORK = JSON.stringify({
  cniVersion: '0.4.0',
  name: 'test',
  plugins: [{ type: 'ptp', ipam: { type: 'host-local', subnet: '10.99.0.0/16' } }],
})

function configOf(suite: Suite, runtime: LowRuntime, path: string): string {
  const [version, images, cri, folders] =
    suite === 'trixie'
      ? [2, `sandbox_image = "${IMAGE}"`, 'io.containerd.grpc.v1.cri', 'bin_dir = "/usr/lib/cni"']
      : [3, '', 'io.containerd.cri.v1.runtime', 'bin_dirs = ["/usr/lib/cni"]']
  return `version = ${version}
[grpc]
  address = "${path}/containerd.sock"
${suite === 'sid' ? `[plugins."io.containerd.cri.v1.images".pinned_images]\n  sandbox = "${IMAGE}"` : ''}
[plugins."${cri}"]
  ${images}
  restrict_oom_score_adj = true
  disable_hugetlb_controller = true
  tolerate_missing_hugetlb_controller = true
  [plugins."${cri}".cni]
    ${folders}
    conf_dir = "${path}/cni"
  [plugins."${cri}".containerd]
    default_runtime_name = "runc"
    [plugins."${cri}".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."${cri}".containerd.runtimes.runc.options]
        BinaryName = "${runtime}"
${TAKES_PLUGINS.replace('/run/nri/', `${path}/`)}
`
}

export interface Pod {
  readonly name: string
  readonly namespace?: string
  readonly labels?: Readonly<Record<string, string>>
  readonly annotations?: Readonly<Record<string, string>>
}

export class Containerd implements AsyncDisposable {
  readonly #scratch: Scratch
  readonly #tree: DebianTree
  #process: ChildProcess | undefined
  #cri: CriClient | undefined

  /** By which a registry would name the image of each container. */
  readonly imageDigest: string

  private constructor(scratch: Scratch, tree: DebianTree, imageDigest: string) {
    this.#scratch = scratch
    this.#tree = tree
    this.imageDigest = imageDigest
  }

  static async start(suite: Suite, runtime: LowRuntime): Promise<Containerd> {
    const scratch = new Scratch()
    mkdirSync(join(scratch.path, 'cni'))
    scratch.write('cni/test.conflist', NETWORK)
    scratch.write('config.toml', configOf(suite, runtime, scratch.path))
    const digest = await writeImage(suite, scratch)
    const tree = await DebianTree.start(suite, { shown: [scratch.path] })
    const containerd = new Containerd(scratch, tree, digest)
    try {
      await containerd.#begin()
      return containerd
    } catch (error) {
      await containerd[Symbol.asyncDispose]()
      throw new Error(containerd.log, { cause: error })
    }
  }

  async #begin(): Promise<void> {
    await this.#run()
    const ctr = ['ctr', '--address', this.socket, '--namespace', 'k8s.io', 'image'] as const
    // As one has it that was pulled by its digest.
    const pulled = IMAGE.replace(/:\d+$/, `@${this.imageDigest}`)
    for (const words of [
      ['import', join(this.#scratch.path, 'image.tar')],
      ['tag', IMAGE, pulled],
    ]) {
      const { status, stderr } = await this.execute(...ctr, ...words)
      assert.equal(status, 0, stderr)
    }
  }

  async #run(): Promise<void> {
    const config = join(this.#scratch.path, 'config.toml')
    const containerd = this.#tree.spawn('/usr/bin/containerd', '--config', config)
    this.#process = containerd
    await eventually(() => existsSync(this.nri) || hasEnded(containerd), 'containerd is ready')
    this.#cri = new CriClient(this.socket)
  }

  /** Ends it and starts it anew; its containers run on. */
  async restart(): Promise<void> {
    this.#cri?.[Symbol.dispose]()
    const containerd = this.#process!
    const exited = once(containerd, 'exit')
    containerd.kill('SIGTERM')
    await exited
    rmSync(this.nri, { force: true })
    await this.#run()
    await eventually(async () => {
      const answer = await this.cri.call('ListPodSandbox', {}).catch(() => undefined)
      return answer !== undefined
    }, 'it answers again')
  }

  get socket(): string {
    return join(this.#scratch.path, 'containerd.sock')
  }

  /** Where NRI's plugins register. */
  get nri(): string {
    return join(this.#scratch.path, 'nri.sock')
  }

  /** A directory that it sees at the same path, too. */
  get path(): string {
    return this.#scratch.path
  }

  get log(): string {
    return this.#tree.log
  }

  get cri(): CriClient {
    return this.#cri!
  }

  /** Runs any program of the tree there. */
  execute(command: string, ...args: readonly string[]): Promise<Result> {
    return this.#tree.execute(command, ...args)
  }

  /** Starts a pod with a user namespace of its own. */
  async pod(pod: Pod): Promise<RunningPod> {
    const config = {
      metadata: {
        name: pod.name,
        uid: `uid-of-${pod.name}`,
        namespace: pod.namespace ?? 'default',
        attempt: 0,
      },
      hostname: pod.name,
      labels: { ...pod.labels },
      annotations: { ...pod.annotations },
      linux: { cgroupParent: this.#tree.cgroup, securityContext: { namespaceOptions: OWN_NAMESPACES } },
    }
    const { podSandboxId } = await this.cri.call('RunPodSandbox', { config })
    return new RunningPod(this.cri, podSandboxId, config, this.path)
  }

  /** Ends all pods with their containers. */
  async removePods(): Promise<void> {
    const { items } = await this.cri.call('ListPodSandbox', {})
    for (const { id } of items) {
      await this.cri.call('StopPodSandbox', { podSandboxId: id })
      await this.cri.call('RemovePodSandbox', { podSandboxId: id })
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#cri !== undefined && this.#process !== undefined && !hasEnded(this.#process))
      await this.removePods()
    this.#cri?.[Symbol.dispose]()
    await this.#tree[Symbol.asyncDispose]()
    this.#scratch[Symbol.dispose]()
  }
}

const MAPPING = [{ hostId: FIRST_ID, containerId: 0, length: IDS }]
/** Modes: 0 of the pod, 1 of the container. */
const OWN_NAMESPACES = {
  network: 0,
  pid: 1,
  ipc: 0,
  usernsOptions: { mode: 0, uids: MAPPING, gids: MAPPING },
}

export interface ContainerOptions {
  readonly annotations?: Readonly<Record<string, string>>
  readonly labels?: Readonly<Record<string, string>>
  readonly envs?: readonly { readonly key: string; readonly value: string }[]
  readonly capabilities?: readonly string[]
}

export class RunningPod {
  readonly #cri: CriClient
  readonly id: string
  readonly #config: object
  readonly #shown: string

  constructor(cri: CriClient, id: string, config: object, shown: string) {
    this.#cri = cri
    this.id = id
    this.#config = config
    this.#shown = shown
  }

  /**
   * Makes and starts a container that sleeps, with the tree's programs, what is in containerd's `path`
   * at /mnt, and capabilities for XDP. Gives its id.
   */
  async container(name: string, options: ContainerOptions = {}): Promise<string> {
    const { containerId } = await this.#cri.call('CreateContainer', {
      podSandboxId: this.id,
      sandboxConfig: this.#config,
      config: {
        metadata: { name, attempt: 0 },
        image: { image: IMAGE },
        command: ['/bin/busybox', 'sleep', '100000'],
        envs: [...(options.envs ?? [])],
        mounts: [
          { containerPath: '/usr', hostPath: '/usr', readonly: true },
          { containerPath: '/mnt', hostPath: this.#shown, readonly: true },
        ],
        labels: { ...options.labels },
        annotations: { ...options.annotations },
        linux: {
          resources: {},
          securityContext: {
            capabilities: { addCapabilities: [...(options.capabilities ?? ['BPF', 'NET_ADMIN'])] },
            namespaceOptions: OWN_NAMESPACES,
            seccomp: { profileType: 0 },
          },
        },
      },
    })
    await this.#cri.call('StartContainer', { containerId })
    return containerId
  }

  /** Runs a program in a container of it. */
  async execute(containerId: string, ...cmd: readonly string[]): Promise<{ status: number; output: string }> {
    const { exitCode, stdout, stderr } = await this.#cri.call('ExecSync', {
      ...{ containerId, cmd: [...cmd], timeout: 60n },
    })
    return { status: exitCode, output: Buffer.concat([stdout, stderr]).toString() }
  }

  async pid(containerId: string): Promise<number> {
    const { info } = await this.#cri.call('ContainerStatus', { containerId, verbose: true })
    return (JSON.parse(info['info'] ?? '{}') as { pid: number }).pid
  }

  async removeContainer(containerId: string): Promise<void> {
    await this.#cri.call('StopContainer', { containerId, timeout: 0n })
    await this.#cri.call('RemoveContainer', { containerId })
  }

  async remove(): Promise<void> {
    await this.#cri.call('StopPodSandbox', { podSandboxId: this.id })
    await this.#cri.call('RemovePodSandbox', { podSandboxId: this.id })
  }
}

/** Gives the digest of its manifest. An OCI image of one layer: directories, links, and a busybox, which also is what a pod's first process runs. */
async function writeImage(suite: Suite, scratch: Scratch): Promise<string> {
  const busybox = join(treeOf(suite), 'usr/bin/busybox')
  const script = `set -e
cd "$1"
mkdir -p image/blobs/sha256 root/bin root/usr root/proc root/sys root/dev root/etc root/run root/tmp root/mnt
cp "$2" root/bin/busybox
for link in sh cat ls sleep id mount mkdir ln rm; do ln -s busybox root/bin/$link; done
for link in lib lib64 sbin; do ln -s usr/$link root/$link; done
tar --owner=0 --group=0 --numeric-owner -C root -cf image/layer .
`
  const made = await execute('sh', ['-c', script, 'sh', scratch.path, busybox])
  assert.equal(made.status, 0, made.stderr)
  const put = (mediaType: string, bytes: Buffer): { mediaType: string; digest: string; size: number } => {
    const hex = createHash('sha256').update(bytes).digest('hex')
    scratch.write(`image/blobs/sha256/${hex}`, bytes)
    return { mediaType, digest: `sha256:${hex}`, size: bytes.length }
  }
  const document = (type: string, value: object) => put(type, Buffer.from(JSON.stringify(value)))
  const layer = put('application/vnd.oci.image.layer.v1.tar', readFileSync(join(scratch.path, 'image/layer')))
  const config = document('application/vnd.oci.image.config.v1+json', {
    architecture: process.arch === 'x64' ? 'amd64' : process.arch,
    os: 'linux',
    config: { Entrypoint: ['/bin/busybox', 'sleep', '2147483'] },
    rootfs: { type: 'layers', diff_ids: [layer.digest] },
  })
  const type = 'application/vnd.oci.image.manifest.v1+json'
  const manifest = document(type, { schemaVersion: 2, mediaType: type, config, layers: [layer] })
  const annotations = { 'io.containerd.image.name': IMAGE, 'org.opencontainers.image.ref.name': '1' }
  scratch.write(
    'image/index.json',
    JSON.stringify({ schemaVersion: 2, manifests: [{ ...manifest, annotations }] }),
  )
  scratch.write('image/oci-layout', JSON.stringify({ imageLayoutVersion: '1.0.0' }))
  const packed = await execute('tar', [
    ...['-C', join(scratch.path, 'image'), '-cf', join(scratch.path, 'image.tar')],
    ...['blobs', 'index.json', 'oci-layout'],
  ])
  assert.equal(packed.status, 0, packed.stderr)
  return manifest.digest
}
