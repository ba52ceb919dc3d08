/**
 * bpftokend as the newest systemd runs it, by exactly the units of the package: started by its
 * socket, watched, reloaded, stopped, killed; and how it is confined while it lends.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { residue, snapshot } from '../../scripts/residue.ts'
import { asNobody, execute, inPublic, PUBLIC_CLI, type Result } from '../helpers/cli.ts'
import { type DaemonMachine, daemonMachine, UNIT, UNITS } from '../helpers/daemon-machine.ts'
import { eventually } from '../helpers/eventually.ts'
import { needsProgram, ROOT } from '../helpers/machine.ts'
import { Scratch } from '../helpers/scratch.ts'
import { sidCommand } from '../helpers/sid.ts'

const withoutFault = (faults: ReadonlyMap<string, string | undefined>): string[] =>
  [...faults].flatMap(([one, fault]) => (fault === undefined ? [one] : []))

/** What systemd-analyze gives for exposure, from 0 to 10; the unit says why it is no less. */
const MAX_EXPOSURE = 3.0
const DENIED = 3
const POLICIES = 'etc/bpftoken/policies'

const OF_ROOT = readFileSync(join(ROOT, 'examples/policies/packet-counter.yaml'), 'utf8')
const policy = (name: string, ...lines: string[]): string =>
  OF_ROOT.replace('name: packet-counter', `name: ${name}`).replace(
    '  network: own',
    ['  network: host', ...lines].join('\n'),
  )

const FILES = {
  [`${POLICIES}/dev.yaml`]: policy('dev'),
  [`${POLICIES}/own.yaml`]: OF_ROOT.replace('name: packet-counter', 'name: own'),
  [`${POLICIES}/hers.yaml`]: policy('hers', '  subjects: [{ user: 65534 }]'),
  [`${POLICIES}/others.yaml`]: policy('others', '  subjects: [{ user: 1 }]'),
}

const setting = (name: string): string[] =>
  [...readFileSync(join(UNITS, UNIT), 'utf8').matchAll(new RegExp(`^${name}=(.*)$`, 'gm'))].flatMap(
    ([, words]) => words!.split(' '),
  )

