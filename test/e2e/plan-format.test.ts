/**
 * What `plan --format` prints, taken by those whom it is for: a container that an unmodified Podman
 * starts with exactly these flags loads the object once it is lent to, and systemd knows each
 * setting.
 */
import assert from 'node:assert/strict'
import { existsSync, mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { residue, snapshot } from '../../scripts/residue.ts'
import { cli, execute } from '../helpers/cli.ts'
import { CACHE, needsProgram, ROOT } from '../helpers/machine.ts'
import { Podman } from '../helpers/podman.ts'
import { Scratch } from '../helpers/scratch.ts'
import { xdpObject } from '../helpers/xdp-object.ts'

const untouched = snapshot()
const scratch = new Scratch()
const OBJECT = scratch.write('pass.o', xdpObject())
const PROFILE = join(scratch.path, 'seccomp.json')

after(async () => {
  scratch[Symbol.dispose]()
  assert.deepEqual(await residue(untouched), [])
})

/** The flags of a command that is printed with one flag a line. */
function flagsOf(text: string): string[] {
  return [...text.matchAll(/^ {2}(--\S+) \\$/gm)].map(([, flag]) => flag!)
}

describe('podman', needsProgram('podman/usr/bin/podman'), () => {
  let podman: Podman
  let policy: string
  before(async () => {
    podman = await Podman.start()
    policy = scratch.write('pass.yaml', (await podman.cli('plan', OBJECT)).stdout)
  })
  after(() => podman.end())

  /** What bpftool says of loading the object in a container with these flags. */
  async function load(name: string, flags: readonly string[], lend: boolean) {
    const files = ['--volume', `${scratch.path}:/mnt:ro`, '--volume', `${ROOT}/.cache/host/usr/sbin:/srv:ro`]
    await podman.sleeper(name, ...flags, ...files)
    if (lend) {
      const lent = await podman.cli('delegate', '--container', name, '--policy', policy)
      assert.equal(lent.status, 0, lent.stderr)
    }
    const words = ['exec', name, '/srv/bpftool', 'prog', 'load', '/mnt/pass.o', '/sys/fs/bpf/pass']
    const result = await podman.execute('podman', ...words)
    await podman.remove(name)
    return result
  }

  test('with the flags and the seccomp profile of the plan the object loads', async () => {
    const planned = await podman.cli('plan', '--format', 'podman', '--seccomp-profile', PROFILE, OBJECT)
    assert.equal(planned.status, 0, planned.stderr)
    const flags = flagsOf(planned.stdout)
    assert.deepEqual(flags, [
      '--userns=auto',
      '--cap-add=BPF',
      '--cap-add=NET_ADMIN',
      `--security-opt=seccomp=${PROFILE}`,
    ])
    const loaded = await load('planned', flags, true)
    assert.equal(loaded.status, 0, loaded.stderr)
    const unlent = await load('unlent', flags, false)
    assert.notEqual(unlent.status, 0)
    assert.match(unlent.stderr, /Operation not permitted|EPERM/)
  })

  test('without the profile the default refuses bpf(2), as the text says', async () => {
    const planned = await podman.cli('plan', '--format', 'podman', OBJECT)
    assert.match(planned.stdout, /"\/usr\/share\/containers\/seccomp\.json", the default here, refuses/)
    const refused = await load('unfiltered', flagsOf(planned.stdout), true)
    assert.notEqual(refused.status, 0)
    assert.match(refused.stderr, /Operation not permitted|EPERM/)
  })

  test('without a capability of the plan it does not load', async () => {
    const planned = await podman.cli('plan', '--format', 'podman', '--seccomp-profile', PROFILE, OBJECT)
    const refused = await load(
      'bare',
      flagsOf(planned.stdout).filter(flag => flag !== '--cap-add=BPF'),
      true,
    )
    assert.notEqual(refused.status, 0)
  })

  test('the profile widens nothing else: perf_event_open(2) and setns(2) stay refused', async () => {
    const base = JSON.parse(readFileSync(join(CACHE, 'podman/usr/share/containers/seccomp.json'), 'utf8'))
    const made = JSON.parse(readFileSync(PROFILE, 'utf8'))
    assert.equal(made.syscalls.length, base.syscalls.length + 1)
    assert.deepEqual({ ...made, syscalls: [] }, { ...base, syscalls: [] })
    const mentions = (profile: { syscalls: { names: string[]; action: string }[] }, action: string) =>
      profile.syscalls.filter(rule => rule.action === action).flatMap(({ names }) => names)
    const without = (names: string[]) => names.filter(name => name !== 'bpf')
    for (const action of ['SCMP_ACT_ALLOW', 'SCMP_ACT_ERRNO'])
      assert.deepEqual(without(mentions(made, action)), without(mentions(base, action)))
  })
})

describe('systemd', needsProgram('sid/usr/bin/systemd-analyze'), () => {
  /** What systemd-analyze of sid's systemd says of a unit with this drop-in. */
  async function verify(dropIn: string): Promise<string> {
    const unit = `[Unit]\nDefaultDependencies=no\n[Service]\nExecStart=/bin/busybox true\n${dropIn}`
    const file = scratch.write('pass.service', unit)
    const script = [
      'mount --bind "$0" /mnt && mount -t tmpfs tmpfs /mnt/run && mount -t tmpfs tmpfs /mnt/tmp && mount -t proc proc /mnt/proc',
      'cp "$1" /mnt/run/pass.service && exec chroot /mnt systemd-analyze verify --man=no /run/pass.service',
    ].join(' && ')
    const tree = join(CACHE, 'sid')
    for (const directory of ['run', 'proc', 'tmp']) mkdirSync(join(tree, directory), { recursive: true })
    const { stdout, stderr } = await execute('unshare', ['--mount', 'sh', '-c', script, tree, file])
    // It looks at units of its own, too.
    return (stdout + stderr)
      .split('\n')
      .filter(line => /pass\.service|BPF/.test(line))
      .join('\n')
  }

  test('knows each setting, and would tell one that it does not know', async () => {
    const planned = (await cli(['plan', '--format', 'systemd', OBJECT])).stdout
    assert.match(planned, /^PrivateNetwork=yes$/m)
    assert.equal(await verify(planned), '')
    assert.match(await verify(planned.replace('BPFProgTypeXdp', 'BPFProgTypeXdq')), /BPFProgTypeXdq/)
    assert.match(await verify(planned.replace('PrivateBPF', 'PrivateBQF')), /PrivateBQF/)
  })
})

test('plan --seccomp-profile goes with the forms that name one, and says when there is none to make it of', async () => {
  const base = scratch.write('base.json', JSON.stringify({ defaultAction: 'SCMP_ACT_ERRNO', syscalls: [] }))
  const plan = (...words: string[]) => cli(['plan', OBJECT, ...words])
  for (const words of [[], ['--format', 'systemd'], ['--format', 'podman', '--json']])
    assert.equal((await plan('--seccomp-profile', PROFILE, ...words)).status, 2, words.join(' '))
  assert.equal((await plan('--format', 'podman', '--seccomp-base', base)).status, 2)
  const made = await plan('--format', 'docker', '--seccomp-profile', PROFILE, '--seccomp-base', base)
  assert.equal(made.status, 0, made.stderr)
  assert.deepEqual(JSON.parse(readFileSync(PROFILE, 'utf8')).syscalls[0].names, ['bpf'])
  const wrong = await plan('--format', 'docker', '--seccomp-profile', PROFILE, '--seccomp-base', OBJECT)
  assert.equal(wrong.status, 1)
  assert.match(wrong.stderr, /seccomp profile: it is no JSON/)
  if (existsSync('/usr/share/containers/seccomp.json') || existsSync('/etc/containers/seccomp.json')) return
  const none = await plan('--format', 'podman', '--seccomp-profile', PROFILE)
  assert.equal(none.status, 1)
  assert.match(none.stderr, /no default seccomp profile in \/etc\/containers\/seccomp\.json/)
})
