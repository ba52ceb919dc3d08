/**
 * Every command with --json prints one document of its published schema and nothing else. A failure
 * is such a document, too. test/vm/guard-cli.test.ts does the same for commands that need the
 * guard, test/e2e/daemon-commands.test.ts for those of the daemon.
 */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { test } from 'node:test'
import { DOCUMENT_NAMES, type DocumentName } from '../../src/api/names.ts'
import { cli, inPublic, PUBLIC, publicCli, type Result } from '../helpers/cli.ts'
import { checkedDocument, documentOf } from '../helpers/documents.ts'
import { needsTokens, ROOT } from '../helpers/machine.ts'
import { Scratch } from '../helpers/scratch.ts'
import { Shell } from '../helpers/shell.ts'

const machine = needsTokens()
const POLICY = join(ROOT, 'examples/policies/packet-counter.yaml')
const GUARDED = join(ROOT, 'examples/policies/tracing.yaml')
const NETWORK = join(ROOT, 'test/fixtures/network.bpf.o')
const GUARD_OBJECT = join(ROOT, 'bpf/guard.bpf.o')

const seen = new Set<DocumentName>()

/** Runs the command with --json and gives its document, after checking it against its schema. */
async function document(
  words: readonly string[],
  status = 0,
  run: (words: readonly string[]) => Promise<Result> = cli,
): Promise<unknown> {
  const name = documentOf(words)
  const at = words.indexOf('--')
  const all = at < 0 ? [...words, '--json'] : [...words.slice(0, at), '--json', ...words.slice(at)]
  const { status: ended, stdout, stderr } = await run(all)
  assert.equal(ended, status, `${words.join(' ')}: ${stderr}`)
  seen.add(name)
  return checkedDocument(name, stdout)
}

test('policies, objects and plans', async () => {
  await document(['policy', 'check', POLICY, GUARDED])
  using scratch = new Scratch()
  const bad = scratch.write('bad.yaml', 'kind: DelegationPolicy\nspek: {}\n')
  await document(['policy', 'check', bad, POLICY, '/no/such'], 2)
  await document(['policy', 'show', GUARDED])
  await document(['policy', 'show', '--masks', POLICY])
  await document(['policy', 'diff', POLICY, GUARDED], 1)
  await document(['policy', 'diff', POLICY, POLICY])
  await document(['policy', 'merge', POLICY, POLICY])
  await document(['policy', 'test', GUARDED, '--as', 'user=alice'], 3)
  await document(['policy', 'test', GUARDED, '--as', 'unit=latency-probe.service'])
  await document(['policy', 'test', POLICY, '--as', 'user=alice'])
  // The guard wants addresses of symbols, which no workload sees.
  await document(['plan', NETWORK, GUARD_OBJECT], 1)
  await document(['plan', '--program', 'none', NETWORK], 1)
  await document(['plan', '--check', POLICY, NETWORK], 1)
  await document(['obj', 'show', NETWORK])
  await document(['obj', 'show', '--btf', NETWORK, NETWORK])
  await document(['obj', 'types', NETWORK])
  await document(['obj', 'link', '-o', '/dev/null', NETWORK])
  await document(['obj', 'show', GUARD_OBJECT])
  await document(['simulate', join(ROOT, 'examples/scenarios/a1-trusted-process.yaml')])
})

test('policy show has sizes as numbers, and as decimal text where JSON has no such number', async () => {
  using scratch = new Scratch()
  const mapBytes = async (size: string): Promise<unknown> => {
    const text = `apiVersion: bpftoken.dev/v1\nkind: DelegationPolicy\nmetadata: { name: x }\nspec: { rights: { cmds: [map_create] }, limits: { mapBytes: ${size} } }\n`
    const shown = (await document(['policy', 'show', scratch.write('size.yaml', text)])) as {
      limits: { mapBytes: unknown }
      rights: { masks: { cmds: unknown } }
    }
    assert.equal(shown.rights.masks.cmds, '0x1')
    return shown.limits.mapBytes
  }
  assert.equal(await mapBytes('64MiB'), 64 * 2 ** 20)
  assert.equal(await mapBytes('9007199254740991'), 9007199254740991)
  assert.equal(await mapBytes('9007199254740993'), '9007199254740993')
})

test('what is lent, and taken back', machine, async () => {
  await document(['doctor'])
  await document(['run', '--policy', POLICY, '--dry-run', '--', 'true'])
  const inside = ['run', '--policy', `${PUBLIC}/examples/policies/packet-counter.yaml`, '--']
  const own = [process.execPath, `${PUBLIC}/dist/cli/main.js`]
  const within = (words: readonly string[]) => publicCli([...inside, ...own, ...words])
  await document(['token', 'show'], 0, within)
  await document(['obj', 'load', NETWORK], 0)
  await document(['record', '--', process.execPath, '-e', ''])
  const shell = await Shell.start()
  try {
    const to = ['--pid', String(shell.pid)]
    await document(['delegate', ...to, '--policy', POLICY, '--dry-run'])
    await document(['delegate', ...to, '--policy', POLICY])
    const listed = (await document(['ls'])) as { pids: number[] }[]
    assert.ok(listed.some(({ pids }) => pids.includes(shell.pid)))
    const tree = (await document(['ls', '--tree'])) as { lent: { mounts: { pids: number[] }[] }[] }
    assert.ok(tree.lent.some(({ mounts }) => mounts.some(({ pids }) => pids.includes(shell.pid))))
    await document(['undelegate', ...to])
  } finally {
    await shell.end()
  }
})

