/**
 * Containers of Podman 5 of newer suites that ask by annotation, with crun and with runc: what is in
 * `test/e2e/containers/podman.test.ts` for this Debian's Podman 4, and what is else between Podman 5 and a loan.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { after, before, describe, test } from 'node:test'
import type { Result } from '../helpers/cli.ts'
import { ASKS, ATTACH, ContainerLab, hasLoaded, isAlone, LOADS, RUNTIMES } from '../helpers/container-lab.ts'
import { needsTree, SUITES } from '../helpers/debian-tree.ts'
import { checkedDocument } from '../helpers/documents.ts'
import { eventually } from '../helpers/eventually.ts'
import { ALICE, IMAGE } from '../helpers/podman.ts'
import { commandsOf } from '../helpers/shell-blocks.ts'
import { SID, sidCommand } from '../helpers/sid.ts'

/** All that a container needs of Podman 5. */
const ABLE = ['--userns=auto', '--cap-add=BPF,NET_ADMIN'] as const
const SLEEP = ['sleep', '1000'] as const
const ANYWHERE = '--annotation=bpftoken.dev/policy=anywhere'
/** Has the state that hooks get written down: see `ContainerLab.recorded`. */
const RECORDS = ['--annotation=test.records=yes'] as const
/** Loads and pins, and attaches nothing. */
const PINS = 'bpftool prog load /srv/pass.o /sys/fs/bpf/pass && echo attached'
/** Root alone pins there: this only loads. */
const VERIFIES = `${sidCommand('veristat', '/mnt')} /srv/pass.o`

