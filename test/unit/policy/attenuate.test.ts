import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { attenuate, isWithin, meet } from '../../../src/policy/attenuate.ts'
import { CAPABILITIES, DEFAULT_LIMITS, EVENTS, type Limits, type Terms } from '../../../src/policy/policy.ts'
import { ANY_MASK, MASK_DOMAINS } from '../../../src/policy/vocabulary.ts'
import { policyOf, policyWithRights, TOP, VOCABULARY } from './sample-kernel.ts'

/** Like the real thing, with Object.prototype: deepEqual tells the difference. */
function record<T>(model: { [K in keyof T]: fc.Arbitrary<T[K]> }): fc.Arbitrary<T> {
  return fc.record(model, { noNullPrototype: true }) as fc.Arbitrary<T>
}

const mask = fc.oneof(fc.bigInt(0n, ANY_MASK), fc.constantFrom(0n, ANY_MASK))
/** Below, at and above each default. */
const count = fc.oneof(fc.integer({ min: 1, max: 5 }), fc.constantFrom(1023, 1024, 1025, 4095, 4096, 4097))
const DEFAULTS: Limits = DEFAULT_LIMITS
const list = (items: string[]) => fc.oneof(fc.constant('any' as const), fc.subarray(items))
const limits: fc.Arbitrary<Limits> = fc.record(
  {
    tokens: count,
    programs: count,
    maps: count,
    mapBytes: fc.bigInt(1n, ANY_MASK),
    instructions: count,
    lifetimeSec: count,
  },
  { requiredKeys: [], noNullPrototype: true },
)
const terms: fc.Arbitrary<Terms> = record({
  rights: record({
    masks: record({ cmds: mask, maps: mask, progs: mask, attachs: mask }),
    capabilities: fc.subarray([...CAPABILITIES]),
  }),
  limits,
  programs: record({ digests: list(['a', 'b', 'c']) }),
  targets: record({ functions: list(['f', 'g', 'h']) }),
  sharing: record({ bindMount: fc.boolean(), passToken: fc.boolean() }),
  revocable: fc.boolean(),
  cgroups: fc.constantFrom('own', 'any'),
  network: fc.constantFrom('own', 'host'),
  guard: fc.constantFrom('required', 'optional'),
  derive: record({ allowed: fc.boolean(), maxDepth: fc.integer({ min: 1, max: 5 }) }),
  mode: fc.constantFrom('enforce', 'permissive'),
  events: fc.constantFrom(...EVENTS),
})

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
