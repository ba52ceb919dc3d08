import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { type GlobKind, globFault, globMatcher, globMatches, nameFault } from '../../../src/policy/glob.ts'

/** Each pattern with a name that it matches, and one that it does not. */
const TWINS: [kind: GlobKind, pattern: string, matches: string, differs: string][] = [
  ['path', '/system.slice/edge.service', '/system.slice/edge.service', '/system.slice/edge.service/x'],
  ['path', '/system.slice/edge-*.service', '/system.slice/edge-1.service', '/system.slice/edge-1/a.service'],
  ['path', '/a/*', '/a/.hidden', '/a'],
  ['path', '/a/*/c', '/a/b/c', '/a/b/b/c'],
  ['path', '/a/**', '/a/b/c', '/ab'],
  ['path', '/a/**', '/a', '/'],
  ['path', '/*/**', '/a', '/'],
  ['path', '/a*/**', '/ab', '/b'],
  ['path', '/**/c', '/a/b/c', '/a/b/cc'],
  ['path', '/**/c', '/c', '/'],
  ['path', '/**', '/', 'a'],
  ['path', '/a/**/c', '/a/c', '/ac'],
  ['path', '/a/b', '/a/b', '/A/b'],
  ['text', '*.service', 'a.service', 'a.services'],
  ['text', 'edge-*', 'edge-/x', 'edge'],
  ['text', '*:container_t:*', 'system_u:system_r:container_t:s0:c1,c2', 'system_u:system_r:spc_t:s0'],
  ['text', 'docker-*', 'docker-default//null-/bin/x', 'xdocker-default'],
  // What is special elsewhere stands for itself.
  ['text', 'a\\x2db@*.service', 'a\\x2db@1.service', 'a-b@1.service'],
  ['text', 'a\\\\b*', 'a\\\\b', 'a\\b'],
  ['text', '{a,b}*', '{a,b}', 'a'],
  ['text', '[ab]*', '[ab]', 'a'],
  ['text', 'a?*', 'a?', 'ab'],
  ['text', '!a*', '!a', 'b'],
  ['text', '@(a|b)*', '@(a|b)', 'a'],
  ['text', '(a|b)*', '(a|b)', 'a'],
  ['text', '"a"*', '"a"', 'a'],
  ['text', 'a+*', 'a+b', 'a\\+*'],
  ['text', 'a.*', 'a.b', 'ab'],
  ['text', './a*', './a', 'a'],
  ['text', '^a$*', '^a$', 'a'],
]

describe('globMatches()', () => {
  for (const [kind, pattern, matches, differs] of TWINS) {
    test(`globMatches() takes the ${kind} ${pattern} for ${matches} and not for ${differs}`, () => {
      assert.equal(globFault(pattern, kind), undefined)
      assert.ok(globMatches(pattern, matches, kind))
      assert.ok(!globMatches(pattern, differs, kind))
    })
  }

  /** Characters that are special somewhere, and few others, so that patterns meet names. */
  const piece = fc.constantFrom(...'aab./*\\{}[]()|?!+@^$"\':-,~%', '*', '**', '/', '\u00e9', '\ud83d\ude00')
  const word = fc.array(piece, { maxLength: 12 }).map(pieces => pieces.join(''))

  for (const kind of ['path', 'text'] as const) {
    const root = kind === 'path' ? '/' : ''
    /** Patterns; and names that are made from the pattern, so that about half of them match. */
    const cases = word
      .map(text => root + text)
      .filter(pattern => globFault(pattern, kind) === undefined)
      .chain(pattern =>
        fc.tuple(
          fc.constant(pattern),
          fc.oneof(
            fc.tuple(word, word, word).map(([...fill]) => pattern.replace(/\*+/g, () => fill.pop()!)),
            word.map(text => root + text),
          ),
        ),
      )
      .filter(([, name]) => name !== '' && isName(name, kind))

    test(`globMatches() agrees with a simple matcher of our own, for kind ${kind}`, () => {
      let matched = 0
      let differed = 0
      fc.assert(
        fc.property(cases, ([pattern, name]) => {
          const expected = reference(pattern, name, kind)
          if (expected) matched++
          else differed++
          assert.equal(globMatches(pattern, name, kind), expected, `${pattern} and ${name}`)
          if (nameFault(name, kind) === undefined)
            assert.equal(globMatcher(pattern, kind)(name), expected, `${pattern} and ${name}`)
        }),
        { numRuns: 2000, endOnFailure: true },
      )
      // Both outcomes were seen often, so that agreement means something.
      assert.ok(matched > 500 && differed > 500, `${matched} matched, ${differed} differed`)
    })
  }

  test('globMatches() ends soon on hostile names, at the bounds of name and pattern', () => {
    // Without bounds each of these takes minutes or hours, and the run is ended by its limit for
    // hangs.
    const long = 'a'.repeat(1024)
    for (const [kind, pattern, name] of [
      ['text', '*a*a*b', long.slice(0, 256)],
      ['path', '/**/a/**/a/**/b', '/a'.repeat(512)],
      ['path', '/*a*a*b', `/${long.slice(0, 1023)}`],
      ['path', '/**/*a*b', '/aa'.repeat(341)],
    ] as const) {
      assert.equal(nameFault(name, kind), undefined)
      assert.equal(globMatches(pattern, name, kind), false)
    }
  })
})

