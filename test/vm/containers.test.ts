/**
 * Containers that ask by annotation where there is a guard: the hook has the daemon lend to them,
 * and the guard holds them to it for as long as they live.
 *
 *   node --import tsx scripts/vm/vm.ts --kernel 6.12 --with .cache/vm/crun --tests test/vm/containers.test.ts
 */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, chownSync, existsSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { compiled } from '../../scripts/compiled.ts'
import { Client } from '../../src/client/client.ts'
import { Guard } from '../../src/guard/guard.ts'
import { installGuard, removeGuard } from '../../src/guard/install.ts'
import { hookPath } from '../../src/sys/prebuilt.ts'
import { Bpftokend } from '../helpers/bpftokend.ts'
import { CACHE } from '../helpers/machine.ts'
import { Scratch } from '../helpers/scratch.ts'
import { xdpObject } from '../helpers/xdp-object.ts'
import { eventually, skip as noGuard } from './guarded.ts'

const CRUN = join(CACHE, 'vm/crun')
const skip = noGuard || (existsSync(CRUN) ? false : 'the VM was given no crun: --with .cache/vm/crun')
const LIBRARIES = `${CRUN}/usr/lib/x86_64-linux-gnu:${CRUN}/lib/x86_64-linux-gnu`

const TOKEN = '/opt/token'
const PATH = '/sys/fs/bpf'
const CAPABILITIES = ['CAP_BPF', 'CAP_NET_ADMIN', 'CAP_SYS_ADMIN']
const FOLDERS = ['proc', 'sys', 'dev', 'usr', 'opt', 'srv', 'mnt', 'tmp', 'shared']

const POLICY = (name: string, more = ''): string => `apiVersion: bpftoken.dev/v1
kind: DelegationPolicy
metadata: { name: ${name} }
spec:
  rights:
    cmds: [map_create, prog_load, btf_load]
    maps: [array, hash]
    progs: [xdp, socket_filter]
    attachs: [xdp, cgroup_inet_ingress]
    capabilities: [bpf, net_admin]
  network: own
${more}`

/** Loads with an unmodified loader, which finds its token by itself. */
const LOAD = `/host/sbin/bpftool prog load /srv/pass.o ${PATH}/pass`

/** A container that runs. */
class Container implements AsyncDisposable {
  readonly #child: ChildProcess
  readonly ended: Promise<unknown>
  out = ''

  constructor(child: ChildProcess) {
    this.#child = child
    this.ended = once(child, 'close')
    for (const stream of [child.stdout!, child.stderr!])
      stream.setEncoding('utf8').on('data', text => {
        this.out += text
      })
  }

  get status(): number | null {
    return this.#child.exitCode
  }

  line(text = ''): void {
    this.#child.stdin!.write(`${text}\n`)
  }

  /** Once it has printed so many lines. */
  async lines(count: number): Promise<string[]> {
    const lines = (): string[] => this.out.split('\n').slice(0, -1)
    await eventually(() => lines().length >= count || this.status !== null, `${count} lines: ${this.out}`)
    return lines()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.stdin!.end()
    await this.ended
  }
}

