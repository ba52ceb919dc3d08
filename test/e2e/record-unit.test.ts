/**
 * bpftoken record --unit: what a unit of the newest systemd asks for while it runs as root is a
 * policy with which the same unit does its work in a user namespace of its own.
 */
import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { after, before, describe, test } from 'node:test'
import { residue, snapshot } from '../../scripts/residue.ts'
import { CLI } from '../helpers/cli.ts'
import { checkedDocument } from '../helpers/documents.ts'
import { eventually } from '../helpers/eventually.ts'
import { needsProgram } from '../helpers/machine.ts'
import { Scratch } from '../helpers/scratch.ts'
import { SidSystemd } from '../helpers/sid-systemd.ts'
import { xdpObject } from '../helpers/xdp-object.ts'

const untouched = snapshot()
const scratch = new Scratch()

/** Loads once it is told to, and tells how it ended. */
const unit = (name: string, settings = ''): string => `[Unit]
DefaultDependencies=no
[Service]
ExecStart=/bin/busybox sh -c 'until test -e /run/go-${name}; do /bin/busybox sleep 0.1; done; /usr/sbin/bpftool prog load /etc/pass.o /sys/fs/bpf/${name}; echo $$? >/run/done-${name}; exec /bin/busybox sleep 1000'
${settings}`
const OWN = 'PrivateUsers=yes\nDelegateNamespaces=mnt\nPrivateNetwork=yes\n'

describe('record --unit', needsProgram('sid/usr/bin/systemctl'), () => {
  let systemd: SidSystemd
  before(async () => {
    const at = (name: string) => `etc/systemd/system/${name}.service`
    systemd = await SidSystemd.start({
      'etc/pass.o': xdpObject(),
      [at('agent')]: unit('agent'),
      [at('other')]: unit('other'),
      [at('again')]: unit('again', OWN),
      [at('less')]: unit('less', OWN),
    })
    await systemd.systemctl('start', 'agent', 'other', 'again', 'less')
  })
  after(async () => {
    await systemd?.stop()
    scratch[Symbol.dispose]()
    assert.deepEqual(await residue(untouched), [])
  })

  /** The exit status of its loader. */
  async function works(name: string): Promise<string> {
    await systemd.execute('touch', `/run/go-${name}`)
    const done = `/run/done-${name}`
    await eventually(
      async () => (await systemd.execute('test', '-s', done)).status === 0,
      `${name} never ended`,
    )
    return (await systemd.execute('cat', done)).stdout.trim()
  }

  test("its calls and no other unit's, as a policy that is enough for it", async () => {
    const policy = scratch.write('recorded.yaml', '')
    const [noted, stop] = [scratch.write('noted', ''), `${scratch.path}/stop`]
    const record = `'${process.execPath}' '${CLI}' record --json --unit agent -o '${policy}' 2>'${noted}' & recorder=$!
      until test -e '${stop}'; do sleep 0.1; done; kill -INT $recorder; wait $recorder`
    const ended = systemd.execute('sh', '-c', record)
    await eventually(() => readFileSync(noted, 'utf8').includes('watching'), 'the recorder never began')
    assert.equal(await works('other'), '0')
    assert.equal(await works('agent'), '0')
    scratch.write('stop', '')
    const { status, stdout } = await ended
    assert.equal(status, 0, readFileSync(noted, 'utf8'))
    assert.ok(existsSync(policy))
    const { rights } = checkedDocument('record', stdout) as {
      rights: { domain: string; word: string; askers: { pid: number }[] }[]
    }
    const askers = rights.find(({ domain, word }) => domain === 'progs' && word === 'xdp')!.askers
    assert.equal(askers.length, 1)

    const lend = async (name: string, file: string): Promise<void> => {
      const { status, stderr } = await systemd.cli('delegate', '--policy', file, '--unit', name)
      assert.equal(status, 0, stderr)
    }
    await lend('again', policy)
    assert.equal(await works('again'), '0', systemd.log)
    const text = readFileSync(policy, 'utf8')
    const without = text.replace(/^ {6}- xdp .*\n/gm, '')
    assert.notEqual(without, text)
    await lend('less', scratch.write('less.yaml', without))
    assert.notEqual(await works('less'), '0')
  })
})
