/** The commands as users run them: what they print, how they end, what they refuse. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { chmodSync, closeSync, mkdirSync, openSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { completionScript, SHELLS } from '../../src/cli/completion.ts'
import { commandTree } from '../../src/cli/tree.ts'
import { asNobody, CLI, cli, execute, finish, inPublic, PUBLIC_CLI, startCli } from '../helpers/cli.ts'
import { needsTokens, ROOT } from '../helpers/machine.ts'
import { Scratch } from '../helpers/scratch.ts'

const machine = needsTokens()
const POLICY = join(ROOT, 'examples/policies/packet-counter.yaml')
const GUARDED = join(ROOT, 'examples/policies/tracing.yaml')
const NETWORK = join(ROOT, 'test/fixtures/network.bpf.o')
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
    ['bogus --json', true],
    ['bogus', false],
    ['--json bogus', true],
    ['--json policy chek', true],
    ['policy --json check', true],
    ['policy', undefined],
    ['policy --json', true],
    ['--json ls --bogus', true],
    ['ls --json=yes', true],
    ['plan --format=x --json x.o', true],
    ['plan --format=--json x.o', false],
    ['events --json --bogus', true],
  ] as const) {
    const { status, stdout, stderr } = await cli(words.split(' '))
    assert.deepEqual([status, stdout], [2, ''], words)
    assert.equal(jsonCode(stderr), isJson ? 'BPFTOKEN_USAGE' : undefined, words)
    // Undefined: help, where no command is named.
    if (isJson === undefined) assert.match(stderr, /^Usage: /, words)
    else if (!isJson) assert.match(stderr, /^error: .*\n$/, words)
  }
})

test('a word that is misspelt is named before what is missing', async () => {
  for (const [words, told] of [
    ['dlegate --pid 4', "unknown command 'dlegate' (Did you mean delegate?)"],
    ['policy chek', "unknown command 'chek' (Did you mean check?)"],
    ['delegate --polcy x', "unknown option '--polcy' (Did you mean --policy?)"],
    ['run --polcy x', "unknown option '--polcy' (Did you mean --policy?)"],
    ['plan --prgram x', "unknown option '--prgram' (Did you mean --program?)"],
    ['confine --policy x', "required option '--cgroup <dir>' not specified"],
  ] as const) {
    const { status, stderr } = await cli(words.split(' '))
    assert.deepEqual([status, stderr], [2, `error: ${told}\n`], words)
  }
})

test('an answer that cannot be written is told as JSON where that is asked for, before or behind', async () => {
  for (const words of [
    ['--json', 'ls'],
    ['ls', '--json'],
    ['policy', '--json', 'check', POLICY],
    ['policy', 'check', POLICY, '--json'],
  ]) {
    const full = openSync('/dev/full', 'w')
    const { status, stderr } = await cli(words, { stdio: ['ignore', full, 'pipe'] })
    closeSync(full)
    assert.deepEqual([status, jsonCode(stderr)], [1, 'BPFTOKEN_SYSCALL'], words.join(' '))
  }
})

test('-q leaves out notes, -v tells the facts of a failure, and errors are told by all', async () => {
  const missing = ['policy', 'show', '/no/such']
  const plain = await cli(missing)
  const quiet = await cli([...missing, '-q'])
  assert.deepEqual([quiet.status, quiet.stderr], [1, plain.stderr])
  const verbose = await cli(['--verbose', ...missing])
  assert.equal(verbose.status, 1)
  assert.match(verbose.stderr, /^bpftoken: {3}BPFTOKEN_NOT_FOUND file=\/no\/such errno=ENOENT$/m)
  assert.match(verbose.stderr, /^bpftoken: took \d+ ms$/m)
  const user = { uid: 65534, gid: 65534 }
  if (process.geteuid?.() !== 0) return
  assert.match((await cli(['ls'], user)).stderr, /not root/)
  assert.deepEqual(await cli(['ls', '-q'], user).then(({ status, stderr }) => [status, stderr]), [0, ''])
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

test('policy check takes directories, goes on after a bad file, and says a verdict for each', async () => {
  using scratch = new Scratch()
  mkdirSync(join(scratch.path, 'below'))
  scratch.write('a.yaml', readFileSync(POLICY, 'utf8'))
  scratch.write('below/b.yml', 'kind: Nonsense\n')
  scratch.write('below/c.yaml', readFileSync(GUARDED, 'utf8'))
  scratch.write('d.txt', 'no policy')
  const verdicts = (stdout: string): string[] =>
    stdout.split('\n').filter(line => /: (passes|fails|not valid|not read)/.test(line))
  const all = await cli(['policy', 'check', scratch.path, `${scratch.path}/none.yaml`])
  assert.equal(all.status, 2)
  assert.deepEqual(
    verdicts(all.stdout).map(line => line.replace(`${scratch.path}/`, '')),
    [
      'a.yaml: passes, 2 notes: risk medium',
      'below/b.yml: not valid',
      'below/c.yaml: passes: risk critical',
      'none.yaml: not read',
    ],
  )
  assert.match(all.stdout, /\n4 policies: 2 pass, 1 not valid, 1 not read; highest risk critical\n$/)
  assert.match(all.stderr, /none\.yaml": ENOENT/)
  const unread = await cli(['policy', 'check', POLICY, '/no/such'])
  assert.equal(unread.status, 1)
  assert.equal((await cli(['policy', 'check', `${scratch.path}/a.yaml`, GUARDED])).status, 0)
  assert.equal((await cli(['policy', 'check', '--max-risk', 'high', POLICY, GUARDED])).status, 1)
  const empty = new Scratch()
  assert.equal((await cli(['policy', 'check', empty.path])).status, 2)
  empty[Symbol.dispose]()
})

test('policy check reports a directory that it may not read, and goes on', machine, async () => {
  using scratch = new Scratch()
  for (const name of ['closed', 'open']) {
    mkdirSync(join(scratch.path, name))
    scratch.write(`${name}/a.yaml`, readFileSync(POLICY, 'utf8'))
  }
  chmodSync(join(scratch.path, 'closed'), 0)
  const [command, args] = asNobody([process.execPath, PUBLIC_CLI, 'policy', 'check', scratch.path])
  const { status, stdout, stderr } = await execute(...inPublic([command, ...args]))
  assert.equal(status, 1, stderr)
  assert.match(stdout, /closed: not read\n/)
  assert.match(stdout, /open\/a\.yaml: passes/)
  assert.match(stderr, /Cannot read the directory ".*closed": EACCES/)
  chmodSync(join(scratch.path, 'closed'), 0o755)
  assert.match((await cli(['policy', 'check', scratch.path])).stdout, /\n2 policies: 2 pass/)
})

test('policy check of one policy ends with its bars, the longest first, and its verdict', async () => {
  const { stdout } = await cli(['policy', 'check', GUARDED])
  const lines = stdout.trimEnd().split('\n')
  assert.equal(lines.at(-1), `${GUARDED}: passes: risk critical`)
  const bars = lines.flatMap(line => /^ {4}(#+)\.* {2}/.exec(line)?.[1]?.length ?? [])
  assert.ok(bars.length > 5)
  assert.deepEqual(
    bars,
    bars.toSorted((a, b) => b - a),
  )
  assert.match(lines.find(line => line.includes('progs tracing'))!, /^ {4}#### {2}critical {2}progs tracing /)
})

test('policy diff says what more and what less is granted, and exits as diff does', async () => {
  const { status, stdout } = await cli(['policy', 'diff', POLICY, GUARDED])
  assert.equal(status, 1)
  assert.match(stdout, /^spec\.rights\.progs +- +tracing +more$/m)
  assert.match(stdout, /^spec\.rights\.progs +xdp +- +less$/m)
  assert.match(stdout, /^spec\.limits\.tokens +1024 \(default\) +1 +less$/m)
  assert.match(stdout, /^risk +medium +critical$/m)
  const same = await cli(['policy', 'diff', POLICY, POLICY])
  assert.equal(same.status, 0)
  assert.match(same.stdout, /grant the same/)
  assert.equal((await cli(['policy', 'diff', POLICY, '/no/such'])).status, 1)
  using scratch = new Scratch()
  assert.equal((await cli(['policy', 'diff', POLICY, scratch.write('x.yaml', 'kind: x\n')])).status, 2)
})

test('colours are for terminals, unless FORCE_COLOR or NO_COLOR say otherwise', async () => {
  const words = ['policy', 'check', GUARDED]
  const colored = async (env: NodeJS.ProcessEnv, onTerminal = false): Promise<boolean> => {
    const all = { PATH: process.env['PATH'], TERM: 'xterm', ...env }
    const run = [process.execPath, CLI, ...words]
    const { stdout } = onTerminal
      ? await execute('script', ['-qec', run.map(word => `'${word}'`).join(' '), '/dev/null'], { env: all })
      : await execute(run[0]!, run.slice(1), { env: all })
    assert.match(stdout, /critical/)
    return stdout.includes('\x1b[')
  }
  assert.equal(await colored({}), false)
  assert.equal(await colored({ FORCE_COLOR: '1' }), true)
  assert.equal(await colored({ FORCE_COLOR: '0' }), false)
  if ((await execute('sh', ['-c', 'command -v script'])).status !== 0) return
  assert.equal(await colored({}, true), true)
  assert.equal(await colored({ NO_COLOR: '1' }, true), false)
  assert.equal(await colored({ TERM: 'dumb' }, true), false)
})

test('who is not root is denied, and so is a load without rights', machine, async () => {
  const user = { uid: 65534, gid: 65534 }
  for (const words of [
    ['doctor'],
    ['run', '--policy', POLICY, '--', 'true'],
    ['delegate', '--pid', '1', '--policy', POLICY, '--direct'],
    ['undelegate', '--pid', '1', '--direct'],
    ['derive', '1', '--pid', '1', '--policy', POLICY, '--direct'],
    ['confine', '--cgroup', '/sys/fs/cgroup', '--policy', POLICY],
    ['unconfine', '1'],
    ['policy', 'install', POLICY],
    ['guard', 'install'],
    ['guard', 'status'],
    ['guard', 'allow', '--exe', '/bin/true'],
    ['guard', 'disallow', '--exe', '/bin/true'],
    ['guard', 'remove'],
    ['revoke', '1', '--direct'],
    ['show', '1', '--direct'],
    ['events', '--direct'],
    ['obj', 'load', NETWORK],
  ]) {
    const { status, stderr } = await cli(words, user)
    assert.equal(status, 3, `${words.join(' ')}: ${stderr}`)
  }
  for (const words of [['ls'], ['policy', 'check', POLICY], ['plan', NETWORK]])
    assert.equal((await cli(words, user)).status, 0, words.join(' '))
})

test('token show says that nothing is delegated, and where it looked', machine, async () => {
  const env = { PATH: process.env['PATH'] }
  for (const [words, more, told] of [
    [[], {}, /Nothing is delegated .*\/sys\/fs\/bpf, where loaders look/],
    [['--path', '/no/such'], {}, /Nothing is delegated .*\/no\/such, as --path says, and it does not exist/],
    [[], { LIBBPF_BPF_TOKEN_PATH: '/etc' }, /\/etc, as LIBBPF_BPF_TOKEN_PATH says, and no bpffs/],
    [[], { LIBBPF_BPF_TOKEN_PATH: '' }, /switched off here/],
  ] as const) {
    const { status, stderr } = await cli(['token', 'show', ...words], { env: { ...env, ...more } })
    assert.equal(status, 1)
    assert.match(stderr, told)
  }
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
    const tree = (await cli(['ls', '--tree'])).stdout
    for (const path of ['/mnt', '/sys/fs/bpf'])
      assert.match(tree, new RegExp(`^  mount \\d+ at ${path}: process ${pid} .*delegate_progs=xdp`, 'm'))
    if (!(await cli(['guard', 'status'])).stdout.startsWith('installed'))
      assert.match(tree, /is not known: only the guard knows it\n$/)
    assert.equal((await cli(['undelegate', '--pid', pid])).status, 0)
    assert.equal((await cli(['undelegate', '--pid', pid])).status, 1)
  } finally {
    child.stdin!.end('\n')
    await finish(child)
  }
  assert.equal((await cli(['delegate', '--pid', String(process.pid), '--policy', POLICY])).status, 1)
})

test('completion prints what the build made of the tree, and refuses other shells', async () => {
  const tree = commandTree(() => {}, '')
  for (const shell of SHELLS) {
    const { status, stdout } = await cli(['completion', shell])
    assert.deepEqual([status, stdout], [0, completionScript(shell, tree)], shell)
    // The same without the shortcut.
    assert.equal((await cli(['completion', '-q', shell])).stdout, stdout)
  }
  const { status, stderr } = await cli(['completion', 'csh'])
  assert.equal(status, 2)
  assert.match(stderr, /Allowed choices are bash, zsh, fish/)
})