test('nameFault() and globMatches() refuse names that are too long or have control characters', () => {
  for (const [name, good] of [
    ['a\nb', 'ab'],
    ['a\u001b[31m', 'a[31m'],
    ['a\u0001b', 'a/b'],
    ['a\u2028', 'a'],
    ['a'.repeat(257), 'a'.repeat(256)],
  ] as const) {
    assert.notEqual(nameFault(name, 'text'), undefined)
    assert.ok(!globMatches('a*', name, 'text'))
    assert.equal(nameFault(good, 'text'), undefined)
    assert.ok(globMatches('a*', good, 'text'))
  }
  // Not by being equal either.
  assert.ok(!globMatches('a\nb', 'a\nb', 'text'))
})

test('globFault() finds what a pattern may not be, and passes its twin', () => {
  for (const [kind, wrong, right] of [
    ['path', 'a/b', '/a/b'],
    ['path', '/a//b', '/a/b'],
    ['path', '/a/', '/a'],
    ['path', '/a/../b', '/a/..b'],
    ['path', '/./b', '/.b'],
    ['path', '/a**', '/a*'],
    ['path', '/a/***', '/a/**'],
    ['path', '/*/*/*/*', '/*/*/*'],
    ['path', `/${'a'.repeat(1024)}`, `/${'a'.repeat(1023)}`],
    ['text', 'a**', 'a*'],
    ['text', '*a*a*a*', '*a*a*'],
    ['text', 'a\u0001', 'a'],
  ] as const) {
    assert.notEqual(globFault(wrong, kind), undefined, wrong)
    assert.equal(globFault(right, kind), undefined, right)
  }
})

/** Names as the kernel gives them: no empty components, none called `.` or `..`. */
function isName(name: string, kind: GlobKind): boolean {
  if (nameFault(name, kind) !== undefined) return false
  const components = kind === 'path' ? name.slice(1).split('/') : [name]
  return name === '/' || components.every(component => !['', '.', '..'].includes(component))
}

/** Component by component and character by character, without regular expressions. */
function reference(pattern: string, name: string, kind: GlobKind): boolean {
  if (kind === 'text') return matchAll([...pattern], [...name], isStar, isEqual)
  const parts = (path: string) => (path === '/' ? [] : path.slice(1).split('/'))
  const component = (p: string, n: string) => matchAll([...p], [...n], isStar, isEqual)
  return matchAll(parts(pattern), parts(name), part => part === '**', component)
}

const isStar = (item: string): boolean => item === '*'
const isEqual = (a: string, b: string): boolean => a === b

function matchAll(
  pattern: readonly string[],
  items: readonly string[],
  isMany: (part: string) => boolean,
  isOne: (part: string, item: string) => boolean,
): boolean {
  // Of each j: whether the parts so far match the first j items.
  let reached = [true, ...items.map(() => false)]
  for (const part of pattern) {
    const before = reached
    reached = isMany(part)
      ? before.map((_, j) => before.slice(0, j + 1).includes(true))
      : [false, ...items.map((item, j) => before[j]! && isOne(part, item))]
  }
  return reached[items.length]!
}
