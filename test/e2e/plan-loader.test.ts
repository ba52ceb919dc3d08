/**
 * plan --loader-program: the loader's real program loads the object under just its plan, and what it
 * asks for besides is told; where it cannot be watched, the plan stays and says so.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { cli, PUBLIC_CLI, publicCli } from '../helpers/cli.ts'
import { CACHE, needsProgram, needsTokens, ROOT } from '../helpers/machine.ts'
import { planned } from '../helpers/planned.ts'
import { tidyScratch } from '../helpers/tidy-scratch.ts'
import { READS_UNSET, xdpObject } from '../helpers/xdp-object.ts'

const machine = needsTokens()
const scratch = tidyScratch()

const PASS = scratch.write('pass.o', xdpObject())
const BROKEN = scratch.write('broken.o', xdpObject('xdp', 'broken', 2, READS_UNSET))
const FIXTURES = join(ROOT, 'test/fixtures')

interface Plan {
  readonly rights: readonly { domain: string; word: string }[]
  readonly notes: readonly string[]
  readonly watched: readonly {
    object: string
    outcome: string
    usesTokens: boolean
    complete: boolean
    why?: string
    beyond: { domain: string; word: string; outcomes: string[] }[]
    unasked: { domain: string; word: string }[]
  }[]
}

/** A program for one user's eyes would not run as another. */
function program(name: string, text: string): string {
  return scratch.write(name, `#!/bin/sh\n${text}\n`, 0o755)
}

/** Our own loader, as a program that takes a file. */
const OURS = program('ours', `exec ${process.execPath} ${PUBLIC_CLI} obj load "$@"`)

const bpftool = { ...machine, ...needsProgram('host/usr/sbin/bpftool') }

test('bpftool loads objects under their plans, and asks for what libbpf is known to', bpftool, async () => {
  const tool = scratch.write('bpftool', readFileSync(join(CACHE, 'host/usr/sbin/bpftool')), 0o755)
  // The last one has programs that are not loaded by themselves, which bpftool fails to pin.
  for (const file of [PASS, join(FIXTURES, 'network.bpf.o'), join(FIXTURES, 'trace.bpf.o')]) {
    const plan = await planned<Plan>('--loader', 'libbpf', '--loader-program', tool, file)
    const [load] = plan.watched
    assert.equal(load?.outcome, 'loads', JSON.stringify(load))
    assert.equal(load.usesTokens, true)
    assert.equal(load.complete, true)
    // Whatever it asked for beyond its plan was refused, and it loaded the object all the same.
    for (const { outcomes } of load.beyond) assert.ok(!outcomes.includes('ok'), JSON.stringify(load.beyond))
    assert.ok(
      plan.notes.some(note => note.includes('loaded it under this plan')),
      plan.notes.join('\n'),
    )
    // A plan for another loader lacks what libbpf's probes ask for.
    const other = await planned<Plan>('--loader', 'bpftoken', '--loader-program', tool, file)
    const beyond = other.watched[0]!.beyond.map(({ word }) => word)
    assert.ok(beyond.includes('socket_filter'), beyond.join())
    assert.match(other.notes.join('\n'), /asked for progs socket_filter \(EPERM.*which is not planned/)
  }
})

test('another program is given the file, and what it does not ask for is told', machine, async () => {
  const plan = await planned<Plan>('--loader', 'libbpf', '--loader-program', OURS, PASS)
  const [load] = plan.watched
  assert.equal(load?.outcome, 'loads', JSON.stringify(load))
  assert.deepEqual(load.beyond, [])
  const unasked = load.unasked.map(({ word }) => word)
  assert.ok(unasked.includes('socket_filter'), unasked.join())
  // The twin: a plan for just this loader is what it asks for.
  const exact = await planned<Plan>('--loader', 'bpftoken', '--loader-program', OURS, PASS)
  assert.deepEqual(exact.watched[0]!.beyond, [])
  assert.deepEqual(exact.watched[0]!.unasked, [])
})

test(
  'a program that fails, hangs on to something or is not there is told, and nothing stays',
  machine,
  async () => {
    const failing = await planned<Plan>(
      '--loader-program',
      program('fails', 'echo first >&2; echo no way >&2; exit 3'),
      PASS,
    )
    assert.equal(failing.watched[0]!.outcome, 'refused')
    assert.equal(failing.watched[0]!.why, 'no way')
    assert.match(failing.notes.join('\n'), /did not load it under this plan: no way/)
    assert.match(failing.notes.join('\n'), /used no token/)
    // The object is for the loader's user alone, who reads it.
    const looks = program('looks', 'cat "$1" >/dev/null && stat -c "mode %a" "$1" >&2; exit 3')
    assert.equal((await planned<Plan>('--loader-program', looks, PASS)).watched[0]!.why, 'mode 400')
    const leaving = await planned<Plan>('--loader-program', program('leaves', 'sleep 1000 & exit 0'), PASS)
    // Its twin, which does load it, is above.
    assert.equal(leaving.watched[0]!.outcome, 'idle')
    assert.match(leaving.notes.join('\n'), /was content, and was not seen to load or make anything/)
    assert.doesNotMatch(leaving.notes.join('\n'), /loaded it under this plan/)
    const none = await planned<Plan>('--loader-program', join(scratch.path, 'none'), PASS)
    assert.deepEqual(none.watched, [])
    assert.match(none.notes.join('\n'), /none" was not watched: /)
    assert.ok(
      none.rights.some(({ word }) => word === 'xdp'),
      'the plan is there all the same',
    )
  },
)

test('what does not load here is not given to the program', machine, async () => {
  const plan = await planned<Plan>('--loader-program', OURS, BROKEN, PASS)
  assert.deepEqual(
    plan.watched.map(({ object, outcome }) => [object, outcome]),
    [[PASS, 'loads']],
  )
  assert.match(plan.notes.join('\n'), /was not watched: loading the object was not tried, or failed/)
})

test('who is not root gets the plan of the files, and options that differ are refused', async () => {
  const nobody = process.getuid!() === 0 ? { uid: 65534, gid: 65534 } : {}
  const { status, stdout } = await publicCli(['plan', '--loader-program', OURS, PASS], nobody)
  if (status === 0) assert.match(stdout, /was not watched: that needs root/)
  for (const other of [['--no-try'], ['--program', 'pass'], ['--btf', '/sys/kernel/btf/vmlinux']]) {
    const refused = await cli(['plan', '--loader-program', OURS, ...other, PASS])
    assert.equal(refused.status, 2)
    assert.match(refused.stderr, new RegExp(`does not go with ${other[0]}`))
  }
})
