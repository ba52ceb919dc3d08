/**
 * bpftoken systemd dropin, with the newest systemd as the first process of a machine: an unmodified
 * bpftool in a unit loads with the drop-in, and does not without it.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { residue, snapshot } from '../../scripts/residue.ts'
import { NATIVE_SINCE } from '../../src/cli/systemd-dropin.ts'
import { loadVocabulary } from '../../src/lending/policy-text.ts'
import { systemdWord } from '../../src/policy/systemd-words.ts'
import { MASK_DOMAINS } from '../../src/policy/vocabulary.ts'
import { execute } from '../helpers/cli.ts'
import { needsProgram, ROOT } from '../helpers/machine.ts'
import { SidSystemd } from '../helpers/sid-systemd.ts'
import { xdpObject } from '../helpers/xdp-object.ts'

const POLICY = join(ROOT, 'examples/policies/libbpf-xdp.yaml')
/** Where the machine and its commands see the same files. */
const DIR = '/run/systemd/system'
const LOAD = '/usr/sbin/bpftool prog load /srv/pass.o /sys/fs/bpf/pass'

const unit = (...lines: readonly string[]): string =>
  ['[Unit]', 'DefaultDependencies=no', '[Service]', 'Type=oneshot', ...lines, ''].join('\n')

describe('bpftoken systemd dropin', needsProgram('sid/usr/bin/systemctl'), () => {
  const untouched = snapshot()
  let systemd: SidSystemd
  before(async () => {
    systemd = await SidSystemd.start({ 'srv/pass.o': xdpObject() })
    await shell(
      `mkdir -p ${DIR} && cat >${DIR}/agent.service <<'X'\n${unit('PrivateUsers=yes', `ExecStart=${LOAD}`)}X`,
    )
    await shell(
      `cat >${DIR}/users.service <<'X'\n${unit('User=nobody', `ExecStart=-/bin/true --x`, `ExecStart=${LOAD}`)}X`,
    )
    await systemd.systemctl('daemon-reload')
  })
  after(async () => {
    await systemd?.stop()
    assert.deepEqual(await residue(untouched), [])
  })

  async function shell(script: string): Promise<string> {
    const { status, stdout, stderr } = await systemd.execute('sh', '-c', script)
    assert.equal(status, 0, stderr)
    return stdout
  }
  const dropin = async (...words: readonly string[]) => {
    const { status, stdout, stderr } = await systemd.cli(
      'systemd',
      'dropin',
      ...words,
      '--dir',
      DIR,
      '--json',
    )
    assert.equal(status, 0, stderr)
    return JSON.parse(stdout)
  }
  /** Whether the unit's program loads. */
  const loads = async (name: string): Promise<boolean> => {
    await systemd.systemctl('daemon-reload')
    return (await systemd.execute('systemctl', 'start', name)).status === 0
  }

  test('with it an unmodified bpftool loads in a unit; without it, or without the mount namespace, it does not', async () => {
    assert.equal(await loads('agent.service'), false)
    const made = await dropin('agent', '--policy', POLICY)
    assert.deepEqual([made.unit, made.way, made.changed], ['agent.service', 'native', true])
    assert.ok(made.systemd >= NATIVE_SINCE)
    assert.match(made.next.join('\n'), /guard allow --implicit --exe \/usr\/lib\/systemd\/systemd-executor/)
    assert.equal(await loads('agent.service'), true, systemd.log)
    const again = await dropin('agent.service', '--policy', POLICY)
    assert.deepEqual([again.changed, again.text], [false, made.text])
    // The twin: what the drop-in says besides PrivateBPF= is needed.
    await shell(`sed -i /DelegateNamespaces/d ${made.file}`)
    assert.equal(await loads('agent.service'), false)
    const removed = await dropin('agent', '--remove')
    assert.deepEqual([removed.removed, (await dropin('agent', '--remove')).removed], [true, false])
    assert.equal(await loads('agent.service'), false)
  })

  test('a unit of a user gets the capabilities that its policy lends', async () => {
    await dropin('users', '--policy', POLICY)
    assert.equal(await loads('users.service'), true, systemd.log)
    await dropin('users', '--remove')
    assert.equal(await loads('users.service'), false)
  })

  test('for systemd 252 the program is started by bpftoken run; a unit of root is refused', async () => {
    const { text, way, next } = await dropin('users', '--policy', 'dev', '--systemd', '252', '--dry-run')
    assert.equal(way, 'run')
    assert.deepEqual(
      text.split('\n').filter((line: string) => line.startsWith('ExecStart')),
      [
        'ExecStart=',
        'ExecStart=-/usr/bin/bpftoken run --policy dev -- /bin/true --x',
        `ExecStart=/usr/bin/bpftoken run --policy dev -- ${LOAD}`,
      ],
    )
    assert.match(next.join('\n'), /subject user: nobody/)
    const { status, stderr } = await systemd.cli(
      'systemd',
      'dropin',
      'agent',
      '--policy',
      'dev',
      '--systemd',
      '252',
    )
    assert.deepEqual([status, /runs as root/.test(stderr)], [1, true], stderr)
    assert.equal(await shell(`ls ${DIR}/users.service.d/*.conf 2>/dev/null | wc -l`), '0\n')
  })

  test('what systemd does not hold to is refused', async () => {
    const limited = readFileSync(POLICY, 'utf8').replace('spec:\n', 'spec:\n  limits: { programs: 3 }\n')
    await shell(`cat >/run/limited.yaml <<'X'\n${limited}X`)
    const words = ['systemd', 'dropin', 'agent', '--policy', '/run/limited.yaml', '--dir', DIR] as const
    const { status, stderr } = await systemd.cli(...words)
    assert.deepEqual([status, /does not hold to spec\.limits\.programs/.test(stderr)], [4, true], stderr)
  })

  test('systemd knows the words of this kernel, but for those that are said to be missing', async () => {
    const core = await execute(
      'sh',
      ['-c', 'cat "$0"/.cache/sid/usr/lib/*/systemd/libsystemd-core-*.so', ROOT],
      {},
    )
    const vocabulary = await loadVocabulary()
    const unknown = MASK_DOMAINS.flatMap(domain =>
      [...vocabulary[domain].nameOfBit.values()].filter(word => {
        const known = systemdWord(domain, word)
        return known !== undefined && !core.stdout.includes(`${known}\0`)
      }),
    )
    // When it has this one, it is to be lent.
    assert.ok(!core.stdout.includes('BPFProgTypeSyscall\0'))
    assert.deepEqual(unknown, [])
  })
})
