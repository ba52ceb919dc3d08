/**
 * The recipe for systemd-nspawn, as its page has it: the newest systemd starts a container by its
 * own unit, which is lent to by the unit's name.
 */
import assert from 'node:assert/strict'
import { copyFileSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { CLI } from '../helpers/cli.ts'
import { eventually } from '../helpers/eventually.ts'
import { needsProgram, ROOT } from '../helpers/machine.ts'
import { AGENT, needsSandboxes, sandboxTree } from '../helpers/sandbox-machine.ts'
import { Scratch } from '../helpers/scratch.ts'
import { shellBlocks } from '../helpers/shell-blocks.ts'
import { SidSystemd } from '../helpers/sid-systemd.ts'
import { xdpObject } from '../helpers/xdp-object.ts'

const PAGE = 'docs/containers/sandboxes.md'
const [recipe] = shellBlocks(PAGE).filter(({ name }) => name === 'nspawn')
const [, SETTINGS] = /\n```ini\n([\s\S]*?)\n```\n/.exec(readFileSync(join(ROOT, PAGE), 'utf8'))!

/** What is in the container, which is none that could be booted. */
const CONTENT = `
[Exec]
Boot=no
Parameters=/agent
[Files]
BindReadOnly=/usr
BindReadOnly=/srv
`
/**
 * The unit without what a whole machine would start first, and without D-Bus, by which it would
 * register the container.
 */
const ALONE = `[Unit]
DefaultDependencies=no
[Service]
ExecStart=
ExecStart=systemd-nspawn --quiet --keep-unit --boot --link-journal=no -U --settings=override --register=no --machine=%i
StandardOutput=file:/srv/log
StandardError=file:/srv/log
`
const WEB = 'var/lib/machines/web'
/** By a path of this machine's programs there. */
const RESULT = `/proc/1/root/${WEB}/result`

const needs = needsProgram('sid/usr/bin/systemctl').skip !== undefined
const skip = needs ? needsProgram('sid/usr/bin/systemctl') : needsSandboxes('sid')

describe('systemd-nspawn of sid', skip, () => {
  const scratch = new Scratch()
  let systemd: SidSystemd
  before(async () => {
    scratch.write('pass.o', xdpObject())
    copyFileSync(join(ROOT, 'examples/policies/libbpf-xdp.yaml'), join(scratch.path, 'policy.yaml'))
    scratch.write('bpftoken', `#!/bin/sh\nexec "${process.execPath}" "${CLI}" "$@"\n`, 0o755)
    systemd = await SidSystemd.start(
      {
        'usr/lib/os-release': 'ID=test\n',
        'etc/systemd/system/systemd-nspawn@.service.d/alone.conf': ALONE,
        'etc/systemd/nspawn/web.nspawn': `${SETTINGS}${CONTENT}`,
        [`${WEB}/usr/empty`]: '',
        [`${WEB}/srv/empty`]: '',
        [`${WEB}/etc/os-release`]: 'ID=test\n',
        [`${WEB}/agent`]: AGENT('/srv').replace('#!/bin/sh', '#!/usr/bin/busybox sh'),
      },
      { tree: sandboxTree('sid'), programs: [`${WEB}/agent`], shown: { srv: scratch.path } },
    )
    for (const name of ['bin', 'sbin', 'lib', 'lib64'])
      await systemd.execute('ln', '-s', `usr/${name}`, `/proc/1/root/${WEB}/${name}`)
  })
  after(async () => {
    await systemd?.stop()
    scratch[Symbol.dispose]()
  })

  async function outcome(script: string): Promise<string> {
    const { path } = scratch
    const ran = await systemd.execute('sh', '-c', `cd "${path}" && PATH="${path}:$PATH" && ${script}`)
    const log = () => `${ran.stdout}${ran.stderr}${systemd.log}${readFileSync(join(path, 'log'), 'utf8')}`
    assert.equal(ran.status, 0, log())
    let text = ''
    await eventually(async () => {
      const { status, stdout } = await systemd.execute('cat', RESULT)
      text = stdout
      return status === 0
    }, `the agent has come to an end: ${systemd.log}`)
    await systemd.systemctl('stop', 'systemd-nspawn@web.service')
    return text
  }

  test('the recipe lends to the container of the unit', async () => {
    assert.match(await outcome(recipe!.script), /^attached$/m)
    assert.equal((await systemd.execute('rm', RESULT)).status, 0)
  })

  test('without our line it is refused', async () => {
    scratch.write('no-loan', '')
    const text = await outcome(recipe!.script.replace(/^bpftoken .*\n/gm, ''))
    assert.match(text, /Operation not permitted|EPERM/)
    assert.doesNotMatch(text, /^attached$/m)
  })
})
