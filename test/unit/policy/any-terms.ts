/** Terms of every kind, for properties that hold of all. */
import fc from 'fast-check'
import { CAPABILITIES, EVENTS, type Limits, type Terms } from '../../../src/policy/policy.ts'
import { ANY_MASK } from '../../../src/policy/vocabulary.ts'

/** Like the real thing, with Object.prototype: deepEqual tells the difference. */
function record<T>(model: { [K in keyof T]: fc.Arbitrary<T[K]> }): fc.Arbitrary<T> {
  return fc.record(model, { noNullPrototype: true }) as fc.Arbitrary<T>
}

const mask = fc.oneof(fc.bigInt(0n, ANY_MASK), fc.constantFrom(0n, ANY_MASK))
/** Below, at and above each default. */
const count = fc.oneof(fc.integer({ min: 1, max: 5 }), fc.constantFrom(1023, 1024, 1025, 4095, 4096, 4097))
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
/** Any terms at all. */
export const terms: fc.Arbitrary<Terms> = record({
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
