/**
 * Units of the newest systemd: lent to by name, and with the drop-in that `plan` prints, which
 * makes systemd itself lend.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { residue, snapshot } from '../../scripts/residue.ts'
import { cli } from '../helpers/cli.ts'
import { eventually } from '../helpers/eventually.ts'
import { needsProgram, ROOT } from '../helpers/machine.ts'
import { Scratch } from '../helpers/scratch.ts'
import { SidSystemd } from '../helpers/sid-systemd.ts'
import { xdpObject } from '../helpers/xdp-object.ts'

const untouched = snapshot()
const scratch = new Scratch()
const OBJECT = scratch.write('pass.o', xdpObject())
const POLICY = join(ROOT, 'examples/policies/libbpf-xdp.yaml')
const SLEEP = '/bin/busybox sleep 1000'
const OWN = 'PrivateUsers=yes\nDelegateNamespaces=mnt\nPrivateNetwork=yes\n'
const unit = (command: string, settings = ''): string =>
  `[Unit]\nDefaultDependencies=no\n[Service]\nExecStart=${command}\n${settings}`
const TWO = `/bin/busybox sh -c '/bin/busybox unshare -U -r -m ${SLEEP} & /bin/busybox unshare -U -r -m ${SLEEP} & wait'`
const LOAD = '/usr/sbin/bpftool prog load /etc/pass.o /sys/fs/bpf/pass'

describe('units', needsProgram('sid/usr/bin/systemctl'), () => {
  let systemd: SidSystemd
  before(async () => {
    const planned = (await cli(['plan', '--format', 'systemd', OBJECT])).stdout
    const less = planned.replace(',BPFProgTypeXdp', '')
    assert.notEqual(less, planned)
    const at = (name: string) => `etc/systemd/system/${name}.service`
    systemd = await SidSystemd.start({
      'etc/pass.o': readFileSync(OBJECT),
      [at('web')]: unit(SLEEP, OWN),
      [at('half')]: unit(SLEEP, 'PrivateUsers=yes\nPrivateNetwork=yes\n'),
      [at('around')]: unit(`/bin/busybox sh -c '/bin/busybox unshare -U -r -m -n ${SLEEP} & wait'`),
      [at('two')]: unit(TWO),
      [at('plain')]: unit(SLEEP),
      [at('idle')]: unit('/bin/busybox true', 'Type=oneshot\nRemainAfterExit=yes\n'),
      [at('planned')]: `${unit(LOAD, 'Type=oneshot\n')}${planned}\n`,
      [at('less')]: `${unit(LOAD, 'Type=oneshot\n')}${less}\n`,
    })
    await systemd.systemctl('start', 'web', 'half', 'around', 'two', 'plain', 'idle')
  })
  after(async () => {
    await systemd?.stop()
    scratch[Symbol.dispose]()
    assert.deepEqual(await residue(untouched), [])
  })

  const delegate = (...words: string[]) => systemd.cli('delegate', '--policy', POLICY, ...words)
  const mounts = async (pid: string): Promise<boolean> =>
    (await systemd.execute('cat', `/proc/${pid}/mountinfo`)).stdout.includes('delegate_cmds')

  test('explain --unit NAME: a unit without its own mounts, one without a loan, and one with', async () => {
    const explain = (name: string) => systemd.cli('explain', '--unit', name, '--', 'prog_load', 'xdp', 'xdp')
    const refused = async (name: string, cause: string): Promise<void> => {
      const { status, stdout, stderr } = await explain(name)
      assert.equal(status, 3, stderr)
      assert.equal(stdout.split('\n')[0], `prog_load xdp xdp: refused (EPERM): ${cause}`)
    }
    await refused('half', 'foreign-mounts')
    await refused('web', 'no-delegation')
    assert.equal((await delegate('--unit', 'web')).status, 0)
    const lent = await explain('web')
    assert.deepEqual([lent.status, lent.stdout.split('\n')[0]], [0, 'prog_load xdp xdp: allowed'])
    assert.equal((await systemd.cli('undelegate', '--unit', 'web')).status, 0)
  })

  test('delegate and undelegate --unit NAME: its main process', async () => {
    const pid = await systemd.property('web', 'MainPID')
    for (const name of ['web.service', 'web']) {
      const lent = await delegate('--unit', name)
      assert.equal(lent.status, 0, lent.stderr)
      assert.match(lent.stdout, new RegExp(`delegated to process ${pid} at`))
      assert.equal(await mounts(pid), true)
      const back = await systemd.cli('undelegate', '--unit', name)
      assert.equal(back.status, 0, back.stderr)
      assert.equal(await mounts(pid), false)
    }
  })

  test('where that one has no user namespace of its own, the process of the cgroup that has', async () => {
    const { status, stdout, stderr } = await delegate('--unit', 'around', '--dry-run', '--json')
    assert.equal(status, 0, stderr)
    const { pid } = JSON.parse(stdout).target
    assert.notEqual(String(pid), await systemd.property('around', 'MainPID'))
    assert.match((await systemd.execute('cat', `/proc/${pid}/cgroup`)).stdout, /around\.service/)
  })

  test('refused, and why: several, none of its own, no process, stopped, not there', async () => {
    const refusals: [string, RegExp][] = [
      ['two', /In unit two\.service there are processes in 2 different user or mount namespaces: \d+ /],
      ['plain', /In unit plain\.service no process has a user namespace of its own: \d+ "busybox"/],
      ['idle', /Unit idle\.service is active, and has no process|In unit idle\.service no process runs/],
      ['less', /Unit less\.service is inactive, and has no process to lend to/],
      ['nothing', /There is no unit nothing\.service/],
    ]
    for (const [name, why] of refusals) {
      const { status, stderr } = await delegate('--unit', name)
      assert.equal(status, 1, name)
      assert.match(stderr, why)
    }
    for (const name of ['--help', 'a b', '../x', ''])
      assert.equal((await delegate(`--unit=${name}`)).status, 2, name)
  })

  test('one that was restarted is another process', async () => {
    const first = await systemd.property('web', 'MainPID')
    await systemd.systemctl('restart', 'web')
    const second = await systemd.property('web', 'MainPID')
    assert.notEqual(second, first)
    const lent = await delegate('--unit', 'web')
    assert.equal(lent.status, 0, lent.stderr)
    assert.equal(await mounts(second), true)
  })

  test('a unit of a user is found by its cgroup, and root has none of that name', async () => {
    const cgroup = '/sys/fs/cgroup/user.slice/user-65534.slice/user@65534.service/app.slice/agent.service'
    const inside = ['unshare', '--user', '--map-root-user', '--mount', '--net', 'sleep', '1000']
    const start = `mkdir -p ${cgroup} && echo $$ >${cgroup}/cgroup.procs && exec setpriv --reuid 65534 --regid 65534 --clear-groups ${inside.join(' ')}`
    await systemd.execute('sh', '-c', `sh -c '${start}' >/dev/null 2>&1 &`)
    await eventually(async () => {
      const { stdout } = await systemd.execute('sh', '-c', `cat /proc/$(cat ${cgroup}/cgroup.procs)/comm`)
      return stdout === 'sleep\n'
    }, 'no process runs in the unit of nobody')
    const anywhere = scratch.write(
      'anywhere.yaml',
      readFileSync(POLICY, 'utf8').replace('network: own', 'network: host'),
    )
    const lend = (name: string) => systemd.cli('delegate', '--policy', anywhere, '--unit', name)
    const roots = await lend('agent')
    assert.equal(roots.status, 1)
    assert.match(roots.stderr, /There is no unit agent\.service/)
    const hers = await lend('nobody/agent')
    assert.equal(hers.status, 0, hers.stderr)
    assert.match(hers.stderr, /unit agent\.service of user nobody, process \d+ "sleep"/)
    assert.match((await lend('nobody/other')).stderr, /nobody has no unit other\.service/)
  })

  test('with the drop-in of plan systemd lends by itself, and no more than is planned', async () => {
    const planned = await systemd.execute('systemctl', 'start', 'planned')
    assert.equal(planned.status, 0, planned.stderr)
    const less = await systemd.execute('systemctl', 'start', 'less')
    assert.equal(less.status, 1)
    assert.notEqual(await systemd.property('less', 'ExecMainStatus'), '0')
  })
})
