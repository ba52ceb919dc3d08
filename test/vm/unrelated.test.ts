/**
 * What the guard must never touch: BPF that nobody has delegated. The same work without the guard
 * and with it, by bpftool as root, in a privileged container, and by systemd for its units. Runs in
 * a VM:
 *
 *   node --import tsx scripts/vm/vm.ts --kernel 6.12 --with .cache/vm/systemd --tests test/vm/unrelated.test.ts
 */
import assert from 'node:assert/strict'
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { BpfMap } from '../../src/ebpf/map.ts'
import { GUARD_DIRECTORY } from '../../src/guard/directory.ts'
import { Guard } from '../../src/guard/guard.ts'
import { installGuard, removeGuard } from '../../src/guard/install.ts'
import { hasTokens, inVm, isRoot, ROOT } from '../helpers/machine.ts'
import { Scratch } from '../helpers/scratch.ts'
import { xdpObject } from '../helpers/xdp-object.ts'
import { SYSTEMD_TREE, Systemd } from './systemd.ts'

const skip = !isRoot
  ? 'needs root'
  : !inVm
    ? 'runs in a VM: make test-vm'
    : !readFileSync('/sys/kernel/security/lsm', 'utf8').split(',').includes('bpf') || !hasTokens()
      ? 'this kernel has no BPF LSM, or no tokens'
      : false

const NETWORK = join(ROOT, 'test/fixtures/network.bpf.o')
const DEVICE = 'unrelated'

/** Where commands run: the words that go before each. */
type Place = readonly string[]
const HOST: Place = []

function run(place: Place, ...command: string[]): string {
  const [program, ...args] = [...place, ...command]
  return execFileSync(program!, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] })
}

interface Listed {
  readonly id: number
  readonly name?: string
}

function bpftool<T = unknown>(place: Place, ...args: string[]): T {
  const text = run(place, 'bpftool', '--json', ...args)
  return (text.trim() === '' ? undefined : JSON.parse(text)) as T
}

/**
 * Loads, pins, creates, reads, attaches and lists; takes everything back, and throws where anything
 * fails.
 */
function work(place: Place): void {
  const pins = '/sys/fs/bpf/unrelated'
  const cgroup = '/sys/fs/cgroup/unrelated'
  const names = (kind: string): (string | undefined)[] =>
    bpftool<Listed[]>(place, kind, 'list').map(({ name }) => name)
  using scratch = new Scratch()
  const object = (section: string): string => scratch.write('object.o', xdpObject(section))
  mkdirSync(pins)
  mkdirSync(cgroup)
  try {
    bpftool(place, 'prog', 'load', NETWORK, `${pins}/network`, 'pinmaps', `${pins}/maps`)
    bpftool(place, 'prog', 'load', object('xdp'), `${pins}/xdp`)
    bpftool(place, 'prog', 'load', object('cgroup_skb/egress'), `${pins}/egress`)
    const loaded = bpftool<Listed>(place, 'prog', 'show', 'pinned', `${pins}/network`)
    assert.ok(names('prog').includes(loaded.name))

    const file = `${pins}/map`
    const element = [...'key hex 01 00 00 00'.split(' '), ...'value hex 02 00 00 00'.split(' ')]
    const shape = 'type hash key 4 value 4 entries 4 name unrelated_map'.split(' ')
    bpftool(place, 'map', 'create', file, ...shape)
    bpftool(place, 'map', 'update', 'pinned', file, ...element)
    const dumped = bpftool<object[]>(place, 'map', 'dump', 'pinned', file)
    assert.deepEqual(dumped, [
      { key: ['0x01', '0x00', '0x00', '0x00'], value: ['0x02', '0x00', '0x00', '0x00'] },
    ])
    assert.ok(names('map').includes('unrelated_map'), 'a list of maps goes on after those of the guard')

    bpftool(place, 'prog', 'load', object('raw_tp/sys_enter'), `${pins}/link`, 'autoattach')
    assert.ok(
      bpftool<{ type: string }[]>(place, 'link', 'list').some(({ type }) => type === 'raw_tracepoint'),
    )

    const egress = ['cgroup_inet_egress', 'pinned', `${pins}/egress`]
    bpftool(place, 'cgroup', 'attach', cgroup, ...egress, 'multi')
    assert.equal(bpftool<Listed[]>(place, 'cgroup', 'show', cgroup).length, 1)
    bpftool(place, 'cgroup', 'detach', cgroup, ...egress)

    run(place, 'ip', 'link', 'add', DEVICE, 'type', 'dummy')
    bpftool(place, 'net', 'attach', 'xdp', 'pinned', `${pins}/xdp`, 'dev', DEVICE)
    const attached = bpftool<{ xdp: { devname: string }[] }[]>(place, 'net', 'show')
    assert.deepEqual(
      attached.flatMap(net => net.xdp.map(({ devname }) => devname)),
      [DEVICE],
    )
    bpftool(place, 'net', 'detach', 'xdp', 'dev', DEVICE)
    run(place, 'ip', 'link', 'del', DEVICE)
  } finally {
    rmSync(pins, { recursive: true })
    rmdirSync(cgroup)
  }
}

