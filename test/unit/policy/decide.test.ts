import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { decide, type Request, type Verdict } from '../../../src/policy/decide.ts'
import type { Policy } from '../../../src/policy/policy.ts'
import { PolicyIndex } from '../../../src/policy/policy-index.ts'
import { namesIn, type Subject, type SubjectFacts, unitOfCgroup } from '../../../src/policy/subject.ts'
import { knownOf } from '../../../src/policy/subject-matcher.ts'
import { verdictLines } from '../../../src/policy/verdict-text.ts'
import { policyWithRights } from './sample-kernel.ts'

const NOW = new Date('2026-01-02T03:04:05Z')
const OPERATOR: Request = { by: 'operator' }

const FACTS: SubjectFacts = {
  user: { is: { id: 1000, names: ['alice', 'alix'] } },
  groups: {
    is: [
      { id: 1000, names: [] },
      { id: 44, names: ['video'] },
    ],
  },
  cgroup: { is: '/system.slice/edge-1.service' },
  unit: { is: 'edge-1.service' },
  executable: { is: '/usr/bin/agent' },
  label: { is: 'system_u:system_r:agent_t:s0' },
}

const UNKNOWN: SubjectFacts = {
  user: { unknown: 'no user' },
  groups: { unknown: 'no groups' },
  cgroup: { unknown: 'no cgroup' },
  unit: { unknown: 'no unit' },
  executable: { unknown: 'no executable' },
  label: { unknown: 'no label' },
}

/** A policy with these subjects, in YAML; without, it states none. */
function policyFor(subjects?: string): Policy {
  return policyWithRights('cmds: [map_create]', subjects === undefined ? '' : `  subjects: ${subjects}\n`)
}

function allows(subjects: string | undefined, facts: SubjectFacts = FACTS, request = OPERATOR): boolean {
  return decide(facts, request, [policyFor(subjects)], NOW).allowed
}

/** Each field with a value that matches FACTS, and its twin that does not. */
const TWINS: [field: keyof Subject, matches: string, differs: string][] = [
  ['user', 'alice', 'bob'],
  ['user', 'alix', 'alic'],
  ['user', '1000', '1001'],
  ['user', 'alice', 'Alice'],
  ['group', 'video', 'audio'],
  ['group', '44', '45'],
  ['cgroup', '/system.slice/edge-*.service', '/system.slice/edge-*.scope'],
  ['cgroup', '/system.slice/**', '/system.slice'],
  ['cgroup', '/**/edge-1.service', '/edge-1.service'],
  ['unit', 'edge-*.service', 'edge.service'],
  ['unit', '"*"', 'EDGE-1.service'],
  ['executable', '/usr/bin/agent', '/usr/bin/agent2'],
  ['executable', '/usr/*/agent', '/*/agent'],
  ['label', '"*:agent_t:*"', '"*:agent_t"'],
]

