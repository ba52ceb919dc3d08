/**
 * A real containerd with bpftoken-nri: a pod's annotation lends to its containers before their first
 * instruction. Their programs are unmodified.
 */
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { Client } from '../../../src/client/client.ts'
import { Bpftokend } from '../../helpers/bpftokend.ts'
import { Containerd, type LowRuntime, needsContainerd, type Suite } from '../../helpers/containerd.ts'
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
const RUN = process.env['BPFTOKEN_TEST_CONTAINERS'] === 'all' ? ALL : ALL.slice(0, 2)

const POLICY = 'bpftoken.dev/policy'
const ASKS = { [POLICY]: 'shops' }

/** For the pods of one namespace with one label. */
const SHOPS = readFileSync(join(ROOT, 'examples/policies/libbpf-xdp.yaml'), 'utf8')
  .replace('name: libbpf-xdp', 'name: shops')
  .replace('spec:\n', 'spec:\n  subjects:\n    - kubernetes: { namespace: shop, labels: { app: web } }\n')

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

    test('with the annotation an unmodified bpftool loads, and iproute2 attaches', async () => {
      const pod = await containerd.pod({
        name: 'web',
        namespace: 'shop',
        labels: { app: 'web' },
        annotations: ASKS,
      })
      const id = await pod.container('app')
      const loaded = await pod.execute(id, ...load)
      assert.equal(loaded.status, 0, loaded.output)
      console.log(
        loaded,
        (await pod.execute(id, '/bin/cat', '/proc/mounts')).output.split('\n').filter(l => l.includes('bpf')),
      )
    })
  })
