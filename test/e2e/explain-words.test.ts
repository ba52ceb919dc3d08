/** bpftoken explain: words that are no call, and a process that has lost its first thread. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { after, test } from 'node:test'
import { residue, snapshot } from '../../scripts/residue.ts'
import { asNobody, cli, execute, inPublic, PUBLIC_CLI } from '../helpers/cli.ts'
import { eventually } from '../helpers/eventually.ts'
import { needsTokens } from '../helpers/machine.ts'

const machine = needsTokens()
const before = snapshot()
after(async () => {
  assert.deepEqual(await residue(before), [])
})

const DEFECT = /defect|internal error/
const pid = String(process.pid)

test('a wrong word or number is told as such, with the one that was meant', machine, async () => {
  for (const [words, says] of [
    [['map_create', 'HASH'], /there is no map type "HASH"[\s\S]*Did you mean hash\?/],
    [['prog_load', 'xdp', 'nope'], /there is no attach type "nope"/],
    [['map_create', '4294967296'], /4294967296 has more than 32 bits/],
    [['prog_load', '9999999999'], /9999999999 has more than 32 bits/],
    [['map_create'], /Not a call: map_create[\s\S]*map_create TYPE/],
    [['prog_load'], /Not a call: prog_load[\s\S]*prog_load TYPE/],
  ] as const) {
    const { status, stderr } = await cli(['explain', '--pid', pid, '--', ...words])
    assert.equal(status, 2, words.join(' '))
    assert.match(stderr, says)
    assert.doesNotMatch(stderr, DEFECT)
  }
  const known = await cli(['explain', '--pid', pid, '--', 'map_create', '4294967295'])
  assert.match(known.stdout, /^map_create 4294967295: refused \(EINVAL\): kernel$/m)
})

test('a call without a process, and a command without a name', machine, async () => {
  const call = await cli(['explain', 'map_create', 'hash'])
  assert.equal(call.status, 2)
  assert.match(call.stderr, /Of whom map_create is asked is not said[\s\S]*--pid/)
  for (const command of ['explain', 'record']) {
    const { status, stderr } = await cli([command, '--', ''])
    assert.equal(status, 2)
    assert.match(stderr, /No command is given/)
    assert.doesNotMatch(stderr, DEFECT)
  }
})

test('who is not root is not told that a command runs unprivileged', machine, async () => {
  for (const command of ['explain', 'record']) {
    const { status, stderr } = await execute(
      ...inPublic(asNobody([process.execPath, PUBLIC_CLI, command, '--', 'true']).flat()),
    )
    assert.equal(status, 3, stderr)
    assert.match(stderr, /needs root[\s\S]*A command that it is given runs as root then/)
    assert.doesNotMatch(stderr, /still runs unprivileged/)
  }
})

const NR_EXIT = process.arch === 'arm64' ? 93 : 60

test('a process of which the first thread has ended is looked at by another one', machine, async () => {
  const script = `use threads; $| = 1; threads->create(sub { <STDIN>; exit 0 })->detach; print "$$\\n"; syscall ${NR_EXIT}, 0`
  const child = spawn('unshare', ['--user', '--map-root-user', '--mount', 'perl', '-e', script], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  try {
    let said = ''
    child.stdout.on('data', bytes => {
      said += String(bytes)
    })
    await eventually(() => said.includes('\n'), 'it never began')
    const { status, stdout, stderr } = await cli([
      'explain',
      '--pid',
      said.trim(),
      '--',
      'map_create',
      'hash',
    ])
    assert.equal(status, 3, stderr)
    assert.match(stdout, /^map_create hash: refused \(EPERM\): no-delegation$/m)
    assert.match(stderr, /the first thread of process \d+ has ended: thread \d+ is looked at/)
  } finally {
    child.kill('SIGKILL')
    await eventually(() => child.exitCode !== null || child.signalCode !== null, 'it never ended')
  }
})