describe('decide()', () => {
  for (const [field, matches, differs] of TWINS) {
    test(`decide() allows ${field}: ${matches} and refuses ${field}: ${differs}`, () => {
      assert.ok(allows(`[{ ${field}: ${matches} }]`))
      assert.ok(!allows(`[{ ${field}: ${differs} }]`))
      // What is not known matches not even a pattern for everything.
      assert.ok(!allows(`[{ ${field}: ${matches} }]`, UNKNOWN))
    })
  }

  test('decide() wants every field of an entry, and any entry', () => {
    assert.ok(allows('[{ user: alice, unit: edge-1.service }]'))
    assert.ok(!allows('[{ user: alice, unit: edge-2.service }]'))
    assert.ok(!allows('[{ user: bob, unit: edge-1.service }]'))
    assert.ok(allows('[{ user: bob }, { user: alice }]'))
    assert.ok(!allows('[{ user: bob }, { user: carol }]'))
  })

  test('decide() leaves a policy without subjects to the operator, and with an empty list to nobody', () => {
    assert.ok(allows(undefined, UNKNOWN))
    assert.ok(!allows(undefined, FACTS, { by: 'subject' }))
    assert.ok(!allows('[]'))
    assert.ok(allows('[{ user: alice }]', FACTS, { by: 'subject' }))
  })

  test('decide() lends to any subject when the operator says so, and says that it was so', () => {
    const overridden = decide(UNKNOWN, { by: 'operator', anySubject: true }, [policyFor('[]')], NOW)
    assert.ok(overridden.allowed)
    assert.equal(overridden.because, 'any-subject')
    const named = decide(FACTS, { by: 'operator', anySubject: true }, [policyFor('[{ user: alice }]')], NOW)
    assert.ok(named.allowed)
    assert.equal(named.because, 'subject')
    assert.ok(!allows('[]', UNKNOWN, { by: 'subject', anySubject: true }))
  })

  test('decide() tells what can be known of nobody from what is not so', () => {
    const because = (subjects: string) => decide(FACTS, OPERATOR, [policyFor(subjects)], NOW).because
    const account = '{ kubernetes: { namespace: x, serviceAccount: y } }'
    assert.equal(because(`[${account}]`), 'unsupported')
    assert.equal(because('[{ kubernetes: { namespace: x } }]'), 'nobody-matches')
    assert.equal(because('[{ container: { image: x }, user: alice }]'), 'nobody-matches')
    assert.equal(because(`[${account}, { user: bob }]`), 'nobody-matches')
    assert.equal(because(`[${account}, { user: alice }]`), 'subject')
    assert.equal(because('[]'), 'nobody-matches')
  })

  test('decide() compares a container and its pod by what the runtime says, and by nothing else', () => {
    const container = { name: 'web', image: 'docker.io/x/web:1', labels: { team: 'net', 'a/b': 'c' } }
    const kubernetes = { namespace: 'prod', labels: { app: 'agent' } }
    const known = { ...FACTS, container: { is: container }, kubernetes: { is: kubernetes } }
    const digest = `sha256:${'a'.repeat(64)}`
    for (const [entry, twin] of [
      ['container: { name: web }', 'container: { name: webx }'],
      [
        'container: { name: "w*", image: "docker.io/x/*" }',
        'container: { name: "w*", image: "docker.io/y/*" }',
      ],
      ['container: { labels: { team: net } }', 'container: { labels: { team: other } }'],
      [
        'container: { labels: { team: net, a/b: "*" } }',
        'container: { labels: { team: net, toString: "*" } }',
      ],
      ['container: { image: "*web:1" }', `container: { image: "*web:1", digest: "${digest}" }`],
      ['kubernetes: { namespace: "pr*" }', 'kubernetes: { namespace: test }'],
      [
        'kubernetes: { namespace: prod, labels: { app: agent } }',
        'kubernetes: { namespace: prod, labels: { app: x } }',
      ],
      ['kubernetes: { namespace: prod }', 'kubernetes: { namespace: prod, serviceAccount: "*" }'],
      [
        'kubernetes: { namespace: prod }, container: { name: web }',
        'kubernetes: { namespace: prod }, container: { name: x }',
      ],
    ]) {
      assert.ok(allows(`[{ ${entry} }]`, known), entry)
      assert.ok(!allows(`[{ ${twin} }]`, known), twin)
      assert.ok(!allows(`[{ ${entry} }]`, FACTS), `${entry}, of which no runtime has said anything`)
      const untold = { unknown: 'it is not said' }
      assert.ok(!allows(`[{ ${entry} }]`, { ...known, container: untold, kubernetes: untold }), entry)
    }
    const signed = { ...known, container: { is: { ...container, digest } } }
    assert.ok(allows(`[{ container: { digest: "${digest}" } }]`, signed))
    assert.ok(!allows(`[{ container: { name: "*" } }]`, { ...known, container: { is: { name: 'a\nb' } } }))
  })

  test('decide() takes the first policy that allows, and none without a policy', () => {
    const named = (name: string, subjects: string): Policy => ({ ...policyFor(subjects), name })
    const verdict = decide(
      FACTS,
      OPERATOR,
      [named('a', '[{ user: bob }]'), named('b', '[{ group: 44 }]'), named('c', '[{ user: alice }]')],
      NOW,
    )
    assert.ok(verdict.allowed)
    assert.equal(verdict.policy, 'b')
    assert.equal(verdict.trace.length, 3)
    assert.ok(!decide(FACTS, { by: 'operator', anySubject: true }, [], NOW).allowed)
  })

  test('decide() gives the time and a trace of each field, as data', () => {
    const policy = policyFor(
      '[{ user: bob, unit: "edge-*" }, { label: x, kubernetes: { namespace: y, serviceAccount: z } }]',
    )
    const verdict = decide({ ...FACTS, label: UNKNOWN.label }, OPERATOR, [policy], NOW)
    const expected: Verdict = {
      allowed: false,
      because: 'nobody-matches',
      at: '2026-01-02T03:04:05.000Z',
      trace: [
        {
          policy: 'sample',
          subjects: 'unmatched',
          entries: [
            {
              path: 'spec.subjects[0]',
              matches: false,
              fields: [
                { field: 'user', wanted: 'bob', outcome: 'differs', found: '1000 (alice, alix)' },
                { field: 'unit', wanted: 'edge-*', outcome: 'matches', found: 'edge-1.service' },
              ],
            },
            {
              path: 'spec.subjects[1]',
              matches: false,
              fields: [
                { field: 'label', wanted: 'x', outcome: 'unknown', found: 'no label' },
                {
                  field: 'kubernetes',
                  wanted: '{"namespace":"y","serviceAccount":"z"}',
                  outcome: 'unsupported',
                  found: 'its service account cannot be known here',
                },
              ],
            },
          ],
        },
      ],
    }
    assert.deepEqual(verdict, expected)
    assert.deepEqual(JSON.parse(JSON.stringify(verdict)), expected)
  })
})

