import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { attenuate, isWithin, meet } from '../../../src/policy/attenuate.ts'
import { DEFAULT_LIMITS, type Limits, type Terms } from '../../../src/policy/policy.ts'
import { MASK_DOMAINS } from '../../../src/policy/vocabulary.ts'
import { terms } from './any-terms.ts'
import { policyOf, policyWithRights, TOP, VOCABULARY } from './sample-kernel.ts'

const DEFAULTS: Limits = DEFAULT_LIMITS

/** Written apart from `meet`, so that the two check each other. */
function assertNotAbove(inner: Terms, outer: Terms): void {
  for (const domain of MASK_DOMAINS) {
    assert.equal(inner.rights.masks[domain] & ~outer.rights.masks[domain], 0n)
  }
  for (const name of inner.rights.capabilities) assert.ok(outer.rights.capabilities.includes(name))
  for (const [field, most] of Object.entries(outer.limits)) {
    const value = inner.limits[field as keyof Limits] ?? DEFAULTS[field as keyof Limits]
    assert.ok(value !== undefined && value <= most)
  }
  for (const [narrow, wide] of [
    [inner.programs.digests, outer.programs.digests],
    [inner.targets.functions, outer.targets.functions],
  ] as const) {
    if (wide === 'any') continue
    assert.ok(narrow !== 'any' && narrow.every(item => wide.includes(item)))
  }
  assert.ok(!inner.sharing.bindMount || outer.sharing.bindMount)
  assert.ok(!inner.sharing.passToken || outer.sharing.passToken)
  assert.ok(inner.revocable || !outer.revocable)
  assert.ok(inner.network === 'own' || outer.network === 'host')
  assert.ok(inner.guard === 'required' || outer.guard === 'optional')
  assert.ok(!inner.derive.allowed || outer.derive.allowed)
  assert.ok(inner.derive.maxDepth <= outer.derive.maxDepth)
  assert.ok(inner.mode === 'enforce' || outer.mode === 'permissive')
  const recorded = { none: 0, refused: 1, all: 2 }
  assert.ok(recorded[inner.events] >= recorded[outer.events])
}

describe('meet()', () => {
  test('meet() is idempotent', () => {
    fc.assert(fc.property(terms, a => assert.deepEqual(meet(a, a), a)))
  })
  test('meet() is commutative', () => {
    fc.assert(fc.property(terms, terms, (a, b) => assert.deepEqual(meet(a, b), meet(b, a))))
  })
  test('meet() is associative', () => {
    fc.assert(
      fc.property(terms, terms, terms, (a, b, c) =>
        assert.deepEqual(meet(meet(a, b), c), meet(a, meet(b, c))),
      ),
    )
  })
  test('meet() never grows', () => {
    fc.assert(
      fc.property(terms, terms, (a, b) => {
        assertNotAbove(meet(a, b), a)
        assertNotAbove(meet(a, b), b)
      }),
    )
  })
  test('meet() with the top changes nothing', () => {
    fc.assert(fc.property(terms, a => assert.deepEqual(meet(TOP, a), a)))
  })
  test('meet() of disjoint lists allows nothing, not anything', () => {
    const [a, b] = ['tcp_connect', 'tcp_close'].map(name =>
      policyWithRights('cmds: [prog_load]', `  targets: { functions: [${name}] }\n`),
    )
    assert.deepEqual(meet(a!, b!).targets.functions, [])
  })
})

describe('attenuate()', () => {
  const parent = policyOf(`
  rights: { cmds: [map_create], maps: [array], capabilities: [bpf] }
  limits: { maps: 4, lifetime: 1h }
`)

  test('attenuate() says what was removed and why', () => {
    const child = policyOf(`
  rights: { cmds: [map_create, prog_load], maps: [array, hash], capabilities: [bpf, perfmon] }
  limits: { maps: 8 }
  revocable: false
  network: host
  events: none
`)
    const { terms: met, removed } = attenuate(parent, child, VOCABULARY)
    assert.deepEqual(met, meet(parent, child))
    assert.deepEqual(
      removed.map(({ path, what }) => `${path} ${what}`),
      [
        'spec.rights.cmds prog_load',
        'spec.rights.maps hash',
        'spec.rights.capabilities perfmon',
        'spec.limits.maps 8',
        'spec.limits.lifetime no limit',
        'spec.revocable false',
        'spec.network host',
        'spec.events none',
      ],
    )
    assert.equal(removed[4]!.why, "the parent's limit is 1h")
  })

  test('a count that nobody states is the default, for either side', () => {
    const stated = (maps: number) =>
      policyOf(`
  rights: { cmds: [map_create] }
  limits: { maps: ${maps} }
`)
    const unstated = policyOf(`
  rights: { cmds: [map_create] }
`)
    const { maps } = DEFAULT_LIMITS
    assert.equal(meet(unstated, stated(maps + 1)).limits.maps, undefined)
    assert.equal(meet(unstated, stated(maps - 1)).limits.maps, maps - 1)
    const [removal] = attenuate(unstated, stated(maps + 1), VOCABULARY).removed
    assert.deepEqual(removal, {
      path: 'spec.limits.maps',
      what: String(maps + 1),
      why: `the parent's limit is ${maps}`,
    })
    assert.equal(isWithin(unstated, stated(maps + 1), VOCABULARY), true)
  })

  test('attenuate() removes nothing when the child is within the parent', () => {
    assert.deepEqual(attenuate(parent, parent, VOCABULARY).removed, [])
    assert.equal(isWithin(parent, TOP, VOCABULARY), true)
    assert.equal(isWithin(TOP, parent, VOCABULARY), false)
  })

  test('attenuate() removes nothing exactly when the child is its own meet', () => {
    fc.assert(
      fc.property(terms, terms, (a, b) => {
        const { terms: met, removed } = attenuate(a, b, VOCABULARY)
        if (removed.length === 0) assert.deepEqual(met, b)
        else assert.notDeepEqual(met, b)
        assert.deepEqual(attenuate(a, met, VOCABULARY).removed, [])
      }),
    )
  })
})
