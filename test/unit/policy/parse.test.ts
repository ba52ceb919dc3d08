import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { PolicyError, type PolicyIssue } from '../../../src/errors.ts'
import { parseLocatedPolicy, parsePolicy } from '../../../src/policy/parse.ts'
import { documentOf, policyOf, VOCABULARY } from './sample-kernel.ts'

const options = { source: 'p.yaml', vocabulary: VOCABULARY }

function issuesOf(text: string): readonly PolicyIssue[] {
  try {
    parsePolicy(text, options)
  } catch (error) {
    if (error instanceof PolicyError) return error.issues
    throw error
  }
  return assert.fail('the text was accepted')
}

describe('parsePolicy()', () => {
  test('parsePolicy() resolves words, quantities and defaults', () => {
    const policy = policyOf(`
  rights: { cmds: [map_create, prog_load], maps: [array], progs: [xdp], attachs: [xdp] }
  limits: { mapBytes: 64MiB, lifetime: 1h30m, tokens: 4 }
`)
    assert.deepEqual(policy, {
      name: 'sample',
      approval: 'none',
      rights: { masks: { cmds: 0x21n, maps: 4n, progs: 64n, attachs: 1n << 37n }, capabilities: ['bpf'] },
      limits: { tokens: 4, mapBytes: 67_108_864n, lifetimeSec: 5400 },
      programs: { digests: 'any' },
      targets: { functions: 'any' },
      sharing: { bindMount: false, passToken: false },
      revocable: true,
      network: 'own',
      cgroups: 'own',
      guard: 'required',
      derive: { allowed: false, maxDepth: 1 },
      mode: 'enforce',
      events: 'refused',
    })
  })

  test('parsePolicy() keeps all 64 bits of a number that YAML would round', () => {
    assert.equal(policyOf('  rights: { maps: [0x8000000000000001] }').rights.masks.maps, 0x8000000000000001n)
  })

  test('parsePolicy() accepts anchors and aliases within bounds', () => {
    const policy = policyOf('  rights: { progs: &words [xdp], attachs: *words }')
    assert.equal(policy.rights.masks.attachs, 1n << 37n)
  })

  test('parsePolicy() reports every issue with path, line, column and suggestion', () => {
    const text = documentOf(`  right: {}
  rights:
    cmds: [map_create, BPF_PROG_LOAD, prog_laod]
    capabilities: [CAP_BPF]
  limits: { lifetime: 8, mapBytes: 1MB, tokens: 0 }
  subjects: [{}, { usr: alice }]
  network: hots
  revocabel: true
  events: al
  revocable: 1
`)
    const found = issuesOf(text).map(
      ({ path, line, col, suggestion }) => `${line}:${col} ${path} ${suggestion ?? ''}`,
    )
    assert.deepEqual(found, [
      '5:3 spec.right rights',
      '7:24 spec.rights.cmds[1] prog_load',
      '7:39 spec.rights.cmds[2] prog_load',
      '8:20 spec.rights.capabilities[0] bpf',
      '9:23 spec.limits.lifetime ',
      '9:36 spec.limits.mapBytes ',
      '9:49 spec.limits.tokens ',
      '10:14 spec.subjects[0] ',
      '10:20 spec.subjects[1].usr user',
      '11:12 spec.network host',
      '12:3 spec.revocabel revocable',
      '13:11 spec.events all',
      '14:14 spec.revocable ',
    ])
  })

  test('parsePolicy() says what is missing', () => {
    const text = 'apiVersion: bpftoken.dev/v1\nmetadata: {}\n'
    assert.deepEqual(
      issuesOf(text).map(issue => `${issue.path}: ${issue.message.split(';')[0]}`),
      ['kind: missing', 'spec: missing', 'metadata.name: missing'],
    )
  })

  for (const name of ['x', 'packet-counter', 'a1', 'a'.repeat(63)]) {
    test(`parsePolicy() accepts the name ${name}`, () => {
      const text = documentOf('  rights: {}').replace('sample', name)
      assert.equal(parsePolicy(text, options).name, name)
    })
  }
  for (const name of ['-x', 'x-', 'X', 'a_b', 'a.b', 'a'.repeat(64), '"x\\n"', '../x']) {
    test(`parsePolicy() refuses the name ${name}`, () => {
      assert.equal(issuesOf(documentOf('  rights: {}').replace('sample', name))[0]!.path, 'metadata.name')
    })
  }

  test('parseLocatedPolicy() finds fields, and what encloses a field that is not written', () => {
    const { locate } = parseLocatedPolicy(
      documentOf('  rights:\n    cmds: [map_create, prog_load]\n'),
      options,
    )
    assert.deepEqual(locate('spec.rights.cmds[1]'), { line: 6, col: 24 })
    assert.deepEqual(locate('spec.rights.maps'), { line: 6, col: 5 })
  })
})