/** Entries of which about half match FACTS; and subjects of which much is unknown. */
const entry: fc.Arbitrary<Subject> = fc
  .record(
    {
      user: fc.constantFrom<string | number>('alice', 1000, 'bob'),
      group: fc.constantFrom<string | number>('video', 44, 45),
      cgroup: fc.constantFrom('/**', '/system.slice/*', '/user.slice/*'),
      unit: fc.constantFrom('edge-*', 'x*'),
      executable: fc.constantFrom('/usr/bin/agent', '/bin/sh'),
      label: fc.constantFrom('*', 'x'),
      kubernetes: fc.constant({ namespace: 'edge', serviceAccount: 'x' }),
    },
    { requiredKeys: [] },
  )
  .filter(fields => Object.keys(fields).length > 0)
const entries = fc.array(entry, { maxLength: 5 })
const facts = fc.record(
  Object.fromEntries(
    Object.keys(FACTS).map(key => [
      key,
      fc.constantFrom(FACTS[key as keyof SubjectFacts], UNKNOWN[key as keyof SubjectFacts]),
    ]),
  ),
) as unknown as fc.Arbitrary<SubjectFacts>

function allowed(subject: SubjectFacts, subjects: readonly Subject[]): boolean {
  return decide(subject, OPERATOR, [{ ...policyFor(), subjects }], NOW).allowed
}

