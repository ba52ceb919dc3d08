/** The commands as users run them: what they print, how they end, what they refuse. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { cli, finish, startCli } from '../helpers/cli.ts'
import { needsTokens, ROOT } from '../helpers/machine.ts'
import { Scratch } from '../helpers/scratch.ts'

const machine = needsTokens()
const POLICY = join(ROOT, 'examples/policies/packet-counter.yaml')
const GUARDED = join(ROOT, 'examples/policies/tracing.yaml')
const run = (...args: string[]) => cli(['run', '--policy', POLICY, ...args])

test('every command has --help, and unknown words are usage errors', async () => {
  for (const words of [
    '',
    'doctor',
    'run',
    'delegate',
    'undelegate',
    'derive',
    'confine',
    'unconfine',
    'ls',
    'policy check',
    'policy show',
    'policy test',
    'policy install',
    'guard install',
    'guard status',
    'guard allow',
    'guard disallow',
    'guard remove',
    'revoke',
    'show',
    'events',
    'token show',
  ]) {
    const help = await cli([...words.split(' ').filter(Boolean), '--help'])
    assert.equal(help.status, 0, words)
    assert.match(help.stdout, /Usage: bpftoken/)
  }
  for (const words of [
    'bogus',
    'doctor --bogus',
    'run',
    'delegate --pid x --policy y',
    'policy check',
    'derive 1 --pid 1',
    'derive x --pid 1 --policy y',
    'confine --policy x',
  ])
    assert.equal((await cli(words.split(' '))).status, 2, words)
})

/** The code of the error that is told as JSON; undefined: it is told as text. */
function jsonCode(stderr: string): string | undefined {
  if (!stderr.startsWith('{')) return undefined
  const { error } = JSON.parse(stderr) as { error: { code: string; message: string } }
  assert.doesNotMatch(error.message, /^error: /)
  return error.code
}

test('what is wrong with the command line is JSON where that is asked for, in whatever order', async () => {
  for (const [words, isJson] of [
    ['ls --json --bogus', true],
    ['ls --bogus --json', true],
    ['ls --jso --json', true],
    ['ls --bogus', false],
    ['ls --jso', false],
    ['undelegate --pid 0 --json', true],
    ['undelegate --json', true],
    ['policy check --json', true],
    ['show --json -- --json', true],
    ['show -- --json', false],
    ['plan --program --json', false],
    ['run --json', true],
    ['run --policy --json', false],
    ['run true --json', false],
    ['bogus --json', false],
  ] as const) {
    const { status, stdout, stderr } = await cli(words.split(' '))
    assert.deepEqual([status, stdout], [2, ''], words)
    assert.equal(jsonCode(stderr), isJson ? 'BPFTOKEN_USAGE' : undefined, words)
    if (!isJson) assert.match(stderr, /^error: .*\n$/, words)
  }
})

test(
  'that run cannot start its program is JSON where that is asked of run, not of the program',
  machine,
  async () => {
    const json = await run('--json', '--', '/nonexistent')
    assert.deepEqual([json.status, jsonCode(json.stderr)], [127, 'BPFTOKEN_SYSCALL'])
    for (const words of [
      ['--', '/nonexistent'],
      ['/nonexistent', '--json'],
    ]) {
      const { status, stderr } = await run(...words)
      assert.deepEqual([status, jsonCode(stderr)], [127, undefined], words.join(' '))
    }
    for (const [words, expected] of [
      [['--json', '--', 'true'], 'BPFTOKEN_NOT_FOUND'],
      [['true', '--json'], undefined],
    ] as const) {
      const { status, stderr } = await cli(['run', '--policy', '/nonexistent', ...words])
      assert.deepEqual([status, jsonCode(stderr)], [1, expected], words.join(' '))
    }
  },
)

test('what only the guard does says how to get one', machine, async t => {
  if (/^installed/m.test((await cli(['guard', 'status'])).stdout)) return t.skip('a guard is installed here')
  for (const words of [
    'guard allow --exe /bin/true',
    'guard disallow --unit x.service',
    'confine --cgroup /sys/fs/cgroup --policy POLICY',
    'unconfine 1',
    'derive 1 --pid 1 --policy POLICY',
    'revoke 1',
    'show 1',
    'events',
    'policy install POLICY',
  ]) {
    const { status, stderr } = await cli(words.split(' ').map(word => (word === 'POLICY' ? POLICY : word)))
    assert.equal(status, 1, words)
    assert.match(stderr, /bpftoken guard install/, words)
  }
  const cgroup = await cli(['delegate', '--pid', '1', '--policy', POLICY, '--only-cgroup', '/sys/fs/cgroup'])
  assert.equal(cgroup.status, 4)
  assert.match(cgroup.stderr, /bpftoken guard install/)
  for (const words of [
    'guard allow',
    'guard disallow --exe /bin/true --unit x',
    'unconfine',
    'unconfine 1 --cgroup /x',
  ])
    assert.equal((await cli(words.split(' '))).status, 2, words)
})

test('doctor says that delegation works here', machine, async () => {
  const { status, stdout } = await cli(['doctor', '--json'])
  assert.equal(status, 0)
  const report = JSON.parse(stdout)
  assert.equal(report.works, true)
  assert.ok(
    report.facts.every((fact: { ok: boolean; remedy?: string }) => fact.ok || fact.remedy !== undefined),
  )
})

