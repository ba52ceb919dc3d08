/** explain --fix: the change is made, and what was refused succeeds. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { chmodSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { PACKAGE } from '../../scripts/installed.ts'
import { residue, snapshot } from '../../scripts/residue.ts'
import { CLI, cli } from '../helpers/cli.ts'
import { checkedDocument } from '../helpers/documents.ts'
import { eventually } from '../helpers/eventually.ts'
import { needsTokens } from '../helpers/machine.ts'
import { Scratch } from '../helpers/scratch.ts'
import { Terminal } from '../helpers/terminal.ts'
import { xdpObject } from '../helpers/xdp-object.ts'
import { PERL } from '../kernel/lending/explained.ts'

const machine = needsTokens()
const scratch = new Scratch()
const before = snapshot()
after(async () => {
  scratch[Symbol.dispose]()
  assert.deepEqual(await residue(before), [])
})

const policy = (name: string, rights: string): string =>
  scratch.write(
    name,
    `apiVersion: bpftoken.dev/v1\nkind: DelegationPolicy\nmetadata: { name: t } # ours\nspec:\n  rights:\n${rights}`,
  )

interface Fix {
  readonly applied: boolean
  readonly ours: boolean
  readonly diff: string
  readonly what: string
  readonly run: string[]
  readonly risk: { before: string; after: string; adds: { word: string; reason: string }[] }
  readonly again?: { when: string; verdict: string; cause: string }
}
interface Answer {
  readonly cause: string
  readonly policy?: { list: string; word: string }
  readonly fix?: Fix
}

/** More changes than an object needs. */
const MOST = 12

