/**
 * The kernel model against the kernel: random cases, of which each has the same outcome in both. The
 * long run is `make differential`.
 */
import assert from 'node:assert/strict'
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { type TestContext, test } from 'node:test'
import { runningKernel } from '../../../src/lending/kernel-model.ts'
import { agree } from './agree.ts'

/** In a virtual machine, whose processor is emulated, and which is nobody else's. */
const IN_VM = existsSync('/repository')
const CASES = Number(process.env['BPFTOKEN_TEST_CASES'] ?? (IN_VM ? 3000 : 20_000))
/** The same for all who test one state; `make differential` takes others. */
const SEED = Number(process.env['BPFTOKEN_TEST_SEED'] ?? 20261127)
const SYSCTL = '/proc/sys/kernel/unprivileged_bpf_disabled'

/** Each is tried so often that both outcomes are seen. */
const REFUSED = ['map_create EPERM', 'prog_load EPERM', 'map_get_fd_by_id EPERM']
/** The same where there are tokens: a kernel without names no directory by a descriptor. */
const PINS = ['obj_pin ok', 'obj_pin EACCES', 'obj_pin EOVERFLOW', 'obj_get ok', 'obj_get EACCES']

async function holds(t: TestContext, refused: readonly string[]): Promise<void> {
  const before = left()
  const { differences, counts } = await agree(CASES, SEED)
  t.diagnostic(`differential: ${CASES} cases, ${differences.length} differences, SEED=${SEED}`)
  assert.deepEqual(differences, [], `SEED=${SEED}`)
  const pins = knowsTokens() ? PINS : []
  for (const outcome of [...refused, ...pins, 'map_create ok', 'prog_load ok'])
    assert.ok((counts.get(outcome) ?? 0) > 0, outcome)
  assert.deepEqual(
    left().filter(name => !before.includes(name)),
    [],
    'nothing is left behind',
  )
}

test('verdict and errno of random cases are those of the kernel', async t => {
  await holds(t, REFUSED)
})

test('so they are where unprivileged programs are let in', {
  skip: IN_VM ? false : 'others on this machine depend on kernel.unprivileged_bpf_disabled',
}, async t => {
  const before = readFileSync(SYSCTL, 'utf8')
  writeFileSync(SYSCTL, '0')
  try {
    await holds(t, ['prog_load EPERM'])
  } finally {
    writeFileSync(SYSCTL, before)
  }
})

const knowsTokens = (): boolean => runningKernel().hasTokens

/** Scratch cgroups. Processes and mounts are looked for by the runner of the tests. */
function left(): string[] {
  const line = readFileSync('/proc/mounts', 'utf8')
    .split('\n')
    .find(mounted => mounted.split(' ')[2] === 'cgroup2')
  if (line === undefined) return []
  return readdirSync(line.split(' ')[1]!).filter(name => name.startsWith('bpftoken-model-'))
}
