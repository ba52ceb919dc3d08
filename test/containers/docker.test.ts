/**
 * Containers of an unmodified Docker with `userns-remap` that ask by annotation, by the runtime
 * `bpftoken-runc`.
 */
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import type { Result } from '../helpers/cli.ts'
import { ASKS, hasLoaded, isAlone, LOADS, writePolicy } from '../helpers/container-lab.ts'
import { needsTree, SUITES } from '../helpers/debian-tree.ts'
import { Docker, IMAGE } from '../helpers/docker.ts'
import { eventually } from '../helpers/eventually.ts'
import { shellBlocks } from '../helpers/shell-blocks.ts'
import { sidCommand } from '../helpers/sid.ts'

const OURS = ['--runtime=bpftoken', '--network=none'] as const
const ABLE = [...OURS, '--cap-add=BPF', '--cap-add=NET_ADMIN'] as const
const NAMED = '--annotation=bpftoken.dev/policy=named'
const PINS = 'bpftool prog load /srv/pass.o /sys/fs/bpf/pass && echo attached'
const SLEEP = ['sleep', '1000'] as const

for (const suite of SUITES)
  describe(`Docker of ${suite} with runc`, needsTree(`${suite}-engines`, 'usr/sbin/dockerd'), () => {
    let docker: Docker
    before(async () => {
      docker = await Docker.start(suite)
      writePolicy(docker.daemon, 'named', '  subjects: [{ container: { name: web } }]\n')
      await docker.client.reload()
    })
    after(() => docker?.[Symbol.asyncDispose]())

    const loads = (result: Result): void => hasLoaded(result, docker.daemon.log)
    /** Docker shows what the hook says. */
    const refused = async (why: RegExp, ...options: readonly string[]): Promise<void> => {
      const { status, stdout, stderr } = await docker.runs('echo started', ...options)
      assert.notEqual(status, 0)
      assert.equal(stdout, '')
      assert.match(stderr, why)
      assert.match(stderr, /bpftoken-hook: container [0-9a-f]{64} may not start/)
    }

    test('with the annotation an unmodified bpftool loads and iproute2 attaches, without it neither', async () => {
      loads(await docker.runs(LOADS, ...ABLE, ...ASKS))
      isAlone(await docker.runs(LOADS, ...ABLE))
    })

    test('another runtime does not look at the annotation, and the container has no loan', async () => {
      isAlone(await docker.runs(LOADS, ...ABLE.slice(1), ...ASKS))
    })

    test('a policy that there is not, that is for another, or a slip of the pen is refused', async () => {
      await refused(/There is no policy/, ...ABLE, '--annotation=bpftoken.dev/policy=none')
      // Nobody says of Docker's containers what they are called: such a policy matches none.
      await refused(/no runtime has said of what container it is/, ...ABLE, NAMED, '--name=web')
      await refused(/There is no annotation/, ...ABLE, ...ASKS, '--annotation=bpftoken.dev/x=y')
      loads(await docker.runs(LOADS, ...ABLE, ...ASKS, '--name=web'))
    })

    test('capabilities and seccomp: what is missing is said with the flag to add', async () => {
      await refused(/--cap-add BPF/, ...OURS, ...ASKS)
      loads(await docker.runs(LOADS, ...ABLE, ...ASKS))
    })

    test("a network of Docker's bridge, and a root that is read-only", async () => {
      const bridged = ABLE.filter(word => !word.startsWith('--network'))
      loads(await docker.runs(LOADS, ...bridged, ...ASKS))
      loads(await docker.runs(LOADS, ...ABLE, '--read-only', ...ASKS))
    })

    test('a program that is not root has no ambient capabilities of Docker, and is refused', async () => {
      await refused(/has no CAP_BPF and is not root/, ...ABLE, '--user=1000:1000', ...ASKS)
      const verifies = `${sidCommand('veristat', '/mnt')} /srv/pass.o`
      const { status, stdout, stderr } = await docker.runs(verifies, ...ABLE, '--user=0:1000', ...ASKS)
      assert.equal(status, 0, stderr)
      assert.match(stdout, /success/)
    })

    test('started again it is lent to again, exec sees the loan, and removed nothing is left', async () => {
      await docker.said('create', '--name=again', ...docker.options(...ABLE, ...ASKS), ...SLEEP)
      for (const how of ['start', 'restart', 'restart']) {
        await docker.said(how, ...(how === 'restart' ? ['--time=0'] : []), 'again')
        loads(await docker.docker('exec', 'again', 'sh', '-c', LOADS))
        await eventually(async () => {
          const [loan, ...more] = await docker.loansOf('again')
          return more.length === 0 && loan?.status?.mounted === true && loan.status.drift.length === 0
        }, 'one loan of it, reached')
      }
      await docker.said('rm', '--force', 'again')
    })

    test('root lends by its name to one that did not ask', async () => {
      await docker.said('run', '--detach', '--name=plain', ...docker.options(...ABLE.slice(1)), ...SLEEP)
      isAlone(await docker.docker('exec', 'plain', 'sh', '-c', PINS))
      const lent = await docker.cli('delegate', '--container', 'plain', '--policy', 'dev')
      assert.equal(lent.status, 0, lent.stderr)
      loads(await docker.docker('exec', 'plain', 'sh', '-c', PINS))
      await docker.said('rm', '--force', 'plain')
    })

    test('docs/containers.md: what it says for Docker works as it stands', async () => {
      const [block, ...more] = shellBlocks('docs/containers.md').filter(({ name }) => name === 'docker')
      assert.equal(more.length, 0)
      // An image of one's own has its programs.
      const line = block!.script.replace('$IMAGE', `--volume /usr:/usr:ro ${IMAGE}`)
      const { status, stderr } = await docker.tree.execute('sh', '-c', line)
      assert.equal(status, 0, stderr)
    })

    test('without a user namespace of its own it is refused, and says what Docker needs', async () => {
      await refused(/user namespace of the host.*userns-remap/s, ...ABLE, '--userns=host', ...ASKS)
      const runtimes = { bpftoken: { path: '/usr/lib/bpftoken/prebuilds/linux-x64/bpftoken-runc' } }
      await docker.run(JSON.stringify({ runtimes }))
      const tar = await docker.tree.execute('sh', '-c', `tar -C /run/rootfs -c . | docker import - ${IMAGE}`)
      assert.equal(tar.status, 0, tar.stderr)
      await refused(/user namespace of the host.*userns-remap/s, ...ABLE, ...ASKS)
      const { status, stdout } = await docker.runs('echo started', ...ABLE)
      assert.deepEqual([status, stdout], [0, 'started\n'])
    })

    test('crun below it, and as the runtime of all containers', async () => {
      const ours = { path: '/usr/lib/bpftoken/prebuilds/linux-x64/bpftoken-runc' }
      const runtimes = { bpftoken: { ...ours, runtimeArgs: ['--bpftoken-runtime', '/usr/bin/crun'] } }
      await docker.run(JSON.stringify({ 'userns-remap': 'default', 'default-runtime': 'bpftoken', runtimes }))
      loads(await docker.runs(LOADS, ...ABLE.slice(1), ...ASKS))
      isAlone(await docker.runs(LOADS, ...ABLE.slice(1)))
    })
  })