/** Namespaces of its own, but the host's users and every capability. */
async function container(): Promise<ChildProcess> {
  const script = 'mount -t proc proc /proc && echo ready && exec sleep 1000'
  const child = spawn('unshare', ['-m', '-p', '-f', '--kill-child', '-n', '-C', 'sh', '-c', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  await new Promise(resolve => child.stdout.once('data', resolve))
  return child
}

async function inContainer(): Promise<void> {
  const child = await container()
  try {
    const first = readFileSync(`/proc/${child.pid}/task/${child.pid}/children`, 'utf8').trim()
    work(['nsenter', '-t', first, '-m', '-p', '-n', '-C', '--'])
  } finally {
    child.kill('SIGKILL')
    await new Promise(resolve => child.once('close', resolve))
  }
}

/** Unit: its settings, the one thing that it cannot do, and systemd's programs at its cgroup. */
const UNITS: Readonly<Record<string, readonly [settings: string, refused: string, programs: string[]]>> = {
  free: ['', '', []],
  address: ['IPAddressDeny=any', 'send', ['sd_fw_egress', 'sd_fw_ingress']],
  interface: ['RestrictNetworkInterfaces=~lo', 'send', ['sd_restrictif_e', 'sd_restrictif_i']],
  socket: ['SocketBindDeny=any', 'bind', ['sd_bind4', 'sd_bind6']],
  device: ['DevicePolicy=closed', 'device', ['sd_devices']],
  // An LSM program of systemd's own, attached once for all cgroups.
  filesystem: ['RestrictFileSystems=~debugfs', 'file', []],
}

async function units(): Promise<void> {
  const systemd = new Systemd(
    Object.fromEntries(Object.entries(UNITS).map(([name, [settings]]) => [name, settings])),
  )
  try {
    for (const [name, [, refused, programs]] of Object.entries(UNITS)) {
      const results = await systemd.results(name)
      const none = { send: 'allowed', bind: 'allowed', device: 'allowed', file: 'allowed' }
      assert.deepEqual(results, refused === '' ? none : { ...none, [refused]: 'refused' }, name)
      const attached = bpftool<Listed[] | undefined>(HOST, 'cgroup', 'show', systemd.cgroup(name)) ?? []
      assert.deepEqual(attached.map(program => program.name).sort(), programs, name)
    }
    const loaded = bpftool<Listed[]>(HOST, 'prog', 'list').map(({ name }) => name)
    assert.ok(loaded.includes('restrict_filesystems'))
  } finally {
    await systemd.stop()
  }
}

const skipSystemd = skip || (existsSync(SYSTEMD_TREE) ? false : 'boot the VM --with .cache/vm/systemd')

describe('without the guard', { skip }, () => {
  test('bpftool works as root', () => work(HOST))
  test('and in a privileged container', inContainer)
  test('systemd holds its units to their settings', { skip: skipSystemd }, units)
})

describe('with the guard', { skip }, () => {
  let guard: Guard

  before(async () => {
    await installGuard({ mode: 'enforce' })
    guard = Guard.open()
  })
  after(async () => {
    guard[Symbol.dispose]()
    await removeGuard()
  })

  /** The guard refuses to open its own maps, and tells of it. It must refuse nothing else. */
  async function untouched(body: () => void | Promise<void>): Promise<void> {
    const earlier = guard.totals()
    guard.pastEvents()
    await body()
    const events = guard.pastEvents()
    const own = events.filter(({ point, reason }) => point === 'protect' && reason === 'no-keeper')
    assert.deepEqual(
      events.filter(event => !own.includes(event)),
      [],
    )
    const { refused, ...others } = guard.totals()
    assert.deepEqual(
      { refused: refused - BigInt(own.length), ...others },
      { ...earlier },
      'and none that left no event',
    )
  }

  test('bpftool works as root', () => untouched(() => work(HOST)))
  test('and in a privileged container', () => untouched(inContainer))
  test('systemd holds its units to their settings', { skip: skipSystemd }, () => untouched(units))

  test('lists leave out the guard’s own maps, and nothing else', () => {
    const own = readdirSync(`${GUARD_DIRECTORY}/maps`).map(name => {
      using map = BpfMap.open(`${GUARD_DIRECTORY}/maps/${name}`)
      return map.info().id
    })
    using later = BpfMap.create({ type: 'array', keyBytes: 4, valueBytes: 4, maxEntries: 1, token: null })
    const listed = new Set(bpftool<Listed[]>(HOST, 'map', 'list').map(({ id }) => id))
    assert.ok(Math.max(...own) < later.info().id && listed.has(later.info().id))
    assert.deepEqual(
      own.filter(id => listed.has(id)),
      [],
    )
  })
})
