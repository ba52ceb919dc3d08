/** `bpftoken run` stands aside: terminal, pipes, signals and exit status are the program's own. */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import { after, test } from 'node:test'
import { residue, snapshot } from '../../scripts/residue.ts'
import { asNobody, CLI, cli, execute, finish, PUBLIC_CLI, publicCli, startCli } from '../helpers/cli.ts'
import { HANG_MS } from '../helpers/eventually.ts'
import { needsTokens, ROOT } from '../helpers/machine.ts'
import { Scratch } from '../helpers/scratch.ts'

const machine = needsTokens()
const POLICY = join(ROOT, 'examples/policies/packet-counter.yaml')
const before = snapshot()
const run = (...args: string[]) => ['run', '--policy', POLICY, ...args]
const shell = (script: string) => run('--', 'sh', '-c', script)

after(async () => assert.deepEqual(await residue(before), []))

/** Reads until `pattern` has come. */
async function until(stream: Readable, pattern: RegExp): Promise<string> {
  let seen = ''
  for (;;) {
    seen += String((await once(stream, 'data', { signal: AbortSignal.timeout(HANG_MS) }))[0])
    if (pattern.test(seen)) return seen
  }
}

test('run hands its terminal to the program, and Ctrl-C reaches it once', machine, async () => {
  const inner = shell('tty; trap "echo caught; exit 5" INT; echo ready; while :; do sleep 0.05; done')
  // A shell that waited for the command would take Ctrl-C for itself.
  const line = `exec ${[process.execPath, CLI, ...inner].map(word => `'${word}'`).join(' ')}`
  const terminal = spawn('script', ['-qec', line, '/dev/null'], { stdio: 'pipe' })
  const shown = await until(terminal.stdout, /ready/)
  assert.match(shown, /\/dev\/pts\/\d+/)
  const rest = until(terminal.stdout, /caught/)
  terminal.stdin.write('\x03')
  assert.equal((await rest).match(/caught/g)?.length, 1)
  assert.equal((await finish(terminal)).status, 5)
})

test('run passes a signal on, and the program decides what it means', machine, async () => {
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGUSR1'] as const) {
    const name = signal.slice(3)
    const child = startCli(shell(`trap "exit 9" ${name}; echo ready; while :; do sleep 0.05; done`), {
      stdio: 'pipe',
    })
    await until(child.stdout!, /ready/)
    child.kill(signal)
    assert.equal((await finish(child)).status, 9, signal)
  }
})

test('run ends as its program does', machine, async () => {
  using scratch = new Scratch()
  const notExecutable = scratch.write('data', 'x')
  for (const [args, status] of [
    [shell('exit 255'), 255],
    [shell('kill -KILL $$'), 137],
    [run('--', 'no-such-program'), 127],
    [run('--', notExecutable), 126],
  ] as const)
    assert.equal((await cli(args)).status, status, args.join(' '))
})

test('run lets a megabyte through its pipes unchanged', machine, async () => {
  const input = 'bpf token\n'.repeat(100_000)
  const { stdout } = await cli(run('--', 'cat'), { stdio: 'pipe', input })
  assert.equal(stdout, input)
})

test('run --dry-run shows every step and runs nothing', machine, async () => {
  const plain = await cli(run('--dry-run', '--', 'touch', '/tmp/bpftoken-dry-run'))
  assert.equal(plain.status, 0, plain.stderr)
  assert.match(plain.stdout, /fsopen bpf[\s\S]*delegate_progs[\s\S]*FSCONFIG_CMD_CREATE[\s\S]*move_mount/)
  const json = await cli(run('--dry-run', '--json', '--', 'true'))
  assert.ok(JSON.parse(json.stdout).actions.length > 5)
})

test(
  'run --host-net shares the network where the policy says so, and refuses where not',
  machine,
  async () => {
    using scratch = new Scratch()
    const text = (await execute('cat', [POLICY])).stdout
    const open = scratch.write('host.yaml', text.replace('network: own', 'network: host'))
    const script = ['--host-net', '--', 'readlink', '/proc/self/ns/net']
    const shared = await cli(['run', '--policy', open, ...script])
    assert.equal(shared.stdout, (await execute('readlink', ['/proc/self/ns/net'])).stdout, shared.stderr)
    const refused = await cli(run(...script))
    assert.equal(refused.status, 3)
    assert.equal(refused.stdout, '')
  },
)