describe('decide() for any policy', () => {
  test('a field more never lets more in', () => {
    fc.assert(
      fc.property(facts, entry, entry, (subject, one, more) => {
        // Of a field that both have, the entry keeps its own.
        if (allowed(subject, [{ ...more, ...one }])) assert.ok(allowed(subject, [one]))
      }),
    )
  })

  test('an entry more never keeps more out, and lets in only whom it matches by itself', () => {
    fc.assert(
      fc.property(facts, entries, entry, (subject, some, more) => {
        const expected = allowed(subject, some) || allowed(subject, [more])
        assert.equal(allowed(subject, [...some, more]), expected)
      }),
    )
  })

  test('the order of entries, fields and policies does not matter', () => {
    fc.assert(
      fc.property(facts, fc.array(entries, { minLength: 1, maxLength: 3 }), (subject, lists) => {
        const turned = lists
          .map(list => list.map(e => Object.fromEntries(Object.entries(e).reverse()) as Subject).reverse())
          .reverse()
        const verdictOf = (all: readonly (readonly Subject[])[]) =>
          decide(
            subject,
            OPERATOR,
            all.map(subjects => ({ ...policyFor(), subjects })),
            NOW,
          )
        assert.equal(verdictOf(turned).allowed, verdictOf(lists).allowed)
        assert.equal(
          verdictOf(turned).allowed || verdictOf(turned).because,
          verdictOf(lists).allowed || verdictOf(lists).because,
        )
      }),
    )
  })

  /** From the trace of every policy alone: the plain meaning. */
  function plainly({ by, anySubject }: Request, { trace }: Verdict): Partial<Verdict> {
    for (const { policy, subjects, entries } of trace) {
      if (subjects === 'matched')
        return {
          allowed: true,
          policy,
          because: 'subject',
          entry: entries.find(({ matches }) => matches)!.path,
        }
      if (subjects === 'unstated' && by === 'operator') return { allowed: true, policy, because: 'operator' }
    }
    const [first] = trace
    if (by === 'operator' && anySubject === true && first !== undefined)
      return { allowed: true, policy: first.policy, because: 'any-subject' }
    const unsupported = trace.length > 0 && trace.every(({ subjects }) => subjects === 'unsupported')
    return { allowed: false, because: unsupported ? 'unsupported' : 'nobody-matches' }
  }

  test('the verdict is what follows from the trace', () => {
    const request = fc.record({ by: fc.constantFrom('operator', 'subject'), anySubject: fc.boolean() })
    const lists = fc.array(fc.option(entries, { nil: undefined }), { maxLength: 6 })
    const reached = new Set<string>()
    fc.assert(
      fc.property(facts, request, lists, (subject, asked, all) => {
        const policies = all.map((subjects, i) => ({ ...policyFor(), name: `p${i}`, subjects }) as Policy)
        const verdict = decide(subject, asked as Request, policies, NOW)
        const { trace, at, ...rest } = verdict
        assert.equal(trace.length, policies.length)
        assert.deepEqual(rest, plainly(asked as Request, verdict))
        reached.add(verdict.because)
      }),
      { numRuns: 2000 },
    )
    assert.equal(reached.size, 5, `all verdicts were reached: ${[...reached]}`)
  })

  /**
   * Few values for many entries, so that one value has several entries and one entry several
   * values.
   */
  const name = fc.constantFrom('a', 'ab', 'abc', 'b', 'bc', 'c')
  const part = fc.oneof(name, fc.constantFrom('*', 'a*', '*c', 'a*c'))
  const pathOf = (parts: fc.Arbitrary<string>, more: readonly string[]): fc.Arbitrary<string> =>
    fc
      .array(fc.oneof({ weight: 4, arbitrary: parts }, fc.constantFrom(...more)), {
        minLength: 1,
        maxLength: 3,
      })
      .map(all => `/${all.join('/')}`)
  const id = fc.oneof(fc.constantFrom('u', 'v', 'w'), fc.integer({ min: 0, max: 4 }))
  const values = {
    user: id,
    group: id,
    cgroup: pathOf(part, ['**']),
    // A pattern with too many wildcards is faulty, and matches nothing.
    unit: fc.oneof(part, fc.constant('a*b*c*d*e')),
    executable: pathOf(part, ['**']),
    label: part,
    container: fc.oneof(
      fc.record({ name: part, labels: fc.record({ l: part }) }, { requiredKeys: ['name'] }),
      fc.record({ image: part, digest: name }, { requiredKeys: ['image'] }),
      fc.record({ digest: name }),
      fc.record({ labels: fc.record({ l: part }) }),
    ),
    kubernetes: fc.record({ namespace: part, serviceAccount: name }, { requiredKeys: ['namespace'] }),
  }
  const anyEntry: fc.Arbitrary<Subject> = fc
    .subarray(Object.keys(values) as (keyof typeof values)[], { maxLength: 3 })
    .chain(fields =>
      fc.record(Object.fromEntries(fields.map(field => [field, values[field]]))),
    ) as unknown as fc.Arbitrary<Subject>
  const identity = fc.record(
    {
      id: fc.integer({ min: 0, max: 4 }),
      names: fc.uniqueArray(fc.constantFrom('u', 'v', 'w'), { maxLength: 2 }),
    },
    { requiredKeys: ['names'] },
  )
  const factOf = <T>(arbitrary: fc.Arbitrary<T>) =>
    fc.oneof({ weight: 5, arbitrary: arbitrary.map(is => ({ is })) }, fc.constant({ unknown: 'not known' }))
  const anyFacts: fc.Arbitrary<SubjectFacts> = fc.record({
    user: factOf(identity),
    groups: factOf(fc.array(identity, { maxLength: 3 })),
    cgroup: factOf(pathOf(name, ['a\n'])),
    unit: factOf(name),
    executable: factOf(pathOf(name, ['d'])),
    label: factOf(name),
    container: factOf(
      fc.record({ name, image: name, digest: name, labels: fc.record({ l: name }) }, { requiredKeys: [] }),
    ),
    kubernetes: factOf(fc.record({ namespace: name })),
  }) as unknown as fc.Arbitrary<SubjectFacts>

  test('of an index the verdict is the same as of its policies, and so is its trace', () => {
    const request = fc.record({ by: fc.constantFrom('operator', 'subject'), anySubject: fc.boolean() })
    const stated = fc.array(anyEntry, { maxLength: 4 })
    const lists = fc.array(fc.oneof({ weight: 12, arbitrary: stated }, fc.constant(undefined)), {
      maxLength: 25,
    })
    const reached = new Map<string, number>()
    fc.assert(
      fc.property(fc.array(anyFacts, { minLength: 1, maxLength: 5 }), request, lists, (some, asked, all) => {
        const policies = all.map((subjects, i) => ({ ...policyFor(), name: `p${i}`, subjects }) as Policy)
        const index = new PolicyIndex(policies)
        for (const subject of some) {
          const verdict = decide(subject, asked as Request, index, NOW)
          const plain = decide(subject, asked as Request, policies, NOW)
          const { trace, at, ...rest } = verdict
          if (subject === some[0]) assert.deepEqual(trace, plain.trace)
          assert.deepEqual(rest, plainly(asked as Request, plain))
          const one = (policy: Policy) => decide(subject, { by: 'subject' }, [policy], NOW).allowed
          assert.deepEqual(index.matching(knownOf(subject)), policies.filter(one))
          reached.set(verdict.because, (reached.get(verdict.because) ?? 0) + 1)
        }
      }),
      { numRuns: 500 },
    )
    for (const because of ['subject', 'operator', 'any-subject', 'nobody-matches'])
      assert.ok((reached.get(because) ?? 0) >= 50, `${because}: ${reached.get(because)} times`)
  })

  test('an index compares few of a thousand policies, whatever they have in common', () => {
    const policies = Array.from({ length: 1000 }, (_, i) => ({
      ...policyFor(),
      subjects: [
        { group: 'staff', unit: `job-${i}@*.service` },
        { user: i, unit: 'cron.service' },
      ],
    }))
    const index = new PolicyIndex(policies)
    const known = knownOf({ ...FACTS, groups: { is: [{ id: 50, names: ['staff'] }] } })
    /** What was found, and how often an entry, or the index, has looked at the unit. */
    const find = (user: number, unit: string) => {
      let looks = 0
      const who = {
        ...known,
        user: { id: user, names: [] },
        get unit() {
          looks++
          return unit
        },
      }
      return { found: index.first(who)?.policy, looks }
    }
    for (const [user, unit, policy] of [
      [5000, 'job-0@x.service', 0],
      [5000, 'job-999@x.service', 999],
      [999, 'cron.service', 999],
      [5000, 'job-1000@x.service', undefined],
      [5000, 'cron.service', undefined],
      [999, 'job-@x.service', undefined],
    ] as const) {
      const { found, looks } = find(user, unit)
      assert.equal(found, policy, `${user} ${unit}`)
      assert.ok(looks <= 3, `${user} ${unit}: ${looks} looks`)
    }
  })

  test('of a thousand policies for containers and pods it compares few, too', () => {
    const digest = (i: number): string => `sha256:${i.toString(16).padStart(64, '0')}`
    const policies = Array.from({ length: 1000 }, (_, i) => ({
      ...policyFor(),
      subjects: [
        { container: { name: `web-${i}`, image: 'registry.example/*' } },
        { kubernetes: { namespace: `team-${i}-*`, labels: { app: 'web' } } },
        { container: { image: `registry.example/app-${i}:*` } },
        { container: { digest: digest(i) } },
      ],
    }))
    const index = new PolicyIndex(policies)
    /** What was found, and how often an entry, or the index, has looked at what the runtime tells. */
    const find = (container: object, kubernetes?: object) => {
      let looks = 0
      const who = {
        ...knownOf(FACTS),
        get container() {
          looks++
          return container
        },
        get kubernetes() {
          looks++
          return kubernetes
        },
      }
      return { found: index.first(who as never)?.policy, looks }
    }
    const image = 'registry.example/other:1'
    const labels = { app: 'web' }
    for (const [found, container, kubernetes] of [
      [7, { name: 'web-7', image }, undefined],
      [undefined, { name: 'web-7', image: 'elsewhere/a:1' }, undefined],
      [8, { image: 'registry.example/app-8:2' }, undefined],
      [9, { image, digest: digest(9) }, undefined],
      [999, { image }, { namespace: 'team-999-x', labels }],
      [undefined, { image }, { namespace: 'team-999-x', labels: { app: 'db' } }],
      [undefined, { image }, { namespace: 'team-1000', labels }],
    ] as const) {
      const { found: is, looks } = find(container, kubernetes)
      const whom = JSON.stringify([container, kubernetes])
      assert.equal(is, found, whom)
      assert.ok(looks <= 12, `${whom}: ${looks} looks`)
    }
  })

  test('what is not known never lets anybody in', () => {
    fc.assert(fc.property(entries, subjects => assert.ok(!allowed(UNKNOWN, subjects))))
  })

  test('the verdict depends on nothing but what is given', () => {
    fc.assert(
      fc.property(facts, entries, (subject, subjects) => {
        const policies = [{ ...policyFor(), subjects }]
        assert.deepEqual(decide(subject, OPERATOR, policies, NOW), decide(subject, OPERATOR, policies, NOW))
      }),
    )
  })
})

