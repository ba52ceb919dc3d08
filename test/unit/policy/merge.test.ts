/** Two policies as one: it allows both, is not wider than the two together, and reads back. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { isWithin } from '../../../src/policy/attenuate.ts'
import { mergePolicies } from '../../../src/policy/merge.ts'
import { parseLocatedPolicy, parsePolicy } from '../../../src/policy/parse.ts'
import type { Policy, Terms } from '../../../src/policy/policy.ts'
import { policyYaml, RIGHT_LISTS, rightComments, rightWords } from '../../../src/policy/policy-yaml.ts'
import { ANY_MASK, MASK_DOMAINS } from '../../../src/policy/vocabulary.ts'
import { terms } from './any-terms.ts'
import { policyOf, VOCABULARY } from './sample-kernel.ts'

const named = (of: Terms, name = 'sample'): Policy => ({ name, approval: 'none', ...of })
const ALL = { subjects: 'a', limits: 'a', terms: 'a' } as const

function merged(a: Policy, b: Policy, choices = {}): Policy {
  const result = mergePolicies(a, b, choices, VOCABULARY)
  assert.ok('policy' in result, 'conflicts' in result ? JSON.stringify(result.conflicts) : '')
  return result.policy
}

test('mergePolicies() allows what both allow, and no right that neither has', () => {
  fc.assert(
    fc.property(terms, terms, (a, rights) => {
      // Two that differ in rights alone.
      const b = { ...a, rights: rights.rights }
      const both = merged(named(a), named(b))
      assert.ok(isWithin(a, both, VOCABULARY) && isWithin(b, both, VOCABULARY))
      for (const domain of MASK_DOMAINS)
        assert.equal(both.rights.masks[domain] & ~(a.rights.masks[domain] | b.rights.masks[domain]), 0n)
      assert.ok(
        both.rights.capabilities.every(name =>
          [a, b].some(({ rights }) => rights.capabilities.includes(name)),
        ),
      )
      // Least: of what is left by the loss of a bit, one of the two is no part.
      for (const domain of MASK_DOMAINS)
        for (const bit of [0n, 7n, 63n].map(at => 1n << at))
          if ((both.rights.masks[domain] & bit) !== 0n) {
            const masks = { ...both.rights.masks, [domain]: both.rights.masks[domain] & ~bit }
            const fewer = { ...both, rights: { ...both.rights, masks } }
            assert.ok(!isWithin(a, fewer, VOCABULARY) || !isWithin(b, fewer, VOCABULARY))
          }
    }),
  )
})

test('mergePolicies() with choices has each term from one of the two, and is never laxer than both', () => {
  fc.assert(
    fc.property(terms, terms, (a, b) => {
      const { rights, programs, targets, ...rest } = merged(named(a), named(b), ALL)
      const { rights: _, programs: __, targets: ___, ...ofA } = named(a)
      assert.deepEqual(rest, ofA)
      // Lists: all of it is in one of the two, or the chosen side has no list.
      for (const [list, x, y] of [
        [programs.digests, a.programs.digests, b.programs.digests],
        [targets.functions, a.targets.functions, b.targets.functions],
      ] as const)
        assert.ok(list === 'any' ? x === 'any' : list.every(one => x.includes(one) || y.includes(one)))
      assert.ok(isWithin({ ...a, programs, targets }, { ...rest, rights, programs, targets }, VOCABULARY))
    }),
  )
})

test('mergePolicies() refuses what differs and does not add up, and only that', () => {
  const a = policyOf('  rights: { progs: [xdp] }\n  limits: { maps: 4 }\n  subjects: [{ user: alice }]')
  const b = policyOf('  rights: { progs: [kprobe] }\n  network: host')
  const result = mergePolicies(a, b, {}, VOCABULARY)
  assert.ok('conflicts' in result)
  assert.deepEqual(
    result.conflicts.map(({ path, choice }) => [path, choice]),
    [
      ['spec.subjects', 'subjects'],
      ['spec.limits.maps', 'limits'],
      ['spec.network', 'terms'],
    ],
  )
  const left = mergePolicies(a, b, { limits: 'a', terms: 'a' }, VOCABULARY)
  assert.ok('conflicts' in left && left.conflicts.length === 1)
  const chosen = merged(a, b, { subjects: 'a', limits: 'a', terms: 'b' })
  assert.deepEqual([chosen.subjects, chosen.limits, chosen.network], [a.subjects, a.limits, 'host'])
  // The twin: the other side.
  const other = merged(a, b, { subjects: 'b', limits: 'b', terms: 'a' })
  assert.deepEqual([other.subjects, other.limits, other.network], [undefined, {}, 'own'])
})

test('a list beside a list adds up; a list beside none is a question', () => {
  const of = (functions: string) => policyOf(`  rights: {}\n  targets: { functions: [${functions}] }`)
  assert.deepEqual(merged(of('f'), of('g')).targets.functions, ['f', 'g'])
  assert.ok('conflicts' in mergePolicies(of('f'), of(''), {}, VOCABULARY))
  assert.deepEqual(merged(of('f'), of(''), { terms: 'a' }).targets.functions, ['f'])
  assert.equal(merged(of('f'), of(''), { terms: 'b' }).targets.functions, 'any')
})

test('policyYaml() reads back as the same policy', () => {
  const digest = (one: string): string => `tag:${one.charCodeAt(0).toString(16).padStart(16, '0')}`
  fc.assert(
    fc.property(terms, fc.string({ unit: 'binary', maxLength: 40 }), (some, description) => {
      const { programs, limits } = some
      const policy = {
        ...named({
          ...some,
          // What no document can say: a list that allows nothing, and a size beyond what is taken.
          limits: { ...limits, ...(limits.mapBytes && { mapBytes: (limits.mapBytes % 10n ** 17n) + 1n }) },
          programs: {
            digests: programs.digests === 'any' ? 'any' : ['x', ...programs.digests].map(digest).sort(),
          },
          targets: { functions: some.targets.functions.length === 0 ? 'any' : some.targets.functions },
        }),
        description: description.replace(/[\ud800-\udfff]/g, ''),
        subjects: [{ user: 'alice', unit: 'a*.service' }, { label: '*:x#"y"' }],
      } satisfies Policy
      const text = policyYaml(policy, VOCABULARY, () => 'a comment\n- any').join('\n')
      assert.deepEqual(parsePolicy(text, { source: 'text', vocabulary: VOCABULARY }), policy)
    }),
  )
})

test('rightComments() finds what policyYaml() wrote, for words, numbers and any', () => {
  const masks = { cmds: 0b100001n, maps: 1n << 60n, progs: ANY_MASK, attachs: 0n }
  const policy = policyOf('  rights: {}')
  const full = { ...policy, rights: { masks, capabilities: ['bpf', 'perfmon'] } } satisfies Policy
  const text = policyYaml(full, VOCABULARY, (list, word) => `why ${list} ${word} # twice`).join('\n')
  const { positions } = parseLocatedPolicy(text, { source: 'text', vocabulary: VOCABULARY })
  const commentOf = rightComments(text, positions, VOCABULARY)
  for (const list of RIGHT_LISTS)
    for (const word of rightWords(full, list, VOCABULARY))
      assert.equal(commentOf(list, word), `why ${list} ${word} # twice`)
  assert.equal(commentOf('attachs', 'xdp'), undefined)
})

test('a comment ends no line, and is cut where it is very long', () => {
  const policy = policyOf('  rights: { progs: [xdp] }')
  const line = (comment: string) =>
    policyYaml(policy, VOCABULARY, () => comment).find(one => one.includes('- xdp'))!
  assert.equal(line('a\nb\u2028c\u0007d'), '      - xdp # a?b?c?d')
  assert.ok(line('x'.repeat(10_000)).length < 300)
})
