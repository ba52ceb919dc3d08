/** bpftoken explain -- WORDS: of a running process, and of a command that is run. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { statSync } from 'node:fs'
import { after, test } from 'node:test'
import { residue, snapshot } from '../../scripts/residue.ts'
import { CLI, cli, startCli } from '../helpers/cli.ts'
import { checkedDocument } from '../helpers/documents.ts'
import { eventually } from '../helpers/eventually.ts'
import { needsTokens } from '../helpers/machine.ts'
import { Scratch } from '../helpers/scratch.ts'
import { xdpObject } from '../helpers/xdp-object.ts'
import { NR_BPF, PERL } from '../kernel/lending/explained.ts'

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

const RUN = [process.execPath, CLI, 'run', '--policy', policy, '--']
const perl = (words: string): string[] => {
  const file = scratch.write('calls.pl', `${PERL}\n${words}`)
  return [...RUN, 'perl', file]
}
const explain = (...command: string[]) => cli(['explain', '--', ...command])

test(
  'how the command has ended is told, and a failure that no call is behind is none of ours',
  machine,
  async () => {
    for (const [command, status] of [
      [[...RUN, '/nonexistent'], 127],
      [['sh', '-c', 'kill -9 $$'], 137],
      [[process.execPath, CLI, 'run', '--policy', '/nonexistent.yaml', '--', 'true'], 1],
    ] as const) {
      const said = await explain(...command)
      assert.equal(said.status, 1, said.stdout)
      const all = new RegExp(
        `^No call that asks for a right was refused; the command ended with status ${status}$`,
        'm',
      )
      assert.match(said.stdout, all)
    }
    const json = await cli(['explain', '--json', '--', ...RUN, 'sh', '-c', 'exit 7'])
    assert.deepEqual(checkedDocument('explain', json.stdout), {
      ...{ verdict: 'failed', cause: 'none', command: { status: 7 } },
    })
    const good = await explain(...RUN, 'true')
    assert.deepEqual([good.status, good.stdout], [0, 'No call that asks for a right was refused\n'])
  },
)

test('an attempt at a token that is refused is explained where nothing comes after it', machine, async () => {
  const wrong = await explain(...perl('map_create(1, 4, 4, 1, 0); take_token("/tmp"); exit 1'))
  assert.equal(wrong.status, 3)
  assert.match(wrong.stdout, /^token_create: refused \(EINVAL\): token-place$/m)
  assert.match(wrong.stdout, /the command ended with status 1$/m)
  // The change: the bpffs that is lent.
  const right = await explain(...perl('take_token(); map_create(2, 4, 4, 1, 0) >= 0 or exit 1'))
  assert.equal(right.status, 0, right.stdout)
  // Whoever goes on is refused for another reason, or for none.
  const other = await explain(...perl('take_token("/tmp"); map_create(2, 4, 4, 1, 0); exit 1'))
  assert.match(other.stdout, /^map_create array: refused \(EPERM\): no-token$/m)
})

test('where tokens do not serve, the attempt at one is told as such', machine, async () => {
  const file = scratch.write('host.pl', `${PERL}\ntake_token(); exit 1`)
  const { stdout } = await explain(
    'unshare',
    '--mount',
    'sh',
    '-c',
    `mount -t bpf bpf /sys/fs/bpf && perl ${file}`,
  )
  assert.match(stdout, /^token_create: refused \(EOPNOTSUPP\): initial-namespace$/m)
})

for (const signal of ['SIGINT', 'SIGTERM'] as const)
  test(`${signal} ends the command, which is not left behind, and the answer comes`, machine, async () => {
    const file = scratch.write(
      `${signal}.pl`,
      `${PERL}\n$) = $( = 65534; $> = $< = 65534; map_create(1, 4, 4, 1, 0); print "refused $$\\n"; sleep 600`,
    )
    const child = startCli(['explain', '--', 'perl', file], { stdio: ['ignore', 'pipe', 'pipe'] })
    let [out, err] = ['', '']
    child.stdout!.on('data', bytes => {
      out += String(bytes)
    })
    child.stderr!.on('data', bytes => {
      err += String(bytes)
    })
    await eventually(() => /refused \d+\n/.test(err), 'it never called')
    const pid = Number(/refused (\d+)\n/.exec(err)![1])
    process.kill(child.pid!, signal)
    await eventually(() => child.exitCode !== null, 'it never ended')
    assert.equal(child.exitCode, 3, err)
    await eventually(() => out.includes('checks'), 'no answer')
    assert.match(out, /^map_create hash: refused \(EPERM\): initial-namespace$/m)
    assert.throws(() => process.kill(pid, 0), { code: 'ESRCH' })
  })
