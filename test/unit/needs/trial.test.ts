/** tryRights(): what a load asks for is added, with its words, and what none needs is left out. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  capabilitiesByType,
  type Trial,
  type TrialAnswer,
  type TrialRights,
  type TryLoad,
  tryRights,
} from '../../../src/needs/trial.ts'
import type { Capability } from '../../../src/policy/policy.ts'

const MASKS = { cmds: 0x20n, maps: 0n, progs: 0x40n, attachs: 0n }
const OPEN_TYPES = { domain: 'cmds', word: 'btf_get_fd_by_id', bit: 19 } as const
const HASH = { domain: 'maps', word: 'hash', bit: 1 } as const

const verifier = (said: string, program = 'p'): TrialAnswer => ({
  ...{ ok: false, message: `program "${program}" failed: ${said}` },
  ...{ verifier: said, program },
})

/** A kernel that answers by what is lent, and how it was asked. */
function kernel(
  answer: (rights: TrialRights) => TrialAnswer | undefined,
): TryLoad & { asked: TrialRights[] } {
  const asked: TrialRights[] = []
  const load = async (rights: TrialRights) => {
    asked.push(rights)
    return answer(rights)
  }
  return Object.assign(load, { asked })
}

function tryWith(load: TryLoad, capabilities: readonly Capability[] = ['bpf', 'net_admin']): Promise<Trial> {
  const rights = { masks: MASKS, capabilities }
  return tryRights({ rights, proven: new Set(['bpf', 'net_admin']), openTypes: OPEN_TYPES }, load)
}

const has = ({ capabilities }: TrialRights, name: Capability): boolean => capabilities.includes(name)

test('tryRights() of what loads as planned is one load', async () => {
  const load = kernel(() => ({ ok: true }))
  assert.deepEqual(await tryWith(load), { outcome: 'loads', loads: 1, added: [], dropped: [] })
})

test('tryRights() adds the capability with which the verifier comes further, in its words', async () => {
  const said = 'R1 pointer comparison prohibited, at 7: (2d) if r1 > r2 goto pc+3'
  const load = kernel(rights => (has(rights, 'perfmon') ? { ok: true } : verifier(said)))
  assert.deepEqual(await tryWith(load), {
    ...{ outcome: 'loads', loads: 2, dropped: [] },
    added: [{ capability: 'perfmon', by: `program "p": the verifier says: ${said}` }],
  })
})

test('tryRights() adds what one program after the other asks for', async () => {
  const load = kernel(rights => {
    if (!has(rights, 'perfmon')) return verifier('R1 leaks addr into map', 'first')
    return has(rights, 'sys_admin')
      ? { ok: true }
      : verifier('unknown func bpf_probe_write_user#36', 'second')
  })
  const { outcome, added } = await tryWith(load)
  assert.equal(outcome, 'loads')
  assert.deepEqual(
    added.map(({ capability }) => capability),
    ['perfmon', 'sys_admin'],
  )
})

test('tryRights() does not keep what a later find makes needless', async () => {
  // The first one only changes what is refused; CAP_SYS_ADMIN then stands in for it.
  const load = kernel(rights => {
    if (has(rights, 'sys_admin')) return { ok: true }
    return verifier(has(rights, 'perfmon') ? 'second' : 'first')
  })
  const { added } = await tryWith(load)
  assert.deepEqual(
    added.map(({ capability }) => capability),
    ['sys_admin'],
  )
})

test('tryRights() adds bits that the token did not lend, and what opens the types of modules', async () => {
  const load = kernel(({ masks, capabilities }) => {
    if ((masks.maps & 2n) === 0n) return { ok: false, message: 'map "m" failed with EPERM', missing: [HASH] }
    return capabilities.includes('sys_admin') && (masks.cmds & (1n << 19n)) !== 0n
      ? { ok: true }
      : { ok: false, message: 'cannot be opened', module: 'nf_nat' }
  })
  const { outcome, added } = await tryWith(load)
  assert.equal(outcome, 'loads')
  assert.deepEqual(
    added.map(({ capability, right }) => capability ?? right?.word),
    ['hash', 'btf_get_fd_by_id', 'sys_admin'],
  )
})

test('tryRights() leaves out a capability without which it loads, but none that the tables ask for', async () => {
  const load = kernel(() => ({ ok: true }))
  const { dropped } = await tryWith(load, ['bpf', 'net_admin', 'perfmon'])
  assert.deepEqual(dropped, ['perfmon'])
  const needs = kernel(rights => (has(rights, 'perfmon') ? { ok: true } : verifier('no')))
  assert.deepEqual((await tryWith(needs, ['bpf', 'perfmon'])).dropped, [])
})

test('tryRights() leaves out again what was asked for together and is needless', async () => {
  // CAP_SYS_ADMIN implies the other, or the other way round; or both are wanted.
  for (const wanted of [['perfmon'], ['sys_admin'], ['perfmon', 'sys_admin']] as const) {
    const load = kernel(rights =>
      wanted.every(name => has(rights, name))
        ? { ok: true }
        : { ok: false, message: 'EPERM', capabilities: ['CAP_PERFMON', 'CAP_SYS_ADMIN'] },
    )
    const { outcome, added, dropped } = await tryWith(load)
    assert.deepEqual([outcome, dropped], ['loads', []])
    assert.deepEqual(
      added.map(({ capability }) => capability),
      wanted,
    )
    assert.deepEqual(load.asked.at(0)!.capabilities, ['bpf', 'net_admin'])
  }
})

test('tryRights() adds nothing where nothing helps, and says why', async () => {
  const load = kernel(() => verifier('invalid access to packet'))
  const trial = await tryWith(load)
  assert.deepEqual(
    { ...trial, loads: 0 },
    {
      ...{ outcome: 'refused', loads: 0, added: [], dropped: [] },
      why: 'program "p" failed: invalid access to packet',
    },
  )
  const missing = kernel(() => ({ ok: false, message: 'This kernel has no function "f"' }))
  assert.deepEqual((await tryWith(missing)).loads, 1)
})

test('tryRights() ends when time is over, and when a kernel never has enough', async () => {
  assert.equal((await tryWith(kernel(() => undefined))).outcome, 'unfinished')
  let n = 0
  const restless = kernel(() => verifier(`refusal ${n++}`))
  const { outcome, loads } = await tryWith(restless)
  assert.ok(outcome !== 'loads' && loads <= 24)
  // It asks again and again for what it has.
  const stubborn = kernel(() => ({ ok: false, message: 'no', missing: [HASH] }))
  assert.equal((await tryWith(stubborn)).outcome, 'unfinished')
})

test('capabilitiesByType() are those of the kernel tables, and not what programs call', () => {
  const need = { cmd: 'prog_load', progType: 'xdp' } as const
  const one = { need, by: 'program "p"', capabilities: ['CAP_PERFMON'] as const }
  assert.deepEqual([...capabilitiesByType([one])].sort(), ['bpf', 'net_admin'])
})