describe('parsePolicy() of hostile text', () => {
  const bomb = ['a: &a [x,x,x,x,x,x,x,x,x]']
  for (const [index, name] of [...'bcdefghi'].entries()) {
    bomb.push(`${name}: &${name} [${`*${'abcdefgh'[index]},`.repeat(9)}]`)
  }
  const rows: [what: string, text: string, message: RegExp][] = [
    ['is empty', '', /empty/],
    ['is blank', ' \n\n', /empty/],
    ['is a comment', '# nothing\n', /object/],
    ['is a scalar', 'hello', /object/],
    ['has a tab', 'a:\n\tb: 1\n', /Tabs/],
    ['has two documents', `${documentOf('  rights: {}')}\n---\na: 1\n`, /several documents/],
    ['has a duplicate key', `${documentOf('  rights: {}')}\nkind: x\n`, /twice/],
    ['has an unknown tag', 'a: !foo 1', /tag/i],
    ['has an unknown anchor', 'a: *nope', /no anchor/],
    ['has an alias of its own parent', 'a: &a [*a]', /nested deeper/],
    ['has a map as key', '? { a: 1 }\n: 2', /key/],
    ['is larger than 256 KiB', '#'.repeat(256 * 1024 + 1), /256 KiB/],
    ['is 1 MB of aliases', `a: &a [1]\nb: [${'*a,'.repeat(350_000)}]`, /256 KiB/],
    ['is 240 KB of aliases', `a: &a [1]\nb: [${'*a,'.repeat(80_000)}]`, /too many parts/],
    ['is an alias bomb', bomb.join('\n'), /aliases expanded/],
    ['is 10,000 lists deep', '['.repeat(10_000) + ']'.repeat(10_000), /nested deeper/],
    ['is 60,000 open maps', '{a: '.repeat(60_000), /nested deeper/],
    ['is 100,000 block lists deep', '- '.repeat(100_000), /nested deeper/],
    ['hides its brackets behind quotes', '["]", '.repeat(30_000), /nested deeper/],
    ['has 14,000 keys', Array.from({ length: 14_000 }, (_, i) => `k${i}: 1`).join('\n'), /too many parts/],
    ['has 20,000 documents', '---\n'.repeat(20_000), /several documents|too many parts/],
  ]
  for (const [what, text, message] of rows) {
    test(`parsePolicy() throws PolicyError soon when the text ${what}`, () => {
      const start = performance.now()
      assert.match(issuesOf(text)[0]!.message, message)
      // Far above what it takes (at most 0.2 s), far below what an unbounded parse would.
      assert.ok(performance.now() - start < 5_000)
    })
  }

  test('parsePolicy() reports __proto__ and constructor as unknown fields and pollutes nothing', () => {
    const text = `${documentOf('  rights: {}')}\n__proto__: { polluted: 1 }\nconstructor: { prototype: { polluted: 1 } }\n`
    assert.deepEqual(
      issuesOf(text).map(issue => issue.path),
      ['__proto__', 'constructor'],
    )
    assert.equal('polluted' in {}, false)
  })

  test('parsePolicy() returns or throws PolicyError whatever the text', () => {
    const piece = fc.constantFrom(
      ...[
        'spec:',
        ' rights: ',
        '{',
        '}',
        '[',
        ']',
        '\n',
        '  ',
        '- ',
        '? ',
        ': ',
        '&a ',
        '*a',
        '!!int ',
        '"',
        "'",
        '|\n',
        '#',
      ],
      ...[
        'cmds',
        'any',
        '0x3',
        'kind: ',
        '---\n',
        '%YAML 1.1\n',
        '\t',
        '\u0000',
        '\ufeff',
        '<<: ',
        '__proto__: ',
        ',',
        '~',
      ],
    )
    const text = fc.oneof(
      fc.string(),
      fc.array(piece, { maxLength: 60 }).map(pieces => pieces.join('')),
    )
    fc.assert(
      fc.property(text, source => {
        try {
          parsePolicy(source, options)
        } catch (error) {
          if (!(error instanceof PolicyError)) throw error
          for (const { line, col } of error.issues) assert.ok(line >= 1 && col >= 1)
        }
      }),
      { numRuns: 2_000 },
    )
  })
})

