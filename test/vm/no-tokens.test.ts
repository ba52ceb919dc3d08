/**
 * A kernel before 6.9: every command that would lend says exactly what is missing, with exit status
 * 4, and changes nothing.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { test } from 'node:test'
import { residue, snapshot } from '../../scripts/residue.ts'
import { cli } from '../helpers/cli.ts'
import { hasTokens, inVm, isRoot, ROOT } from '../helpers/machine.ts'

const POLICY = 'examples/policies/packet-counter.yaml'

const skip = !isRoot
  ? 'needs root'
  : !inVm
    ? 'runs in a VM: make test-vm'
    : hasTokens()
      ? 'this kernel has BPF tokens'
      : false

test('doctor names the missing tokens, what to run instead, and ends with 4', { skip }, async () => {
  const { status, stdout } = await cli(['doctor'], { cwd: ROOT })
  assert.equal(status, 4)
  assert.match(stdout, /^FAIL {2}BPF tokens: this kernel has no BPF tokens\n\s+-> Run Linux 6\.9 or newer$/m)
  assert.match(stdout, /^delegation does not work here/m)
  // The twin: what this kernel does have is told as well.
  assert.match(stdout, /^ok {4}bpffs: can be created$/m)
})

test('run says that the kernel has no tokens, ends with 4, and does not start the program', {
  skip,
}, async () => {
  const { status, stdout, stderr } = await cli(['run', '--policy', POLICY, '--', 'echo', 'started'], {
    cwd: ROOT,
  })
  assert.match(stderr, /BPF tokens/)
  assert.match(stderr, /6\.9/)
  assert.equal(stdout, '')
  assert.equal(status, 4)
})

test('ls works, and finds nothing', { skip }, async () => {
  const { status, stdout } = await cli(['ls', '--json'], { cwd: ROOT })
  assert.equal(status, 0)
  assert.deepEqual((JSON.parse(stdout) as { instances?: unknown[] }).instances ?? [], [])
})

test('policy test judges all the same', { skip }, async () => {
  const ask = (policy: string, as: string) => cli(['policy', 'test', policy, '--as', as], { cwd: ROOT })
  const tracing = 'examples/policies/tracing.yaml'
  assert.equal((await ask(tracing, 'unit=latency-probe.service')).status, 0)
  assert.equal((await ask(tracing, 'unit=other.service')).status, 3)
})

test('the demo shows what doctor says, stops there, and ends with 4', { skip }, () => {
  const { status, stdout } = spawnSync(process.execPath, ['examples/demo/main.ts'], {
    cwd: ROOT,
    encoding: 'utf8',
  })
  assert.match(stdout, /this kernel has no BPF tokens/)
  assert.match(stdout, /there is nothing more to show/)
  assert.equal(status, 4)
})

test('guard install says why it cannot, ends with 4, and leaves nothing', { skip }, async () => {
  const before = snapshot()
  const { status, stdout, stderr } = await cli(['guard', 'install'])
  assert.match(stderr, /^bpftoken: This kernel has no BPF tokens.*\n.*Run Linux 6\.9 or newer/)
  assert.equal(stdout, '')
  assert.equal(status, 4)
  assert.deepEqual(await residue(before), [])
})

test('guard status finds none', { skip }, async () => {
  const { status, stdout } = await cli(['guard', 'status'])
  assert.match(stdout, /^not installed in \/sys\/fs\/bpf\/bpftoken\ndoes not enforce/)
  assert.equal(status, 1)
})

for (const command of [
  ['policy', 'install', POLICY],
  ['events'],
  ['show', '1'],
  ['revoke', '1'],
  ['guard', 'remove'],
])
  test(`${command.join(' ')} needs the guard, and says so`, { skip }, async () => {
    const { status, stdout, stderr } = await cli(command, { cwd: ROOT })
    assert.match(stderr, /^bpftoken: The guard is not installed in \/sys\/fs\/bpf\/bpftoken$/m)
    assert.equal(stdout, '')
    assert.equal(status, 1)
  })
