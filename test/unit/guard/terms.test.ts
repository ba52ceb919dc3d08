import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { GUARD_NAME_BYTES } from '../../../src/guard/layout.ts'
import {
  decodeTerms,
  encodeLabel,
  encodeName,
  encodeTerms,
  type GuardTerms,
  NO_LIMIT32,
  NO_LIMIT64,
} from '../../../src/guard/terms.ts'
import { guardNeeds } from '../../../src/policy/guard-needs.ts'
import type { Terms } from '../../../src/policy/policy.ts'

const STRICT: GuardTerms = {
  rights: {
    masks: { cmds: 33n, maps: 2n, progs: 64n, attachs: 1n << 40n },
    capabilities: ['bpf', 'perfmon'],
  },
  limits: { tokens: 1, programs: 2, maps: 3, mapBytes: 1n << 40n, instructions: 4, lifetimeSec: 5 },
  programs: { digests: ['tag:0011223344556677'] },
  targets: { functions: ['tcp_connect'] },
  sharing: { bindMount: false, passToken: true },
  revocable: true,
  network: 'own',
  cgroups: 'own',
  derive: { allowed: true, maxDepth: 3 },
  mode: 'enforce',
  events: 'all',
}
const OPEN: GuardTerms = {
  rights: { masks: STRICT.rights.masks, capabilities: [] },
  limits: {},
  programs: { digests: 'any' },
  targets: { functions: 'any' },
  sharing: { bindMount: true, passToken: false },
  revocable: false,
  network: 'host',
  cgroups: 'any',
  derive: { allowed: false, maxDepth: 1 },
  mode: 'permissive',
  events: 'none',
}

describe('encodeTerms()', () => {
  test('decodeTerms() is its inverse', () => {
    for (const terms of [STRICT, OPEN]) {
      const { digests } = terms.programs
      const { functions } = terms.targets
      const raw = encodeTerms(terms, { digests: 7n, functions: 8n })
      assert.deepEqual(decodeTerms(raw, { digests, functions }), terms)
    }
  })

  test('says what a policy leaves open by all ones, and whatever it does not allow by 0', () => {
    const raw = encodeTerms(OPEN, { digests: 0n, functions: 0n })
    assert.deepEqual([raw.tokens, raw.programs, raw.maps, raw.instructions], Array(4).fill(NO_LIMIT32))
    assert.deepEqual([raw.map_bytes, raw.lifetime_ns], [NO_LIMIT64, NO_LIMIT64])
    assert.deepEqual([raw.capabilities, raw.depth, raw.mode, raw.flags], [0n, 0, 0, 2 | 4 | 8 | 16])
  })
})

test('whatever a policy may need the guard for is told to the guard', () => {
  const bare = { ...OPEN, mode: 'enforce', guard: 'required' } as const
  const told = (terms: Terms) =>
    encodeTerms(terms, {
      digests: terms.programs.digests === 'any' ? 0n : 7n,
      functions: terms.targets.functions === 'any' ? 0n : 8n,
    })
  assert.deepEqual(guardNeeds(bare), [])
  const fields: Partial<Terms>[] = [
    ...Object.entries(STRICT.limits).map(([field, limit]) => ({ limits: { [field]: limit } })),
    { programs: STRICT.programs },
    { targets: STRICT.targets },
    { derive: STRICT.derive },
    { mode: 'permissive' },
    { events: 'all' },
  ]
  const paths = fields.flatMap(field => {
    const terms = { ...bare, ...field }
    assert.notDeepEqual(told(terms), told(bare), JSON.stringify(Object.keys(field)))
    return guardNeeds(terms).map(({ path }) => path)
  })
  const all = guardNeeds({ ...STRICT, mode: 'permissive', guard: 'required' })
  assert.deepEqual(paths.sort(), all.map(({ path }) => path).sort())
})

describe('names', () => {
  test('encodeName() takes what leaves two bytes of the field', () => {
    assert.equal(encodeName('x'.repeat(GUARD_NAME_BYTES - 2)).length, GUARD_NAME_BYTES)
    assert.throws(() => encodeName('x'.repeat(GUARD_NAME_BYTES - 1)), /1 to 62 bytes/)
    assert.throws(() => encodeName(''), /1 to 62 bytes/)
  })

  test('encodeLabel() keeps the end of what is too long', () => {
    const text = (label: Uint8Array): string => Buffer.from(label.subarray(0, label.indexOf(0))).toString()
    assert.equal(text(encodeLabel('/usr/bin/lxc')), '/usr/bin/lxc')
    const long = text(encodeLabel(`/${'a'.repeat(80)}/é/b`))
    assert.ok(long.startsWith('…aaa') && long.endsWith('/é/b'))
    assert.equal(Buffer.byteLength(long), GUARD_NAME_BYTES - 1)
  })
})
