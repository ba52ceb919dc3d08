/**
 * A real containerd with bpftoken-nri: a pod's annotation lends to its containers before their first
 * instruction. Their programs are unmodified.
 */
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { parse } from 'yaml'
import { Client } from '../../../src/client/client.ts'
import { Bpftokend } from '../../helpers/bpftokend.ts'
import { Containerd, type LowRuntime, needsContainerd } from '../../helpers/containerd.ts'
import { CriError } from '../../helpers/cri/client.ts'
import type { Suite } from '../../helpers/debian-tree.ts'
import { eventually } from '../../helpers/eventually.ts'
import { ROOT } from '../../helpers/machine.ts'
import { NriPlugin } from '../../helpers/nri-plugin.ts'
import { xdpObject } from '../../helpers/xdp-object.ts'

/** `make test` runs the newest with both runtimes; the others are for `make test-containers`. */
const ALL: readonly (readonly [Suite, LowRuntime])[] = [
  ['sid', 'runc'],
  ['sid', 'crun'],
  ['trixie', 'runc'],
  ['trixie', 'crun'],
]
const FULL = process.env['BPFTOKEN_TEST_CONTAINERS'] === 'all'
const RUN = FULL ? ALL : ALL.slice(0, 2)

const POLICY = 'bpftoken.dev/policy'

/** The policy and the pod of the recipe. */
const PAGE = readFileSync(join(ROOT, 'docs/containers/containerd.md'), 'utf8')
const [SHOPS, POD] = ['policy', 'pod'].map(
  name => new RegExp(`\n\`\`\`yaml ${name}\n([\\s\\S]*?)\n\`\`\`\n`).exec(PAGE)![1]!,
) as [string, string]
const { metadata, spec } = parse(POD)
const ASKS: Record<string, string> = metadata.annotations