test('token show tells inside what was lent, and outside why there is no token', machine, async () => {
  const show = [process.execPath, PUBLIC_CLI, 'token', 'show']
  const plain = await publicCli(run('--', ...show))
  assert.equal(plain.status, 0, plain.stderr)
  assert.match(plain.stdout, /^progs +xdp$/m)
  const json = JSON.parse((await publicCli(run('--', ...show, '--json'))).stdout)
  assert.deepEqual(json.words.progs, ['xdp'])
  assert.equal(json.capabilities.bpf, true)
  const elsewhere = await publicCli(run('--path', '/srv', '--', ...show))
  assert.match(elsewhere.stdout, /^token of +\/srv$/m)
  const outside = await cli(['token', 'show'])
  assert.equal(outside.status, 1)
  assert.match(outside.stderr, /next: /)
})

test('delegate says what is wrong with its target', machine, async () => {
  using scratch = new Scratch()
  const lend = (...args: string[]) => cli(['delegate', '--policy', POLICY, ...args])
  const gone = spawn('true')
  await once(gone, 'exit')
  for (const [args, message] of [
    [['--pid', String(gone.pid)], /process/],
    [['--pid', '4194304'], /process/],
    [['--pid', String(process.pid)], /same user namespace/],
  ] as const) {
    const { status, stderr } = await lend(...args)
    assert.equal(status, 1, stderr)
    assert.match(stderr, message)
  }
  assert.equal((await lend('--pid', 'one')).status, 2)
  for (const path of ['mnt', `/${'x'.repeat(4096)}`])
    for (const command of ['delegate', 'undelegate']) {
      const policy = command === 'delegate' ? ['--policy', POLICY] : []
      const { status, stderr } = await cli([command, ...policy, '--pid', String(process.pid), '--path', path])
      assert.equal(status, 2, stderr)
    }
  assert.equal((await lend('--pid', '1', '--policy', `${scratch.path}/none.yaml`)).status !== 0, true)
})

test(
  'delegate serves a stopped process, and refuses paths that are missing or lead elsewhere',
  machine,
  async () => {
    using scratch = new Scratch()
    await execute('ln', ['-s', '/sys/fs/bpf', `${scratch.path}/link`])
    const child = startCli(run('--path', '/mnt', '--', 'sh', '-c', 'echo $$; read x'), { stdio: 'pipe' })
    const pid = (await until(child.stdout!, /\d+\n/)).trim()
    try {
      process.kill(Number(pid), 'SIGSTOP')
      for (const path of [`${scratch.path}/missing`, `${scratch.path}/link`, 'relative']) {
        const { status, stderr } = await cli(['delegate', '--pid', pid, '--policy', POLICY, '--path', path])
        assert.notEqual(status, 0, path)
        assert.match(stderr, /^bpftoken: /)
      }
      const lent = await cli(['delegate', '--pid', pid, '--policy', POLICY, '--json'])
      assert.equal(JSON.parse(lent.stdout).delegation.path, '/sys/fs/bpf', lent.stderr)
      const taken = await cli(['undelegate', '--pid', pid, '--json'])
      assert.equal(JSON.parse(taken.stdout).unmounted.path, '/sys/fs/bpf', taken.stderr)
    } finally {
      process.kill(Number(pid), 'SIGCONT')
      child.stdin!.end('\n')
      await finish(child)
    }
  },
)

/**
 * A process of the user nobody, in namespaces that this user has made; with the host's network
 * unless `own` names one.
 */
async function ownNamespaces(own: string[] = [], owner = asNobody): Promise<ChildProcess> {
  const words = ['unshare', '--user', '--map-root-user', '--mount', ...own, 'sh', '-c', 'echo ready; read x']
  const child = spawn(...owner(words), { stdio: ['pipe', 'pipe', 'inherit'] })
  await until(child.stdout!, /ready/)
  return child
}

