/**
 * bpftokend under a systemd that is the first process of the machine, by exactly the units of the
 * package, with the guard. In a VM of its own:
 *
 *   node --import tsx scripts/vm/vm.ts --kernel 6.12 --systemd --tests test/vm/daemon-systemd.test.ts
 */
import assert from 'node:assert/strict'
import { mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { bootTimeNs, type DelegationId, delegationId, Guard } from '../../src/guard/guard.ts'
import { installGuard, removeGuard } from '../../src/guard/install.ts'
import { errnoName } from '../../src/uapi/errno.ts'
import { cli, execute, type Result } from '../helpers/cli.ts'
import { installedFiles, PROGRAMS, UNIT, UNITS } from '../helpers/daemon-machine.ts'
import { inOwnNamespaces } from '../kernel/daemon/service-lab.ts'
import { removeProgram, type Workload } from '../kernel/delegation/workload.ts'
import { eventually, skip as skipGuard } from './guarded.ts'

const isSystemd = readFileSync('/proc/1/comm', 'utf8').trim() === 'systemd'
const skip = skipGuard || (isSystemd ? false : 'boot the VM --systemd')

/** The file system of systemd and of its units. */
const MACHINE = '/proc/1/root'
const POLICIES = '/etc/bpftoken/policies'
const PATH = '/sys/fs/bpf'
const ALICE = 61001
/** For a hang: the daemon starts on an emulated processor. */
const START_MS = 600_000

const policy = (name: string, ...lines: string[]): string => `apiVersion: bpftoken.dev/v1
kind: DelegationPolicy
metadata: { name: ${name} }
spec:
  subjects: [{ user: ${ALICE} }]
  rights: { cmds: [map_create], maps: [hash], capabilities: [bpf] }
${lines.map(line => `  ${line}\n`).join('')}`

/** A try counts as refused when it fails, whatever the reason. Those that must succeed tell the rest. */
const PROBE = `#!/bin/busybox sh
attempt() { name=$1; shift; if /bin/busybox "$@" >/dev/null 2>&1; then echo "$name done"; else echo "$name refused"; fi; }
{
  attempt etc touch /etc/probe
  attempt state touch /var/lib/bpftoken/probe
  attempt sysctl sh -c '/bin/busybox cat /proc/sys/kernel/printk >/proc/sys/kernel/printk'
  attempt cgroup mkdir /sys/fs/cgroup/probe
  attempt device head -c 1 /dev/kmsg
  attempt null head -c 1 /dev/null
  attempt clock sh -c '! /bin/busybox date -s @$(/bin/busybox date +%s) 2>&1 | /bin/busybox grep -q permitted'
  attempt hostname hostname vm
  attempt internet ping -c 1 -W 5 127.0.0.1
  attempt network unshare -n true
  attempt chown chown 0:0 /var/lib/bpftoken
} >/var/lib/bpftoken/probed
`

/** Of a time as systemd shows it, such as `30s`. */
function secondsOf(text: string): number {
  const [, seconds] = /^(\d+)s$/.exec(text) ?? assert.fail(`"${text}" is no number of seconds`)
  return Number(seconds)
}

const PROBED = {
  etc: 'refused',
  state: 'done',
  sysctl: 'refused',
  cgroup: 'refused',
  device: 'refused',
  null: 'done',
  clock: 'refused',
  hostname: 'refused',
  internet: 'refused',
  network: 'refused',
  chown: 'refused',
}

describe('bpftokend under systemd, with the guard', { skip }, () => {
  let guard: Guard
  const workloads: Workload[] = []

  const write = (path: string, text: string | Uint8Array, mode = 0o644): void => {
    mkdirSync(dirname(MACHINE + path), { recursive: true })
    writeFileSync(MACHINE + path, text, { mode })
  }
  /** On systemd's machine, by its programs. */
  const there = (...command: string[]): Promise<Result> =>
    execute('nsenter', ['--target', '1', '--mount', '--', ...command])
  const systemctl = async (...words: string[]): Promise<string> => {
    const { status, stdout, stderr } = await there('systemctl', ...words)
    assert.equal(status, 0, `systemctl ${words.join(' ')}: ${stderr}`)
    return stdout.trim()
  }
  const property = (name: string): Promise<string> => systemctl('show', '--value', `--property=${name}`, UNIT)
  const mainPid = (): Promise<string> => property('MainPID')
  const startedAgain = (before: string): Promise<void> =>
    eventually(
      async () => ![before, '0'].includes(await mainPid()) && (await property('ActiveState')) === 'active',
      'it is not started again',
      START_MS,
    )

  before(async () => {
    await installGuard()
    guard = Guard.open()
    for (const [path, text] of Object.entries(installedFiles()))
      write(`/${path}`, text, PROGRAMS.includes(path) ? 0o755 : 0o644)
    write(`${POLICIES}/two.yaml`, policy('two', 'limits: { maps: 2, lifetime: 1h }'))
    write(`${POLICIES}/short.yaml`, policy('short', 'limits: { lifetime: 1h }'))
    await eventually(async () => (await there('systemctl', 'is-system-running')).stdout !== '', 'no systemd')
    await systemctl('daemon-reload')
    await systemctl('start', 'bpftokend.socket')
  })
  after(async () => {
    await there('systemctl', 'stop', UNIT, 'bpftokend.socket')
    for (const one of workloads) one[Symbol.dispose]()
    await Promise.all(workloads.map(one => one.exited))
    removeProgram()
    await eventually(() => guard.delegations().length === 0, 'a delegation is left')
    guard[Symbol.dispose]()
    await removeGuard()
  })

  /** The first request starts it. That takes an emulated processor longer than a client waits. */
  async function wake(): Promise<void> {
    await cli(['status'])
    await eventually(async () => (await property('ActiveState')) === 'active', 'nobody starts it', START_MS)
  }

  /** In namespaces of its own, which Alice has made. */
  async function workload(): Promise<Workload> {
    const made = await inOwnNamespaces(ALICE)
    workloads.push(made)
    return made
  }
  const json = async (...words: string[]) => {
    const { status, stdout, stderr } = await cli([...words, '--json'])
    assert.equal(status, 0, `bpftoken ${words.join(' ')}: ${stderr}`)
    return JSON.parse(stdout)
  }
  interface Lent {
    readonly id: string
    readonly delegation: DelegationId
    readonly token: number
    readonly inside: Workload
  }
  async function lend(name: string, ...more: string[]): Promise<Lent> {
    const inside = await workload()
    const { loan } = await json('delegate', '--pid', String(inside.pid), '--policy', name, ...more)
    const token = await inside.token(await inside.must('openat', -100, PATH, 0))
    return { id: loan.id, delegation: delegationId(loan.record.delegation), token, inside }
  }
  /** Makes a map, and keeps it. */
  async function map({ inside, token }: Lent): Promise<string> {
    const result = await inside.map('hash', token)
    return result < 0 ? errnoName(result) : 'ok'
  }
  /** The reasons of what the daemon keeps of it. */
  async function eventsOf({ delegation }: Lent): Promise<string[]> {
    const { status, stdout, stderr } = await cli(['events', '--delegation', String(delegation), '--json'])
    assert.equal(status, 0, stderr)
    return stdout.split('\n').flatMap(line => (line === '' ? [] : JSON.parse(line).reason))
  }
  const stateOf = async ({ id }: Lent): Promise<string> => (await json('show', id)).state

  test('nothing runs until somebody asks; the first request starts it, and it says when it is ready', async () => {
    assert.equal(await property('ActiveState'), 'inactive')
    await wake()
    const { pid, guard: held } = await json('status')
    assert.equal(String(pid), await mainPid())
    assert.ok(held !== undefined && held !== null, 'it has found the guard')
    assert.equal(await property('ActiveState'), 'active')
    assert.equal(await property('StatusText'), 'Answering, with 2 policies')
    assert.equal(readFileSync(`/proc/${pid}/cgroup`, 'utf8').trim(), `0::/system.slice/${UNIT}`)
  })

  test('what it lends is held by the guard, and it alone takes the guard’s events', async () => {
    const loan = await lend('two')
    assert.deepEqual([await map(loan), await map(loan), await map(loan)], ['ok', 'ok', 'EDQUOT'])
    await eventually(async () => (await eventsOf(loan)).includes('maps'), 'what was refused is not kept')
    assert.deepEqual(guard.pastEvents(), [])
  })

  for (const [title, signal] of [
    ['killed, it is started again', 'SIGKILL'],
    ['one that stands still is ended by the watchdog and started again', 'SIGSTOP'],
  ] as const)
    test(`${title}; meanwhile and later the guard holds what is lent`, async () => {
      const loan = await lend('two')
      assert.equal(await map(loan), 'ok')
      const first = await mainPid()
      process.kill(Number(first), signal)
      assert.deepEqual([await map(loan), await map(loan)], ['ok', 'EDQUOT'])
      await startedAgain(first)
      assert.equal(await stateOf(loan), 'live')
      assert.deepEqual([guard.delegation(loan.delegation).live.maps, await map(loan)], [2, 'EDQUOT'])
      // What was refused while nobody read was kept by the ring.
      await eventually(
        async () => (await eventsOf(loan)).includes('maps'),
        'the events of that time are lost',
      )
      await json('revoke', loan.id)
      assert.equal(await stateOf(loan), 'ended')
      assert.notEqual(await map(loan), 'ok')
    })

  test('one that turns is left alone by the watchdog, for longer than that takes', async () => {
    const [running, restarts] = [await mainPid(), await property('NRestarts')]
    const limit = BigInt(await property('WatchdogUSec').then(secondsOf)) * 1_000_000_000n
    const since = bootTimeNs()
    await eventually(() => bootTimeNs() > since + limit + 5_000_000_000n, 'time stands still')
    assert.deepEqual([await mainPid(), await property('NRestarts')], [running, restarts])
  })

  test('a loan that expires while it is stopped is of no use; the next request ends it', async () => {
    const loan = await lend('short', '--lifetime', '10s')
    const lasting = await lend('two')
    await systemctl('stop', UNIT)
    assert.equal(await property('Result'), 'success')
    const { expiresNs } = guard.delegation(loan.delegation)
    await eventually(() => bootTimeNs() > expiresNs!, 'its time does not come')
    assert.equal(await map(loan), 'EPERM')
    assert.equal(await map(lasting), 'ok')
    assert.equal(await property('ActiveState'), 'inactive')
    await wake()
    await eventually(async () => (await stateOf(loan)) === 'ended', 'it is not ended')
    assert.equal(await stateOf(lasting), 'live')
    assert.equal(await map(lasting), 'ok')
  })

  test('systemctl reload: a bad policy fails it and changes nothing; a good one counts', async () => {
    const path = `${POLICIES}/two.yaml`
    const good = readFileSync(MACHINE + path, 'utf8')
    write(path, 'kind: Nonsense\n')
    assert.notEqual((await there('systemctl', 'reload', UNIT)).status, 0)
    assert.equal(await property('ActiveState'), 'active')
    const before = await lend('two')
    assert.deepEqual([await map(before), await map(before), await map(before)], ['ok', 'ok', 'EDQUOT'])
    write(path, good.replace('maps: 2', 'maps: 1'))
    await systemctl('reload', UNIT)
    const now = await lend('two')
    assert.deepEqual([await map(now), await map(now)], ['ok', 'EDQUOT'])
  })

  test('the settings of the unit hold: a program in its place can do no more than they say', async () => {
    const unit = readFileSync(join(UNITS, UNIT), 'utf8')
    const instead = unit
      .replace(/^ExecStart=.*$/m, 'ExecStart=/probe')
      .replace('Type=notify', 'Type=oneshot')
      .replace(/^(Watchdog|Restart|ExecReload|Requires=|After=).*$/gm, '')
    const settings = /^(StateDirectory|ExecStart|Type)=.*$/gm
    write('/probe', PROBE, 0o755)
    write('/run/systemd/system/probe.service', instead)
    write('/run/systemd/system/free.service', `[Service]\n${instead.match(settings)!.join('\n')}\n`)
    await systemctl('daemon-reload')
    const probed = async (name: string): Promise<Record<string, string>> => {
      await systemctl('start', name)
      const text = readFileSync(`${MACHINE}/var/lib/bpftoken/probed`, 'utf8')
      return Object.fromEntries(
        text
          .trim()
          .split('\n')
          .map(line => line.split(' ')),
      )
    }
    assert.deepEqual(await probed('probe'), PROBED)
    const free = await probed('free')
    rmdirSync('/sys/fs/cgroup/probe')
    assert.deepEqual(
      Object.entries(free).filter(([, what]) => what !== 'done'),
      [],
      'without them all can be done',
    )
  })
})
