/**
 * Unmodified programs do their work under `bpftoken run` with their policy of the library, and not
 * without the right that it is about.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { residue, snapshot } from '../../scripts/residue.ts'
import { PUBLIC, publicCli } from '../helpers/cli.ts'
import { needsProgram, ROOT } from '../helpers/machine.ts'
import { Scratch } from '../helpers/scratch.ts'
import { SID, sidCommand } from '../helpers/sid.ts'
import { xdpObject } from '../helpers/xdp-object.ts'

const before = snapshot()
const scratch = new Scratch()
const OBJECT = scratch.write('pass.o', xdpObject())

after(async () => {
  scratch[Symbol.dispose]()
  assert.deepEqual(await residue(before), [])
})

/** A program of the sid tree, where the repository is shown to everybody. */
const sid = (program: string): string => sidCommand(program, SID.replace(ROOT, PUBLIC))
const OBJECTS = `LIBXDP_OBJECT_PATH=${join(SID.replace(ROOT, PUBLIC), 'usr/lib/x86_64-linux-gnu/bpf')}`
const attached = `${sid('ip')} link show dev lo | grep -q prog/xdp`

/** Each ends with status 0 exactly when the program did its work. */
const TOOLS = [
  {
    policy: 'bpftool-prog-load',
    script: `${sid('bpftool')} prog load ${OBJECT} /sys/fs/bpf/pass && test -f /sys/fs/bpf/pass`,
  },
  { policy: 'xdp-loader', script: `${OBJECTS} ${sid('xdp-loader')} load -m skb lo ${OBJECT} && ${attached}` },
  { policy: 'xdp-filter', script: `${OBJECTS} ${sid('xdp-filter')} load -m skb lo && ${attached}` },
] as const

for (const { policy, script } of TOOLS)
  test(`${policy}: the tool works under its policy`, needsProgram('sid/usr/sbin/xdp-filter'), async () => {
    const file = join(ROOT, `examples/policies/library/${policy}.yaml`)
    const run = (by: string) => publicCli(['run', '--policy', by, '--', 'sh', '-c', script])
    const { status, stdout, stderr } = await run(file)
    assert.equal(status, 0, stdout + stderr)
    const text = readFileSync(file, 'utf8')
    const without = text.replace(/^ {6}- xdp # .*\n/m, '')
    assert.notEqual(without, text)
    assert.notEqual((await run(scratch.write(`${policy}.yaml`, without))).status, 0)
  })