const asRoot: typeof asNobody = ([file, ...words]) => [file!, words]

test(
  'no other process of its user enters the namespace of run; one that the user has made, it does',
  machine,
  async () => {
    const enters = async (pid: number): Promise<boolean> =>
      (await execute(...asNobody(['nsenter', '-t', String(pid), '-U', '--preserve-credentials', 'true'])))
        .status === 0
    const child = startCli(run('--user', 'nobody', '--', 'sh', '-c', 'echo $$; read x'), { stdio: 'pipe' })
    const pid = Number((await until(child.stdout!, /\d+\n/)).trim())
    const own = await ownNamespaces()
    try {
      assert.equal(await enters(pid), false)
      assert.equal(await enters(own.pid!), true)
    } finally {
      for (const one of [child, own]) one.stdin!.end('\n')
      await Promise.all([child, own].map(one => finish(one)))
    }
  },
)

test(
  "delegate refuses rights that reach the host's network, which the target shares, unless policy says so",
  machine,
  async () => {
    using scratch = new Scratch()
    const text = (await execute('cat', [POLICY])).stdout
    const open = scratch.write('host.yaml', text.replace('network: own', 'network: host'))
    const shares = await ownNamespaces()
    const has = await ownNamespaces(['--net'], asRoot)
    const lend = (child: ChildProcess, policy: string) =>
      cli(['delegate', '--pid', String(child.pid), '--policy', policy])
    try {
      const refused = await lend(shares, POLICY)
      assert.equal(refused.status, 3, refused.stderr)
      for (const [child, policy] of [
        [shares, open],
        [has, POLICY],
      ] as const) {
        const { status, stderr } = await lend(child, policy)
        assert.equal(status, 0, stderr)
      }
    } finally {
      for (const one of [shares, has]) one.stdin!.end('\n')
      await Promise.all([shares, has].map(one => finish(one)))
    }
  },
)

test(
  "delegate refuses rights that reach the host's network while anything of that user namespace is in it",
  machine,
  async () => {
    // It stays in the host's network; its child, which is lent to, does not.
    const script = "unshare --net sh -c 'echo $$; exec sleep 600' & wait"
    const child = spawn('unshare', ['--user', '--map-root-user', '--mount', 'sh', '-c', script], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    const [line] = await once(child.stdout, 'data')
    const pid = String(line).trim()
    try {
      const refused = await cli(['delegate', '--pid', pid, '--policy', POLICY])
      assert.equal(refused.status, 3, refused.stderr)
      assert.match(refused.stderr, /of the same user namespace, or of one above it, is in the host's network/)
      assert.equal((await cli(['undelegate', '--pid', pid])).status, 1)
    } finally {
      process.kill(Number(pid), 'SIGKILL')
      await once(child, 'exit')
    }
  },
)

test(
  "delegate refuses rights that reach a network to a user namespace that an ordinary user made, who can enter it from the host's",
  machine,
  async () => {
    using scratch = new Scratch()
    const text = (await execute('cat', [POLICY])).stdout
    const open = scratch.write('host.yaml', text.replace('network: own', 'network: host'))
    const child = await ownNamespaces(['--net'])
    try {
      const lend = (policy: string) => cli(['delegate', '--pid', String(child.pid), '--policy', policy])
      const refused = await lend(POLICY)
      assert.equal(refused.status, 3, refused.stderr)
      assert.match(refused.stderr, /user 65534, who made that user namespace, can enter it/)
      const { status, stderr } = await lend(open)
      assert.equal(status, 0, stderr)
    } finally {
      child.stdin!.end('\n')
      await finish(child)
    }
  },
)

test('200 runs leave nothing', machine, async () => {
  const here = snapshot()
  const runs = Array.from({ length: 4 }, async () => {
    for (let turn = 0; turn < 50; turn++) assert.equal((await cli(run('--', 'true'))).status, 0)
  })
  await Promise.all(runs)
  assert.deepEqual(await residue(here), [])
})
