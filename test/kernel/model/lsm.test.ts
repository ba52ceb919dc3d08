/**
 * What security modules refuse: random cases while small BPF-LSM programs refuse at one hook or two.
 * The errno, and which check comes first, are the model's. In VMs: LSM programs do not load on every
 * host.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { LSM_HOOKS, type LsmHook, type Machine } from '../../../src/model/machine.ts'
import { describe, round, shrink } from './differ.ts'
import { Lab } from './lab.ts'
import { Random } from './random.ts'
import { REFUSAL, refusing } from './refusing.ts'

const CASES = Number(process.env['BPFTOKEN_TEST_CASES'] ?? 500)
const SEED = 13

const hasLsm = readFileSync('/sys/kernel/security/lsm', 'utf8').split(',').includes('bpf')
const hasTokens = readFileSync('/proc/kallsyms', 'utf8').includes(' bpf_token_create')
const loads = (): boolean => {
  try {
    refusing(['bpf_token_create'])[Symbol.dispose]()
    return true
  } catch {
    return false
  }
}
const skip = hasLsm && hasTokens && loads() ? false : 'LSM programs do not load here, or there are no tokens'

/** Each by itself, and those together of which one is asked before the other. */
const SETS: readonly (readonly LsmHook[])[] = [
  ...LSM_HOOKS.map(hook => [hook]),
  ['bpf_token_cmd', 'bpf_map_create'],
  ['bpf_token_capable', 'bpf_prog_load'],
  ['bpf_map_create', 'bpf_map'],
  ['bpf_prog_load', 'bpf_prog'],
]

/** What the hook's refusal is seen as: a token that is not used leaves the capability missing. */
const SEEN: Readonly<Record<LsmHook, string>> = {
  bpf: REFUSAL,
  bpf_token_create: REFUSAL,
  bpf_token_cmd: 'EPERM',
  bpf_token_capable: 'EPERM',
  bpf_map_create: REFUSAL,
  bpf_map: REFUSAL,
  bpf_prog_load: REFUSAL,
  bpf_prog: REFUSAL,
}

test('with hooks that refuse, verdict and errno of random cases are those of the kernel', {
  skip,
}, async t => {
  const lab = await Lab.open()
  const random = new Random(SEED)
  const differences: string[] = []
  const seen = new Map<string, ReadonlyMap<string, number>>()
  try {
    await lab.renew(random)
    for (const hooks of SETS) seen.set(hooks.join(), await under(lab, random, hooks, differences))
  } finally {
    await lab.close()
  }
  t.diagnostic(
    `differential: ${SETS.length * CASES} cases under LSM programs, ${differences.length} differences`,
  )
  assert.deepEqual(differences, [])
  for (const hooks of SETS)
    for (const hook of hooks.length === 1 ? hooks : [])
      assert.ok((seen.get(hooks.join())!.get(SEEN[hook]) ?? 0) > 0, `${hook} is seen as ${SEEN[hook]}`)
})

/** Cases by their outcome. */
async function under(
  lab: Lab,
  random: Random,
  hooks: readonly LsmHook[],
  differences: string[],
): Promise<ReadonlyMap<string, number>> {
  const counts = new Map<string, number>()
  lab.machine = { ...lab.machine, lsm: refusals(hooks) }
  using _ = refusing(hooks)
  const found = await round(lab, random, CASES, what => {
    const outcome = what.split(' ')[1]!
    counts.set(outcome, (counts.get(outcome) ?? 0) + 1)
  })
  for (const one of found.slice(0, 3)) differences.push(`${hooks}: ${describe(lab, await shrink(lab, one))}`)
  return counts
}

function refusals(hooks: readonly LsmHook[]): NonNullable<Machine['lsm']> {
  return Object.fromEntries(hooks.map(hook => [hook, REFUSAL]))
}
