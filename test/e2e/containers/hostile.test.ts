/**
 * Hostile containers, bundles and callers of the hook: each is refused, or harmless, with the twin
 * that is let through. Nothing is ever mounted where the host, or another container, has it.
 */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import {
  chmodSync,
  copyFileSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { hookPath } from '../../../src/sys/prebuilt.ts'
import { asNobody, execute, type Result } from '../../helpers/cli.ts'
import { ATTACH, type Config, ContainerLab, type Running } from '../../helpers/container-lab.ts'
import { eventually } from '../../helpers/eventually.ts'
import { needsProgram } from '../../helpers/machine.ts'

type Edit = (config: Config, rootfs: string) => void

/** A process in namespaces of its own with a root prepared, as a runtime has it when it calls hooks. */
class Unborn implements AsyncDisposable {
  readonly rootfs: string
  readonly #child: ChildProcess
  readonly #ended: Promise<unknown>

  private constructor(rootfs: string, child: ChildProcess) {
    this.rootfs = rootfs
    this.#child = child
    this.#ended = once(child, 'exit')
  }

  static async open(rootfs: string): Promise<Unborn> {
    mkdirSync(join(rootfs, 'sys/fs/bpf'), { recursive: true })
    const child = spawn(
      'unshare',
      [
        '--user',
        '--map-root-user',
        '--mount',
        '--net',
        'sh',
        '-c',
        'mount --bind "$0" "$0" && echo ready && exec cat',
        rootfs,
      ],
      { stdio: ['pipe', 'pipe', 'inherit'] },
    )
    await once(child.stdout!, 'data')
    return new Unborn(rootfs, child)
  }

  get pid(): number {
    return this.#child.pid!
  }

  get mounts(): string {
    return readFileSync(`/proc/${this.pid}/mountinfo`, 'utf8')
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.stdin!.end()
    await this.#ended
  }
}

describe('hostile:', needsProgram('podman/usr/bin/podman'), () => {
  let lab: ContainerLab
  let unborn: Unborn
  let count = 0
  before(async () => {
    lab = await ContainerLab.open()
    lab.policy('account', '  subjects: [{ kubernetes: { namespace: prod, serviceAccount: agent } }]\n')
    lab.policy('others', '  subjects: [{ kubernetes: { namespace: prod, labels: { app: other } } }]\n')
    lab.policy('pods', '  subjects: [{ kubernetes: { namespace: prod, labels: { app: agent } } }]\n')
    await lab.client.reload()
    copyFileSync(hookPath(), join(lab.scratch.path, 'hook'))
    chmodSync(join(lab.scratch.path, 'hook'), 0o755)
    unborn = await Unborn.open(join(lab.scratch.path, 'unborn'))
  })
  after(async () => {
    await unborn?.[Symbol.asyncDispose]()
    await lab?.[Symbol.asyncDispose]()
  })

  const state = (more: object = {}): Record<string, unknown> => ({
    ociVersion: '1.0.2',
    id: `by-hand-${++count}`,
    status: 'created',
    pid: unborn.pid,
    bundle: lab.scratch.path,
    root: unborn.rootfs,
    annotations: { 'bpftoken.dev/policy': 'dev', 'bpftoken.dev/preflight': 'warn' },
    ...more,
  })
  /** Calls the hook by hand, as root of this machine. */
  const call = (input: object | string): Promise<Result> =>
    execute(hookPath(), ['--socket', lab.socket], {
      input: typeof input === 'string' ? input : JSON.stringify(input),
    })
  const refused = ({ status, stderr }: Result, why: RegExp): void => {
    assert.equal(status, 1, stderr)
    assert.match(stderr, why)
    assert.doesNotMatch(unborn.mounts, /delegate_/)
  }
  /** It is lent, and taken back so that the next one finds nothing. */
  async function lent(input: object): Promise<void> {
    const { status, stderr } = await call(input)
    assert.equal(status, 0, stderr)
    assert.match(unborn.mounts, /\/unborn\/sys\/fs\/bpf .* delegate_|\/unborn\/sys\/fs\/bpf .*delegate_/)
    const { id } = input as { id: string }
    await lab.client.revoke({ body: { what: { container: id } } })
    assert.doesNotMatch(unborn.mounts, /delegate_/)
  }
  async function runs(edit: Edit, script = ATTACH): Promise<Result> {
    const name = `hostile-${++count}`
    lab.bundle(name, script, edit)
    return lab.run('crun', name)
  }
  const nothingOutside = async (): Promise<void> => {
    const own = readFileSync('/proc/self/mountinfo', 'utf8')
    const ofPodman = await lab.podman.execute('cat', '/proc/self/mountinfo')
    for (const line of `${own}${ofPodman.stdout}`.split('\n'))
      if (line.includes(lab.scratch.path)) assert.doesNotMatch(line, /delegate_/)
  }

  test('1 from inside a container nobody is believed, whoever it says to be; root outside is', async () => {
    const forged = JSON.stringify(state({ pid: 1, root: '/', bundle: '/' }))
    const inside = await runs(config => {
      config.process.args[2] = `echo '${forged}' | /srv/hook --socket /srv/run/s.sock; echo "status $?"`
    }, '')
    assert.match(inside.stdout, /^status 1$/m, inside.stderr)
    assert.match(inside.stderr, /it is rootless/)
    const denied = await lab.audited('lend.denied')
    assert.match(JSON.stringify(denied[0]), /Only root may do this/)
    await lent(state())
  })

  test('2 an ordinary user calls the hook by hand, also for a process of root: refused and written down', async () => {
    const before = (await lab.audited('lend.denied')).length
    const [command, words] = asNobody([join(lab.scratch.path, 'hook'), '--socket', lab.socket])
    const { status, stderr } = await execute(command, words, { input: JSON.stringify(state()) })
    assert.equal(status, 1)
    assert.match(stderr, /may not start/)
    assert.equal((await lab.audited('lend.denied')).length, before + 1)
    assert.doesNotMatch(unborn.mounts, /delegate_/)
    await lent(state())
  })

  test('3 an ordinary user announces no container; root does', async () => {
    const script = `require('http').request({socketPath: process.argv[1], path: '/v1/containers', method: 'POST', headers: {'content-type': 'application/json'}}, r => { console.log(r.statusCode); r.destroy() }).end(JSON.stringify({runtime: 'x', whole: true, containers: []}))`
    const [command, words] = asNobody([process.execPath, '-e', script, lab.socket])
    assert.equal((await execute(command, words)).stdout, '403\n')
    assert.equal((await execute(process.execPath, ['-e', script, lab.socket])).stdout, '200\n')
  })

  test('4 a bundle that lies about its root: the host, no mount, nothing, what another has', async () => {
    refused(await call(state({ root: '/' })), /is that of this machine/)
    refused(await call(state({ root: '/proc/self/root' })), /may not start/)
    refused(await call(state({ root: '/usr/share' })), /is no mount of its own/)
    refused(await call(state({ root: '/no/such/root' })), /ENOENT/)
    refused(await call(state({ root: '/proc' })), /may not start/)
    refused(await call(state({ root: undefined })), /Nobody says where/)
    await lent(state({ root: 'unborn' }))
  })

  test('5 a process that is not the one: of the host, none, one that has its root already', async () => {
    refused(await call(state({ pid: process.pid })), /user namespace of the host/)
    refused(await call(state({ pid: 0x7fff_ffff })), /may not start/)
    for (const pid of [0, -1, 1.5, '7', 2 ** 53]) refused(await call(state({ pid })), /state\.pid|number/)
    lab.bundle('runs', 'echo ready; read line')
    await using running: Running = await lab.start('crun', 'runs')
    await running.says('ready')
    const loan = (await lab.loans()).find(({ record }) => record?.recipient.container === 'runs')
    refused(await call(state({ pid: loan!.record!.recipient.pid })), /may not start/)
    await lent(state())
  })

  test('6 a stage that is too late', async () => {
    refused(await call(state({ status: 'running' })), /not being made/)
    await lent(state({ status: 'creating' }))
  })

  test('7 words that two readers understand in two ways, and what is no JSON', async () => {
    const good = JSON.stringify(state())
    refused(await call(good.replace('"pid":', '"pid":1,"pid":')), /is no JSON/)
    refused(await call(`${good}x`), /is no JSON/)
    refused(await call(good.replace('created', 'crea\0ted')), /is no JSON/)
    refused(await call(''), /is no JSON/)
    refused(await call('[]'), /is no JSON/)
    // As crun writes it.
    await lent(JSON.parse(good))
    const slashes = state()
    const { status, stderr } = await call(JSON.stringify(slashes).replaceAll('/', '\\/'))
    assert.equal(status, 0, stderr)
    await lab.client.revoke({ body: { what: { container: String(slashes['id']) } } })
  })

  test('8 a megabyte of annotations, and a thousand and one', async () => {
    const long = { 'bpftoken.dev/policy': 'dev', x: 'y'.repeat(1 << 20) }
    refused(await call(state({ annotations: long })), /more than 160 KiB/)
    const many = Object.fromEntries(Array.from({ length: 1001 }, (_, i) => [`k${i}`, 'v']))
    refused(
      await call(state({ annotations: { ...many, 'bpftoken.dev/policy': 'dev' } })),
      /more than 1000 keys/,
    )
    const { annotations } = state() as { annotations: object }
    await lent(state({ annotations: { ...annotations, x: 'y'.repeat(1 << 14) } }))
  })

  test('9 names that lead elsewhere, or to the terminal of whoever reads them', async () => {
    for (const id of ['../../x', 'a/b', '', 'a'.repeat(256)]) refused(await call(state({ id })), /state\.id/)
    const { stderr } = await call(
      state({ id: '\x1b[2Jx', annotations: { 'bpftoken.dev/policy': '\x1b[2J' } }),
    )
    assert.ok(!stderr.includes('\x1b'), stderr)
    await lent(state({ id: 'plain.name-1' }))
  })

  test('10 a config.json that hangs, is too long, or is no JSON', async () => {
    const bundle = join(lab.scratch.path, 'odd')
    mkdirSync(bundle)
    spawnSync('mkfifo', [join(bundle, 'config.json')])
    refused(await call(state({ bundle })), /config\.json is no file/)
    rmSync(join(bundle, 'config.json'))
    writeFileSync(join(bundle, 'config.json'), ' '.repeat(1 << 21))
    refused(await call(state({ bundle })), /more than 1 MiB/)
    writeFileSync(join(bundle, 'config.json'), '{"root":{},"root":{}}')
    refused(await call(state({ bundle })), /is no JSON/)
    writeFileSync(join(bundle, 'config.json'), '{"annotations":{"bpftoken.dev/policy":"all"}}')
    refused(await call(state({ bundle })), /differ in bpftoken\.dev\/policy/)
    writeFileSync(
      join(bundle, 'config.json'),
      '{"linux":{"seccomp":{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["bpf"]}]}}}',
    )
    refused(await call(state({ bundle })), /syscalls.*action/)
    rmSync(join(bundle, 'config.json'))
    await lent(state({ bundle }))
  })

  test('11 a file, or a link, where the mount shall be', async () => {
    const at = join(unborn.rootfs, 'sys/fs/bpf')
    for (const make of [
      () => writeFileSync(at, ''),
      () => symlinkSync('/etc', at),
      () => symlinkSync('../../../../../../etc', at),
    ]) {
      rmSync(at, { recursive: true, force: true })
      make()
      refused(await call(state()), /is in the way/)
    }
    rmSync(at)
    await lent(state())
  })

  test('12 a root whose directories are swapped while the hook runs: it is mounted in it, or refused', async () => {
    const fs = join(unborn.rootfs, 'sys/fs')
    const swapper = spawn(process.execPath, [
      '-e',
      `const fs = require('fs'), [, at, out] = process.argv
       fs.symlinkSync(out, at + '.link')
       for (const end = Date.now() + 60000; Date.now() < end && !fs.existsSync(at + '.stop');) {
         fs.renameSync(at, at + '.dir'); fs.renameSync(at + '.link', at)
         fs.renameSync(at, at + '.link'); fs.renameSync(at + '.dir', at)
       }`,
      fs,
      join(lab.scratch.path, 'outside'),
    ])
    mkdirSync(join(lab.scratch.path, 'outside/bpf'), { recursive: true })
    const ended = once(swapper, 'exit')
    for (let i = 0; i < 20; i++) {
      const one = state()
      const { status } = await call(one)
      await nothingOutside()
      assert.doesNotMatch(unborn.mounts, /\/outside\/.*delegate_/)
      if (status !== 0) continue
      await lab.client.revoke({ body: { what: { container: String(one['id']) } } })
    }
    writeFileSync(`${fs}.stop`, '')
    await ended
    rmSync(`${fs}.stop`)
    // What could not be taken back while it moved is within that root, known, and can be now.
    for (const line of unborn.mounts.split('\n'))
      if (line.includes('delegate_')) assert.match(line, /\/unborn\/sys\/fs(\.dir)?\/bpf /)
    await eventually(async () => {
      await lab.client.revoke({ body: { what: { policy: 'dev' } } }).catch(() => {})
      return !unborn.mounts.includes('delegate_')
    }, `all can be taken back: ${unborn.mounts}`)
    await lent(state())
  })

  test('13 a root whose mounts would spread to the host do not', async () => {
    const { status, stdout, stderr } = await runs(config => {
      config.linux.rootfsPropagation = 'shared'
    })
    assert.deepEqual([status, stdout], [0, 'attached\n'], stderr)
    await nothingOutside()
  })

  test('14 two hooks for one container: the second finds what the first has lent, and it does not start', async () => {
    const twice = await runs(config => config.hooks.createRuntime.push(lab.hook), 'echo started')
    assert.notEqual(twice.status, 0)
    assert.equal(twice.stdout, '')
    assert.match(lab.daemon.log, /has a delegation at \/sys\/fs\/bpf already/)
    assert.equal((await runs(() => {})).stdout, 'attached\n')
  })

  test('15 two containers of one user namespace have each its own, and one outlives the other', async () => {
    lab.bundle('first', 'echo ready; read line; grep -c delegate_cmds /proc/mounts')
    await using first = await lab.start('crun', 'first')
    await first.says('ready')
    const of = async (name: string) =>
      (await lab.loans()).find(({ record }) => record?.recipient.container === name)
    const { pid, userNamespace } = (await of('first'))!.record!.recipient
    lab.bundle('second', 'echo ready; read line', config => {
      config.linux.namespaces.find((one: Config) => one.type === 'user').path = `/proc/${pid}/ns/user`
      delete config.linux.uidMappings
      delete config.linux.gidMappings
    })
    await using second = await lab.start('crun', 'second')
    await second.says('ready')
    assert.equal((await of('second'))!.record!.recipient.userNamespace, userNamespace)
    await lab.client.revoke({ body: { what: { container: 'second' } } })
    assert.equal(await of('second'), undefined)
    await eventually(async () => (await of('first'))?.status?.mounted === true, 'the first has its own still')
    assert.match(readFileSync(`/proc/${pid}/mountinfo`, 'utf8'), /\/sys\/fs\/bpf .*delegate_/)
  })

  test('16 a container that is killed while it is lent to leaves nothing', async () => {
    await using dying = await Unborn.open(join(lab.scratch.path, 'dying'))
    const one = state({ pid: dying.pid, root: dying.rootfs })
    const [result] = await Promise.all([call(one), dying[Symbol.asyncDispose]()])
    assert.ok(result.status === 0 || result.status === 1)
    await eventually(
      async () => !(await lab.loans()).some(({ record }) => record?.recipient.container === one['id']),
      'nothing of it lives',
    )
    await nothingOutside()
    renameSync(dying.rootfs, `${dying.rootfs}.gone`)
  })

  test("17 a pod that names another's service account, wherever it writes it, is not that one", async () => {
    const names = {
      serviceAccount: 'agent',
      'kubernetes.io/service-account.name': 'agent',
      'io.kubernetes.pod.serviceAccount': 'agent',
    }
    const announce = (id: string, policy: string) =>
      lab.client.announceContainers({
        body: {
          runtime: 'nri',
          whole: true,
          containers: [
            {
              id,
              labels: names,
              pod: {
                ...{ name: 'agent', namespace: 'prod', uid: 'u', labels: { ...names, app: 'agent' } },
                annotations: { ...names, 'bpftoken.dev/policy': policy },
              },
            },
          ],
        },
      })
    for (const [policy, why, event] of [
      ['account', /names what cannot be known here/, 'lend.refused'],
      ['others', /no subject matches/, 'lend.denied'],
    ] as const) {
      const one = state({ annotations: names })
      await announce(String(one['id']), policy)
      const before = (await lab.audited(event)).length
      refused(await call(one), why)
      assert.equal((await lab.audited(event)).length, before + 1)
    }
    const one = state({ annotations: names })
    await announce(String(one['id']), 'pods')
    await lent(one)
    await lab.client.announceContainers({ body: { runtime: 'nri', whole: true, containers: [] } })
  })

  test('18 root of another pid namespace means another process by the number: refused and written down', async () => {
    const before = (await lab.audited('lend.denied')).length
    const apart = ['--pid', '--fork', '--mount', '--mount-proc', hookPath(), '--socket', lab.socket]
    const called = await execute('unshare', apart, { input: JSON.stringify(state()) })
    refused(called, /from the pid namespace of the daemon alone/)
    assert.equal((await lab.audited('lend.denied')).length, before + 1)
    const near = ['--mount', hookPath(), '--socket', lab.socket]
    const one = state()
    const { status, stderr } = await execute('unshare', near, { input: JSON.stringify(one) })
    assert.equal(status, 0, stderr)
    await lab.client.revoke({ body: { what: { container: String(one['id']) } } })
  })

  test('19 one that says of itself that the hook is to go on, or of another policy, in its environment or labels', async () => {
    const lies: Edit = config => {
      config.annotations = { 'other.dev/policy': 'dev', 'x-bpftoken.dev/policy': 'dev' }
      config.process.env.push('bpftoken.dev/policy=dev', 'BPFTOKEN_POLICY=dev')
      config.linux.annotations = { 'bpftoken.dev/policy': 'dev' }
    }
    const { status, stdout } = await runs(lies, 'grep -c delegate_cmds /proc/mounts')
    assert.deepEqual([status, stdout], [1, '0\n'])
    assert.equal((await runs(() => {})).stdout, 'attached\n')
  })
})