test('drop-ins of systemd', machine, async () => {
  using scratch = new Scratch()
  const dropin = ['systemd', 'dropin', 'agent', '--dir', scratch.path] as const
  const made = (await document([...dropin, '--policy', POLICY, '--systemd', '262'])) as { text: string }
  assert.match(made.text, /PrivateBPF=yes/)
  await document([...dropin, '--remove'])
})

/**
 * The types of the lines of a stream, each of its schema, until the command has been interrupted.
 */
async function lines(name: DocumentName, words: readonly string[]): Promise<string[]> {
  const [command, args] = inPublic([process.execPath, `${PUBLIC}/dist/cli/main.js`, ...words])
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'inherit'] })
  const types: string[] = []
  for await (const line of createInterface(child.stdout)) {
    const { type } = checkedDocument(name, line) as { type: string }
    types.push(type)
    if (type === 'counters') child.kill('SIGINT')
  }
  seen.add(name)
  return [...new Set(types)].filter(type => type !== 'event')
}

test('streams: try and obj load --watch', machine, async () => {
  const object = `${PUBLIC}/test/fixtures/network.bpf.o`
  assert.deepEqual(await lines('try', ['try', '--yes', '--json', object]), [
    ...['policy', 'loaded', 'counters', 'end'],
  ])
  const watch = ['obj', 'load', '--program', 'count', '--watch', '--json', object]
  assert.deepEqual(await lines('obj-load-watch', watch), ['loaded', 'counters', 'end'])
})

test('init', async () => {
  using scratch = new Scratch()
  await document(['init', `${scratch.path}/new`])
})

test('failures of every kind', async () => {
  using scratch = new Scratch()
  const bad = scratch.write('bad.yaml', 'kind: DelegationPolicy\nspek: {}\n')
  const rows: readonly (readonly [status: number, code: string, words: readonly string[]])[] = [
    [2, 'BPFTOKEN_USAGE', ['bogus']],
    [2, 'BPFTOKEN_USAGE', ['policy']],
    [2, 'BPFTOKEN_USAGE', ['policy', 'check', '--max-risk', 'none', POLICY]],
    [2, 'BPFTOKEN_USAGE', ['policy', 'test', POLICY, '--as', 'nonsense']],
    [2, 'BPFTOKEN_USAGE', ['delegate', '--pid', '0', '--policy', POLICY]],
    [2, 'BPFTOKEN_USAGE', ['schema', 'bogus']],
    [2, 'BPFTOKEN_USAGE', ['completion', 'csh']],
    [2, 'BPFTOKEN_POLICY_INVALID', ['policy', 'show', bad]],
    [2, 'BPFTOKEN_POLICY_INVALID', ['plan', '--check', bad, NETWORK]],
    [1, 'BPFTOKEN_NOT_FOUND', ['policy', 'show', '/no/such']],
    [1, 'BPFTOKEN_FORMAT', ['obj', 'show', POLICY]],
    [1, 'BPFTOKEN_NOT_FOUND', ['plan', '/no/such']],
    [1, 'BPFTOKEN_NOT_FOUND', ['token', 'show', '--path', '/no/such']],
  ]
  for (const [status, code, words] of rows)
    for (const all of [
      [...words, '--json'],
      ['--json', ...words],
    ]) {
      const { status: ended, stdout, stderr } = await cli(all)
      assert.deepEqual([ended, stdout], [status, ''], all.join(' '))
      const told = checkedDocument('error', stderr) as { error: { code: string } }
      assert.equal(told.error.code, code, all.join(' '))
    }
  seen.add('error')
})

test('refusals by policy and for want of rights', machine, async () => {
  const user = { uid: 65534, gid: 65534 }
  for (const [status, words, options] of [
    [3, ['run', '--policy', GUARDED, '--json', '--', 'true'], user],
    [3, ['obj', 'load', '--json', NETWORK], user],
    [4, ['run', '--policy', GUARDED, '--json', '--', 'true'], {}],
    [3, ['run', '--policy', POLICY, '--host-net', '--json', '--', 'true'], {}],
  ] as const) {
    const { status: ended, stderr } = await cli(words, options)
    assert.equal(ended, status, stderr)
    checkedDocument('error', stderr)
  }
})

test('whatever else is told, a failure is the last line', async () => {
  const env = { ...process.env, BPFTOKEN_DEBUG: '1' }
  for (const words of [['policy', 'show', '/none.yaml'], ['nothing'], ['obj', 'show', POLICY]]) {
    const { stderr } = await cli([...words, '--json', '-v'], { env })
    checkedDocument('error', `${stderr.trimEnd().split('\n').at(-1)}\n`)
  }
})

test('bpftoken schema prints what this test holds the commands to', async () => {
  const { stdout } = await cli(['schema'])
  assert.deepEqual(
    stdout
      .trim()
      .split('\n')
      .map(line => line.split(' ')[0]),
    DOCUMENT_NAMES,
  )
  for (const name of ['error', 'policy-check', 'ls']) {
    const { status, stdout: schema } = await cli(['schema', name])
    assert.equal(status, 0)
    assert.equal((JSON.parse(schema) as { title: string }).title, `bpftoken ${name}`)
  }
})

test('no document is left out, but those that need the guard, the daemon, or Podman', machine, () => {
  const guarded = /^(derive|confine|unconfine|policy-install|guard-.*|revoke|show|events|events-suggest)$/
  const ofDaemon = /^(status|page|requests|approve|deny|renew|explain|reload|policy-list|audit-.*)$/
  // test/e2e/containers/podman.test.ts has these.
  const ofPodman = /^containers-.*$/
  assert.deepEqual(
    DOCUMENT_NAMES.filter(
      name => ![guarded, ofDaemon, ofPodman].some(others => others.test(name)) && !seen.has(name),
    ),
    [],
  )
})
