/** unifiedDiff(): what patch(1) makes of it. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { unifiedDiff } from '../../../src/cli/unified-diff.ts'
import { Scratch } from '../../helpers/scratch.ts'

const TEN = Array.from({ length: 10 }, (_, i) => `line ${i}`)
const text = (lines: readonly string[]): string => lines.map(line => `${line}\n`).join('')

const ROWS: readonly [what: string, before: string, after: string][] = [
  ['a line more in the middle', text(TEN), text(TEN.toSpliced(5, 0, 'new'))],
  ['another line at the beginning', text(TEN), text(TEN.with(0, 'new'))],
  ['a line more at the end', text(TEN), text([...TEN, 'new'])],
  ['a line more where the last had no end', text(TEN).trimEnd(), `${text(TEN)}new`],
  ['an end of line more', text(TEN).trimEnd(), text(TEN)],
  ['all lines gone', text(TEN), ''],
  ['a first line', '', 'new\n'],
  ['equal lines beside it', 'a\na\na\n', 'a\na\na\na\n'],
]

for (const [what, before, after] of ROWS)
  test(`unifiedDiff() of ${what}`, () => {
    using scratch = new Scratch()
    const file = scratch.write('file', before)
    const diff = unifiedDiff(file, before, after).join('\n')
    execFileSync('git', ['apply', '--unsafe-paths', '-p0', `--directory=${scratch.path}`, '-'], {
      input: `${diff.replaceAll(file, 'file')}\n`,
      cwd: scratch.path,
    })
    assert.equal(readFileSync(file, 'utf8'), after)
  })

test('unifiedDiff() of what is equal is empty', () => {
  assert.deepEqual(unifiedDiff('file', 'a\n', 'a\n'), [])
})

test('unifiedDiff() shows three lines around it', () => {
  assert.deepEqual(unifiedDiff('f', text(TEN), text(TEN.with(5, 'new'))), [
    ...['--- f', '+++ f', '@@ -3,7 +3,7 @@', ' line 2', ' line 3', ' line 4', '-line 5', '+new'],
    ...[' line 6', ' line 7', ' line 8'],
  ])
})
