/**
 * SECURITY.md: each claim is one sentence on one line, and ends with the tests that prove it, which
 * are there by these names:
 *
 *   - What is claimed (`test/kernel/x.test.ts`: "name of a test", "another"; `test/vm/y.test.ts`: "name").
 *
 * A name is what the test's file says between quotes. Where it is built of parts (`${...}`), any
 * text stands for a part. Rows of a table whose names are elsewhere in the file are named by the
 * test or suite around them.
 */
import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { test } from 'node:test'
import { ROOT } from '../../helpers/machine.ts'

const CLAIM = /^- (?<claim>.+[^.]) \((?<proof>`test\/[^()]+.*)\)\.$/
const PROOF = /^`(?<file>test\/[\w/-]+\.test\.ts)`: (?<names>"[^"]+"(?:, "[^"]+")*)$/

interface Proof {
  readonly file: string
  readonly names: readonly string[]
}

/** The claim without its proofs, and these. Throws where the line is not of the form. */
function parseClaim(line: string): { claim: string; proofs: Proof[] } {
  const { claim, proof } = CLAIM.exec(line)?.groups ?? {}
  if (claim === undefined || proof === undefined)
    throw new Error(`not "- CLAIM (\`test/...\`: "NAME").": ${line}`)
  if (/[.;!?] (?!\.)[A-Z]/.test(claim)) throw new Error(`more than one sentence: ${line}`)
  const proofs = proof.split('; `').map((part, i) => {
    const text = i === 0 ? part : `\`${part}`
    const { file, names } = PROOF.exec(text)?.groups ?? {}
    if (file === undefined || names === undefined) throw new Error(`not "\`test/...\`: "NAME"": ${text}`)
    return { file, names: [...names.matchAll(/"([^"]+)"/g)].map(([, name]) => name!) }
  })
  return { claim, proofs }
}

/** Functions that make a test of their first argument. */
const MAKES_TEST =
  /\b(?:\w+\.)?(?:test|it|describe|kernelTest|\w*[aA]ttempt)\(\s*(?:'((?:\\.|[^'\\])*)'|"((?:\\.|[^"\\])*)"|`((?:\\.|[^`\\])*)`)/g

/** Whether the text of a test's file has a test of this name. */
function hasTest(text: string, name: string): boolean {
  return [...text.matchAll(MAKES_TEST)].some(([, single, double, template]) => {
    if (template === undefined) return (single ?? double)!.replace(/\\(.)/g, '$1') === name
    const parts = template.split(/\$\{[^}]*\}/)
    // One that is parts alone would be every name.
    if (parts.join('').trim().length < 4) return false
    const escaped = parts.map(part => part.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'))
    return new RegExp(`^${escaped.join('.*')}$`).test(name)
  })
}

function missing({ file, names }: Proof): string[] {
  if (!existsSync(path.join(ROOT, file))) return [file]
  const text = readFileSync(path.join(ROOT, file), 'utf8')
  return names.filter(name => !hasTest(text, name)).map(name => `${file}: ${name}`)
}

const section = readFileSync(path.join(ROOT, 'SECURITY.md'), 'utf8')
  .split(/^## /m)
  .find(part => part.startsWith('What we claim\n'))!
const lines = section
  .split('\n')
  .slice(1)
  .filter(line => line !== '')

test('what we claim is claims, each on one line, and the words between them', () => {
  assert.ok(lines.filter(line => line.startsWith('- ')).length >= 20)
  for (const line of lines) assert.match(line, /^- |:$/, `neither a claim nor "...:": ${line}`)
})

for (const line of lines.filter(one => one.startsWith('- ')))
  test(`it is proven that ${line.slice(2).replace(/ \(`test\/.*/, '')}`, () => {
    assert.deepEqual(parseClaim(line).proofs.flatMap(missing), [])
  })

test('parseClaim() takes a claim with its proofs, and no other line', () => {
  assert.deepEqual(
    parseClaim('- It holds, e.g. here (`test/a.test.ts`: "one", "it (two)"; `test/b/c.test.ts`: "three").'),
    {
      claim: 'It holds, e.g. here',
      proofs: [
        { file: 'test/a.test.ts', names: ['one', 'it (two)'] },
        { file: 'test/b/c.test.ts', names: ['three'] },
      ],
    },
  )
  for (const line of [
    '- It holds.',
    '- It holds (`test/a.test.ts`).',
    '- It holds (`src/a.ts`: "one").',
    '- It holds (`test/a.test.ts`: one).',
    '- It holds. It also does this (`test/a.test.ts`: "one").',
  ])
    assert.throws(() => parseClaim(line), /^Error: (not|more)/, line)
})

test('hasTest() finds tests by their whole name, also built ones, and nothing else', () => {
  const text = `test('one', () => {})
    policyAttempt("the host's", body)
    test(
      \`\${what} of a \${kind}\`, { skip },
    )
    test(\`\${title}\`, () => assert.equal(x, 'two')) // test of three`
  for (const name of ['one', "the host's", 'all of a kind']) assert.equal(hasTest(text, name), true, name)
  for (const name of ['on', 'one ', 'two', 'three', 'all of kind'])
    assert.equal(hasTest(text, name), false, name)
})
