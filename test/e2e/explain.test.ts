/** bpftoken explain -- WORDS: of a running process, and of a command that is run. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { statSync } from 'node:fs'
import { after, test } from 'node:test'
import { residue, snapshot } from '../../scripts/residue.ts'
import { CLI, cli } from '../helpers/cli.ts'
import { checkedDocument } from '../helpers/documents.ts'
import { eventually } from '../helpers/eventually.ts'
import { needsTokens } from '../helpers/machine.ts'
import { Scratch } from '../helpers/scratch.ts'
import { xdpObject } from '../helpers/xdp-object.ts'
import { NR_BPF } from '../kernel/lending/explained.ts'

const machine = needsTokens()
const scratch = new Scratch()
const before = snapshot()
after(async () => {
  scratch[Symbol.dispose]()
  assert.deepEqual(await residue(before), [])
})

const POLICY = `apiVersion: bpftoken.dev/v1
kind: DelegationPolicy
metadata: { name: t }
spec:
  rights:
    cmds: [map_create, prog_load]
    maps: [array]
    progs: [xdp]
    attachs: [xdp]
    capabilities: [bpf]
`
const policy = scratch.write('policy.yaml', POLICY)

interface Answer {
  cause: string
  policy: object
  change: string
  checks: { passed: boolean; needed: string; found: string }[]
}

test(
  'a running process: calls that it may make, and what it lacks for others, as text and JSON',
  machine,
  async () => {
    const run = spawn(
      process.execPath,
      [CLI, 'run', '--policy', policy, '--', 'sh', '-c', 'echo $$; read line'],
      {
        stdio: ['pipe', 'pipe', 'inherit'],
      },
    )
    try {
      // It is in our PID namespace.
      let said = ''
      run.stdout!.on('data', chunk => {
        said += String(chunk)
      })
      await eventually(() => said.includes('\n'), 'it never began')
      const pid = said.trim()
      const explain = (...words: string[]) => cli(['explain', '--pid', pid, ...words])
      const allowed = await explain('--', 'map_create', 'array')
      assert.equal(allowed.status, 0, allowed.stderr)
      assert.match(allowed.stdout, /^map_create array: allowed$/m)
      const refused = await explain('--json', '--', 'prog_load', 'xdp', 'xdp')
      assert.equal(refused.status, 3)
      const { cause, policy: line, change, checks } = checkedDocument('explain', refused.stdout) as Answer
      const failed = checks.find(({ passed }) => !passed)!
      assert.notEqual(`${failed.needed} ${failed.found}`.trim(), '')
      assert.deepEqual([cause, line], ['capability', { list: 'capabilities', word: 'net_admin' }])
      assert.match(change, /cap-add=NET_ADMIN/)
      const object = await explain('--', scratch.write('pass.o', xdpObject()))
      assert.equal(object.status, 3)
      assert.match(object.stdout, /^ {2}change {2}spec\.rights\.capabilities: add net_admin/m)
      for (const words of [['bogus'], ['map_create', 'bogus'], ['prog_load', 'xdp', 'xdp', 'xdp']])
        assert.notEqual((await explain('--', ...words)).status, 0, words.join(' '))
    } finally {
      run.stdin!.end('\n')
      await eventually(() => run.exitCode !== null, 'it never ended')
    }
  },
)

test('a command is run, and its last refused call explained', machine, async () => {
  const object = scratch.write('pass.o', xdpObject())
  const without = await cli([
    'explain',
    '--',
    'unshare',
    '--user',
    '--map-root-user',
    '--mount',
    process.execPath,
    CLI,
    'obj',
    'load',
    object,
  ])
  assert.equal(without.status, 3, without.stderr)
  assert.match(without.stdout, /: refused \(EPERM\): no-delegation$/m)
  const root = await cli(['explain', '--', process.execPath, CLI, 'obj', 'load', object])
  assert.equal(root.status, 0, root.stdout)
  assert.match(root.stdout, /^No call that asks for a right was refused$/m)
})

test(
  'the last refusal that was recorded is explained, by process and user, as text and JSON',
  machine,
  async () => {
    // Its own name is what a hostile one would choose.
    const refused = scratch.write(
      'refused.pl',
      `$0 = "\\e[31m\\n"; $| = 1; print "$$\\n"; my $a = pack("L5 x76", 1, 4, 4, 1, 0); for (1 .. 3) { syscall ${NR_BPF}, 0, $a, 96 } sleep 1`,
    )
    const apart = ['unshare', '--user', '--map-root-user', '--mount']
    const recorded = await cli([
      'record',
      '-o',
      scratch.write('recorded.yaml', ''),
      '--',
      ...apart,
      'perl',
      refused,
    ])
    const pid = recorded.stdout.trim()
    assert.match(pid, /^\d+$/, recorded.stderr)
    const last = await cli(['explain', '--last', '--pid', pid])
    assert.equal(last.status, 3, last.stderr)
    assert.match(last.stdout, /^recorded: map_create hash: refused \(EPERM\): no-delegation$/m)
    assert.match(last.stdout, new RegExp(`^ {2}who {5}\\S.* ${pid} uid 0, 3 times, last at 20`, 'm'))
    assert.ok(!last.stdout.includes('\u001b'))
    assert.match(last.stdout, /^ {2}change {2}lend it one/m)
    const json = await cli(['explain', '--last', '--pid', pid, '--uid', '0', '--json'])
    const { cause, recorded: of } = checkedDocument('explain', json.stdout) as Answer & {
      recorded: { pid: number; times: number }
    }
    assert.deepEqual([cause, of.pid, of.times], ['no-delegation', Number(pid), 3])
    // Nobody else has been seen, nor may anybody else but root look.
    assert.notEqual((await cli(['explain', '--last', '--pid', pid, '--uid', '12345'])).status, 3)
    assert.equal(statSync('/run/bpftoken/refusals.json').mode & 0o777, 0o600)
  },
)
