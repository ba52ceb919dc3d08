/**
 * bpftoken record on other kernels than this machine's: what is seen, what is lost, and what comes
 * of a recording.
 *
 *   node --import tsx scripts/vm/vm.ts --kernel 7 --tests test/vm/record.test.ts
 */
import assert from 'node:assert/strict'
import { mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { compiled } from '../../scripts/compiled.ts'
import { residue, snapshot } from '../../scripts/residue.ts'
import { removeCgroup } from '../helpers/cgroup.ts'
import { CLI, cli, execute, finish, startCli } from '../helpers/cli.ts'
import { checkedDocument } from '../helpers/documents.ts'
import { eventually } from '../helpers/eventually.ts'
import { hasTokens, inVm, isRoot, ROOT } from '../helpers/machine.ts'
import { Scratch } from '../helpers/scratch.ts'

const skip = !isRoot ? 'needs root' : inVm ? false : 'runs in a VM: make test-vm'
const ASKS = skip === false ? compiled(join(ROOT, 'test/vm/asks.c')) : ''
const ONCE = skip === false ? compiled(join(ROOT, 'test/kernel/lending/ends-at-once.c')) : ''
const [HASH, ARRAY, PERCPU_ARRAY, LRU_HASH] = ['1', '2', '6', '9']

const before = snapshot()
const scratch = new Scratch()
after(async () => {
  scratch[Symbol.dispose]()
  assert.deepEqual(await residue(before), [])
})

interface Right {
  readonly domain: string
  readonly word: string
  readonly askers: readonly { pid: number; innerPid: number; outcomes: Readonly<Record<string, number>> }[]
}
interface Recorded {
  readonly tokens: boolean
  readonly complete: boolean
  readonly lost: { readonly calls: number }
  readonly calls: number
  readonly rights: readonly Right[]
  readonly leftOut: readonly Right[]
}

async function recorded(...command: string[]): Promise<Recorded & { said: string; policy: string }> {
  const file = scratch.write('policy.yaml', '')
  const { status, stdout, stderr } = await cli(['record', '-o', file, '--json', '--', ...command])
  assert.equal(status, 0, stderr)
  const document = checkedDocument('record', stdout) as Recorded
  return { ...document, said: stderr, policy: readFileSync(file, 'utf8') }
}
const maps = (rights: readonly Right[]): Right[] => rights.filter(({ domain }) => domain === 'maps')

test('a thread, a process and a child in a new PID namespace are seen, by both numbers', {
  skip,
}, async () => {
  const { rights, complete } = await recorded(ASKS, 'nested', HASH!, ARRAY!, LRU_HASH!)
  assert.equal(complete, true)
  const [thread, process, child] = maps(rights).map(({ askers: [one] }) => one!)
  assert.deepEqual(
    maps(rights).map(({ word }) => word),
    ['hash', 'array', 'lru_hash'],
  )
  assert.deepEqual([thread!.innerPid, process!.innerPid], [1, 1])
  assert.equal(thread!.pid, process!.pid)
  assert.ok(child!.innerPid > 1 && child!.pid > process!.pid && process!.pid > 1)
})

test('the flag for common attributes is no part of the command', { skip }, async () => {
  const { rights, leftOut } = await recorded(ASKS, 'common', PERCPU_ARRAY!)
  const isKnown = await commonAttrs()
  // The twin: a kernel that does not know it refuses the call, and no right would have helped.
  const [seen, other] = isKnown ? [rights, leftOut] : [leftOut, rights]
  assert.deepEqual(
    maps(seen).map(({ word, askers: [one] }) => [word, one!.outcomes]),
    [['percpu_array', { [isKnown ? 'ok' : 'EINVAL']: 1 }]],
  )
  assert.deepEqual(maps(other), [])
})

/** Whether this kernel's types have it. */
async function commonAttrs(): Promise<boolean> {
  return (await execute('grep', ['-qa', 'BPF_COMMON_ATTRS', '/sys/kernel/btf/vmlinux'])).status === 0
}

test('a cgroup is watched with those below it, and no other', { skip }, async () => {
  const root = '/sys/fs/cgroup'
  const parent = join(root, 'bpftoken-test-record')
  mkdirSync(join(parent, 'below'), { recursive: true })
  try {
    const recorder = startCli(['record', '--cgroup', parent, '--json'], { stdio: 'pipe' })
    let noted = ''
    recorder.stderr!.on('data', chunk => {
      noted += String(chunk)
    })
    const ended = finish(recorder)
    await eventually(() => noted.includes('watching'), 'the recorder never began')
    const script = 'echo $$ >"$0/cgroup.procs" && exec "$@"'
    for (const [dir, type] of [
      [parent, HASH],
      [join(parent, 'below'), ARRAY],
      [root, LRU_HASH],
    ] as const)
      assert.equal((await execute('sh', ['-c', script, dir, ASKS, 'once', type!])).status, 0)
    recorder.kill('SIGTERM')
    const { status, stdout } = await ended
    assert.equal(status, 0, noted)
    assert.deepEqual(
      maps((checkedDocument('record', stdout) as Recorded).rights).map(({ word }) => word),
      ['hash', 'array'],
    )
  } finally {
    await removeCgroup(parent)
  }
})

test('what does not fit into the ring is told; what does is complete', { skip }, async () => {
  const few = await recorded(ASKS, 'flood', HASH!, '1000')
  assert.deepEqual([few.complete, few.lost.calls, few.calls], [true, 0, 1000])
  const many = await recorded(ASKS, 'flood', HASH!, '60000')
  assert.equal(many.complete, false)
  assert.equal(many.lost.calls + many.calls, 60_000)
  assert.match(many.said, /INCOMPLETE/)
  assert.match(many.policy, /^# INCOMPLETE/m)
})

test('the policy is enough for a rerun with a token; where there are none, it says so', {
  skip,
}, async () => {
  const load = [process.execPath, CLI, 'obj', 'load', join(ROOT, 'examples/library/filter.bpf.o')]
  const { policy, said, tokens } = await recorded(...load)
  assert.equal(tokens, hasTokens())
  const told = /this kernel has no BPF tokens/
  if (!hasTokens()) {
    assert.match(said, told)
    assert.match(policy, told)
    return
  }
  assert.doesNotMatch(said + policy, told)
  const run = (file: string) => cli(['run', '--policy', file, '--', ...load])
  const again = await run(scratch.write('again.yaml', policy))
  assert.equal(again.status, 0, again.stderr)
  assert.match(again.stdout, /^loaded with the token of/m)
  // The twin.
  const without = policy.replace(/^ {6}- ringbuf .*\n/m, '')
  assert.notEqual(without, policy)
  assert.equal((await run(scratch.write('without.yaml', without))).status, 3)
})

test('a process that ends right after a refused call waits until explain has looked at it', {
  skip,
}, async () => {
  for (let run = 0; run < 5; run++) {
    const apart = ['unshare', '--user', '--map-root-user', '--mount']
    const { status, stdout, stderr } = await cli(['explain', '--', ...apart, ONCE])
    assert.equal(status, 3, stderr)
    assert.match(stdout, /^map_create hash: refused \(EPERM\): (?!unknown)/)
    assert.doesNotMatch(stderr, /ended before|not held/)
  }
})

test('what a seccomp filter kills or says in the kernel’s place is told apart', { skip }, async () => {
  // A thread that is killed alone is seen on newer kernels only: test/e2e/record.test.ts.
  for (const [action, by, said] of [
    ['0x30000', 'process', 'SIGSYS'],
    ['0x50000', 'process', 'answer of 0'],
  ] as const) {
    const { rights, complete } = await recorded(ASKS, 'filtered', action, LRU_HASH!, by)
    const outcomes = { [`${said} before the kernel's bpf(2) was asked`]: 1 }
    assert.deepEqual(
      maps(rights).map(({ word, askers: [one] }) => [word, one!.outcomes]),
      [['lru_hash', outcomes]],
    )
    assert.equal(complete, true)
  }
  const { rights } = await recorded(ASKS, 'filtered', '0x7fff0000', LRU_HASH!, 'process')
  assert.deepEqual(
    maps(rights).map(({ askers: [one] }) => one!.outcomes),
    [{ ok: 1 }],
  )
})
