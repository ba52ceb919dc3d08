/**
 * bpftoken record of what runs in namespaces of its own: a container's processes, which may begin
 * later, and processes that have other numbers than the recorder sees.
 */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { after, before, describe, test } from 'node:test'
import { residue, snapshot } from '../../scripts/residue.ts'
import { CLI, execute, finish, type Result } from '../helpers/cli.ts'
import { checkedDocument } from '../helpers/documents.ts'
import { eventually } from '../helpers/eventually.ts'
import { needsProgram, needsTokens } from '../helpers/machine.ts'
import { Podman } from '../helpers/podman.ts'
import { Scratch } from '../helpers/scratch.ts'

const untouched = snapshot()
const scratch = new Scratch()
after(async () => {
  scratch[Symbol.dispose]()
  assert.deepEqual(await residue(untouched), [])
})

const NR_BPF = process.arch === 'arm64' ? 280 : 321
/** Perl: makes a map of that type, or is refused. */
const PERL = `sub make { syscall(${NR_BPF}, 0, pack("L5 x52", $_[0], 4, 4, 1, 0), 72) } `
const [HASH, ARRAY, LRU_HASH, QUEUE] = [1, 2, 9, 22]
const NODE_CLI = [process.execPath, CLI] as const

interface Asker {
  readonly pid: number
  readonly innerPid: number
  readonly outcomes: Readonly<Record<string, number>>
}
/** By the words of map types. */
function askersOf(document: string): Map<string, readonly Asker[]> {
  const { rights } = checkedDocument('record', document) as {
    rights: { domain: string; word: string; askers: Asker[] }[]
  }
  return new Map(rights.filter(({ domain }) => domain === 'maps').map(({ word, askers }) => [word, askers]))
}

describe('a container of Podman', { ...needsTokens(), ...needsProgram('podman/usr/bin/podman') }, () => {
  let podman: Podman
  before(async () => {
    podman = await Podman.start()
    await podman.sleeper('web', '--security-opt', 'seccomp=unconfined')
    await podman.sleeper('filtered')
  })
  after(() => podman.end())

  /** What is seen of that container while both make maps. */
  async function seenOf(name: string): Promise<{ askers: ReturnType<typeof askersOf>; noted: string }> {
    const words = ['record', '--json', '--container', name]
    const recorder = spawn('nsenter', [...podman.enter, ...NODE_CLI, ...words], { stdio: 'pipe' })
    let noted = ''
    recorder.stderr.on('data', chunk => {
      noted += String(chunk)
    })
    const ended = finish(recorder)
    await eventually(() => noted.includes('watching'), 'the recorder never began')
    const make = (container: string, type: number): Promise<Result> =>
      podman.execute('podman', 'exec', container, 'perl', '-e', `${PERL} make(${type}); make(${type})`)
    // None of these is a child of what ran when the recording began.
    assert.equal((await make('web', HASH)).status, 0)
    assert.equal((await make('filtered', QUEUE)).status, 0)
    recorder.kill('SIGINT')
    const { status, stdout } = await ended
    assert.equal(status, 0, noted)
    return { askers: askersOf(stdout), noted }
  }

  test('its processes are seen that start later, and no other container', async () => {
    const { askers, noted } = await seenOf('web')
    assert.match(noted, /watching container web in its PID namespace and all below/)
    assert.deepEqual([...askers.keys()], ['hash'])
    const [one, ...others] = askers.get('hash')!
    assert.deepEqual(others, [])
    assert.deepEqual(one!.outcomes, { EPERM: 2 })
    assert.ok(one!.pid > one!.innerPid && one!.innerPid > 1, JSON.stringify(one))
  })

  test("what its seccomp filter refuses is told apart from the kernel's refusal", async () => {
    const { askers } = await seenOf('filtered')
    assert.deepEqual(
      [...askers].map(([word, [one]]) => [word, one!.outcomes]),
      [['queue', { "EPERM before the kernel's bpf(2) was asked": 2 }]],
    )
  })
})

describe('PID namespaces', needsTokens(), () => {
  /** The first process of a new PID namespace. */
  const INSIDE = ['unshare', '--pid', '--fork'] as const
  /** A thread and a child, and the child in a further namespace. */
  const WORKLOAD = `${PERL} use threads; threads->create(sub { make(${HASH}) })->join; make(${HASH});
    if (!fork) { make(${ARRAY}); exit } wait; system "unshare", "--pid", "--fork", "perl", "-e", "${PERL.replaceAll(/[$"]/g, '\\$&')} make(${LRU_HASH})"`

  test('within the run have their threads and children seen, by both numbers', async () => {
    const recorded = await execute(process.execPath, [
      ...[CLI, 'record', '--json', '--'],
      ...[...INSIDE, 'perl', '-e', WORKLOAD],
    ])
    assert.equal(recorded.status, 0, recorded.stderr)
    const askers = askersOf(recorded.stdout)
    assert.deepEqual([...askers.keys()], ['hash', 'array', 'lru_hash'])
    const [hash, array, lruHash] = [...askers.values()].map(([one]) => one!)
    // Thread and process are one.
    assert.deepEqual(hash!.outcomes, { ok: 2 })
    assert.equal(askers.get('hash')!.length, 1)
    assert.deepEqual([hash!.innerPid, lruHash!.innerPid], [1, 1])
    assert.ok(array!.innerPid > 1)
    assert.equal(new Set([hash!.pid, array!.pid, lruHash!.pid]).size, 3)
    for (const { pid } of [hash!, array!, lruHash!]) assert.ok(pid > 1)
  })

  test("a recorder in one of them tells its own namespace's numbers, and not the host's", async () => {
    const file = scratch.write('inside.yaml', '')
    const { status, stderr } = await execute('unshare', [
      ...['--pid', '--fork', '--mount-proc', ...NODE_CLI, 'record', '-o', file, '--'],
      ...['perl', '-e', `print readlink("/proc/self"), "\\n"; ${PERL} make(${HASH})`],
    ])
    assert.equal(status, 0, stderr)
    const [, pid] = /- hash # perl \(pid (\d+)\): 1 ok/.exec(readFileSync(file, 'utf8'))!
    // That namespace is new, and its numbers begin at 1.
    assert.ok(Number(pid) > 1 && Number(pid) < 1000, pid)
  })
})