test('verdictLines() says why, and lets no text of the subject out of its quotes', () => {
  const lines = (subjects: string | undefined, subject = FACTS) =>
    verdictLines(decide(subject, OPERATOR, [policyFor(subjects)], NOW))
  assert.deepEqual(
    lines(
      '[{ user: bob, unit: "edge-*" }, { user: alice }, { kubernetes: { namespace: x, serviceAccount: y } }]',
    ),
    [
      'Allowed by policy "sample": spec.subjects[1] matches',
      'policy "sample":',
      '  spec.subjects[0] does not match: user is "1000 (alice, alix)", not "bob"',
      '  spec.subjects[1] matches: user "alice" matches "1000 (alice, alix)"',
      '  spec.subjects[2] does not match: kubernetes: its service account cannot be known here',
    ],
  )
  assert.deepEqual(lines(undefined), [
    'Allowed by policy "sample": it states no subjects, so who names it decides',
    'policy "sample": no subjects are stated',
  ])
  assert.deepEqual(lines('[]'), [
    'Refused: no subject matches',
    'policy "sample": the list of subjects is empty: nobody',
  ])
  const hostile = '/x"\n  spec.subjects[0] matches: \u001b[2J\u202e\u009b'
  const shown = lines('[{ cgroup: /a }]', { ...FACTS, cgroup: { is: hostile } }).join('|')
  assert.match(shown, /^[\x20-\x7e]*$/)
  const long = lines('[{ cgroup: /a }]', { ...FACTS, cgroup: { is: `/${'\u00e9'.repeat(900)}` } })
  assert.ok(long.every(line => line.length < 1200 && /^[\x20-\x7e]*$/.test(line)))
})

