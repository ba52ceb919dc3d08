/** docs/requirements.md names tests: they are there, by these words. */
import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { test } from 'node:test'
import { ROOT } from '../../helpers/machine.ts'

const text = readFileSync(path.join(ROOT, 'docs/requirements.md'), 'utf8')
const rows = text
  .split('\n')
  .filter(line => /^\| \d+ \|/.test(line))
  .map(line => line.split(' | ').map(cell => cell.replace(/^\| | \|$/g, '')))

/** Files without a folder are in the one of the file before. */
function filesOf(cell: string): string[] {
  const files: string[] = []
  for (const [, name = ''] of cell.matchAll(/`([^`]+\.test\.ts)`/g))
    files.push(name.includes('/') ? name : path.join(path.dirname(files.at(-1)!), name))
  return files
}

test('all fourteen requirements are there', () => {
  assert.deepEqual(
    rows.map(([number]) => Number(number)),
    Array.from({ length: 14 }, (_, i) => i + 1),
  )
})

for (const [number, , , proof = ''] of rows)
  test(`the tests of requirement ${number} are there`, () => {
    const files = filesOf(proof)
    assert.ok(files.length > 0)
    for (const file of files) assert.ok(existsSync(path.join(ROOT, file)), file)
    const all = files.map(file => readFileSync(path.join(ROOT, file), 'utf8')).join('\n')
    for (const [, name = ''] of proof.matchAll(/"([^"]+)"/g)) assert.ok(all.includes(name), name)
  })
