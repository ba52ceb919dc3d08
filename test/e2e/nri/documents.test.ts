/** The recipe for bubblewrap, as its page has it, with an unmodified program. Those for containerd and systemd are run by their tests. */
import assert from 'node:assert/strict'
import { chmodSync, copyFileSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { CLI, execute } from '../../helpers/cli.ts'
import { CACHE, needsProgram, ROOT } from '../../helpers/machine.ts'
import { Scratch } from '../../helpers/scratch.ts'
import { shellBlocks } from '../../helpers/shell-blocks.ts'
import { xdpObject } from '../../helpers/xdp-object.ts'

const [recipe] = shellBlocks('docs/containers/sandboxes.md').filter(({ name }) => name === 'bubblewrap')

/** How the recipe ends, as a shell that knows our command and bubblewrap runs it. */
async function run(script: string) {
  using scratch = new Scratch()
  const { path } = scratch
  copyFileSync(join(ROOT, 'examples/policies/libbpf-xdp.yaml'), join(path, 'policy.yaml'))
  scratch.write('pass.o', xdpObject())
  const bpftool = join(CACHE, 'host/usr/sbin/bpftool')
  scratch.write('agent', `#!/bin/sh\nexec '${bpftool}' prog load ${path}/pass.o /sys/fs/bpf/pass\n`, 0o755)
  scratch.write('bpftoken', `#!/bin/sh\nexec "${process.execPath}" "${CLI}" "$@"\n`, 0o755)
  symlinkSync(join(CACHE, 'host/usr/bin/bwrap'), join(path, 'bwrap'))
  chmodSync(path, 0o755)
  return await execute('sh', ['-c', script], { cwd: path, env: { PATH: `${path}:${process.env['PATH']}` } })
}

test(
  'the recipe for bubblewrap lends before the first instruction; without its delegation nothing loads',
  needsProgram('host/usr/bin/bwrap'),
  async () => {
    const done = await run(recipe!.script)
    assert.equal(done.status, 0, done.stderr)
    const without = await run(recipe!.script.replace(/^bpftoken .*\n/gm, ''))
    assert.notEqual(without.status, 0)
    assert.match(without.stderr, /EPERM|Operation not permitted/)
  },
)
