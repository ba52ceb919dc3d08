/**
 * What a permissive policy let through, as `events --suggest` and as `record` tell it: both are
 * enough for the same run once the policy is enforced.
 *
 *   node --import tsx scripts/vm/vm.ts --kernel 7 --tests test/vm/permissive.test.ts
 */
import assert from 'node:assert/strict'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { removeCgroup } from '../helpers/cgroup.ts'
import { CLI, cli, execute, finish, type Result, startCli } from '../helpers/cli.ts'
import { checkedDocument } from '../helpers/documents.ts'
import { ROOT } from '../helpers/machine.ts'
import { Scratch } from '../helpers/scratch.ts'
import { eventually, skip } from './guarded.ts'

const GROUP = '/sys/fs/cgroup/bpftoken-test-permissive'
const LOAD = [process.execPath, CLI, 'obj', 'load', join(ROOT, 'examples/library/filter.bpf.o')]

type Rights = Readonly<Record<string, readonly string[]>>
const POLICY = (name: string, rights: Rights, spec = ''): string => `apiVersion: bpftoken.dev/v1
kind: DelegationPolicy
metadata: { name: ${name} }
spec:
  rights: ${JSON.stringify({ maps: [], progs: [], attachs: [], ...rights })}
${spec}`
/** Next to nothing: the kernel has no token that lends nothing at all. */
const LITTLE = { cmds: ['map_create'], capabilities: ['bpf'] }

let scratch: Scratch
before(async () => {
  if (skip !== false) return
  scratch = new Scratch()
  mkdirSync(GROUP)
  await ok('guard', 'install')
})
after(async () => {
  if (skip !== false) return
  await cli(['unconfine', '--cgroup', GROUP])
  await ok('guard', 'remove')
  await removeCgroup(GROUP)
  scratch[Symbol.dispose]()
})

async function ok(...words: string[]): Promise<string> {
  const { status, stdout, stderr } = await cli(words)
  assert.equal(status, 0, `bpftoken ${words.join(' ')}: ${stderr}${stdout}`)
  return stdout
}

/** The loader as root in the confined cgroup. */
function load(): Promise<Result> {
  return execute('sh', ['-c', 'echo $$ >"$0/cgroup.procs" && exec "$@"', GROUP, ...LOAD])
}

async function loadUnder(name: string, text: string): Promise<Result> {
  await ok('confine', '--cgroup', GROUP, '--policy', scratch.write(`${name}.yaml`, text))
  return load()
}

test('a permissive run, recorded and by its events: each is enough when enforced', { skip }, async () => {
  const watched = scratch.write('watched.yaml', POLICY('watched', LITTLE, '  mode: permissive\n'))
  await ok('confine', '--cgroup', GROUP, '--policy', watched)
  await ok('events')
  const recorder = startCli(['record', '--cgroup', GROUP], { stdio: 'pipe' })
  let noted = ''
  recorder.stderr!.on('data', chunk => {
    noted += String(chunk)
  })
  const ended = finish(recorder)
  await eventually(() => noted.includes('watching'), 'the recorder never began')
  const permitted = await load()
  assert.equal(permitted.status, 0, permitted.stderr)
  recorder.kill('SIGINT')
  const { stdout: recorded } = await ended
  // The deny twin: the same terms, enforced.
  assert.notEqual((await loadUnder('enforced', POLICY('enforced', LITTLE))).status, 0)

  const byRecord = await loadUnder('recorded', recorded)
  assert.equal(byRecord.status, 0, byRecord.stderr)
  const without = recorded.replace(/^ {6}- ringbuf .*\n/m, '')
  assert.notEqual(without, recorded)
  assert.notEqual((await loadUnder('without', without)).status, 0)
})

test('the events of a permissive run name what is missing, and what they cannot tell', { skip }, async () => {
  const watched = scratch.write('watched.yaml', POLICY('watched', LITTLE, '  mode: permissive\n'))
  await ok('confine', '--cgroup', GROUP, '--policy', watched)
  await ok('events')
  assert.equal((await load()).status, 0)
  const { suggestions } = checkedDocument('events-suggest', await ok('events', '--suggest', '--json')) as {
    suggestions: { additions: { path: string; value: unknown }[]; unanswered: { why: string }[] }[]
  }
  const rights: Record<string, string[]> = { cmds: [...LITTLE.cmds], capabilities: [...LITTLE.capabilities] }
  for (const { path, value } of suggestions.flatMap(({ additions }) => additions)) {
    const [, list] = /^spec\.rights\.(\w+)$/.exec(path) ?? []
    assert.ok(list !== undefined && typeof value === 'string', `${path}: ${value}`)
    rights[list] = [...(rights[list] ?? []), value]
  }
  assert.deepEqual(rights['maps']?.sort(), ['array', 'ringbuf'])
  assert.deepEqual(rights['progs'], ['xdp'])
  // An event does not hold the attach type: that is said, and it is all that is missing.
  assert.match(JSON.stringify(suggestions), /its attach type is missing, which events do not hold/)
  const without = await loadUnder('suggested', POLICY('suggested', rights))
  const enough = await loadUnder('enough', POLICY('enough', { ...rights, attachs: ['xdp'] }))
  assert.equal(enough.status, 0, enough.stderr)
  assert.notEqual(without.status, 0)
})
