/**
 * The scripts of the Debian package: what they say, and ask of systemd. They run where their folders
 * are empty ones of their own. scripts/test-deb.sh installs the package itself.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { hookDocument } from '../../src/cli/hooks-d.ts'
import { execute } from '../helpers/cli.ts'
import { ROOT } from '../helpers/machine.ts'
import { Scratch } from '../helpers/scratch.ts'

const HOOK_FILE = '/usr/share/containers/oci/hooks.d/50-bpftoken.json'

interface Machine {
  /** Units that run. */
  readonly active?: readonly string[]
  readonly hookFile?: string
}

/** Everything that they look at or change is covered, in a mount namespace that ends with them. */
const PLACE = `
  for folder in /run /etc /var/lib /usr/share /sys/fs/bpf; do mount -t tmpfs tmpfs "$folder"; done
  mkdir -p /run/systemd/system /var/lib/bpftoken ${HOOK_FILE.replace(/\/[^/]*$/, '')}
  if [ -n "$HOOK_FILE" ]; then printf %s "$HOOK_FILE" >${HOOK_FILE}; fi
  exec "$@"`

/** The lines that the script says, and those of what it asked for. */
async function run(script: 'postinst' | 'prerm' | 'postrm', words: readonly string[], machine: Machine = {}) {
  using scratch = new Scratch()
  const asked = scratch.write('asked', '')
  for (const name of ['deb-systemd-helper', 'deb-systemd-invoke'])
    scratch.write(name, `#!/bin/sh\necho ${name.replace('deb-systemd-', '')} "$@" >>${asked}\n`, 0o755)
  const [active, once] = [machine.active ?? [], 'systemctl --quiet is-active ']
  scratch.write(
    'systemctl',
    `#!/bin/sh\ncase "systemctl $*" in ${active.map(unit => `"${once}${unit}") exit 0 ;;`).join(' ')} "${once}"*) exit 3 ;; esac\n`,
    0o755,
  )
  const { status, stderr } = await execute(
    'unshare',
    ['--mount', 'sh', '-c', PLACE, 'sh', 'sh', join(ROOT, 'packaging/debian', script), ...words],
    { env: { PATH: `${scratch.path}:/usr/sbin:/usr/bin:/sbin:/bin`, HOOK_FILE: machine.hookFile ?? '' } },
  )
  assert.equal(status, 0, stderr)
  return {
    said: stderr.split('\n').slice(0, -1),
    asked: readFileSync(asked, 'utf8').split('\n').slice(0, -1),
  }
}

const NRI = 'bpftoken-nri.service'
const LAUNCHER = 'bpftoken-launchd'

test('an upgrade restarts the daemon and the plugin if they run, and starts neither when it is new', async () => {
  const { said, asked } = await run('postinst', ['configure', '0.1'])
  assert.deepEqual(said, [])
  assert.ok(
    asked.includes(`invoke try-restart bpftokend.service ${NRI} ${LAUNCHER}.service`),
    asked.join('\n'),
  )
  assert.ok(asked.includes(`helper update-state ${NRI} ${LAUNCHER}.socket`), asked.join('\n'))
  const fresh = (await run('postinst', ['configure', ''])).asked
  assert.ok(fresh.includes('invoke start bpftokend.socket'), fresh.join('\n'))
  assert.doesNotMatch(fresh.join('\n'), /restart|(start|enable) bpftoken-(nri|launchd)/)
})

test('a removal stops both, and says so of those that ran; an upgrade stops nothing', async () => {
  const stop = `invoke stop ${NRI} ${LAUNCHER}.socket ${LAUNCHER}.service bpftokend.socket bpftokend.service`
  const idle = await run('prerm', ['remove'])
  assert.deepEqual(idle, { said: [], asked: [stop] })
  const plugin = await run('prerm', ['remove'], { active: [NRI] })
  assert.deepEqual(plugin.asked, [stop])
  assert.match(plugin.said.join('\n'), /^bpftoken: bpftoken-nri is stopped: .* without a loan$/)
  const both = await run('prerm', ['remove'], { active: [NRI, 'bpftokend.service'] })
  assert.match(
    both.said.join('\n'),
    /bpftokend is stopped\.[\s\S]*bpftoken revoke --all[\s\S]*bpftoken-nri is stopped/,
  )
  assert.deepEqual(await run('prerm', ['upgrade', '0.2'], { active: [NRI] }), { said: [], asked: [] })
})

test('a removal names the file by which Podman calls the removed hook, and no file that calls another', async () => {
  const removed = (program: string) =>
    run('prerm', ['remove'], { hookFile: hookDocument(program, undefined) })
  const { said } = await removed('/usr/lib/bpftoken/prebuilds/linux-x64/bpftoken-hook')
  assert.equal(said.length, 1, said.join('\n'))
  assert.ok(said[0]!.startsWith(`bpftoken: ${HOOK_FILE} calls the removed program`), said[0])
  assert.deepEqual((await removed('/usr/local/lib/node_modules/bpftoken/bpftoken-hook')).said, [])
})

test('a purge forgets the units of both', async () => {
  const { said, asked } = await run('postrm', ['purge'])
  assert.ok(
    asked.includes(`helper purge bpftokend.socket bpftokend.service ${NRI} ${LAUNCHER}.socket`),
    asked.join('\n'),
  )
  assert.match(said.join('\n'), /removing \/var\/lib\/bpftoken/)
  assert.deepEqual((await run('postrm', ['remove'])).said, [])
})