for (const suite of SUITES)
  for (const runtime of RUNTIMES)
    describe(`Podman of ${suite} with ${runtime}`, needsTree(`${suite}-engines`, 'usr/bin/podman'), () => {
      let lab: ContainerLab
      before(async () => {
        lab = await ContainerLab.open(suite)
        await lab.podmanRuntime(runtime)
        await lab.installHook()
        lab.policy('named', '  subjects: [{ container: { name: web } }]\n')
        lab.policy('anywhere', '', 'host')
        await lab.client.reload()
      })
      after(() => lab[Symbol.asyncDispose]())

      const loads = (result: Result): void => hasLoaded(result, lab.daemon.log)
      const refused = async (why: RegExp, ...options: readonly string[]): Promise<void> => {
        const log = lab.daemon.log.length
        const { status, stdout } = await lab.podmanRun('echo started', ...options)
        assert.notEqual(status, 0)
        assert.equal(stdout, '')
        await eventually(() => why.test(lab.daemon.log.slice(log)), String(why), 10_000).catch(() =>
          assert.fail(`${why}: ${lab.daemon.log.slice(log)}`),
        )
      }
      const loanOf = async (name: string) => {
        const id = await lab.podman.podman('inspect', '--format={{.Id}}', name)
        return (await lab.loans()).filter(({ record }) => record?.recipient.container === id)
      }

      test('with the annotation an unmodified bpftool loads and iproute2 attaches, without it neither', async () => {
        loads(await lab.podmanRun(LOADS, ...ABLE, ...ASKS))
        isAlone(await lab.podmanRun(LOADS, ...ABLE))
      })

      test('installed, it says which Podman calls it, and that nothing is in the way', async () => {
        const { status, stdout } = await lab.podman.cli(
          'containers',
          'status',
          '--socket',
          lab.socket,
          '--json',
        )
        const found = checkedDocument('containers-status', stdout) as Record<string, unknown>
        assert.deepEqual([status, found['problems']], [0, []])
        assert.match(String(found['podman']), /podman version 5/)
      })

      test(`bare ${runtime} run: a bundle that asks attaches, and one that does not cannot`, async () => {
        lab.bundle('asks', ATTACH)
        loads(await lab.run(runtime, 'asks'))
        lab.bundle('plain', ATTACH, config => {
          config.annotations = {}
        })
        const plain = await lab.run(runtime, 'plain')
        assert.notEqual(plain.status, 0)
        assert.doesNotMatch(plain.stdout, /attached/)
      })

      test('docs/containers.md: what it says for Podman 5 works as it stands', async () => {
        const [line, ...more] = commandsOf('docs/containers.md', 'podman5')
        assert.equal(more.length, 0)
        // An image of one's own has its programs.
        const limits = lab.options().slice(0, -1).join(' ')
        const script = line!.replace('$IMAGE', `${limits} ${IMAGE}`)
        const { status, stderr } = await lab.podman.execute('sh', '-c', script)
        assert.equal(status, 0, `${stderr}${lab.daemon.log.slice(-1500)}`)
      })

      test('a policy that there is not, that is for another, or a slip of the pen is refused', async () => {
        const asks = '--annotation=bpftoken.dev/policy=named'
        await refused(/There is no policy/, ...ABLE, '--annotation=bpftoken.dev/policy=none')
        await refused(/container is .*"name.*db/, ...ABLE, asks, '--name=db')
        await refused(/There is no annotation/, ...ABLE, ...ASKS, '--annotation=bpftoken.dev/x=y')
        loads(await lab.podmanRun(LOADS, ...ABLE, asks, '--name=web'))
      })

      test('--privileged, --read-only, and both', async () => {
        for (const options of [
          ['--privileged', '--userns=auto'],
          [...ABLE, '--read-only'],
          ['--privileged', '--userns=auto', '--read-only'],
        ])
          loads(await lab.podmanRun(LOADS, ...options, ...ASKS))
      })

      test('a root that is a mount which only the container has', async () => {
        const { root, mounts } = await lab.recorded(() => lab.podmanRun(LOADS, ...ABLE, ...ASKS, ...RECORDS))
        assert.match(root, /^\/var\/tmp\/intermediate-mountpoint/)
        const outside = await lab.podman.execute('cat', '/proc/self/mountinfo')
        assert.ok(mounts.includes(` ${root} `) && !outside.stdout.includes(` ${root} `))
      })

      test('--userns: auto, a map, keep-id and that of another container; host and nomap not', async () => {
        const caps = '--cap-add=BPF,NET_ADMIN'
        loads(await lab.podmanRun(LOADS, '--userns=auto:size=2000', caps, ...ASKS))
        loads(await lab.podmanRun(LOADS, '--uidmap=0:700000:65536', '--gidmap=0:700000:65536', caps, ...ASKS))
        // All ids of the host are mapped: processes that the kernel does not tell us may be of it.
        loads(await lab.podmanRun(LOADS, '--userns=keep-id', caps, ANYWHERE))
        await refused(/user namespace of the host.*--userns=auto/s, '--userns=host', caps, ...ASKS)
        await refused(/user namespace of the host.*--userns=auto/s, caps, ...ASKS)
        const nomap = await lab.podmanRun(LOADS, '--userns=nomap', caps, ...ASKS)
        assert.match(nomap.stderr, /nomap is only supported in rootless mode/)
        await lab.podman.podman('run', '--detach', '--name=first', ...lab.options(...ABLE), ...SLEEP)
        loads(await lab.podmanRun(LOADS, '--userns=container:first', caps, ...ASKS))
        await lab.podman.remove('first')
      })

      test("the host's network is refused, unless the policy has it", async () => {
        await refused(/shares the host's network/, ...ABLE, '--network=host', ...ASKS)
        loads(await lab.podmanRun(PINS, ...ABLE, '--network=host', ANYWHERE))
      })

      test('capabilities and seccomp: what is missing is said with the flag to add', async () => {
        await refused(/--cap-add BPF/, '--userns=auto', ...ASKS)
        await refused(/seccomp profile refuses bpf\(2\).*--cap-add BPF/s, '--userns=auto', ...ASKS)
        loads(await lab.podmanRun(LOADS, ...ABLE, ...ASKS))
      })

      test('a program that is not root: what is added is ambient, else it is refused', async () => {
        const user = '--user=1000:1000'
        const verdict = await lab.podmanRun(VERIFIES, ...ABLE, user, ...ASKS)
        assert.equal(verdict.status, 0, verdict.stderr)
        assert.match(verdict.stdout, /success/)
        await refused(/cannot hold CAP_BPF|has no CAP_BPF/, '--userns=auto', user, ...ASKS)
      })

      test('started again it is lent to again, exec sees the loan, and removed nothing is left', async () => {
        await lab.podman.podman('create', '--name=again', ...lab.options(...ABLE, ...ASKS), ...SLEEP)
        for (const how of ['start', 'restart', 'restart']) {
          await lab.podman.podman(how, ...(how === 'restart' ? ['--time=0'] : []), 'again')
          loads(await lab.podman.execute('podman', 'exec', 'again', 'sh', '-c', LOADS))
          await eventually(async () => {
            const [loan, ...more] = await loanOf('again')
            return more.length === 0 && loan?.status?.mounted === true && loan.status.drift.length === 0
          }, 'one loan of it, reached')
        }
        const id = await lab.podman.podman('inspect', '--format={{.Id}}', 'again')
        await lab.podman.remove('again')
        await eventually(
          async () => !(await lab.loans()).some(({ record }) => record?.recipient.container === id),
          'it is gone',
        )
      })

      test('a pod: an init container and two others of one user namespace have each its own; a fourth has none', async () => {
        await lab.podman.podman(
          ...['pod', 'create', '--userns=auto', '--network=none', ...lab.podman.cgroup, 'pod'],
        )
        const create = (name: string, script: string, ...options: readonly string[]) => {
          const words = lab.podOptions('--pod=pod', '--cap-add=BPF,NET_ADMIN', ...options)
          return lab.podman.podman('create', `--name=${name}`, ...words, 'sh', '-c', script)
        }
        await create('early', LOADS, '--init-ctr=always', ...ASKS)
        for (const name of ['first', 'second']) await create(name, SLEEP.join(' '), ...ASKS)
        await create('plain', SLEEP.join(' '))
        await lab.podman.podman('pod', 'start', 'pod')
        assert.match(await lab.podman.podman('logs', 'early'), /attached/)
        const loan = async (name: string) => {
          const [one] = await loanOf(name)
          assert.ok(one !== undefined, `${name} has a loan`)
          return one
        }
        const [first, second] = [await loan('first'), await loan('second')]
        const namespace = (one: typeof first) => one.record!.recipient.userNamespace
        assert.equal(namespace(first), namespace(second))
        assert.notEqual(first.id, second.id)
        const load = (name: string) => lab.podman.execute('podman', 'exec', name, 'sh', '-c', PINS)
        for (const name of ['first', 'second']) loads(await load(name))
        isAlone(await load('plain'))
        // Of one alone it is taken back.
        await lab.client.revoke({ body: { what: { container: second.record!.recipient.container! } } })
        assert.equal(
          (await lab.podman.execute('podman', 'exec', 'first', 'ls', '/sys/fs/bpf/pass')).status,
          0,
        )
        assert.doesNotMatch(await lab.podman.podman('exec', 'second', 'cat', '/proc/mounts'), /delegate_/)
        await lab.podman.podman('pod', 'rm', '--force', '--time=0', 'pod')
      })

      test('a checkpoint: CRIU knows no bpffs and says so, and the container runs on with its loan', async () => {
        const run = (name: string, ...options: readonly string[]) =>
          lab.podman.podman(
            'run',
            '--detach',
            `--name=${name}`,
            ...lab.bareOptions(...ABLE, ...options),
            ...SLEEP,
          )
        const checkpoint = (name: string) =>
          lab.podman.execute('podman', 'container', 'checkpoint', '--keep', name)
        await run('lent', ...ASKS)
        const { status } = await checkpoint('lent')
        assert.notEqual(status, 0)
        assert.match(await lab.dumpLog('lent'), /Error .*sys\/fs\/bpf.* unsupported/)
        assert.equal((await loanOf('lent')).length, 1)
        assert.match(readFileSync(`/proc/${await lab.podman.pid('lent')}/mounts`, 'utf8'), /delegate_cmds/)
        // Devices of crun's containers are mounts of the host's, which CRIU does not know either.
        if (runtime === 'runc') {
          const back = await lab.podman.cli('undelegate', '--socket', lab.socket, '--container', 'lent')
          assert.equal(back.status, 0, back.stderr)
          const { status, stderr } = await checkpoint('lent')
          assert.equal(status, 0, `${stderr}${await lab.dumpLog('lent')}`)
        }
        await lab.podman.remove('lent')
      })
    })

for (const suite of SUITES)
  describe(`rootless Podman of ${suite} with crun`, needsTree(`${suite}-engines`, 'usr/bin/podman'), () => {
    let lab: ContainerLab
    before(async () => {
      lab = await ContainerLab.open(suite)
      await lab.podmanRuntime('crun')
      await lab.installHook()
      lab.policy('anywhere', '', 'host')
      await lab.client.reload()
    })
    after(() => lab[Symbol.asyncDispose]())

    const start = (...words: readonly string[]) =>
      lab.podman.asAlice(
        'podman',
        ...['--hooks-dir=/usr/share/containers/oci/hooks.d', 'run', '--detach', '--name=mine'],
        ...['--network=none', '--cgroups=disabled', '--volume=/usr:/usr:ro', `--volume=${SID}:/mnt:ro`],
        `--volume=${lab.scratch.path}:/srv:ro`,
        ...['--ulimit=nofile=1024:1024', '--ulimit=nproc=1000:1000', '--cap-add=BPF,NET_ADMIN', ...words],
        ...['--rootfs', `${ALICE.home}/rootfs`, ...SLEEP],
      )
    const delegate = (policy: string, name = `${ALICE.name}/mine`) =>
      lab.podman.cli('delegate', '--socket', lab.socket, '--container', name, '--policy', policy)

    test('one that asks by annotation does not start, and says what to do instead', async () => {
      const said = `${ALICE.home}/said`
      const asked = await start(`--annotation=run.oci.hooks.stderr=${said}`, ...ASKS)
      assert.notEqual(asked.status, 0)
      const { stdout } = await lab.podman.execute('cat', said)
      assert.match(stdout, /it is rootless.*bpftoken delegate --container USER\/NAME/, asked.stderr)
      await lab.podman.asAlice('podman', 'rm', '--force', 'mine')
    })

    for (const mode of ['', 'auto', 'keep-id', 'keep-id:uid=0,gid=0', 'nomap'])
      test(`delegate --container lends to one that runs, --userns=${mode || 'none given'}`, async () => {
        const started = await start(...(mode === '' ? [] : [`--userns=${mode}`]))
        assert.equal(started.status, 0, started.stderr)
        const load = () => lab.podman.asAlice('podman', 'exec', 'mine', 'sh', '-c', VERIFIES)
        assert.doesNotMatch((await load()).stdout, /success/)
        const unnamed = await delegate('anywhere', 'mine')
        assert.notEqual(unnamed.status, 0)
        // A user can come into it from the host's network.
        const own = await delegate('dev')
        assert.notEqual(own.status, 0)
        assert.match(own.stderr, /network/)
        const lent = await delegate('anywhere')
        assert.equal(lent.status, 0, lent.stderr)
        const { status, stdout, stderr } = await load()
        assert.equal(status, 0, stderr)
        assert.match(stdout, /success/)
        await lab.podman.asAlice('podman', 'rm', '--force', '--time=0', 'mine')
      })
  })