test('policy check passes a good policy, fails a risky one and points into a wrong one', async () => {
  assert.equal((await cli(['policy', 'check', POLICY])).status, 0)
  assert.equal((await cli(['policy', 'check', '--max-risk', 'high', GUARDED])).status, 1)
  const wrong = await finish(
    startCli(['policy', 'check', '--json', '-'], { stdio: 'pipe' }),
    'kind: DelegationPolicy\nspek: {}\n',
  )
  assert.equal(wrong.status, 2)
  assert.ok(JSON.parse(wrong.stdout)[0].issues.some((issue: { line: number }) => issue.line === 2))
})

test('policy show --masks prints numbers and mount options', async () => {
  const { status, stdout } = await cli(['policy', 'show', '--masks', POLICY])
  assert.equal(status, 0)
  assert.match(stdout, /delegate_progs +0x40 +delegate_progs=xdp/)
})

test('run passes on exit status, signals, standard input and output', machine, async () => {
  assert.equal((await run('--', 'true')).status, 0)
  assert.equal((await run('--', 'sh', '-c', 'exit 42')).status, 42)
  assert.equal((await run('--', 'sh', '-c', 'kill -TERM $$')).status, 143)
  const piped = await cli(['run', '--policy', POLICY, '--', 'tr', 'a-z', 'A-Z'], {
    stdio: 'pipe',
    input: 'through',
  })
  assert.equal(piped.stdout, 'THROUGH')
  assert.notEqual((await run('--', '/no/such/program')).status, 0)
})

test(
  'run gives an unprivileged user, the needed capabilities, an own network and the delegation',
  machine,
  async () => {
    const { stdout } = await run(
      '--',
      'sh',
      '-c',
      'cat /proc/self/uid_map; grep -E "Cap|NoNewPrivs" /proc/self/status; cat /proc/mounts; cat /proc/net/dev',
    )
    assert.match(stdout, /^ +0 +[1-9]\d* +1$/m)
    // CAP_NET_ADMIN and CAP_BPF, and no others in any set.
    for (const set of ['Prm', 'Eff', 'Bnd']) assert.match(stdout, new RegExp(`Cap${set}:\t0000008000001000`))
    for (const set of ['Inh', 'Amb'])
      assert.match(stdout, new RegExp(`Cap${set}:\t(0000000000000000|0000008000001000)`))
    assert.match(stdout, /NoNewPrivs:\t1/)
    assert.match(stdout, / \/sys\/fs\/bpf bpf rw,nosuid,nodev,noexec.*delegate_progs=xdp/)
    assert.doesNotMatch(stdout, /eth0/)
    assert.equal((await run('--user', 'root', '--', 'true')).status, 2)
  },
)

test(
  'run refuses what the guard would have to hold, and the host network where policy does not say so',
  machine,
  async () => {
    const guarded = await cli(['run', '--policy', GUARDED, '--json', '--', 'true'])
    assert.equal(guarded.status, 4)
    assert.equal(JSON.parse(guarded.stderr).error.code, 'BPFTOKEN_NOT_SUPPORTED')
    const host = await run('--host-net', '--', 'true')
    assert.equal(host.status, 3)
    assert.match(host.stderr, /network: host/)
  },
)

test(
  'with guard: optional run goes on without a guard, and says aloud what nothing enforces',
  machine,
  async t => {
    if (/^installed/m.test((await cli(['guard', 'status'])).stdout))
      return t.skip('a guard is installed here')
    using scratch = new Scratch()
    const limited = (more: string): string =>
      scratch.write(
        'limited.yaml',
        `${readFileSync(POLICY, 'utf8').trimEnd()}\n  limits: { tokens: 1 }\n${more}`,
      )
    const bound = await cli(['run', '--policy', limited(''), '--', 'true'])
    assert.equal(bound.status, 4)
    const free = await cli(['run', '--policy', limited('  guard: optional\n'), '--', 'true'])
    assert.equal(free.status, 0, free.stderr)
    assert.match(free.stderr, /without the guard nothing enforces .*limits/)
  },
)

test('an ordinary user is told that root is needed', machine, async () => {
  const { status, stderr } = await cli(['run', '--policy', POLICY, '--', 'true'], { uid: 65534, gid: 65534 })
  assert.equal(status, 3)
  assert.match(stderr, /needs root/)
})

test('delegate lends to a running sandbox, ls shows it, undelegate takes it back', machine, async () => {
  const child = startCli(['run', '--policy', POLICY, '--path', '/mnt', '--', 'sh', '-c', 'echo $$; read x'], {
    stdio: 'pipe',
  })
  const [line] = (await once(child.stdout!, 'data')) as [Buffer]
  const pid = line.toString().trim()
  try {
    const made = await cli(['delegate', '--pid', pid, '--policy', POLICY])
    assert.equal(made.status, 0, made.stderr)
    const again = await cli(['delegate', '--pid', pid, '--policy', POLICY])
    assert.equal(again.status, 1)
    assert.match(again.stderr, /already/)
    const listed = JSON.parse((await cli(['ls', '--json'])).stdout) as { path: string; pids: number[] }[]
    const ours = listed.filter(i => i.pids.includes(Number(pid))).map(i => i.path)
    assert.deepEqual(ours.sort(), ['/mnt', '/sys/fs/bpf'])
    assert.equal((await cli(['undelegate', '--pid', pid])).status, 0)
    assert.equal((await cli(['undelegate', '--pid', pid])).status, 1)
  } finally {
    child.stdin!.end('\n')
    await finish(child)
  }
  assert.equal((await cli(['delegate', '--pid', String(process.pid), '--policy', POLICY])).status, 1)
})