test('a command: change by change until it loads, and each is one line of the policy', machine, async () => {
  const file = policy(
    'policy.yaml',
    '    cmds: [map_create] # few\n    capabilities: [bpf] # for the token\n',
  )
  chmodSync(file, 0o640)
  const load = [
    'run',
    '--policy',
    file,
    '--',
    process.execPath,
    CLI,
    'obj',
    'load',
    scratch.write('pass.o', xdpObject()),
  ]
  assert.notEqual((await cli(load)).status, 0, 'it is refused at first')
  const applied: string[] = []
  for (let i = 0; ; i++) {
    assert.ok(i < MOST, `no end after ${applied.join(', ')}`)
    const text = readFileSync(file, 'utf8')
    const { status, stdout, stderr } = await cli([
      ...['explain', '--fix', '--yes', '--json', '--policy', file, '--', process.execPath, CLI, ...load],
    ])
    const { fix, policy: line } = checkedDocument('explain', stdout) as Answer
    // Its process may have ended before it was looked at; then nothing is known, and nothing changed.
    if (fix !== undefined && !fix.applied) {
      assert.equal(readFileSync(file, 'utf8'), text, stderr)
      assert.equal(status, 3)
      continue
    }
    assert.ok(fix !== undefined && line !== undefined, stdout)
    applied.push(`${line.list} ${line.word}`)
    assert.equal(fix.diff.match(/^\+(?!\+\+)/gm)?.length, 1)
    assert.ok(fix.risk.adds.every(({ reason }) => reason !== ''))
    assert.equal(status, fix.again?.verdict === 'ok' ? 0 : 3)
    if (status === 0) break
  }
  assert.deepEqual(applied.toSorted(), [
    'attachs xdp',
    'capabilities net_admin',
    'cmds prog_load',
    'progs xdp',
  ])
  const { status, stderr } = await cli(load)
  assert.equal(status, 0, stderr)
  const text = readFileSync(file, 'utf8')
  for (const kept of [/# ours$/m, /# few$/m, /# for the token$/m]) assert.match(text, kept)
  assert.equal(statSync(file).mode & 0o777, 0o640)
  assert.deepEqual(
    readdirSync(scratch.path).filter(name => name.endsWith('.tmp')),
    [],
  )
})

test(
  'a running process: it says how it is lent anew, and that it is allowed then, which it is',
  machine,
  async () => {
    const file = policy('small.yaml', '    cmds: [map_create]\n    maps: [array]\n')
    const child = spawn('unshare', ['-U', '-r', '-m', 'sh', '-c', 'echo ready; exec cat'], {
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    try {
      await new Promise(resolve => child.stdout!.once('data', resolve))
      const pid = String(child.pid)
      const explain = (...words: string[]) =>
        cli(['explain', '--pid', pid, ...words, '--', 'map_create', 'hash'])
      const fixed = async (...words: string[]) => {
        const { status, stdout } = await explain('--fix', '--yes', '--json', ...words)
        return { status, ...(checkedDocument('explain', stdout) as Answer) }
      }
      // Lending is nothing that is done here: it is said how.
      const none = await fixed()
      assert.deepEqual(
        [none.status, none.cause, none.fix?.applied, none.fix?.ours],
        [3, 'no-delegation', false, false],
      )
      assert.deepEqual(none.fix?.run, [`bpftoken delegate --pid ${pid} --policy POLICY`])
      assert.equal((await cli(['delegate', '--pid', pid, '--policy', file])).status, 0)
      const unnamed = await explain('--fix', '--yes')
      assert.equal(unnamed.status, 2)
      assert.match(unnamed.stderr, /Which policy is to be changed is not known[\s\S]*--policy FILE/)
      const { status, fix } = await fixed('--policy', file)
      assert.deepEqual([status, fix?.applied, fix?.again?.verdict], [0, true, 'ok'])
      assert.match(fix!.again!.when, /once it is lent to anew/)
      // What was lent is as it was, until that is done which it says.
      assert.equal((await explain()).status, 3)
      const twice = await fixed('--policy', file)
      assert.deepEqual([twice.fix?.applied, twice.fix?.ours], [false, true])
      assert.match(twice.fix!.what, /has it already: what was lent is older/)
      for (const command of fix!.run) {
        const [name, ...words] = command.split(' ')
        assert.equal(name, 'bpftoken')
        const { status, stderr } = await cli(words)
        assert.equal(status, 0, `${command}: ${stderr}`)
      }
      assert.equal((await explain()).status, 0)
    } finally {
      child.stdin!.end()
      await eventually(() => child.exitCode !== null, 'it never ended')
    }
  },
)

test('it asks on a terminal, and nothing but yes is one; elsewhere it wants --yes', machine, async () => {
  const file = policy('asked.yaml', '    cmds: [map_create]\n    maps: [array]\n')
  const text = readFileSync(file, 'utf8')
  const child = spawn('unshare', ['-U', '-r', '-m', 'sh', '-c', 'echo ready; exec cat'], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  try {
    await new Promise(resolve => child.stdout!.once('data', resolve))
    const pid = String(child.pid)
    assert.equal((await cli(['delegate', '--pid', pid, '--policy', file])).status, 0)
    const words = ['explain', '--pid', pid, '--fix', '--policy', file, '--', 'map_create', 'hash']
    const silent = await cli(words)
    assert.equal(silent.status, 2)
    assert.match(silent.stderr, /no terminal to ask on[\s\S]*--yes/)
    for (const [answer, said] of [
      ['n\n', /nothing is changed/],
      ['\n', /nothing is changed/],
      ['yes\n', /^changed .*asked\.yaml/m],
    ] as const) {
      assert.equal(readFileSync(file, 'utf8'), text)
      using terminal = new Terminal([process.execPath, CLI, ...words].join(' '))
      const shown = await terminal.see(/Change .*asked\.yaml\? \[y\/N\] /)
      assert.match(shown, /^\+ {4}maps: \[array, hash\]\r?$/m)
      assert.match(shown, /^risk: low, as before\r?\n {2}adds low: maps hash: /m)
      terminal.type(answer)
      await terminal.see(said)
    }
    assert.equal(readFileSync(file, 'utf8'), text.replace('[array]', '[array, hash]'))
    assert.equal((await cli(['undelegate', '--pid', pid])).status, 0)
  } finally {
    child.stdin!.end()
    await eventually(() => child.exitCode !== null, 'it never ended')
  }
})

test("it changes no file that is not root's alone, and none that is no policy", machine, async () => {
  const object = scratch.write('pass2.o', xdpObject())
  const file = policy('open.yaml', '    cmds: [map_create]\n    maps: [array]\n')
  const fixing = (named: string) =>
    cli([
      ...['explain', '--fix', '--yes', '--policy', named, '--', process.execPath, CLI],
      ...['run', '--policy', file, '--', process.execPath, CLI, 'obj', 'load', object],
    ])
  const until = async (named: string, pattern: RegExp): Promise<void> => {
    await eventually(async () => {
      const { status, stdout, stderr } = await fixing(named)
      assert.notEqual(status, 0)
      return pattern.test(stderr + stdout)
    }, `never ${pattern}`)
  }
  chmodSync(file, 0o666)
  const text = readFileSync(file, 'utf8')
  await until(file, /others than its owner may write to it \(mode 666\)/)
  assert.equal(readFileSync(file, 'utf8'), text)
  await until(scratch.write('odd.yaml', 'rights: no\n'), /odd\.yaml/)
  assert.equal(readFileSync(`${scratch.path}/odd.yaml`, 'utf8'), 'rights: no\n')
})

test('it changes the policy that the run takes, and no other', machine, async () => {
  const rights = '    cmds: [map_create]\n    maps: [array]\n    capabilities: [bpf]\n'
  const [first, second] = [policy('first.yaml', rights), policy('second.yaml', rights)]
  const before = readFileSync(first, 'utf8')
  const script = scratch.write('hash.pl', `${PERL}\ntake_token(); map_create(1, 4, 4, 1, 0) >= 0 or exit 1`)
  const run = [
    join(PACKAGE, 'bin/bpftoken'),
    'run',
    '--policy',
    first,
    '--policy',
    second,
    '--',
    'perl',
    script,
  ]
  const { status, stdout } = await cli(['explain', '--fix', '--yes', '--', ...run])
  assert.equal(status, 0, stdout)
  assert.equal(readFileSync(first, 'utf8'), before)
  assert.match(readFileSync(second, 'utf8'), /maps: \[array, hash\]/)
})

test('for a command that has ended well, nothing is changed, and it says so', machine, async () => {
  const file = policy('well.yaml', '    cmds: [map_create]\n    maps: [array]\n    capabilities: [bpf]\n')
  const before = readFileSync(file, 'utf8')
  const fixed = async (end: string) => {
    const script = scratch.write('well.pl', `${PERL}\ntake_token(); ${end}`)
    return await cli([
      ...[
        'explain',
        '--fix',
        '--yes',
        '--policy',
        file,
        '--',
        process.execPath,
        CLI,
        'run',
        '--policy',
        file,
      ],
      ...['--', 'perl', script],
    ])
  }
  const done = await fixed('map_create(1, 4, 4, 1, 0); map_create(2, 4, 4, 1, 0) >= 0 or exit 1')
  assert.equal(done.status, 3)
  assert.match(done.stdout, /^nothing is changed: the command ended with status 0: it has done without/m)
  assert.equal(readFileSync(file, 'utf8'), before)
  const failed = await fixed('map_create(1, 4, 4, 1, 0) >= 0 or exit 1')
  assert.equal(failed.status, 0, failed.stdout)
  // What is left is no matter of a policy: then it is not called mended.
  const broken = policy('broken.yaml', '    cmds: [map_create]\n    maps: [array]\n    capabilities: [bpf]\n')
  const script = scratch.write('broken.pl', `${PERL}\ntake_token(); map_create(1, 4, 4, 1, 0); exit 1`)
  const run = [process.execPath, CLI, 'run', '--policy', broken, '--', 'perl', script]
  const still = await cli(['explain', '--fix', '--yes', '--policy', broken, '--', ...run])
  assert.equal(still.status, 3)
  assert.match(still.stdout, /^run again, the command ended with status 1: every call: allowed$/m)
})
