/**
 * bpftokend by the units of the package where there is a guard: Debian's systemd confines it, and it
 * uses the guard, and kills who holds what is taken back. Runs in a VM:
 *
 *   node --import tsx scripts/vm/vm.ts --kernel 6.12 --with .cache/vm/systemd --tests test/vm/daemon-unit.test.ts
 */
import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { after, before, describe, test } from 'node:test'
import { installGuard, removeGuard } from '../../src/guard/install.ts'
import { BootedSystemd } from '../helpers/booted-systemd.ts'
import { execute, type Result } from '../helpers/cli.ts'
import { installedFiles, PROGRAMS, UNIT } from '../helpers/daemon-machine.ts'
import { ROOT } from '../helpers/machine.ts'
import { show } from '../helpers/sid-systemd.ts'
import { eventually, skip } from './guarded.ts'
import { SYSTEMD_TREE } from './systemd.ts'

const POLICY = `apiVersion: bpftoken.dev/v1
kind: DelegationPolicy
metadata: { name: held }
spec:
  rights: { cmds: [map_create], maps: [hash], capabilities: [bpf] }
  limits: { maps: 4 }
`

/** Makes a token of what is lent at /sys/fs/bpf, when it is lent, and keeps it. */
const BORROWER = `
const { open } = require('/usr/lib/bpftoken/dist/sys/open.js')
const { tokenCreate } = require('/usr/lib/bpftoken/dist/sys/bpf.js')
const borrow = () => {
  try {
    globalThis.token = tokenCreate(open('/sys/fs/bpf', 0))
    require('node:fs').writeFileSync('/run/holds', 'a token')
  } catch { setTimeout(borrow, 100) }
}
setInterval(() => {}, 1e6)
borrow()
`

/** Node's C++ library: that tree has none. */
function standardLibrary(): Record<string, string> {
  const maps = readFileSync('/proc/self/maps', 'utf8')
  const path = /\s(\/\S*\/libstdc\+\+\.so\.6[.\d]*)$/m.exec(maps)?.[1]
  return path === undefined ? {} : { 'usr/lib/x86_64-linux-gnu/libstdc++.so.6': path }
}

const ENTER = `ip link set lo up
mount -t overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" overlay "$2/root"
cd "$2/root"`

const MOUNTS = [
  'mount --bind /sys/fs/bpf sys/fs/bpf',
  'mount -t tmpfs tmpfs run',
  ...Object.entries({ 'usr/lib/bpftoken': ROOT, 'usr/bin/node': process.execPath, ...standardLibrary() }).map(
    ([there, here]) => show(there, here),
  ),
].join('\n')

/** What the VM says to its own Node is not for that one. */
const CLEAN = ['/bin/busybox', 'env', '-i', 'PATH=/usr/bin:/usr/sbin:/bin']

const missing = skip || (existsSync(SYSTEMD_TREE) ? false : 'boot the VM --with .cache/vm/systemd')

describe('bpftokend under systemd, with a guard', { skip: missing }, () => {
  let systemd: BootedSystemd
  let first: string
  before(async () => {
    await installGuard()
    systemd = new BootedSystemd({
      tree: SYSTEMD_TREE,
      cgroup: '/sys/fs/cgroup/daemon-unit',
      folders: ['etc/bpftoken/policies', 'tmp', 'var/lib', 'var/tmp', 'home', 'root'],
      files: {
        ...installedFiles(),
        'etc/bpftoken/policies/held.yaml': POLICY,
        'etc/systemd/system/default.target': '[Unit]\nDefaultDependencies=no\n',
        borrower: BORROWER,
      },
      programs: PROGRAMS,
      enter: ENTER,
      mounts: MOUNTS,
    })
    const children = `/proc/${systemd.pid}/task/${systemd.pid}/children`
    await eventually(() => readFileSync(children, 'utf8') !== '', 'systemd does not start')
    first = readFileSync(children, 'utf8').trim()
    await eventually(
      async () => (await run('/bin/busybox', 'test', '-S', '/run/systemd/private')).status === 0,
      'systemd does not answer',
    )
    await must('systemctl', 'start', 'bpftokend.socket')
  })
  after(async () => {
    await systemd?.stop()
    await removeGuard()
  })

  const run = (...words: string[]): Promise<Result> =>
    execute('nsenter', ['--target', first, '--mount', '--pid', '--cgroup', '--', ...CLEAN, ...words])
  const must = async (...words: string[]): Promise<string> => {
    const { status, stdout, stderr } = await run(...words)
    assert.equal(status, 0, `${words.join(' ')}: ${stderr}${systemd.log}`)
    return stdout.trim()
  }
  const shell = (script: string): Promise<string> => must('/bin/busybox', 'sh', '-c', script)

  test('it finds the guard, and is confined', async () => {
    const { stdout, stderr } = await run('bpftoken', 'status', '--json')
    assert.notEqual(stdout, '', `${stderr}${systemd.log}`)
    const status = JSON.parse(stdout)
    assert.deepEqual(status.guard, { installed: true, mode: 'enforce' }, JSON.stringify(status.guard))
    const pid = await must('systemctl', 'show', '--value', '--property=MainPID', UNIT)
    assert.match(await must('/bin/busybox', 'cat', `/proc/${pid}/status`), /^Seccomp:\s+2$/m)
  })

  test('what it lends the guard holds to; taken back with --kill, it ends who held it, whoever that is', async () => {
    const node = '/usr/bin/node /borrower'
    const inside = `/bin/busybox setuidgid nobody /bin/busybox unshare -U -r -m -n ${node}`
    const pid = await shell(`${inside} >/dev/null 2>&1 & echo $!`)
    await eventually(
      async () => (await run('/bin/busybox', 'grep', '-c', 'node', `/proc/${pid}/comm`)).status === 0,
      'the borrower does not start',
    )
    const lent = JSON.parse(await must('bpftoken', 'delegate', '--pid', pid, '--policy', 'held', '--json'))
    const { id, record } = lent.loan
    assert.ok(record.delegation > 0, JSON.stringify(record))
    await eventually(
      async () => (await run('/bin/busybox', 'test', '-e', '/run/holds')).status === 0,
      'it has no token',
    )
    await must('bpftoken', 'revoke', id, '--kill')
    await eventually(
      async () => (await run('/bin/busybox', 'test', '-e', `/proc/${pid}`)).status !== 0,
      'it lives on',
    )
  })
})