for (const [debian, runtime] of RUN)
  suite(`containerd of ${debian} with ${runtime}`, needsContainerd(debian), () => {
    let containerd: Containerd
    let daemon: Bpftokend
    let plugin: NriPlugin
    let client: Client

    before(async () => {
      containerd = await Containerd.start(debian, runtime)
      writeFileSync(join(containerd.path, 'pass.o'), xdpObject())
      daemon = new Bpftokend(containerd.path)
      writeFileSync(join(daemon.policies, 'shops.yaml'), SHOPS)
      await daemon.ready()
      client = new Client({ socket: daemon.socket })
      plugin = await new NriPlugin(containerd, daemon).ready()
    })

    after(async () => {
      client?.close()
      await plugin?.[Symbol.asyncDispose]()
      await containerd?.[Symbol.asyncDispose]()
      await daemon?.[Symbol.asyncDispose]()
    })

    const load = ['/usr/sbin/bpftool', 'prog', 'load', '/mnt/pass.o', '/sys/fs/bpf/pass'] as const
    const WEB = { namespace: metadata.namespace as string, labels: metadata.labels as Record<string, string> }

    /** What the runtime gives its low-level runtime. */
    async function specOf(
      id: string,
    ): Promise<{ hooks?: object; annotations: Record<string, string>; env: string[] }> {
      const ctr = ['ctr', '--address', containerd.socket, '--namespace', 'k8s.io'] as const
      const { stdout, stderr } = await containerd.execute(...ctr, 'container', 'info', id)
      assert.notEqual(stdout, '', stderr)
      const { Spec } = JSON.parse(stdout)
      return { hooks: Spec.hooks, annotations: Spec.annotations, env: Spec.process.env }
    }

    const known = async (): Promise<string[]> =>
      (await client.listContainers()).containers.map(({ id }) => id)

    test('with the annotation an unmodified bpftool loads, and iproute2 attaches', async () => {
      const pod = await containerd.pod({ name: 'web', ...WEB, annotations: ASKS })
      const [app] = spec.containers
      const id = await pod.container(app.name, { capabilities: app.securityContext.capabilities.add })
      const loaded = await pod.execute(id, ...load)
      assert.equal(loaded.status, 0, loaded.output)
      // Of iproute2 the outcome counts: it ends with 0 where it attaches nothing.
      const ip = await pod.execute(
        id,
        '/sbin/ip',
        'link',
        'set',
        'dev',
        'lo',
        'xdp',
        'obj',
        '/mnt/pass.o',
        'sec',
        'xdp',
      )
      const link = await pod.execute(id, '/sbin/ip', 'link', 'show', 'dev', 'lo')
      assert.match(link.output, /prog\/xdp/, ip.output)
      const { annotations, env } = await specOf(id)
      assert.equal(annotations[POLICY], 'shops')
      assert.ok(env.includes('LIBBPF_BPF_TOKEN_PATH=/sys/fs/bpf'))
      const [one] = (await client.listContainers()).containers.filter(container => container.id === id)
      assert.equal(one!.image, 'localhost/bpftoken-test:1')
      assert.deepEqual([one!.runtime, one!.pod!.namespace, one!.pod!.labels!['app']], ['nri', 'shop', 'web'])
      await pod.remove()
      await eventually(async () => !(await known()).includes(id), 'a container that is removed is forgotten')
    })

    test('without it a container is as if there were no plugin, and is refused by the kernel', async () => {
      const pod = await containerd.pod({
        name: 'plain',
        ...WEB,
        annotations: { 'example.com/policy': 'shops' },
      })
      const id = await pod.container('app', { annotations: { other: 'x' } })
      const { status, output } = await pod.execute(id, ...load)
      assert.notEqual(status, 0)
      assert.match(output, /EPERM|Operation not permitted/)
      const { hooks, annotations, env } = await specOf(id)
      assert.equal(hooks, undefined)
      assert.ok(!Object.keys(annotations).some(key => key.startsWith('bpftoken.dev/')))
      assert.ok(!env.some(one => one.startsWith('LIBBPF_')))
      await pod.remove()
    })

    test('a pod of another namespace, or without the label, does not start, and the reason is told', async () => {
      for (const [name, pod] of Object.entries({
        other: { namespace: 'other', labels: { app: 'web' } },
        unlabelled: { namespace: 'shop', labels: { app: 'db' } },
      })) {
        const running = await containerd.pod({ name, ...pod, annotations: ASKS })
        const refused = await running.container('app').then(
          () => assert.fail('it has started'),
          (error: Error) => error.message,
        )
        // crun keeps to itself what hooks say; the daemon's log has it for both.
        if (runtime === 'runc') assert.match(refused, /shops.*\bkubernetes\b|\bnobody\b|does not/is, refused)
        await running.remove()
      }
      const told = daemon.log.split('\n').filter(line => line.includes('a container may not start'))
      assert.equal(told.length, 2, daemon.log)
      for (const line of told) assert.match(line, /DeniedError.*shops/)
    })

    test('what a container says of itself counts for nothing', async () => {
      const running = await containerd.pod({ name: 'liar', namespace: 'other', annotations: ASKS })
      const lies = {
        ...{ 'io.kubernetes.cri.sandbox-namespace': 'shop', 'io.kubernetes.cri.image-name': 'other' },
        ...{ [POLICY]: 'shops' },
      }
      await assert.rejects(running.container('app', { annotations: lies, labels: { app: 'web' } }), CriError)
      await running.remove()
    })

    test('an annotation that means nothing is refused by name, before the container is made', async () => {
      const pod = await containerd.pod({
        name: 'typo',
        ...WEB,
        annotations: { 'bpftoken.dev/polcy': 'shops' },
      })
      await assert.rejects(
        pod.container('app'),
        /lends nothing to container app: The annotation bpftoken\.dev\/polcy/,
      )
      await pod.remove()
    })

    test('a policy may name the digest of the image, which the runtime tells of the container itself', async () => {
      const policy = (name: string, digest: string): void => {
        const subject = `container: { digest: '${digest}' }\n      kubernetes:`
        const text = SHOPS.replace('name: shops', `name: ${name}`).replace('kubernetes:', subject)
        assert.notEqual(text, SHOPS)
        writeFileSync(join(daemon.policies, `${name}.yaml`), text)
      }
      policy('pinned', containerd.imageDigest)
      policy('another', `sha256:${'0'.repeat(64)}`)
      await client.reload()
      const pod = await containerd.pod({ name: 'pinned', ...WEB, annotations: { [POLICY]: 'pinned' } })
      const id = await pod.container('app')
      assert.equal((await pod.execute(id, ...load)).status, 0)
      const [one] = (await client.listContainers()).containers.filter(container => container.id === id)
      assert.equal(one!.imageDigest, containerd.imageDigest)
      await pod.remove()
      const other = await containerd.pod({ name: 'another', ...WEB, annotations: { [POLICY]: 'another' } })
      await assert.rejects(other.container('app'))
      await other.remove()
    })

    test('a plugin that comes back makes what runs known again, and its loan lives on', async () => {
      const pod = await containerd.pod({ name: 'lasting', ...WEB, annotations: ASKS })
      const id = await pod.container('app')
      await plugin.kill('SIGKILL')
      plugin = await new NriPlugin(containerd, daemon).ready()
      await plugin.said('bpftokend knows all containers')
      assert.ok((await known()).includes(id))
      const loaded = await pod.execute(id, ...load)
      assert.equal(loaded.status, 0, loaded.output)
      // It does as before.
      const next = await pod.container('next')
      assert.equal(
        (await pod.execute(next, '/usr/sbin/bpftool', 'prog', 'load', '/mnt/pass.o', '/sys/fs/bpf/next'))
          .status,
        0,
      )
      await pod.remove()
    })

    test('a containerd that is started again is served again, and its containers are known', async () => {
      const pod = await containerd.pod({ name: 'restarted', ...WEB, annotations: ASKS })
      const id = await pod.container('app')
      const times = plugin.log.filter(line => line.message === 'the runtime tells what it has').length
      await containerd.restart()
      await plugin.ready(times + 1)
      await eventually(async () => (await known()).includes(id), 'it is known')
      const again = await containerd.pod({ name: 'after', ...WEB, annotations: ASKS })
      const next = await again.container('app')
      assert.equal((await again.execute(next, ...load)).status, 0)
      await containerd.removePods()
    })

    test('while the daemon is away one that asks is refused, and one that does not starts; after it, both start', async () => {
      const [asks, plain] = [
        await containerd.pod({ name: 'asks', ...WEB, annotations: ASKS }),
        await containerd.pod({ name: 'free', ...WEB }),
      ]
      const { socket } = daemon
      await daemon[Symbol.asyncDispose]()
      await assert.rejects(asks.container('app'), /lends nothing to container app: No daemon answers/)
      await plain.container('app')
      daemon = await new Bpftokend(containerd.path).ready()
      assert.equal(daemon.socket, socket)
      // It is told of those that did not ask, too, though it was away.
      const id = await asks.container('again')
      assert.equal((await asks.execute(id, ...load)).status, 0)
      assert.equal((await known()).length, 2)
      await containerd.removePods()
    })

    test('fifty containers at once, half of which ask: all as they should be', {
      skip: FULL ? false : 'for make test-containers',
    }, async () => {
      const pods = await Promise.all(
        Array.from({ length: 10 }, (_, i) =>
          containerd.pod({ name: `many-${i}`, ...WEB, ...(i % 2 === 0 ? { annotations: ASKS } : {}) }),
        ),
      )
      await Promise.all(
        pods.flatMap((pod, i) =>
          Array.from({ length: 5 }, async (_, j) => {
            const id = await pod.container(`c${j}`)
            const target = `/sys/fs/bpf/p${j}`
            const { status, output } = await pod.execute(
              id,
              '/usr/sbin/bpftool',
              'prog',
              'load',
              '/mnt/pass.o',
              target,
            )
            assert.equal(status === 0, i % 2 === 0, output)
          }),
        ),
      )
      const took = plugin.log
        .filter(line => line.message.startsWith('a container asks, and gets'))
        .map(line => Number(line['BPFTOKEN_MILLISECONDS']))
        .sort((a, b) => a - b)
      console.log(
        `answers of the plugin, in ms: median ${took[took.length >> 1]}, greatest ${took.at(-1)} of ${took.length}`,
      )
      await containerd.removePods()
    })
  })