/** Subjects that are refused, each with a twin that is accepted. */
const SUBJECT_TWINS: [wrong: string, right: string, message: RegExp][] = [
  ['user: 4294967295', 'user: 4294967294', /uid from 0 to 4294967294/],
  ['user: 4294967296', 'user: 0', /uid from 0/],
  ['group: -1', 'group: 0', /gid from 0/],
  ['user: 1.5', 'user: 1', /uid from 0/],
  ['user: "1000"', 'user: 1000', /uid from 0/],
  ['user: 99999999999999999999', 'user: u9', /uid from 0/],
  ['user: ""', 'user: a', /user name/],
  ['user: "a:b"', 'user: a.b', /user name/],
  ['user: "-x"', 'user: x-', /user name/],
  ['group: "a\\nb"', 'group: domain users', /group name/],
  ['cgroup: a/b', 'cgroup: /a/b', /absolute cgroup path/],
  ['cgroup: /a//b', 'cgroup: /a/b', /empty components/],
  ['cgroup: /a**', 'cgroup: /a/**', /whole components/],
  ['cgroup: /*/*/*/*', 'cgroup: /*/*/*', /at most 3 wildcards/],
  ['unit: "a**"', 'unit: a*', /components of a path only/],
  ['unit: "a b"', 'unit: a-b', /without blanks/],
  ['executable: agent', 'executable: /agent', /absolute path/],
  ['executable: /a/../b', 'executable: /a/..b', /no `.` and no `..`/],
  ['label: "\\u0001"', 'label: "a:b"', /control characters/],
  ['container: {}', 'container: { name: a }', /at least one/],
  ['container: { labels: { "a b": a } }', 'container: { labels: { app: a } }', /./],
  ['container: { img: a }', 'container: { image: a }', /unknown field/],
  ['approval: required', 'user: a', /unknown field/],
]

describe('parsePolicy() of subjects', () => {
  for (const [wrong, right, message] of SUBJECT_TWINS) {
    test(`parsePolicy() refuses a subject with ${wrong} and accepts ${right}`, () => {
      const text = (entry: string) => documentOf(`  rights: {}\n  subjects: [{ ${entry} }]\n`)
      const issues = issuesOf(text(wrong))
      assert.match(issues[0]!.message, message)
      assert.ok(issues[0]!.path.startsWith('spec.subjects[0]'))
      assert.equal(parsePolicy(text(right), options).subjects!.length, 1)
    })
  }

  test('parsePolicy() takes at most 256 subjects', () => {
    const text = (count: number) =>
      documentOf(`  rights: {}\n  subjects: [${Array(count).fill('{ user: a }').join(', ')}]\n`)
    assert.ok(issuesOf(text(257)).length > 0)
    assert.equal(parsePolicy(text(256), options).subjects!.length, 256)
  })
})

test('parsePolicy() takes ids of subjects that the kernel has, and no others', () => {
  const subjects = (word: string): string =>
    documentOf(`  rights: { progs: [xdp] }\n  subjects: [{ user: ${word}, group: ${word} }]\n`)
  for (const good of ['0', '4294967294', 'alice', '"1000x"'])
    assert.equal(parsePolicy(subjects(good), options).subjects!.length, 1, good)
  // Digits in quotes would be a number for one reader and a name for another.
  for (const bad of [
    '4294967295',
    '4294967296',
    '-1',
    '1.5',
    '.inf',
    '0x100000000',
    '0xffffffffffffffffff',
    '-.inf',
    '"4294967296"',
    '"1000"',
    '""',
  ])
    assert.deepEqual(
      issuesOf(subjects(bad)).map(issue => issue.path),
      ['spec.subjects[0].user', 'spec.subjects[0].group'],
      bad,
    )
})

for (const written of ['1e3', '0o7', '007', '1.0', '-1', '+1', '.inf', '1_000'])
  test(`parsePolicy() refuses the number ${written}`, () => {
    assert.throws(() => parsePolicy(numbered(written), options))
  })

for (const written of ['0', '7', '0x1F', '0xffffffffffffffff'])
  test(`parsePolicy() takes the number ${written}`, () => {
    parsePolicy(numbered(written), options)
  })

test('parsePolicy() refuses an octal number of YAML 1.1, which another reader takes for a decimal one', () => {
  assert.throws(
    () => parsePolicy(`%YAML 1.1\n---\n${numbered('010')}`, options),
    /decimal without leading zeros/,
  )
  parsePolicy(`%YAML 1.1\n---\n${numbered('8')}`, options)
})

function numbered(written: string): string {
  return `apiVersion: bpftoken.dev/v1
kind: DelegationPolicy
metadata: { name: numbers }
spec: { rights: { cmds: [map_create], maps: [${written}] } }
`
}
