/** The shell blocks of docs/administration.md, on a machine whose systemd runs the daemon. */
import assert from 'node:assert/strict'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { residue, snapshot } from '../../scripts/residue.ts'
import { CLI } from '../helpers/cli.ts'
import { type DaemonMachine, daemonMachine } from '../helpers/daemon-machine.ts'
import { needsProgram } from '../helpers/machine.ts'
import { Scratch } from '../helpers/scratch.ts'
import { shellBlocks } from '../helpers/shell-blocks.ts'

const BLOCKS = shellBlocks('docs/administration.md').filter(({ name }) => name === 'administrator')

describe('docs/administration.md', needsProgram('sid/usr/bin/systemctl'), () => {
  const untouched = snapshot()
  const scratch = new Scratch()
  let machine: DaemonMachine
  before(async () => {
    scratch.write('bpftoken', `#!/bin/sh\nexec "${process.execPath}" "${CLI}" "$@"\n`, 0o755)
    for (const folder of ['etc/policies', 'upper', 'work'])
      mkdirSync(join(scratch.path, folder), { recursive: true })
    machine = await daemonMachine({ shown: { 'etc/bpftoken': join(scratch.path, 'etc') } })
    await machine.systemd.systemctl('start', 'bpftokend.socket')
  })
  after(async () => {
    await machine?.systemd.stop()
    scratch[Symbol.dispose]()
    assert.deepEqual(await residue(untouched), [])
  })

  /** Shows that machine's /etc/bpftoken, since this machine may have none. */
  const run = async (script: string): Promise<string> => {
    const words = ['bash', '-euo', 'pipefail', '-c']
    const { path } = scratch
    const there = `mount -t overlay -o lowerdir=/etc,upperdir=${path}/upper,workdir=${path}/work overlay /etc
      mkdir -p /etc/bpftoken
      mount --bind ${path}/etc /etc/bpftoken
      export PATH=${path}:$PATH`
    const { status, stdout, stderr } = await machine.systemd.execute('env', ...words, `${there}\n${script}`)
    assert.equal(status, 0, stdout + stderr)
    return stdout
  }

  test('the first policy is there, and named', async () => {
    assert.match(await run(BLOCKS[0]!.script), /^dev\b/m)
  })

  test('what is watched says that there is one policy, an intact audit, and numbers', async () => {
    const said = await run(BLOCKS[1]!.script)
    assert.match(said, /^policies +1,/m)
    assert.match(said, /^intact: /m)
    assert.match(said, /^bpftoken_policy_faults 0$/m)
    for (const name of ['requests_waiting', 'guard_events_lost', 'loans_live'])
      assert.match(said, new RegExp(`^bpftoken_${name} \\d+$`, 'm'))
  })

  test('all blocks are run', () => assert.equal(BLOCKS.length, 2))
})
