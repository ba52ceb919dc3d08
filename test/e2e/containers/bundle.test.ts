/**
 * Containers of bare crun and runc that ask by annotation: lent to before their first instruction,
 * or not started, with the reason. Each refusal has its twin, which starts.
 */
import assert from 'node:assert/strict'
import { mkdirSync, readFileSync, rmSync, symlinkSync } from 'node:fs'
import { basename, join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { ATTACH, type Config, ContainerLab, RUNTIMES, type Runtime } from '../../helpers/container-lab.ts'
import { eventually } from '../../helpers/eventually.ts'
import { needsProgram, ROOT } from '../../helpers/machine.ts'
import { sidCommand } from '../../helpers/sid.ts'

type Edit = (config: Config, rootfs: string) => void

const policyIs =
  (name: string, more: object = {}): Edit =>
  config => {
    config.annotations = { 'bpftoken.dev/policy': name, ...more }
  }

describe('a bundle', needsProgram('podman/usr/bin/podman'), () => {
  let lab: ContainerLab
  before(async () => {
    lab = await ContainerLab.open()
    lab.policy('named', '  subjects: [{ container: { name: web, labels: { team: "net*" } } }]\n')
    lab.policy('pods', '  subjects: [{ kubernetes: { namespace: prod, labels: { app: agent } } }]\n')
    lab.policy('account', '  subjects: [{ kubernetes: { namespace: prod, serviceAccount: agent } }]\n')
    lab.policy('anywhere', '', 'host')
    lab.policy('asked', '  approval: required\n')
    await lab.client.reload()
  })
  after(() => lab[Symbol.asyncDispose]())

  let count = 0
  async function starts(edit: Edit, runtime: Runtime = 'crun', script = ATTACH): Promise<void> {
    const name = `starts-${++count}`
    lab.bundle(name, script, edit)
    const { status, stdout, stderr } = await lab.run(runtime, name)
    assert.equal(status, 0, `${stderr}\n${lab.daemon.log.slice(-3000)}`)
    assert.match(stdout, script === ATTACH ? /^attached\n$/ : /success/)
  }
  /** By the daemon's log, which says it whatever the runtime hides; runc passes the hook's words on. */
  async function refused(edit: Edit, why: RegExp, runtime: Runtime = 'crun'): Promise<void> {
    const name = `refused-${++count}`
    lab.bundle(name, 'echo started', edit)
    const log = lab.daemon.log.length
    const { status, stdout, stderr } = await lab.run(runtime, name)
    assert.notEqual(status, 0)
    assert.equal(stdout, '')
    await eventually(
      () => why.test(lab.daemon.log.slice(log)),
      `${why}: ${lab.daemon.log.slice(log)}`,
      10_000,
    )
    if (runtime === 'runc') assert.match(stderr, why)
  }

  for (const runtime of RUNTIMES)
    test(`${runtime}: an unmodified loader attaches XDP with the annotation, and cannot without`, async () => {
      await starts(() => {}, runtime)
      lab.bundle('silent', ATTACH, config => {
        config.annotations = {}
      })
      const alone = await lab.run(runtime, 'silent')
      assert.notEqual(alone.status, 0)
      assert.doesNotMatch(alone.stdout, /attached/)
    })

  for (const runtime of RUNTIMES)
    test(`${runtime}: docs/containers.md: what it says for bundles works as it stands`, async () => {
      const [, block] = /\n```json bundle\n([\s\S]*?)\n```\n/.exec(
        readFileSync(join(ROOT, 'docs/containers.md'), 'utf8'),
      )!
      const { hooks, annotations } = JSON.parse(block!)
      // As if it were installed, with the socket at its usual place.
      const [hook] = hooks.createRuntime
      const { path, args } = lab.hook
      assert.equal(basename(hook.path), basename(path))
      Object.assign(hook, { path, args })
      await starts(config => Object.assign(config, { hooks, annotations }), runtime)
    })

  for (const runtime of RUNTIMES)
    test(`${runtime}: a policy that there is not is refused, with the reason`, async () => {
      await refused(policyIs('none-such'), /There is no policy \\*"none-such\\*"/, runtime)
      await starts(policyIs('dev'), runtime)
    })

  test('a policy that names containers is for those that a runtime has announced so, by its id', async () => {
    const announce = (id: string, name: string, labels = { team: 'network' }) =>
      lab.client.announceContainers({
        body: {
          runtime: 'test',
          whole: true,
          containers: [{ id, name, labels, annotations: { 'bpftoken.dev/policy': 'named' } }],
        },
      })
    await refused(policyIs('named'), /no runtime has said of what container it is/)
    await announce(`refused-${count + 1}`, 'db')
    await refused(policyIs('named'), /no subject matches/)
    await announce(`refused-${count + 1}`, 'web', { team: 'other' })
    await refused(policyIs('named'), /no subject matches/)
    await announce(`starts-${count + 1}`, 'web')
    await starts(policyIs('named'))
    await lab.client.announceContainers({ body: { runtime: 'test', whole: true, containers: [] } })
  })

  test('of a pod the policy must name it: who wrote its annotations is not root', async () => {
    const announce = (id: string, policy: string, namespace = 'prod', app = 'agent') =>
      lab.client.announceContainers({
        body: {
          runtime: 'nri',
          whole: true,
          containers: [
            {
              id,
              pod: {
                name: 'p',
                uid: 'u',
                namespace,
                labels: { app },
                annotations: { 'bpftoken.dev/policy': policy },
              },
            },
          ],
        },
      })
    await announce(`refused-${count + 1}`, 'pods', 'test')
    await refused(() => {}, /no subject matches/)
    await announce(`refused-${count + 1}`, 'pods', 'prod', 'other')
    await refused(() => {}, /no subject matches/)
    // Without subjects it is root's alone to name.
    await announce(`refused-${count + 1}`, 'dev')
    await refused(() => {}, /no subject/)
    await announce(`refused-${count + 1}`, 'account')
    await refused(() => {}, /names what cannot be known here/)
    await announce(`refused-${count + 1}`, 'asked')
    await refused(() => {}, /must be approved each time/)
    await announce(`starts-${count + 1}`, 'pods')
    await starts(() => {})
    await lab.client.announceContainers({ body: { runtime: 'nri', whole: true, containers: [] } })
  })

  test('what the program could not use is refused with what to add, unless it says that it starts anyway', async () => {
    const without =
      (more: object = {}): Edit =>
      config => {
        policyIs('dev', more)(config, '')
        for (const set of ['bounding', 'effective', 'permitted'])
          config.process.capabilities[set] = ['CAP_NET_ADMIN']
      }
    await refused(without(), /cannot hold CAP_BPF.*--cap-add BPF/, 'runc')
    lab.bundle('anyway', 'grep -c delegate_cmds /proc/mounts', without({ 'bpftoken.dev/preflight': 'warn' }))
    const ran = await lab.run('crun', 'anyway')
    assert.deepEqual([ran.status, ran.stdout], [0, '1\n'], ran.stderr)
  })

  test('a seccomp profile that refuses bpf(2) is refused, and one that has it is not', async () => {
    const profile =
      (rules: object[]): Edit =>
      config => {
        config.linux.seccomp = { defaultAction: 'SCMP_ACT_ALLOW', syscalls: rules }
      }
    await refused(
      profile([{ names: ['acct', 'bpf'], action: 'SCMP_ACT_ERRNO', errnoRet: 1 }]),
      /seccomp profile refuses bpf\(2\)/,
    )
    await starts(profile([{ names: ['acct'], action: 'SCMP_ACT_ERRNO' }]))
  })

  test('a program that is not root needs its capabilities ambient', async () => {
    const user =
      (ambient: boolean): Edit =>
      config => {
        config.process.user = { uid: 1000, gid: 1000 }
        if (ambient)
          for (const set of ['inheritable', 'ambient'])
            config.process.capabilities[set] = config.process.capabilities.bounding
      }
    await refused(user(false), /has no CAP_BPF and is not root in its user namespace/)
    // Root alone pins there, which ip does: this one only loads.
    await starts(user(true), 'crun', `${sidCommand('veristat', '/mnt')} /srv/pass.o`)
  })

  test("the host's user namespace is refused with the remedy, and so is its network", async () => {
    const shares =
      (type: string, policy = 'dev'): Edit =>
      config => {
        policyIs(policy)(config, '')
        config.linux.namespaces = config.linux.namespaces.filter((one: Config) => one.type !== type)
        if (type === 'user') {
          delete config.linux.uidMappings
          delete config.linux.gidMappings
        }
        if (type === 'network') config.mounts = config.mounts.filter((one: Config) => one.type !== 'sysfs')
      }
    await refused(shares('user'), /would run in the user namespace of the host/, 'runc')
    await refused(shares('network'), /shares the host's network.*spec\.network: host/)
    const name = 'host-network'
    lab.bundle(name, 'grep -c delegate_cmds /proc/mounts', shares('network', 'anywhere'))
    const ran = await lab.run('crun', name)
    assert.deepEqual([ran.status, ran.stdout], [0, '1\n'], ran.stderr)
  })

  test('annotations of ours that are not known are refused by name', async () => {
    await refused(policyIs('dev', { 'bpftoken.dev/polcy': 'x' }), /There is no annotation .*polcy/)
    await refused(policyIs('dev', { 'bpftoken.dev/preflight': 'off' }), /there is \\*"warn/)
    await refused(policyIs('../dev'), /is no name of a policy/)
    await starts(policyIs('dev', { 'other.dev/policy': 'x' }))
  })

  for (const runtime of RUNTIMES)
    test(`${runtime}: the mount point is made where it is missing, also of a root that will be read-only`, async () => {
      const noSys =
        (readonly: boolean): Edit =>
        (config, rootfs) => {
          config.root.readonly = readonly
          rmSync(join(rootfs, 'sys'), { recursive: true })
          config.mounts = config.mounts.filter((one: Config) => one.type !== 'sysfs')
        }
      await starts(noSys(false), runtime)
      await starts(noSys(true), runtime)
      await starts(config => {
        config.root.readonly = true
      }, runtime)
    })

  test('a symbolic link in the way is refused', async () => {
    const linked =
      (to: string): Edit =>
      (config, rootfs) => {
        rmSync(join(rootfs, 'sys'), { recursive: true })
        mkdirSync(join(rootfs, 'run/fs/bpf'), { recursive: true })
        if (to !== '') symlinkSync(to, join(rootfs, 'sys'))
        config.mounts = config.mounts.filter((one: Config) => one.type !== 'sysfs')
      }
    await refused(linked('/run'), /symbolic link, .* is in the way/)
    await refused(linked('../../../../../../../../run'), /symbolic link, .* is in the way/)
    await starts(linked(''))
  })

  test('without the daemon a container that asks does not start, and says why', async () => {
    lab.daemon.kill('SIGKILL')
    await lab.daemon.ended
    lab.bundle('alone', 'echo started')
    const { status, stdout, stderr } = await lab.run('runc', 'alone')
    assert.notEqual(status, 0)
    assert.equal(stdout, '')
    assert.match(stderr, /container alone may not start: bpftokend cannot be asked \(ECONNREFUSED\)/)
    await lab.restart()
    await starts(() => {})
  })

  test('the loan is known by the container, at the path that the container has, and reached there', async () => {
    lab.bundle('lives', 'echo ready; read line')
    await using running = await lab.start('crun', 'lives')
    await running.says('ready')
    const find = async () => (await lab.loans()).find(({ record }) => record?.recipient.container === 'lives')
    await eventually(async () => {
      const status = (await find())?.status
      return status?.mounted === true && status.processes > 0 && status.drift.length === 0
    }, 'it is seen from the side of the container')
    const loan = await find()
    assert.equal(loan!.record!.mount!.path, '/sys/fs/bpf')
    assert.equal(loan!.policy, 'dev')
  })
})
