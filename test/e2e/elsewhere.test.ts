/**
 * On a system that is no Linux what asks nothing of a kernel works: here without /proc and /sys, and
 * without anything native. What that leaves untried is another system's own Node and shell.
 */
import assert from 'node:assert/strict'
import { copyFileSync, mkdirSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { commandTree } from '../../src/cli/tree.ts'
import { CLI, cli, execute, type Result } from '../helpers/cli.ts'
import { ROOT } from '../helpers/machine.ts'
import { Scratch } from '../helpers/scratch.ts'

const scratch = new Scratch()
after(() => scratch[Symbol.dispose]())

const HIDDEN = 'mount -t tmpfs none /proc && mount -t tmpfs none /sys && exec "$0" "$@"'
const AS_DARWIN = join(ROOT, 'test/fixtures/as-darwin.cjs')
const POLICY = join(ROOT, 'examples/policies/packet-counter.yaml')
const WIDER = join(ROOT, 'examples/policies/libbpf-xdp.yaml')
const OBJECT = join(ROOT, 'examples/library/filter.bpf.o')
const SCENARIO = join(ROOT, 'examples/scenarios/a2-token-create.yaml')

const node = (...args: string[]): Promise<Result> =>
  execute('unshare', ['--mount', 'sh', '-c', HIDDEN, process.execPath, '--require', AS_DARWIN, ...args])
const elsewhere = (...words: string[]): Promise<Result> => node(CLI, ...words)

const WORKS: Readonly<Record<string, { words: string[]; status?: number; says: RegExp }>> = {
  'policy check': { words: [POLICY], says: /passes/ },
  'policy show': { words: ['--masks', POLICY], says: /delegate_progs=xdp$/m },
  'policy diff': { words: [POLICY, WIDER], status: 1, says: /spec\.rights\.maps +- +hash +more/ },
  'policy merge': { words: [POLICY, WIDER], says: /^ {6}- lpm_trie /m },
  'policy test': { words: [POLICY, '--as', 'user=alice'], says: /^Allowed by policy/ },
  simulate: { words: [SCENARIO], says: /all \d+ expectations are met/ },
  plan: { words: [OBJECT], says: /^ {6}- xdp/m },
  init: { words: [join(scratch.path, 'starter')], says: /counter\.bpf\.c/ },
  'obj show': { words: [OBJECT], says: /filter +xdp/ },
  'obj link': { words: ['-o', join(scratch.path, 'linked.o'), OBJECT], says: /linked\.o: \d+ bytes/ },
  'obj types': { words: [OBJECT], says: /export interface Dropped/ },
  schema: { words: ['policy-check'], says: /"\$schema"/ },
  completion: { words: ['bash'], says: /_bpftoken_words/ },
}

describe('where there is no Linux', () => {
  for (const [command, { words, status = 0, says }] of Object.entries(WORKS))
    test(`${command} works`, async () => {
      const ran = await elsewhere(...command.split(' '), ...words)
      assert.equal(ran.status, status, ran.stderr)
      assert.match(`${ran.stdout}${ran.stderr}`, says)
    })

  test('each command says whether it works there', async () => {
    const all = commandTree(() => {}, '0').withAllBelow()
    const marked = all.filter(({ worksAnywhere }) => worksAnywhere).map(({ path }) => path)
    assert.deepEqual(marked.sort(), Object.keys(WORKS).sort())
  })

  test('others say that they want Linux, and which do not', async () => {
    for (const words of [
      ['ls'],
      ['doctor'],
      ['run', '--policy', POLICY, '--', 'true'],
      ['record', '--', 'true'],
    ]) {
      const { status, stdout, stderr } = await elsewhere(...words)
      assert.equal(status, 4, stderr)
      assert.equal(stdout, '')
      assert.match(
        stderr,
        new RegExp(`^bpftoken: ${words[0]} works on Linux alone, and this is darwin$`, 'm'),
      )
      assert.match(stderr, /These work here: .*policy check.*simulate/)
    }
    const json = await elsewhere('ls', '--json')
    assert.equal(JSON.parse(json.stderr).error.code, 'BPFTOKEN_NOT_SUPPORTED')
  })

  test('the words are those of the newest known kernel, and that is said', async () => {
    const { stderr } = await elsewhere('policy', 'show', POLICY)
    assert.match(stderr, /no kernel can be asked for its words here: they are those of Linux 7\.3/)
    const named = await elsewhere('policy', 'show', '--kernel', '6.12', POLICY)
    assert.equal(named.stderr, '')
    const running = await elsewhere('policy', 'show', '--kernel', 'running', POLICY)
    assert.equal(running.status, 4)
  })

  test('the doors of the package open, and read objects and policies', async () => {
    const { status, stdout, stderr } = await node(
      '--eval',
      `const { readFileSync } = require('node:fs')
       const { parseObject } = require('bpftoken/ebpf')
       require('bpftoken'), require('bpftoken/policy')
       console.log(parseObject(readFileSync(process.argv[1]), { name: 'filter' }).programs.length)`,
      OBJECT,
    )
    assert.equal(status, 0, stderr)
    assert.equal(stdout.trim(), '1')
  })

  test('npm installs it: nothing is compiled, and nothing is missing', async () => {
    // As the package is there without what is native.
    const folder = join(scratch.path, 'package/native')
    mkdirSync(folder, { recursive: true })
    for (const name of readdirSync(join(ROOT, 'native')).filter(one => one.endsWith('.cjs')))
      copyFileSync(join(ROOT, 'native', name), join(folder, name))
    const { status, stdout, stderr } = await node(join(folder, 'install.cjs'))
    assert.equal(status, 0, stderr)
    assert.equal(`${stdout}${stderr}`, '')
  })
})

test('policies are read in the words of the kernel that is named', async () => {
  // rhash came after 6.18, btf_get_fd_by_id is asked of a token since 6.15.
  const file = scratch.write(
    'newer.yaml',
    'apiVersion: bpftoken.dev/v1\nkind: DelegationPolicy\nmetadata: { name: newer }\nspec:\n  rights: { cmds: [map_create], maps: [rhash] }\n',
  )
  const on = (kernel: string): Promise<Result> => cli(['policy', 'check', '--kernel', kernel, file])
  assert.doesNotMatch((await on('7.3')).stdout, /not valid/)
  const older = await on('6.12')
  assert.equal(older.status, 2)
  assert.match(`${older.stdout}${older.stderr}`, /rhash/)
  // What was kept of one kernel is not taken for another.
  assert.doesNotMatch((await on('7.3')).stdout, /not valid/)
  assert.equal((await on('6.12')).status, 2)
  assert.match((await cli(['policy', 'show', '--kernel', '6.1', POLICY])).stderr, /6\.1 has no BPF tokens/)
})