describe('bpftokend under systemd', needsProgram('sid/usr/bin/systemctl'), () => {
  const untouched = snapshot()
  let machine: DaemonMachine
  before(async () => {
    machine = await daemonMachine({ files: FILES })
    await machine.systemd.systemctl('start', 'bpftokend.socket')
  })
  after(async () => {
    await machine?.systemd.stop()
    assert.deepEqual(await residue(untouched), [])
  })

  const shell = async (script: string): Promise<string> => {
    const { status, stdout, stderr } = await machine.systemd.execute('sh', '-c', script)
    assert.equal(status, 0, `${script}: ${stderr}`)
    return stdout.trim()
  }
  /** Writes a drop-in of the service; without lines, removes it. */
  const configure = async (name: string, ...lines: string[]): Promise<void> => {
    const path = `/run/systemd/system/${UNIT}.d/${name}.conf`
    const text = ['[Service]', ...lines].join('\\n')
    await shell(
      lines.length === 0 ? `rm ${path}` : `mkdir -p ${dirname(path)} && printf '${text}\\n' >${path}`,
    )
    await machine.systemd.systemctl('daemon-reload')
  }
  const property = (name: string): Promise<string> => machine.systemd.property(UNIT, name)
  const mainPid = (): Promise<string> => property('MainPID')
  const isActive = async (): Promise<boolean> => (await property('ActiveState')) === 'active'

  /** Starts a process in namespaces that this user makes. */
  const workload = async (user: 'root' | 'nobody' = 'root'): Promise<string> => {
    const [command, words] = asNobody(['unshare'])
    const unshare = user === 'root' ? 'unshare' : [command, ...words].join(' ')
    const pid = await shell(`${unshare} -U -r -m -n sleep 1000 >/dev/null 2>&1 & echo $!`)
    await eventually(
      async () => (await shell(`cat /proc/${pid}/comm`)) === 'sleep',
      'the workload does not start',
    )
    return pid
  }
  /** One with a bpffs context that it has opened, and the number of that. */
  const opened = async (): Promise<[pid: string, context: string]> => {
    const open = `const c = require('${ROOT}/dist/sys/mount.js').fsopen('bpf'); console.log(c.number); setInterval(() => {}, 1e6)`
    const file = `/run/context-${process.hrtime.bigint()}`
    const pid = await shell(`unshare -U -r -m -n ${process.execPath} -e "${open}" >${file} 2>&1 & echo $!`)
    await eventually(async () => /^\d+$/.test(await shell(`cat ${file}`)), 'no context is opened')
    return [pid, await shell(`cat ${file}`)]
  }
  const mounts = async (pid: string): Promise<number> =>
    (await shell(`cat /proc/${pid}/mountinfo`)).split('delegate_cmds').length - 1
  const delegate = (pid: string, name = 'dev', ...more: string[]): Promise<Result> =>
    machine.bpftoken('delegate', '--pid', pid, '--policy', name, '--json', ...more)
  const lend = async (pid: string, name?: string): Promise<string> => {
    const { status, stdout, stderr } = await delegate(pid, name)
    assert.equal(status, 0, stderr)
    assert.equal(await mounts(pid), 1)
    return JSON.parse(stdout).loan.id
  }
  /** Without a guard the exit status says that tokens may stay; so it is the mount that counts. */
  const takeBack = async (loan: string): Promise<void> => {
    const { stdout, stderr } = await machine.bpftoken('revoke', loan)
    assert.match(stdout, /^taken back/, stderr)
  }
  const asks = (pid: string, name: string): Promise<Result> => {
    const command = ['delegate', '--pid', pid, '--policy', name]
    const [program, words] = asNobody([process.execPath, PUBLIC_CLI, ...command])
    return machine.systemd.execute(...(inPublic([program, ...words]).flat() as [string, ...string[]]))
  }
  const status = async () => {
    const { stdout, stderr } = await machine.bpftoken('status', '--json')
    assert.notEqual(stdout, '', stderr)
    return JSON.parse(stdout)
  }
  /** Of a loan, as the daemon tells it. */
  const stateOf = async (loan: string): Promise<string> => {
    const { status, stdout, stderr } = await machine.bpftoken('show', loan, '--json')
    assert.equal(status, 0, stderr)
    return JSON.parse(stdout).state
  }

  test('nothing runs until somebody asks; the first request starts it, and it says when it is ready', async () => {
    assert.equal(await property('ActiveState'), 'inactive')
    assert.equal(await shell('stat -c %a:%u /run/bpftoken /run/bpftoken/bpftokend.sock'), '755:0\n666:0')
    const { pid, policies } = await status()
    assert.equal(String(pid), await mainPid())
    assert.deepEqual([policies.loaded, policies.faults], [4, []])
    assert.equal(await isActive(), true)
    assert.equal(await property('StatusText'), 'Answering, with 4 policies')
  })

  test('it lends to namespaces of root and of users, and takes back', async () => {
    for (const user of ['root', 'nobody'] as const) {
      const pid = await workload(user)
      const loan = await lend(pid)
      await takeBack(loan)
      assert.equal(await mounts(pid), 0)
      assert.equal(await stateOf(loan), 'ended')
    }
  })

  test('a user asks for what is hers; not for what others are lent, and not for namespaces of others', async () => {
    const hers = await workload('nobody')
    const roots = await workload('root')
    const ok = await asks(hers, 'hers')
    assert.equal(ok.status, 0, ok.stderr)
    assert.equal(await mounts(hers), 1)
    for (const [pid, name] of [
      [await workload('nobody'), 'others'],
      [roots, 'hers'],
    ] as const) {
      const refused = await asks(pid, name)
      assert.equal(refused.status, DENIED, refused.stderr)
      assert.equal(await mounts(pid), 0)
    }
  })

  test('it is confined as the unit says, and its executors with it', async () => {
    await lend(await workload())
    const main = await mainPid()
    const cgroup = await property('ControlGroup')
    const pids = (await shell(`cat /sys/fs/cgroup${cgroup}/cgroup.procs`)).split('\n')
    assert.ok(pids.includes(main))
    assert.ok(pids.length >= 2, 'it has no executor')
    const allowed = setting('CapabilityBoundingSet').map(name => name.toLowerCase())
    for (const pid of pids) {
      const status = await shell(`cat /proc/${pid}/status`)
      const field = (name: string): string => new RegExp(`^${name}:\\s*(.*)$`, 'm').exec(status)![1]!
      assert.equal(field('NoNewPrivs'), '1')
      assert.equal(field('Seccomp'), '2')
      const { stdout } = await execute('capsh', [`--decode=${field('CapBnd')}`])
      assert.deepEqual(stdout.trim().split('=')[1]?.split(',').sort(), [...allowed].sort())
    }
    // It compares itself with workloads: it must be where the host is.
    for (const kind of ['net', 'pid', 'user', 'cgroup'])
      assert.equal(
        await shell(`readlink /proc/${main}/ns/${kind}`),
        await shell(`readlink /proc/1/ns/${kind}`),
      )
    const seen = await shell(`cat /proc/${main}/mountinfo`)
    const isReadOnly = (path: string): boolean =>
      new RegExp(`^\\S+ \\S+ \\S+ \\S+ ${path} ro\\b`, 'm').test(seen)
    for (const path of ['/', '/proc/sys', '/sys/fs/cgroup']) assert.ok(isReadOnly(path), path)
    for (const path of ['/var/lib/bpftoken', '/run/bpftoken']) assert.ok(!isReadOnly(path), path)
    assert.equal(await shell(`stat -c %a:%u /proc/${main}/root/var/lib/bpftoken`), '700:0')
  })

  test('systemctl reload: a bad policy fails it and changes nothing, and its status says so; a good one counts', async () => {
    const path = `/proc/1/root/${POLICIES}/dev.yaml`
    const reload = (): Promise<Result> => machine.systemd.execute('systemctl', 'reload', UNIT)
    const digest = async (): Promise<string> => {
      const { stdout } = await machine.bpftoken('policy', 'list', '--json')
      return JSON.parse(stdout).policies.find(({ name }: { name: string }) => name === 'dev').digest
    }
    const before = await digest()
    await shell(`printf 'kind: Nonsense\\n' >${path}`)
    assert.notEqual((await reload()).status, 0)
    assert.equal(await isActive(), true)
    assert.match(
      await property('StatusText'),
      /^Answering, with 4 policies\. 1 file has a fault, see its status$/,
    )
    const { policies } = await status()
    assert.match(policies.faults[0].file, /dev\.yaml$/)
    assert.equal(await digest(), before)
    await lend(await workload())
    await shell(`cat >${path} <<'END'\n${policy('dev').replace('[xdp]', '[xdp, socket_filter]')}\nEND`)
    const good = await reload()
    assert.equal(good.status, 0, good.stderr)
    assert.notEqual(await digest(), before)
    assert.equal(await property('StatusText'), 'Answering, with 4 policies')
    assert.deepEqual((await status()).policies.faults, [])
  })

  test('killed, it is started again; what was lent lives on, and is listed', async () => {
    const pid = await workload()
    const loan = await lend(pid)
    const first = await mainPid()
    await shell(`kill -KILL ${first}`)
    await eventually(
      async () => ![first, '0'].includes(await mainPid()) && (await isActive()),
      'it is not started again',
    )
    assert.equal(await property('NRestarts'), '1')
    assert.equal(await mounts(pid), 1)
    assert.equal(await stateOf(loan), 'live')
    await takeBack(loan)
    assert.equal(await mounts(pid), 0)
  })

  test('one that stands still is ended and started again by the watchdog, and what was lent lives on', async () => {
    await configure('watchdog', 'WatchdogSec=2s')
    await machine.systemd.systemctl('restart', UNIT)
    const pid = await workload()
    const loan = await lend(pid)
    const first = await mainPid()
    await shell(`kill -STOP ${first}`)
    await eventually(
      async () => ![first, '0'].includes(await mainPid()) && (await isActive()),
      'the watchdog does nothing',
    )
    assert.equal(await stateOf(loan), 'live')
    assert.equal(await mounts(pid), 1)
    // The twin: a process that answers the watchdog is left alone, for longer than that.
    const second = await mainPid()
    await shell('sleep 5')
    assert.equal(await mainPid(), second)
    await configure('watchdog')
    await machine.systemd.systemctl('restart', UNIT)
  })

  test('restarted while requests run, it loses none: each is lent once, and what is lent is what is known', async () => {
    const pids = await Promise.all(Array.from({ length: 8 }, () => workload()))
    const answers = pids.map(pid => delegate(pid))
    await machine.systemd.systemctl('restart', UNIT)
    const lent = (await Promise.all(answers)).map(({ status, stdout, stderr }) => {
      assert.equal(status, 0, stderr)
      return JSON.parse(stdout).loan.id as string
    })
    assert.equal(new Set(lent).size, pids.length)
    for (const [i, loan] of lent.entries()) {
      assert.equal(await stateOf(loan), 'live')
      assert.equal(await mounts(pids[i]!), 1)
    }
  })

  test('stopped, it leaves no process, ends nothing that is lent and no workload; the next request starts it', async () => {
    const pid = await workload()
    const loan = await lend(pid)
    await machine.systemd.systemctl('stop', UNIT)
    assert.equal(await property('Result'), 'success')
    assert.equal(await property('ExecMainStatus'), '0')
    assert.equal(await shell(`cat /sys/fs/cgroup/system.slice/${UNIT}/cgroup.procs 2>/dev/null || true`), '')
    assert.equal(await shell(`cat /proc/${pid}/comm`), 'sleep')
    assert.equal(await mounts(pid), 1)
    assert.equal(await shell('stat -c %a /run/bpftoken/bpftokend.sock'), '666')
    assert.equal(await stateOf(loan), 'live')
    assert.equal(await isActive(), true)
  })

  test(`systemd-analyze security: exposure is at most ${MAX_EXPOSURE.toFixed(1)}`, async t => {
    using scratch = new Scratch()
    const unit = scratch.write(UNIT, readFileSync(join(UNITS, UNIT)))
    const command = `${sidCommand('systemd-analyze')} security --offline=true --no-pager '${unit}'`
    const { stdout, stderr } = await execute('sh', ['-c', command])
    const exposure = Number(/Overall exposure level for bpftokend\.service: ([0-9.]+)/.exec(stdout)?.[1])
    t.diagnostic(`exposure ${exposure}`)
    assert.ok(exposure <= MAX_EXPOSURE, stdout + stderr)
  })

  /** What is done first of what cannot be done; undefined: all can be. */
  const fault = async (): Promise<string | undefined> => {
    if (!(await isActive())) return 'start'
    for (const user of ['root', 'nobody'] as const) {
      const pid = await workload(user)
      const { status: lent, stdout } = await delegate(pid)
      if (lent !== 0) return `lend to ${user}'s`
      await machine.bpftoken('revoke', JSON.parse(stdout).loan.id)
      if ((await mounts(pid)) !== 0) return `take back from ${user}'s`
    }
    if ((await asks(await workload('nobody'), 'hers')).status !== 0) return 'be asked by nobody'
    const [pid, context] = await opened()
    return (await delegate(pid, 'dev', '--context-fd', context)).status === 0
      ? undefined
      : 'lend by a context'
  }

  /** Each taken away alone from the setting: the first thing that then fails, by what was taken. */
  const without = async (name: string, all: readonly string[]): Promise<Map<string, string | undefined>> => {
    const faults = new Map<string, string | undefined>()
    for (const one of all) {
      await configure('without', `${name}=~${one}`)
      // systemd starts no unit that was started so often within seconds.
      await machine.systemd.execute('systemctl', 'reset-failed', UNIT)
      await machine.systemd.execute('systemctl', 'restart', UNIT)
      faults.set(one, await fault())
    }
    await configure('without')
    await machine.systemd.execute('systemctl', 'reset-failed')
    await machine.systemd.systemctl('start', 'bpftokend.socket')
    await machine.systemd.systemctl('restart', UNIT)
    assert.equal(await fault(), undefined)
    return faults
  }

  test('each of its capabilities is needed: without it, something cannot be done', async t => {
    const faults = await without('CapabilityBoundingSet', setting('CapabilityBoundingSet'))
    for (const [one, what] of faults) t.diagnostic(`without ${one} it cannot ${what}`)
    // It kills for `revoke --kill`, which takes a guard; there is none here.
    assert.deepEqual(withoutFault(faults), ['CAP_KILL'])
  })

  test('of the system calls that it has beyond those of all services, each is needed', async t => {
    const named = setting('SystemCallFilter').filter(word => /^[a-z]/.test(word))
    const faults = await without('SystemCallFilter', named)
    for (const [one, what] of faults) t.diagnostic(`without ${one} it cannot ${what}`)
    // In this order: the guard; mounts that a target has moved; what there is besides for
    // mountinfo.
    assert.deepEqual(withoutFault(faults), ['bpf', 'open_tree', 'statmount', 'listmount'])
  })

  test('what the unit leaves out on purpose would break it', async t => {
    for (const one of [
      'PrivateUsers=yes',
      'PrivatePIDs=yes',
      'ProcSubset=pid',
      'RestrictSUIDSGID=yes',
      'RestrictNamespaces=yes',
      'MemoryDenyWriteExecute=yes',
    ]) {
      await configure('more', one)
      await machine.systemd.execute('systemctl', 'restart', UNIT)
      const what = await fault()
      t.diagnostic(`with ${one} it cannot ${what}`)
      assert.notEqual(what, undefined, one)
      await machine.systemd.execute('systemctl', 'reset-failed')
      await machine.systemd.execute('systemctl', 'start', 'bpftokend.socket')
    }
    await configure('more')
    await machine.systemd.systemctl('restart', UNIT)
    assert.equal(await fault(), undefined)
  })

  test('in a network of its own it would lend to who is in the host’s; as it is, it refuses', async () => {
    // In the network of that machine, by a policy that wants another one.
    const neighbour = async (): Promise<string> => {
      const pid = await shell(
        `nsenter --net=/proc/1/ns/net unshare -U -r -m sleep 1000 >/dev/null 2>&1 & echo $!`,
      )
      await eventually(async () => (await shell(`cat /proc/${pid}/comm`)) === 'sleep', 'it does not start')
      return pid
    }
    assert.equal((await delegate(await neighbour(), 'own')).status, DENIED)
    await configure('more', 'PrivateNetwork=yes')
    await machine.systemd.systemctl('restart', UNIT)
    assert.equal((await delegate(await neighbour(), 'own')).status, 0)
    await configure('more')
    await machine.systemd.systemctl('restart', UNIT)
    assert.equal((await delegate(await neighbour(), 'own')).status, DENIED)
  })
})