test('unitOfCgroup() finds the unit of the system, whatever is below it', () => {
  for (const [path, unit] of [
    ['/system.slice/a.service', 'a.service'],
    ['/system.slice/a.service/b.service', 'a.service'],
    ['/system.slice/system-getty.slice/getty@tty1.service', 'getty@tty1.service'],
    ['/user.slice/user-1000.slice/user@1000.service/app.slice/a.service', 'user@1000.service'],
    ['/user.slice/user-1000.slice/session-2.scope', 'session-2.scope'],
    ['/machine.slice/libpod-1.scope/container/a.service', 'libpod-1.scope'],
    ['/init.scope', 'init.scope'],
    ['/system.slice/_cpu.service', 'cpu.service'],
    ['/system.slice/dev\\x2dhugepages.mount', 'dev\\x2dhugepages.mount'],
    ['/', undefined],
    ['/system.slice', undefined],
    ['/docker/a.service', undefined],
    ['/system.slice/payload/a.service', undefined],
    ['/.service', undefined],
  ] as const)
    assert.equal(unitOfCgroup(path), unit, path)
})

test('namesIn() finds names, not numbers', () => {
  const policy = policyFor('[{ user: alice, group: 44 }, { user: 1000, group: video }, { user: x12 }]')
  assert.deepEqual(namesIn(policy), { users: new Set(['alice', 'x12']), groups: new Set(['video']) })
  assert.deepEqual(namesIn(policyFor()), { users: new Set(), groups: new Set() })
})