describe('containers that ask, with the hook, the daemon and the guard', { skip }, () => {
  const scratch = new Scratch()
  let guard: Guard
  let daemon: Bpftokend
  let client: Client
  let made = 0

  before(async () => {
    await installGuard()
    guard = Guard.open()
    scratch.write('pass.o', xdpObject())
    mkdirSync(join(scratch.path, 'shared'))
    chmodSync(join(scratch.path, 'shared'), 0o777)
    daemon = new Bpftokend(scratch.path)
    writeFileSync(join(daemon.policies, 'strict.yaml'), POLICY('strict'))
    writeFileSync(
      join(daemon.policies, 'passing.yaml'),
      POLICY('passing', '  sharing: { passToken: true }\n'),
    )
    await daemon.ready()
    client = new Client({ socket: daemon.socket })
  })
  after(async () => {
    client?.close()
    await daemon?.[Symbol.asyncDispose]()
    guard?.[Symbol.dispose]()
    await removeGuard()
    scratch[Symbol.dispose]()
  })

  /** A container in a user namespace of its own that runs a script; undefined: it does not ask. */
  function start(policy: string | undefined, script: string): Container {
    const name = `c${made++}`
    const bundle = join(scratch.path, name)
    const firstId = 400_000 + made * 100_000
    for (const folder of FOLDERS) {
      mkdirSync(join(bundle, 'rootfs', folder), { recursive: true })
      chownSync(join(bundle, 'rootfs', folder), firstId, firstId)
    }
    chownSync(join(bundle, 'rootfs'), firstId, firstId)
    for (const link of ['bin', 'sbin', 'lib', 'lib64'])
      symlinkSync(`usr/${link}`, join(bundle, 'rootfs', link))
    mkdirSync(join(bundle, 'rootfs/host'))
    const bind = (source: string, destination: string, how = 'ro'): object => ({
      ...{ source, destination, type: 'bind', options: ['rbind', how] },
    })
    const ids = [{ containerID: 0, hostID: firstId, size: 65_536 }]
    const config = {
      ociVersion: '1.0.2',
      process: {
        user: { uid: 0, gid: 0 },
        args: ['sh', '-c', script],
        env: ['PATH=/usr/sbin:/usr/bin'],
        cwd: '/',
        capabilities: { bounding: CAPABILITIES, effective: CAPABILITIES, permitted: CAPABILITIES },
      },
      root: { path: 'rootfs' },
      mounts: [
        { destination: '/proc', type: 'proc', source: 'proc' },
        { destination: '/dev', type: 'tmpfs', source: 'tmpfs', options: ['nosuid', 'mode=755', 'size=64k'] },
        { destination: '/sys', type: 'sysfs', source: 'sysfs', options: ['nosuid', 'noexec', 'nodev'] },
        bind('/usr', '/usr'),
        bind(dirname(compiled(join(__dirname, 'token.c'))), '/opt'),
        bind(join(CACHE, 'host/usr'), '/host'),
        bind(scratch.path, '/srv'),
        bind(join(scratch.path, 'shared'), '/shared', 'rw'),
      ],
      hooks: {
        createRuntime: [{ path: hookPath(), args: ['bpftoken-hook', '--socket', daemon.socket] }],
      },
      annotations: policy === undefined ? {} : { 'bpftoken.dev/policy': policy },
      linux: {
        namespaces: ['pid', 'network', 'ipc', 'uts', 'mount', 'user'].map(type => ({ type })),
        uidMappings: ids,
        gidMappings: ids,
      },
    }
    writeFileSync(join(bundle, 'config.json'), JSON.stringify(config))
    const words = ['--cgroup-manager=disabled', 'run', '--bundle', bundle, name]
    return new Container(
      spawn(join(CRUN, 'usr/bin/crun'), words, { env: { PATH: '/usr/bin', LD_LIBRARY_PATH: LIBRARIES } }),
    )
  }

  async function run(policy: string | undefined, script: string): Promise<{ status: number; out: string }> {
    const container = start(policy, script)
    await container.ended
    return { status: container.status!, out: container.out }
  }

  /** How often the guard has refused something of that point so far, as the daemon tells it. */
  async function refused(point: string): Promise<number> {
    const { events } = await client.events({ query: { limit: 1000 } })
    return events.filter(event => event.point === point && event.verdict === 'refused').length
  }

  /** The loans that live, as the daemon has seen last; none of others that lend on this machine. */
  const lent = async () =>
    (await client.listLoans({ query: { state: 'live' } })).loans.filter(({ kind }) => kind !== 'adopted')
  const live = async (): Promise<number> => (await lent()).length

  test('one that asks loads with an unmodified loader; one that does not is refused', async () => {
    const lent = await run('strict', LOAD)
    assert.equal(lent.status, 0, `${lent.out}${daemon.log}`)
    const without = await run(undefined, LOAD)
    assert.notEqual(without.status, 0)
    assert.match(without.out, /Operation not permitted|EPERM/)
  })

  test('through a bind mount of it elsewhere, or a copy, no token is made; where it is, one is', async () => {
    const before = await refused('token_create')
    const { out } = await run(
      'strict',
      [
        `${TOKEN} map ${PATH}`,
        `mount --bind ${PATH} /mnt`,
        `${TOKEN} map /mnt`,
        `unshare --mount ${TOKEN} map ${PATH}`,
        `${TOKEN} map ${PATH}`,
      ].join('; '),
    )
    assert.deepEqual(out.trim().split('\n'), ['ok', 'token EACCES', 'token EACCES', 'ok'])
    await eventually(async () => (await refused('token_create')) === before + 2, 'two events say so')
  })

  test('an unmodified loader is refused there, too', async () => {
    const { status, out } = await run(
      'strict',
      `${TOKEN} map ${PATH}; mount --bind ${PATH} /mnt; LIBBPF_BPF_TOKEN_PATH=/mnt ${LOAD}`,
    )
    assert.notEqual(status, 0, out)
    assert.match(out, /failed \(-13\) to create BPF token from '\/mnt'/)
  })

  test('moved elsewhere, no token is made of it', async () => {
    const before = await refused('token_create')
    const script = `${TOKEN} map ${PATH}; mount --move ${PATH} /mnt; ${TOKEN} map /mnt`
    const { out } = await run('strict', script)
    assert.deepEqual(out.trim().split('\n'), ['ok', 'token EACCES'])
    await eventually(async () => (await refused('token_create')) === before + 1, 'an event says so')
  })

  /**
   * A process of the machine without a capability there. Root's name made the containers' user
   * namespaces: so it has every capability in those, and can use their tokens.
   */
  function outside(...words: readonly string[]): Container {
    const program = compiled(join(__dirname, 'token.c'))
    return new Container(spawn('setpriv', ['--bounding-set=-all', '--inh-caps=-all', program, ...words]))
  }

  /** A token that a container makes is passed to `to`, which makes a map under it. */
  async function passed(
    policy: string,
    receiver: (socket: string) => Container,
    body: (to: Container, from: Container, got: string) => Promise<void>,
  ): Promise<void> {
    const name = `passed-${made}`
    await using to = receiver(name)
    assert.deepEqual(await to.lines(1), ['listening'])
    await using from = start(policy, `${TOKEN} send ${PATH} /shared/${name}`)
    const [sent] = await from.lines(1)
    assert.equal(sent, 'ok', `${from.out}${daemon.log}`)
    await body(to, from, (await to.lines(2))[1]!)
  }
  const toContainer = (name: string): Container => start(undefined, `${TOKEN} receive /shared/${name}`)
  const toOutside = (name: string): Container => outside('receive', join(scratch.path, 'shared', name))

  test('a token that is passed to another container, or out of it, does not arrive', async () => {
    for (const receiver of [toContainer, toOutside]) {
      const before = await refused('receive')
      await passed('strict', receiver, async (_to, _from, got) => {
        assert.equal(got, 'none')
        await eventually(async () => (await refused('receive')) === before + 1, 'an event says so')
      })
    }
  })

  /** The one loan that lives, once those of other tests have ended. */
  async function onlyLoan(): Promise<string> {
    await eventually(async () => (await live()) === 1, 'others have ended')
    return (await lent())[0]!.id
  }

  test('by a policy that lets it be passed it arrives, outlives the container, and is revoked with its loan', async () => {
    await passed('passing', toOutside, async (to, from, got) => {
      assert.equal(got, 'ok')
      const loan = await onlyLoan()
      await from[Symbol.asyncDispose]()
      to.line()
      assert.equal((await to.lines(3))[2], 'ok')
      const { state } = await client.showLoan({ params: { id: loan } })
      assert.equal(state, 'live')
      await client.revoke({ body: { what: { loan } } })
      to.line()
      assert.equal((await to.lines(4))[3], 'map EPERM')
    })
  })

  test('where its container has ended, and then who it was passed to, its loan has ended too', async () => {
    let loan = ''
    await passed('passing', toOutside, async (to, from, got) => {
      assert.equal(got, 'ok')
      loan = await onlyLoan()
      await from[Symbol.asyncDispose]()
      await to[Symbol.asyncDispose]()
    })
    const shown = () => client.showLoan({ params: { id: loan } })
    await eventually(async () => (await shown()).state === 'ended', 'the loan has ended')
    assert.equal((await shown()).ended?.why, 'processes-gone')
    await eventually(() => guard.delegations().length === 0, 'a delegation is left')
  })

  test('revoked while it runs: a token that was made is of no use; another container goes on', async () => {
    const script = `${TOKEN} keep ${PATH}`
    const [one, other] = [start('strict', script), start('strict', script)]
    await using _one = one
    await using _other = other
    await Promise.all([one.lines(1), other.lines(1)])
    await eventually(async () => (await live()) === 2, 'others have ended')
    const [first] = await lent()
    await client.revoke({ body: { what: { loan: first!.id } } })
    for (const each of [one, other]) each.line()
    const ended = [await one.lines(2), await other.lines(2)].map(lines => lines[1])
    assert.deepEqual([...ended].sort(), ['map EPERM', 'ok'])
  })
})
