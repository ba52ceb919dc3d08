/** bpftoken-nri gives no container a hook that others than root could replace: it does not start. */
import assert from 'node:assert/strict'
import { chmodSync, chownSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { execute } from '../../helpers/cli.ts'
import { ROOT } from '../../helpers/machine.ts'
import { NriPlugin } from '../../helpers/nri-plugin.ts'
import { Scratch } from '../../helpers/scratch.ts'

test('a hook that others could replace is refused at the start, with the reason; one of root is taken', async () => {
  using scratch = new Scratch()
  const place = { nri: join(scratch.path, 'nri.sock'), socket: join(scratch.path, 'daemon.sock') }
  const good = scratch.write('good', '', 0o755)
  const open = scratch.write('open', '', 0o755)
  chmodSync(open, 0o777)
  const foreign = scratch.write('foreign', '', 0o755)
  chownSync(foreign, 1000, 1000)
  const link = join(scratch.path, 'link')
  symlinkSync(good, link)
  for (const [hook, why] of [
    [open, 'others than its owner may write to it (mode 777)'],
    [foreign, 'it belongs to user 1000, not to root'],
    [link, `a symbolic link leads to it; it is ${good}`],
    [scratch.write('plain', ''), `${scratch.path}/plain is not executable`],
    ['/no/such/hook', 'there is no /no/such/hook'],
  ] as const) {
    const words = [join(ROOT, 'dist/nri/main.js'), '--nri', place.nri, '--hook', hook]
    const { status, stderr } = await execute(process.execPath, words)
    assert.deepEqual([status, stderr], [1, `bpftoken-nri: Root's containers must not call ${hook}: ${why}\n`])
  }
  await using plugin = new NriPlugin(place, place, '--hook', good)
  await plugin.said('bpftoken-nri is ready')
})
